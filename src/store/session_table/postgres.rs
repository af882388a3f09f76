//! A table of sessions in a Postgres database of an application's.

use super::postgres_sql::{Columns, Statements};
use super::{Layout, millis, quoted};
use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::store::postgres::failed::Failed;
use crate::store::postgres::link::Link;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::{Address, tls};
use crate::store::{Access, ServerFault};
use crate::verify::{Bounds, RowTimes, Rows, SessionRow, SessionTable, TableError};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// Rows that one statement deletes at most, where all of them are.
const BATCH: i64 = 1000;

/// What a table's columns are; `character` alone would be one letter.
const COLUMNS: &str = "SELECT a.attname::text, CASE a.atttypid WHEN 'bpchar'::regtype THEN 'bpchar' \
     ELSE format_type(a.atttypid, NULL) END FROM pg_attribute a \
     WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped";

const RIGHTS: &str = "SELECT has_table_privilege(to_regclass($1::text), 'SELECT') \
     AND has_table_privilege(to_regclass($1::text), 'UPDATE') \
     AND has_table_privilege(to_regclass($1::text), 'DELETE')";

/// One table on one server, or on whichever of several is the primary.
pub struct PostgresTable {
    pool: Arc<Pool>,
    layout: Arc<Layout>,
    /// Made when the columns' types are known, and anew when they are not what they were.
    statements: Mutex<Option<Arc<Statements>>>,
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTable").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl PostgresTable {
    /// Reads the files that TLS needs, and connects nowhere. To be called in a Tokio runtime: all connections live in it.
    ///
    /// # Errors
    /// [`ServerFault::File`], or [`ServerFault::Odd`] where the system has no authorities or this is no runtime.
    pub fn new(address: Address, access: Access, layout: Layout) -> Result<Self, ServerFault> {
        if address.hosts().iter().any(|host| address.tls_to(host)) {
            tls::connector(&access)?;
        }
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|error| ServerFault::Odd(error.into()))?;
        let pool = Arc::new(Pool::of_others(address, access, runtime, &layout.schema));
        Ok(Self { pool, layout: Arc::new(layout), statements: Mutex::default() })
    }

    async fn statements(&self) -> Result<Arc<Statements>, TableError> {
        if let Some(made) = self.statements.lock().clone() {
            return Ok(made);
        }
        let layout = &self.layout;
        let sessions = self.columns(&layout.table).await?;
        let names = |columns: &Columns| columns.keys().cloned().collect::<Vec<_>>();
        Layout::check(&layout.table, layout.columns(), &names(&sessions))?;
        if let Some(users) = &layout.users {
            let needed = users.columns.iter().chain([&users.key]).map(String::as_str);
            Layout::check(&users.table, needed, &names(&self.columns(&users.table).await?))?;
        }
        let made = Arc::new(Statements::of(layout, &sessions)?);
        *self.statements.lock() = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn columns(&self, table: &str) -> Result<Columns, TableError> {
        let name = format!("{}.{}", quoted(&self.layout.schema), quoted(table));
        let rows = self.query(COLUMNS.into(), Arc::new([Box::new(name)])).await?;
        rows.iter().map(|row| Ok((row.try_get(0).map_err(odd)?, row.try_get(1).map_err(odd)?))).collect()
    }

    async fn query(&self, text: Arc<str>, values: Values) -> Result<Vec<Row>, TableError> {
        let asked = self.pool.run(move |link: &Link| {
            let (text, values) = (Arc::clone(&text), Arc::clone(&values));
            Box::pin(async move { told_apart(query(link, &text, &values).await) })
        });
        let answered = asked.await.map_err(|error| unreachable(&error))?;
        if matches!(answered, Err(TableError::Malformed(_))) {
            *self.statements.lock() = None;
        }
        answered
    }
}

async fn query(link: &Link, text: &str, values: &[Box<dyn ToSql + Send + Sync>]) -> Result<Vec<Row>, Failed> {
    let [statement] = link.statements([text]).await?;
    let values: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
    Ok(link.client.query(&statement, &values).await?)
}

