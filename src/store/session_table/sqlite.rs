//! A table of sessions in a SQLite file that an application on this machine writes, too.

use super::{Layout, id_of, millis, quoted};
use crate::clock::Timestamp;
use crate::verify::{RowTimes, Rows, SessionRow, SessionTable, TableError};
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params};
use std::fmt;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Calls that wait for the file; one more is refused.
const WAITING: usize = 256;

/// One table in one file.
pub struct SqliteTable {
    file: Arc<File>,
    answer_within: Duration,
    waiting: Semaphore,
}

struct File {
    path: PathBuf,
    layout: Layout,
    statements: Statements,
    busy_timeout: Duration,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: Connection,
    device: u64,
    inode: u64,
}

impl fmt::Debug for SqliteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTable").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl SqliteTable {
    /// The table that the layout names in this file; nothing is opened yet.
    #[must_use]
    pub fn new(path: PathBuf, layout: Layout, answer_within: Duration) -> Self {
        let statements = Statements::of(&layout);
        let file = File { path, layout, statements, busy_timeout: answer_within / 2, open: Mutex::default() };
        Self { file: Arc::new(file), answer_within, waiting: Semaphore::new(WAITING) }
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &File) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, TableError> {
        let _place =
            self.waiting.try_acquire().map_err(|_| unreachable("too many calls wait for the file"))?;
        let file = Arc::clone(&self.file);
        // Reading a file blocks.
        let done = tokio::task::spawn_blocking(move || file.work(work));
        match tokio::time::timeout(self.answer_within, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(TableError::Unreachable(error.into())),
            Err(_) => Err(unreachable("the file did not answer in time")),
        }
    }
}

impl File {
    fn work<T>(
        &self,
        work: impl FnOnce(&mut Connection, &Self) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        let mut open = self.open.lock();
        // An application that is set up anew may put another file in its place.
        let about = std::fs::metadata(&self.path).map_err(|error| TableError::Unreachable(error.into()))?;
        let file = match open.take() {
            Some(file) if (file.device, file.inode) == (about.dev(), about.ino()) => file,
            Some(_) | None => {
                let connection = self.connect()?;
                Open { connection, device: about.dev(), inode: about.ino() }
            }
        };
        work(&mut open.insert(file).connection, self)
    }

    fn connect(&self) -> Result<Connection, TableError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(told)?;
        connection.busy_timeout(self.busy_timeout).map_err(told)?;
        connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON").map_err(told)?;
        let layout = &self.layout;
        Layout::check(&layout.table, layout.columns(), &columns(&connection, &layout.table)?)?;
        if let Some(users) = &layout.users {
            let needed = users.columns.iter().chain([&users.key]).map(String::as_str);
            Layout::check(&users.table, needed, &columns(&connection, &users.table)?)?;
        }
        Ok(connection)
    }
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, TableError> {
    let mut look = connection.prepare("SELECT name FROM pragma_table_info(?1)").map_err(told)?;
    let rows = look.query_map([table], |row| row.get(0)).map_err(told)?;
    rows.collect::<Result<_, _>>().map_err(told)
}

/// What is said to the file.
struct Statements {
    find: String,
    extend: String,
    select: String,
    delete: String,
    purge: String,
}

