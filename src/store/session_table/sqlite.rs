//! A table of sessions in a SQLite file that an application on this machine writes, too.

use super::{FIRST_INSTANT, Layout, millis, quoted};
use crate::clock::Timestamp;
use crate::verify::{Bounds, RowTimes, Rows, SessionRow, SessionTable, TableError, session_id};
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior, params};
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Calls that wait for the file; one more is refused.
const WAITING: usize = 64;

/// One table in one file.
pub struct SqliteTable {
    file: Arc<File>,
    answer_within: Duration,
    waiting: Arc<Semaphore>,
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
        Self { file: Arc::new(file), answer_within, waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &File) -> Result<T, TableError> + Send + 'static,
    ) -> Result<T, TableError> {
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        let place = place.map_err(|_| unreachable("too many calls wait for the file"))?;
        let (file, deadline) = (Arc::clone(&self.file), Instant::now() + self.answer_within);
        // Reading a file blocks. Who gave up meanwhile is not worked for, and the place is free when the thread is.
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            file.work(deadline, work)
        });
        match tokio::time::timeout(self.answer_within, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unreachable("the thread that reads it ended")),
            Err(_) => Err(unreachable("the file did not answer in time")),
        }
    }
}

impl File {
    fn work<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&mut Connection, &Self) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        let late = || unreachable("the file did not answer in time");
        let mut open = self.open.try_lock_until(deadline.into_std()).ok_or_else(late)?;
        // An application that is set up anew may put another file in its place.
        let about =
            std::fs::metadata(&self.path).map_err(|error| TableError::Unreachable(error.to_string()))?;
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
    tokens: String,
    of_subject: String,
    delete: String,
    delete_all: String,
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
        let newer = if layout.counts {
            // Where logins are not told, the one that was used last counts as the newest; one that doesn't tell its own, as the
            // oldest.
            let order = |alias: &str| match &created {
                Some(column) => format!("coalesce({}, 0)", instant(alias, column)),
                None => instant(alias, &expires),
            };
            let live_logins = created
                .as_ref()
                .map_or(String::new(), |_| format!(" AND (?3 IS NULL OR {} > ?3)", login("o")));
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
                let _ = write!(
                    claims,
                    ", CASE typeof(u.{name}) WHEN 'blob' THEN 'null' ELSE json_quote(u.{name}) END",
                    name = quoted(column)
                );
            }
            // Without its user a session is none: the application sees it so.
            join = format!(" JOIN {} u ON u.{} = s.{user}", quoted(&users.table), quoted(&users.key));
        }
        Self {
            // To the letter, whatever the column's collation takes for equal; by its index all the same.
            find: format!(
                "SELECT CAST(s.{user} AS TEXT), {}, {}, {newer}{claims} FROM {name} s{join} \
                 WHERE s.{token} = ?1 AND s.{token} = ?1 COLLATE BINARY AND ?2 IS NOT NULL AND (?3 IS NULL OR ?3 >= 0)",
                instant("s", &expires),
                login("s")
            ),
            // In the form that the application gave it.
            extend: format!(
                "UPDATE {name} AS s SET {expires} = CASE WHEN typeof({expires}) <> 'text' THEN ?2 ELSE \
                 strftime(CASE WHEN {expires} LIKE '%Z' THEN '%Y-%m-%dT%H:%M:%fZ' \
                 WHEN {expires} LIKE '%+00:00' THEN '%Y-%m-%dT%H:%M:%f+00:00' \
                 WHEN {expires} LIKE '%.%' THEN '%Y-%m-%d %H:%M:%f' ELSE '%Y-%m-%d %H:%M:%S' END, \
                 ?2 / 1000.0, 'unixepoch') END \
                 WHERE {token} = ?1 AND {token} = ?1 COLLATE BINARY AND {instant} > ?3 AND {instant} <= ?4",
                instant = instant("s", &expires),
            ),
            tokens: format!("SELECT {token} FROM {name}"),
            of_subject: format!(
                "SELECT {token} FROM {name} WHERE {user} = ?1 AND {user} = ?1 COLLATE BINARY"
            ),
            delete: format!("DELETE FROM {name} WHERE {token} = ?1 AND {token} = ?1 COLLATE BINARY"),
            delete_all: format!("DELETE FROM {name}"),
            purge: {
                // What is no instant in milliseconds is the configuration's mistake, and nobody's end.
                let by = |instant: &str, place: u8| format!("{instant} BETWEEN {FIRST_INSTANT} AND ?{place}");
                let by_login =
                    created.as_ref().map_or(String::new(), |_| format!(" OR {}", by(&login("s"), 2)));
                format!(
                    "DELETE FROM {name} WHERE {token} IN (SELECT s.{token} FROM {name} s \
                     WHERE (?2 IS NULL OR ?2 >= 0) AND ({}{by_login}) LIMIT ?3)",
                    by(&instant("s", &expires), 1)
                )
            },
        }
    }
}

/// The tokens of a subject.
fn of_subject(connection: &Connection, file: &File, subject: &str) -> Result<Vec<String>, TableError> {
    let mut statement = connection.prepare_cached(&file.statements.of_subject).map_err(told)?;
    let found = statement.query_map([subject], |row| row.get(0)).map_err(told)?;
    found.collect::<Result<_, _>>().map_err(told)
}