fn of_value(state: &SqlState) -> bool {
    [
        SqlState::INVALID_TEXT_REPRESENTATION,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        SqlState::CHECK_VIOLATION,
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
    ]
    .contains(state)
}

/// What the database says of our statement, apart from what befell the connection: the one is the table's fault, and spares
/// the connection.
fn told_apart(asked: Result<Vec<Row>, Failed>) -> Result<Result<Vec<Row>, TableError>, Failed> {
    match asked {
        Ok(rows) => Ok(Ok(rows)),
        Err(Failed::Postgres(error)) => match error.as_db_error() {
            // Nobody is called what is no value of the column's type.
            Some(told) if of_value(told.code()) => Ok(Ok(Vec::new())),
            Some(told) if told.code().code().starts_with("42") => {
                Ok(Err(TableError::Malformed(format!("{} ({})", told.message(), told.code().code()))))
            }
            _ => Err(Failed::Postgres(error)),
        },
        Err(failed) => Err(failed),
    }
}

impl PostgresTable {
    /// How many rows a statement changed.
    async fn execute(&self, text: Arc<str>, values: Values) -> Result<u64, TableError> {
        let asked = self.pool.run(move |link: &Link| {
            let (text, values) = (Arc::clone(&text), Arc::clone(&values));
            Box::pin(async move {
                let values: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
                link.execute(&text, &values).await
            })
        });
        asked.await.map_err(|error| unreachable(&error))
    }