impl Statements {
    fn of(layout: &Layout) -> Self {
        let name = quoted(&layout.table);
        let [token, user, expires] = [&layout.token, &layout.user, &layout.expires].map(|name| quoted(name));
        let instant = |alias: &str, column: &str| {
            format!(
                "CASE typeof({alias}.{column}) WHEN 'integer' THEN {alias}.{column} WHEN 'text' THEN \
                 CAST(round((julianday({alias}.{column}) - 2440587.5) * 86400000.0) AS INTEGER) END"
            )
        };
        let created = layout.created.as_deref().map(quoted);
        let login = |alias: &str| created.as_ref().map_or("NULL".to_owned(), |column| instant(alias, column));
        let id =
            layout.id.as_deref().map_or("NULL".to_owned(), |id| format!("CAST(s.{} AS TEXT)", quoted(id)));
        let newer = if layout.counts {
            // Where logins are not told, the one that was used last counts as the newest.
            let order = |alias: &str| match &created {
                Some(column) => instant(alias, column),
                None => instant(alias, &expires),
            };
            let live_logins = created.as_ref().map_or(String::new(), |_| format!(" AND {} > ?3", login("o")));
            format!(
                "(SELECT count(*) FROM {name} o WHERE o.{user} = s.{user} AND {} > ?2{live_logins} \
                 AND ({}, o.{token}) > ({}, s.{token}))",
                instant("o", &expires),
                order("o"),
                order("s")
            )
        } else {
            "0".to_owned()
        };
        let mut claims = String::new();
        let mut join = String::new();
        if let Some(users) = &layout.users {
            for column in &users.columns {
                // Writing to a String can't fail.
                let _ = write!(claims, ", json_quote(u.{})", quoted(column));
            }
            join = format!(" LEFT JOIN {} u ON u.{} = s.{user}", quoted(&users.table), quoted(&users.key));
        }
        Self {
            find: format!(
                "SELECT {id}, CAST(s.{user} AS TEXT), {}, {}, {newer}{claims} FROM {name} s{join} \
                 WHERE s.{token} = ?1 AND ?2 IS NOT NULL AND ?3 IS NOT NULL",
                instant("s", &expires),
                login("s")
            ),
            // In the form that the application gave it.
            extend: format!(
                "UPDATE {name} AS s SET {expires} = CASE typeof({expires}) WHEN 'text' THEN \
                 strftime('%Y-%m-%dT%H:%M:%f', ?2 / 1000.0, 'unixepoch') \
                 || CASE WHEN {expires} LIKE '%Z' THEN 'Z' ELSE '+00:00' END ELSE ?2 END \
                 WHERE {token} = ?1 AND {instant} > ?3 AND {instant} <= ?4",
                instant = instant("s", &expires),
            ),
            select: format!("SELECT s.{token}, {id} FROM {name} s"),
            delete: format!("DELETE FROM {name} WHERE {token} = ?1"),
            purge: {
                let by_login =
                    created.as_ref().map_or(String::new(), |_| format!(" OR {} <= ?2", login("s")));
                format!(
                    "DELETE FROM {name} WHERE {token} IN (SELECT s.{token} FROM {name} s \
                     WHERE ?2 IS NOT NULL AND ({} <= ?1{by_login}) LIMIT ?3)",
                    instant("s", &expires)
                )
            },
        }
    }
}

/// A row's token and its session's id.
fn named(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    let token: String = row.get(0)?;
    let id = row.get::<_, Option<String>>(1)?.unwrap_or_else(|| id_of(&token));
    Ok((token, id))
}

fn chosen(connection: &Connection, file: &File, rows: &Rows) -> Result<Vec<(String, String)>, TableError> {
    let layout = &file.layout;
    let select = &file.statements.select;
    let by = |column: &str, value: &str| {
        let text = format!("{select} WHERE s.{} = ?1", quoted(column));
        let mut statement = connection.prepare_cached(&text).map_err(told)?;
        let found = statement.query_map([value], named).map_err(told)?;
        found.collect::<Result<Vec<_>, _>>().map_err(told)
    };
    match rows {
        Rows::Token(token) => by(&layout.token, std::str::from_utf8(token.expose()).unwrap_or_default()),
        Rows::Session(id) => match &layout.id {
            Some(column) => by(column, id),
            // Only who has the token can ask for it by name; for anybody else all are looked through.
            None => Ok(all(connection, select)?.into_iter().filter(|(_, found)| found == id).collect()),
        },
        Rows::Subject { subject, except } => {
            let mut found = by(&layout.user, subject)?;
            found.retain(|(_, id)| Some(id) != except.as_ref());
            Ok(found)
        }
        Rows::All => all(connection, select),
    }
}

fn all(connection: &Connection, select: &str) -> Result<Vec<(String, String)>, TableError> {
    let mut statement = connection.prepare_cached(select).map_err(told)?;
    let found = statement.query_map([], named).map_err(told)?;
    found.collect::<Result<_, _>>().map_err(told)
}

