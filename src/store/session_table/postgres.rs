//! A table of sessions in a Postgres database of an application's.

use super::{Layout, id_of, millis, quoted};
use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::store::postgres::failed::Failed;
use crate::store::postgres::link::Link;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::{Address, tls};
use crate::store::{Access, ServerFault};
use crate::verify::{RowTimes, Rows, SessionRow, SessionTable, TableError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// Rows that one statement deletes at most, where all of them are.
const BATCH: i64 = 1000;

/// What a table's columns are.
const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute a \
     WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped";

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
        let pool = Arc::new(Pool::of_others(address, access, runtime));
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
            Box::pin(async move {
                let [statement] = link.statements([&*text]).await?;
                let values: Vec<&(dyn ToSql + Sync)> =
                    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
                match link.client.query(&statement, &values).await {
                    // Nobody is called what is no value of the column's type.
                    Err(error) if names_nobody(&error) => Ok(Vec::new()),
                    done => Ok::<_, Failed>(done?),
                }
            })
        });
        asked.await.map_err(|error| {
            if matches!(error, StoreError::Corrupt(_)) {
                *self.statements.lock() = None;
            }
            told(error)
        })
    }
}

type Columns = HashMap<String, String>;
type Values = Arc<[Box<dyn ToSql + Send + Sync>]>;

fn names_nobody(error: &tokio_postgres::Error) -> bool {
    let of_value = [SqlState::INVALID_TEXT_REPRESENTATION, SqlState::NUMERIC_VALUE_OUT_OF_RANGE];
    error.code().is_some_and(|state| of_value.contains(state))
}

/// What is said to the server. `$1::text` and the like say what is sent; the casts, what it is compared with.
struct Statements {
    find: Arc<str>,
    extend: Arc<str>,
    /// By what, then the statement.
    list: Choices,
    delete: Choices,
    delete_some: Arc<str>,
    purge: Arc<str>,
}

/// The same of rows chosen by token, id and subject.
struct Choices {
    token: Arc<str>,
    session: Arc<str>,
    subject: Arc<str>,
}

impl Statements {
    fn of(layout: &Layout, columns: &Columns) -> Result<Self, TableError> {
        let name = format!("{}.{}", quoted(&layout.schema), quoted(&layout.table));
        let [token, user, expires] = [&layout.token, &layout.user, &layout.expires].map(|name| quoted(name));
        let type_of = |column: &str| columns.get(column).map_or("text", String::as_str);
        let given = |place: u8, column: &str| format!("CAST(${place}::text AS {})", type_of(column));
        let ends = Instant::of(&layout.expires, type_of(&layout.expires))?;
        let login =
            layout.created.as_deref().map(|column| Instant::of(column, type_of(column))).transpose()?;
        let login_of =
            |alias: &str| login.as_ref().map_or("NULL::bigint".to_owned(), |login| login.millis(alias));
        let id = match &layout.id {
            Some(column) => format!("s.{}::text", quoted(column)),
            None => format!("encode(sha256(convert_to(s.{token}::text, 'UTF8')), 'hex')"),
        };
        let newer = if layout.counts {
            let order = |alias: &str| match &login {
                Some(login) => login.millis(alias),
                None => ends.millis(alias),
            };
            let live_logins =
                login.as_ref().map_or(String::new(), |login| format!(" AND {} > $3", login.millis("o")));
            format!(
                "(SELECT count(*) FROM {name} o WHERE o.{user} = s.{user} AND {} > $2{live_logins} \
                 AND ({}, o.{token}) > ({}, s.{token}))",
                ends.millis("o"),
                order("o"),
                order("s")
            )
        } else {
            "0::bigint".to_owned()
        };
        let (mut claims, mut join) = (String::new(), String::new());
        if let Some(users) = &layout.users {
            for column in &users.columns {
                // Writing to a String can't fail.
                let _ = write!(claims, ", to_json(u.{})::text", quoted(column));
            }
            let table = format!("{}.{}", quoted(&layout.schema), quoted(&users.table));
            join = format!(" LEFT JOIN {table} u ON u.{} = s.{user}", quoted(&users.key));
        }
        let chosen = |verb: &str, end: &str| {
            let by = |condition: String| {
                format!(
                    "{verb} FROM {name} s WHERE {condition} AND ($2::text IS NULL OR {id} <> $2::text){end}"
                )
                .into()
            };
            let session = match &layout.id {
                Some(column) => format!("s.{} = {}", quoted(column), given(1, column)),
                // Only who has the token can ask for it by name; for anybody else all are looked through.
                None => format!("{id} = $1::text"),
            };
            Choices {
                token: by(format!("s.{token} = {}", given(1, &layout.token))),
                session: by(session),
                subject: by(format!("s.{user} = {}", given(1, &layout.user))),
            }
        };
        let by_login = login.as_ref().map_or(String::new(), |login| {
            format!(" OR {} <= $2::bigint + (SELECT back FROM clock)", login.millis("s"))
        });
        Ok(Self {
            find: format!(
                "SELECT {id}, s.{user}::text, {}, {}, {newer}{claims} FROM {name} s{join} WHERE s.{token} = {} \
                 AND $2::bigint IS NOT NULL AND $3::bigint IS NOT NULL",
                ends.millis("s"),
                login_of("s"),
                given(1, &layout.token)
            )
            .into(),
            extend: format!(
                "UPDATE {name} s SET {expires} = {} WHERE s.{token} = {} AND {ends} > $3::bigint \
                 AND {ends} <= $4::bigint",
                ends.value("$2::bigint"),
                given(1, &layout.token),
                ends = ends.millis("s")
            )
            .into(),
            list: chosen(&format!("SELECT {id}"), " LIMIT $3::bigint"),
            delete: chosen("DELETE", &format!(" RETURNING {id}")),
            delete_some: format!(
                "DELETE FROM {name} WHERE {token} = ANY (ARRAY(SELECT s.{token} FROM {name} s LIMIT $1::bigint))"
            )
            .into(),
            // By the earlier of two clocks. What another call holds is left to the next purge.
            purge: format!(
                "WITH clock AS (SELECT least(0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 120000 \
                 - $3::bigint) AS back) DELETE FROM {name} WHERE {token} = ANY (ARRAY(SELECT s.{token} FROM {name} s \
                 WHERE {} <= $1::bigint + (SELECT back FROM clock){by_login} LIMIT $4::bigint \
                 FOR UPDATE SKIP LOCKED)) AND $2::bigint IS NOT NULL",
                ends.millis("s")
            )
            .into(),
        })
    }
}