    /// Those that are there now; more may come, and are logins after this.
    async fn delete_all(&self, statements: &Statements) -> Result<(), TableError> {
        loop {
            let gone = self.execute(Arc::clone(&statements.delete_some), Arc::new([Box::new(BATCH)])).await?;
            if gone < BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

type Values = Arc<[Box<dyn ToSql + Send + Sync>]>;

#[tonic::async_trait]
impl SessionTable for PostgresTable {
    async fn find(&self, token: &str, not_counted: Bounds) -> Result<Option<SessionRow>, TableError> {
        let statements = self.statements().await?;
        let Bounds { ended_by, created_by } = not_counted;
        let values: Values = Arc::new([
            Box::new(token.to_owned()),
            Box::new(millis(ended_by)),
            Box::new(created_by.map(millis)),
        ]);
        let rows = self.query(Arc::clone(&statements.find), values).await?;
        rows.first().map(|row| session(row, &self.layout)).transpose()
    }

    async fn extend(
        &self,
        token: &str,
        to: Timestamp,
        live: Timestamp,
        due: Timestamp,
    ) -> Result<bool, TableError> {
        let statements = self.statements().await?;
        let [to, live, due] = [to, live, due].map(millis);
        let values: Values =
            Arc::new([Box::new(token.to_owned()), Box::new(to), Box::new(live), Box::new(due)]);
        self.execute(Arc::clone(&statements.extend), values).await.map(|moved| moved > 0)
    }

    async fn list(
        &self,
        subject: &str,
        except: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, TableError> {
        let text = Arc::clone(&self.statements().await?.list);
        let values: Values = Arc::new([
            Box::new(subject.to_owned()),
            Box::new(except.map(str::to_owned)),
            Box::new(i64::try_from(limit).unwrap_or(i64::MAX)),
        ]);
        let rows = self.query(text, values).await?;
        rows.iter().map(|row| row.try_get(0).map_err(odd)).collect()
    }

    async fn delete(&self, rows: &Rows) -> Result<(), TableError> {
        let statements = self.statements().await?;
        let (text, values): (_, Values) = match rows {
            Rows::Token(token) => {
                let token = std::str::from_utf8(token.expose()).unwrap_or_default();
                (&statements.delete_token, Arc::new([Box::new(token.to_owned())]))
            }
            Rows::Session(id) => (&statements.delete_session, Arc::new([Box::new(id.clone())])),
            Rows::Listed { subject, sessions } => {
                let values: Values = Arc::new([Box::new(subject.clone()), Box::new(sessions.clone())]);
                (&statements.delete_listed, values)
            }
            Rows::All => return self.delete_all(&statements).await,
        };
        self.query(Arc::clone(text), values).await.map(drop)
    }

    async fn purge(&self, over: Bounds, now: Timestamp, limit: u32) -> Result<u32, TableError> {
        let text = Arc::clone(&self.statements().await?.purge);
        let Bounds { ended_by, created_by } = over;
        let values: Values = Arc::new([
            Box::new(millis(ended_by)),
            Box::new(created_by.map(millis)),
            Box::new(millis(now)),
            Box::new(i64::from(limit)),
        ]);
        Ok(u32::try_from(self.execute(text, values).await?).unwrap_or(u32::MAX))
    }

    async fn look(&self) -> Result<(), TableError> {
        *self.statements.lock() = None;
        let made = self.statements().await?;
        let looked = self.pool.run(move |link: &Link| {
            let made = Arc::clone(&made);
            Box::pin(async move {
                let deletes = [&made.delete_token, &made.delete_session, &made.delete_listed];
                let others = [&made.find, &made.extend, &made.list, &made.delete_some, &made.purge];
                for text in deletes.into_iter().chain(others) {
                    let prepared = link.statements([&**text]).await.map(|_| Vec::new());
                    if let Err(malformed) = told_apart(prepared)? {
                        return Ok(Err(malformed));
                    }
                }
                Ok(Ok(()))
            })
        });
        looked.await.map_err(|error| unreachable(&error))??;
        let name = format!("{}.{}", quoted(&self.layout.schema), quoted(&self.layout.table));
        let rows = self.query(RIGHTS.into(), Arc::new([Box::new(name)])).await?;
        let may: bool = rows.first().map(|row| row.try_get(0)).transpose().map_err(odd)?.unwrap_or_default();
        if may {
            return Ok(());
        }
        let table = &self.layout.table;
        Err(TableError::Malformed(format!("the user needs SELECT, UPDATE and DELETE on `{table}`")))
    }
}

fn session(row: &Row, layout: &Layout) -> Result<SessionRow, TableError> {
    let number = |place: usize| row.try_get::<_, Option<i64>>(place).map_err(odd);
    let text = |place: usize| row.try_get::<_, Option<String>>(place).map_err(odd);
    let created_at = layout.created.iter().zip(number(2)?).next();
    let created_at = created_at.map(|(column, millis)| layout.instant(column, Some(millis))).transpose()?;
    let times = RowTimes {
        expires_at: layout.instant(&layout.expires, number(1)?)?,
        created_at,
        newer: number(3)?.and_then(|newer| u32::try_from(newer).ok()).unwrap_or(0),
    };
    let columns = layout.users.iter().flat_map(|users| &users.columns);
    let claims = columns
        .zip(4..)
        .map(|(name, place)| Ok((name.clone(), text(place)?.unwrap_or_else(|| "null".to_owned()))));
    let missing = || TableError::Malformed(format!("`{}` of a session is empty", layout.user));
    Ok(SessionRow {
        subject: text(0)?.ok_or_else(missing)?,
        times,
        claims: claims.collect::<Result<_, TableError>>()?,
    })
}

fn odd(_: tokio_postgres::Error) -> TableError {
    TableError::Malformed("a column has another type than it had".to_owned())
}

/// What is known of it in words of ours and codes of the server's: its details may hold what is in a row.
fn unreachable(error: &StoreError) -> TableError {
    let source = std::error::Error::source(error);
    let told = source.and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    TableError::Unreachable(match told.and_then(tokio_postgres::Error::as_db_error) {
        Some(told) => match told.code().code() {
            // Of values.
            code if code.starts_with("22") || code.starts_with("23") => {
                format!("the server refuses a value ({code})")
            }
            code => format!("{} ({code})", told.message()),
        },
        None => source.map_or_else(|| error.to_string(), ToString::to_string),
    })
}