#[tonic::async_trait]
impl SessionTable for SqliteTable {
    async fn find(
        &self,
        token: &str,
        (ends_after, created_after): (Timestamp, Timestamp),
    ) -> Result<Option<SessionRow>, TableError> {
        let token = token.to_owned();
        self.ask(move |connection, file| {
            let mut find = connection.prepare_cached(&file.statements.find).map_err(told)?;
            let mut rows =
                find.query(params![token, millis(ends_after), millis(created_after)]).map_err(told)?;
            rows.next().map_err(told)?.map(|row| session(row, &token, &file.layout)).transpose()
        })
        .await
    }

    async fn extend(
        &self,
        token: &str,
        to: Timestamp,
        live: Timestamp,
        due: Timestamp,
    ) -> Result<(), TableError> {
        let token = token.to_owned();
        self.ask(move |connection, file| {
            let mut extend = connection.prepare_cached(&file.statements.extend).map_err(told)?;
            extend.execute(params![token, millis(to), millis(live), millis(due)]).map_err(told)?;
            Ok(())
        })
        .await
    }

    async fn list(&self, rows: &Rows, limit: u32) -> Result<Vec<String>, TableError> {
        let rows = rows.clone();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.ask(move |connection, file| {
            let found = chosen(connection, file, &rows)?;
            Ok(found.into_iter().take(limit).map(|(_, id)| id).collect())
        })
        .await
    }

    async fn delete(&self, rows: &Rows) -> Result<Vec<String>, TableError> {
        let rows = rows.clone();
        self.ask(move |connection, file| {
            let change = connection
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .map_err(told)?;
            let found = chosen(&change, file, &rows)?;
            for (token, _) in &found {
                change
                    .prepare_cached(&file.statements.delete)
                    .and_then(|mut one| one.execute([token]))
                    .map_err(told)?;
            }
            change.commit().map_err(told)?;
            Ok(found.into_iter().map(|(_, id)| id).collect())
        })
        .await
    }

    async fn purge(
        &self,
        ended_by: Timestamp,
        created_by: Timestamp,
        _now: Timestamp,
        limit: u32,
    ) -> Result<u32, TableError> {
        self.ask(move |connection, file| {
            let mut purge = connection.prepare_cached(&file.statements.purge).map_err(told)?;
            let gone = purge.execute(params![millis(ended_by), millis(created_by), limit]).map_err(told)?;
            Ok(u32::try_from(gone).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn look(&self) -> Result<(), TableError> {
        self.ask(|_, _| Ok(())).await
    }
}

fn session(row: &Row<'_>, token: &str, layout: &Layout) -> Result<SessionRow, TableError> {
    let number = |place: usize| match row.get::<_, Value>(place) {
        Ok(Value::Integer(number)) => Some(number),
        Ok(_) | Err(_) => None,
    };
    let session: Option<String> = row.get(0).map_err(told)?;
    let subject: Option<String> = row.get(1).map_err(told)?;
    let created_at = layout.created.iter().zip(number(3)).next();
    let created_at = created_at.map(|(column, millis)| layout.instant(column, Some(millis))).transpose()?;
    let times = RowTimes {
        expires_at: layout.instant(&layout.expires, number(2))?,
        created_at,
        newer: number(4).and_then(|newer| u32::try_from(newer).ok()).unwrap_or(0),
    };
    let columns = layout.users.iter().flat_map(|users| &users.columns);
    let claims = columns.zip(5..).map(|(name, place)| {
        let value: Option<String> = row.get(place).map_err(told)?;
        Ok((name.clone(), value.unwrap_or_else(|| "null".to_owned())))
    });
    let missing = || TableError::Malformed(format!("`{}` of a session is empty", layout.user));
    Ok(SessionRow {
        session: session.unwrap_or_else(|| id_of(token)),
        subject: subject.ok_or_else(missing)?,
        times,
        claims: claims.collect::<Result<_, TableError>>()?,
    })
}

fn told(error: rusqlite::Error) -> TableError {
    TableError::Unreachable(error.into())
}

fn unreachable(why: &'static str) -> TableError {
    TableError::Unreachable(why.into())
}