/// The token of this id. Only who has the token can ask for it by name; for anybody else all are looked through.
fn of_id(connection: &Connection, file: &File, id: &str) -> Result<Option<String>, TableError> {
    let mut statement = connection.prepare_cached(&file.statements.tokens).map_err(told)?;
    let mut found = statement.query([]).map_err(told)?;
    while let Some(row) = found.next().map_err(told)? {
        let token: String = row.get(0).map_err(told)?;
        if session_id(&token) == id {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

#[tonic::async_trait]
impl SessionTable for SqliteTable {
    async fn find(&self, token: &str, not_counted: Bounds) -> Result<Option<SessionRow>, TableError> {
        let token = token.to_owned();
        self.ask(move |connection, file| {
            let mut find = connection.prepare_cached(&file.statements.find).map_err(told)?;
            let bounds = params![token, millis(not_counted.ended_by), not_counted.created_by.map(millis)];
            let mut rows = find.query(bounds).map_err(told)?;
            rows.next().map_err(told)?.map(|row| session(row, &file.layout)).transpose()
        })
        .await
    }

    async fn extend(
        &self,
        token: &str,
        to: Timestamp,
        live: Timestamp,
        due: Timestamp,
    ) -> Result<bool, TableError> {
        let token = token.to_owned();
        self.ask(move |connection, file| {
            let mut extend = connection.prepare_cached(&file.statements.extend).map_err(told)?;
            let moved =
                extend.execute(params![token, millis(to), millis(live), millis(due)]).map_err(told)?;
            Ok(moved > 0)
        })
        .await
    }

    async fn list(
        &self,
        subject: &str,
        except: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, TableError> {
        let (subject, except) = (subject.to_owned(), except.map(str::to_owned));
        self.ask(move |connection, file| {
            let ids = of_subject(connection, file, &subject)?.into_iter().map(|token| session_id(&token));
            Ok(ids.filter(|id| except.as_ref() != Some(id)).take(limit).collect())
        })
        .await
    }

    async fn delete(&self, rows: &Rows) -> Result<(), TableError> {
        let rows = rows.clone();
        self.ask(move |connection, file| {
            let change =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
            let tokens = match rows {
                Rows::Token(token) => {
                    vec![std::str::from_utf8(token.expose()).unwrap_or_default().to_owned()]
                }
                Rows::Session(id) => of_id(&change, file, &id)?.into_iter().collect(),
                Rows::Listed { subject, sessions } => {
                    let listed: HashSet<String> = sessions.into_iter().collect();
                    let mut tokens = of_subject(&change, file, &subject)?;
                    tokens.retain(|token| listed.contains(&session_id(token)));
                    tokens
                }
                Rows::All => {
                    change.execute(&file.statements.delete_all, []).map_err(told)?;
                    Vec::new()
                }
            };
            for token in &tokens {
                let mut delete = change.prepare_cached(&file.statements.delete).map_err(told)?;
                delete.execute([token]).map_err(told)?;
            }
            change.commit().map_err(told)
        })
        .await
    }

    async fn purge(&self, over: Bounds, _now: Timestamp, limit: u32) -> Result<u32, TableError> {
        self.ask(move |connection, file| {
            let mut purge = connection.prepare_cached(&file.statements.purge).map_err(told)?;
            let bounds = params![millis(over.ended_by), over.created_by.map(millis), limit];
            Ok(u32::try_from(purge.execute(bounds).map_err(told)?).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn look(&self) -> Result<(), TableError> {
        self.ask(|connection, file| {
            let Statements { find, extend, tokens, of_subject, delete, delete_all, purge } = &file.statements;
            for text in [find, extend, tokens, of_subject, delete, delete_all, purge] {
                connection.prepare(text).map_err(|error| TableError::Malformed(error.to_string()))?;
            }
            if connection.is_readonly("main").unwrap_or(true) {
                return Err(TableError::Malformed("the file can't be written".to_owned()));
            }
            Ok(())
        })
        .await
    }
}

fn session(row: &Row<'_>, layout: &Layout) -> Result<SessionRow, TableError> {
    let number = |place: usize| match row.get::<_, Value>(place) {
        Ok(Value::Integer(number)) => Some(number),
        Ok(_) | Err(_) => None,
    };
    let subject: Option<String> = row.get(0).map_err(told)?;
    let created_at = layout.created.iter().zip(number(2)).next();
    let created_at = created_at.map(|(column, millis)| layout.instant(column, Some(millis))).transpose()?;
    let times = RowTimes {
        expires_at: layout.instant(&layout.expires, number(1))?,
        created_at,
        newer: number(3).and_then(|newer| u32::try_from(newer).ok()).unwrap_or(0),
    };
    let columns = layout.users.iter().flat_map(|users| &users.columns);
    let claims = columns.zip(4..).map(|(name, place)| {
        let value: Option<String> = row.get(place).map_err(told)?;
        Ok((name.clone(), value.unwrap_or_else(|| "null".to_owned())))
    });
    let missing = || TableError::Malformed(format!("`{}` of a session is empty", layout.user));
    Ok(SessionRow {
        subject: subject.ok_or_else(missing)?,
        times,
        claims: claims.collect::<Result<_, TableError>>()?,
    })
}

/// SQLite's messages name tables and columns, never what is in a row; the library's own may.
fn told(error: rusqlite::Error) -> TableError {
    if let rusqlite::Error::SqliteFailure(code, message) = error {
        TableError::Unreachable(message.unwrap_or_else(|| code.to_string()))
    } else if let rusqlite::Error::InvalidColumnType(_, column, found) = error {
        TableError::Malformed(format!("`{column}` is {found}"))
    } else {
        TableError::Malformed("what is in it can't be read".to_owned())
    }
}

fn unreachable(why: &str) -> TableError {
    TableError::Unreachable(why.to_owned())
}