/// A column of instants, as the application keeps them.
struct Instant {
    column: String,
    form: Form,
}

enum Form {
    /// In UTC, as Prisma writes them.
    Timestamp,
    /// With its zone.
    TimestampTz,
    /// Milliseconds since 1970.
    Millis,
}

impl Instant {
    fn of(column: &str, type_name: &str) -> Result<Self, TableError> {
        let form = match type_name {
            "timestamp without time zone" => Form::Timestamp,
            "timestamp with time zone" => Form::TimestampTz,
            "bigint" => Form::Millis,
            _ => {
                let why = format!("`{column}` is a {type_name}, and no timestamp nor bigint");
                return Err(TableError::Malformed(why));
            }
        };
        Ok(Self { column: quoted(column), form })
    }

    /// In milliseconds.
    fn millis(&self, alias: &str) -> String {
        let column = &self.column;
        match self.form {
            Form::Timestamp | Form::TimestampTz => {
                format!("(extract(epoch FROM {alias}.{column}) * 1000)::bigint")
            }
            Form::Millis => format!("{alias}.{column}"),
        }
    }

    /// From milliseconds.
    fn value(&self, millis: &str) -> String {
        let instant = format!("to_timestamp(({millis} / 1000.0)::float8)");
        match self.form {
            Form::Timestamp => format!("({instant} AT TIME ZONE 'UTC')"),
            Form::TimestampTz => instant,
            Form::Millis => millis.to_owned(),
        }
    }
}

impl Choices {
    /// The statement for these, and what it is given: the one value, and the id that stays.
    fn of(&self, rows: &Rows) -> Option<(Arc<str>, String, Option<String>)> {
        Some(match rows {
            Rows::Token(token) => {
                let token = std::str::from_utf8(token.expose()).unwrap_or_default();
                (Arc::clone(&self.token), token.to_owned(), None)
            }
            Rows::Session(id) => (Arc::clone(&self.session), id.clone(), None),
            Rows::Subject { subject, except } => (Arc::clone(&self.subject), subject.clone(), except.clone()),
            Rows::All => return None,
        })
    }
}

