//! The file itself: opened, created, brought up to date, and noticed when another is put in its place.

use crate::revocation::StoreError;
use crate::token::{NoRandomness, random_bytes};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// "ctsn", in the file's header (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x6374_736e;
/// What each version of the schema adds to the one before; the count is the file's `PRAGMA user_version`.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// The file can't be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such directory; it is not created, because its owner and mode matter.
    #[error("the directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// The file can't be opened or created.
    #[error("can't open {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else's database, or no database.
    #[error("{} is no countersign database", .0.display())]
    NotOurs(PathBuf),
    /// Written by a later release.
    #[error("{} has schema version {found}, newer than the {known} this release knows", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The file system can't keep a write-ahead log.
    #[error("{} can't use write-ahead logging: it has to be on a local file system", .0.display())]
    NoWriteAheadLog(PathBuf),
    /// SQLite failed.
    #[error("can't use {}", path.display())]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("can't start a thread for the store")]
    Thread(#[source] io::Error),
    /// No epoch could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        Ok(Self { device: about.dev(), inode: about.ino() })
    }
}

/// Where the file is, and which file all links agree it is.
pub(super) struct Site {
    path: PathBuf,
    busy_timeout: Duration,
    adopted: Mutex<Identity>,
}

#[derive(Clone, Copy)]
struct Identity {
    file: FileId,
    wal: Option<FileId>,
}

impl Site {
    /// Opens the file for the first time, creating it or bringing it up to date.
    pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<(Arc<Self>, Link), OpenError> {
        create_private(path)?;
        let connection = connect_patiently(path, busy_timeout)?;
        let identity = identify(path)?;
        let site = Arc::new(Self { path: path.to_owned(), busy_timeout, adopted: Mutex::new(identity) });
        Ok((Arc::clone(&site), Link { site, connection, file: identity.file }))
    }

    /// Another file is in place. The first link to notice gives it a new epoch, so that every reader unites it with what
    /// it holds, even where its head is not behind theirs.
    fn adopt(&self, connection: &Connection) -> Result<FileId, StoreError> {
        let mut adopted = self.adopted.lock();
        let identity = identify(&self.path).map_err(|error| StoreError::Unavailable(error.into()))?;
        if identity.file != adopted.file {
            let epoch = draw_epoch().map_err(|error| StoreError::Unavailable(error.into()))?;
            connection.execute("UPDATE head SET epoch = ?1", [epoch])?;
            *adopted = identity;
        }
        Ok(identity.file)
    }

    /// A write-ahead log left behind by the old file would be applied to the new one.
    fn left_behind(&self) -> bool {
        let there = FileId::of(&wal_path(&self.path)).ok();
        there.is_some() && there == self.adopted.lock().wal
    }
}

/// One connection, to whichever file is in place.
pub(super) struct Link {
    site: Arc<Site>,
    connection: Connection,
    file: FileId,
}

impl Link {
    /// A further connection to the site's file.
    pub(super) fn open(site: &Arc<Site>) -> Result<Self, OpenError> {
        let connection = connect(&site.path, site.busy_timeout)?;
        let file = identify(&site.path)?.file;
        Ok(Self { site: Arc::clone(site), connection, file })
    }

    /// The connection, to the file that is in place now.
    ///
    /// # Errors
    /// When there is none, or none that can be used: then nothing may be answered from the old one, which nobody will
    /// ever read again.
    pub(super) fn fresh(&mut self) -> Result<&mut Connection, StoreError> {
        let site = &self.site;
        let there = FileId::of(&site.path).map_err(|error| StoreError::Unavailable(error.into()))?;
        if there != self.file {
            if site.adopted.lock().file != there && site.left_behind() {
                return Err(StoreError::Unavailable(
                    "the file was replaced, but not its write-ahead log".into(),
                ));
            }
            let connection = connect(&site.path, site.busy_timeout)
                .map_err(|error| StoreError::Unavailable(error.into()))?;
            self.file = site.adopt(&connection)?;
            self.connection = connection;
            tracing::warn!(path = %site.path.display(), "the store's file was replaced; using the new one");
        }
        Ok(&mut self.connection)
    }
}

fn create_private(path: &Path) -> Result<(), OpenError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        return Err(OpenError::NoDirectory(parent.to_owned()));
    }
    // SQLite gives the files beside it the same mode.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::metadata(path).is_ok_and(|about| about.mode() & 0o077 != 0) {
                tracing::warn!(path = %path.display(), "others than its owner may read or write the store's file");
            }
            Ok(())
        }
        Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
    }
}

fn identify(path: &Path) -> Result<Identity, OpenError> {
    let file = FileId::of(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    Ok(Identity { file, wal: FileId::of(&wal_path(path)).ok() })
}

fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Sidecars that start together on a new file are in each other's way where SQLite does not wait by itself, as when the
/// first of them switches to write-ahead logging.
fn connect_patiently(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut pauses = busy_timeout.as_millis() / PAUSE.as_millis();
    loop {
        match connect(path, busy_timeout) {
            Err(OpenError::Sqlite { source, .. }) if is_busy(&source) && pauses > 0 => {
                pauses -= 1;
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    let sqlite = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::NotOurs(path.to_owned()),
        _ => OpenError::Sqlite { path: path.to_owned(), source },
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(busy_timeout).map_err(sqlite)?;
    if !is_ours_or_empty(&mut connection).map_err(sqlite)? {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    if mode.map_err(sqlite)? != "wal" {
        return Err(OpenError::NoWriteAheadLog(path.to_owned()));
    }
    let settings = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;";
    connection.execute_batch(settings).map_err(sqlite)?;
    migrate(&mut connection, path, sqlite)?;
    Ok(connection)
}

/// Looked at before anything is written: switching to write-ahead logging writes. In one transaction, or another sidecar
/// that creates the file just then makes it look like something else's: objects, and not yet our id.
fn is_ours_or_empty(connection: &mut Connection) -> rusqlite::Result<bool> {
    let look = connection.transaction()?;
    let application: i32 = look.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let objects: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    look.commit()?;
    Ok(application == APPLICATION_ID || (application == 0 && objects == 0))
}

fn migrate(
    connection: &mut Connection,
    path: &Path,
    sqlite: impl Fn(rusqlite::Error) -> OpenError + Copy,
) -> Result<(), OpenError> {
    let version = |connection: &Connection| -> Result<usize, OpenError> {
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let newer = || OpenError::Newer { path: path.to_owned(), found, known };
        usize::try_from(found).ok().filter(|found| *found <= MIGRATIONS.len()).ok_or_else(newer)
    };
    if version(connection)? == MIGRATIONS.len() {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    // Another process may have been quicker.
    let done = version(&change)?;
    for migration in MIGRATIONS.iter().skip(done) {
        change.execute_batch(migration).map_err(sqlite)?;
    }
    if done == 0 {
        change
            .execute("INSERT INTO head (one, epoch, seq) VALUES (1, ?1, 0)", [draw_epoch()?])
            .map_err(sqlite)?;
        change.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    }
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    change.pragma_update(None, "user_version", newest).map_err(sqlite)?;
    change.commit().map_err(sqlite)
}

/// Positive, because SQLite's integers are signed.
fn draw_epoch() -> Result<i64, NoRandomness> {
    Ok(i64::from_be_bytes(random_bytes()?) & i64::MAX)
}