#[tonic::async_trait]
impl SessionTable for PostgresTable {
    async fn find(
        &self,
        token: &str,
        (ends_after, created_after): (Timestamp, Timestamp),
    ) -> Result<Option<SessionRow>, TableError> {
        let statements = self.statements().await?;
        let values: Values = Arc::new([
            Box::new(token.to_owned()),
            Box::new(millis(ends_after)),
            Box::new(millis(created_after)),
        ]);
        let rows = self.query(Arc::clone(&statements.find), values).await?;
        rows.first().map(|row| session(row, token, &self.layout)).transpose()
    }

    async fn extend(
        &self,
        token: &str,
        to: Timestamp,
        live: Timestamp,
        due: Timestamp,
    ) -> Result<(), TableError> {
        let statements = self.statements().await?;
        let [to, live, due] = [to, live, due].map(millis);
        let values: Values =
            Arc::new([Box::new(token.to_owned()), Box::new(to), Box::new(live), Box::new(due)]);
        self.query(Arc::clone(&statements.extend), values).await.map(drop)
    }

    async fn list(&self, rows: &Rows, limit: u32) -> Result<Vec<String>, TableError> {
        let statements = self.statements().await?;
        let Some((text, value, except)) = statements.list.of(rows) else { return Ok(Vec::new()) };
        let values: Values = Arc::new([Box::new(value), Box::new(except), Box::new(i64::from(limit))]);
        ids(&self.query(text, values).await?)
    }

    async fn delete(&self, rows: &Rows) -> Result<Vec<String>, TableError> {
        let statements = self.statements().await?;
        if let Some((text, value, except)) = statements.delete.of(rows) {
            let values: Values = Arc::new([Box::new(value), Box::new(except)]);
            return ids(&self.query(text, values).await?);
        }
        // Those that are there now; more may come, and are logins after this.
        loop {
            let text = Arc::clone(&statements.delete_some);
            let gone = self.pool.run(move |link: &Link| {
                let text = Arc::clone(&text);
                Box::pin(async move { link.execute(&text, &[&BATCH]).await })
            });
            if gone.await.map_err(told)? < BATCH.unsigned_abs() {
                return Ok(Vec::new());
            }
        }
    }

    async fn purge(
        &self,
        ended_by: Timestamp,
        created_by: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Result<u32, TableError> {
        let text = Arc::clone(&self.statements().await?.purge);
        let (ended_by, created_by, now) = (millis(ended_by), millis(created_by), millis(now));
        let gone = self.pool.run(move |link: &Link| {
            let text = Arc::clone(&text);
            Box::pin(
                async move { link.execute(&text, &[&ended_by, &created_by, &now, &i64::from(limit)]).await },
            )
        });
        Ok(u32::try_from(gone.await.map_err(told)?).unwrap_or(u32::MAX))
    }

    async fn look(&self) -> Result<(), TableError> {
        *self.statements.lock() = None;
        self.statements().await.map(drop)
    }
}

fn ids(rows: &[Row]) -> Result<Vec<String>, TableError> {
    rows.iter().map(|row| row.try_get(0).map_err(odd)).collect()
}

fn session(row: &Row, token: &str, layout: &Layout) -> Result<SessionRow, TableError> {
    let number = |place: usize| row.try_get::<_, Option<i64>>(place).map_err(odd);
    let text = |place: usize| row.try_get::<_, Option<String>>(place).map_err(odd);
    let created_at = layout.created.iter().zip(number(3)?).next();
    let created_at = created_at.map(|(column, millis)| layout.instant(column, Some(millis))).transpose()?;
    let times = RowTimes {
        expires_at: layout.instant(&layout.expires, number(2)?)?,
        created_at,
        newer: number(4)?.and_then(|newer| u32::try_from(newer).ok()).unwrap_or(0),
    };
    let columns = layout.users.iter().flat_map(|users| &users.columns);
    let claims = columns
        .zip(5..)
        .map(|(name, place)| Ok((name.clone(), text(place)?.unwrap_or_else(|| "null".to_owned()))));
    let missing = || TableError::Malformed(format!("`{}` of a session is empty", layout.user));
    Ok(SessionRow {
        session: text(0)?.unwrap_or_else(|| id_of(token)),
        subject: text(1)?.ok_or_else(missing)?,
        times,
        claims: claims.collect::<Result<_, TableError>>()?,
    })
}

fn odd(error: tokio_postgres::Error) -> TableError {
    TableError::Unreachable(error.into())
}

fn told(error: StoreError) -> TableError {
    match error {
        StoreError::Unavailable(source) | StoreError::NotWritable(source) => TableError::Unreachable(source),
        StoreError::Corrupt(_) => {
            TableError::Malformed("see the line before for what the database says".to_owned())
        }
    }
}
