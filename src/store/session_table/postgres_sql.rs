//! The SQL of a table of sessions in Postgres, made of its names and its columns' types.

use super::{FIRST_INSTANT, Layout, quoted};
use crate::verify::TableError;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// Columns by name, each with its type as SQL has it.
pub(super) type Columns = HashMap<String, String>;

/// What is said to the server. `$1::text` and the like say what is sent; the casts, what it is compared with.
pub(super) struct Statements {
    pub(super) find: Arc<str>,
    pub(super) extend: Arc<str>,
    pub(super) list: Arc<str>,
    pub(super) delete_token: Arc<str>,
    pub(super) delete_session: Arc<str>,
    pub(super) delete_listed: Arc<str>,
    pub(super) delete_some: Arc<str>,
    pub(super) purge: Arc<str>,
}

impl Statements {
    pub(super) fn of(layout: &Layout, columns: &Columns) -> Result<Self, TableError> {
        let name = format!("{}.{}", quoted(&layout.schema), quoted(&layout.table));
        let [token, user, expires] = [&layout.token, &layout.user, &layout.expires].map(|name| quoted(name));
        let type_of = |column: &str| columns.get(column).map_or("text", String::as_str);
        let given = |place: u8, column: &str| format!("CAST(${place}::text AS {})", type_of(column));
        if type_of(&layout.token) == "bytea" {
            return Err(TableError::Malformed(format!("`{}` is a bytea: tokens are texts", layout.token)));
        }
        // To the letter, whatever the column's type takes for equal: an id is of the letters.
        let named = |place: u8| {
            format!(
                "s.{token} = {} AND s.{token}::text COLLATE \"C\" = ${place}::text COLLATE \"C\"",
                given(place, &layout.token)
            )
        };
        let ends = Instant::of(&layout.expires, type_of(&layout.expires))?;
        let login =
            layout.created.as_deref().map(|column| Instant::of(column, type_of(column))).transpose()?;
        let login_of =
            |alias: &str| login.as_ref().map_or("NULL::bigint".to_owned(), |login| login.millis(alias));
        let id = format!("encode(sha256(convert_to(s.{token}::text, 'UTF8')), 'hex')");
        let newer = if layout.counts {
            // Where logins are not told, the one that was used last counts as the newest; one that doesn't tell its own, as the
            // oldest.
            let order = |alias: &str| match &login {
                Some(login) => format!("coalesce({}, 0)", login.millis(alias)),
                None => ends.millis(alias),
            };
            let live_logins = login.as_ref().map_or(String::new(), |login| {
                format!(" AND ($3::bigint IS NULL OR o.{} > {})", login.column, login.value("$3::bigint"))
            });
            format!(
                "(SELECT count(*) FROM {name} o WHERE o.{user} = s.{user} AND o.{expires} > {}{live_logins} \
                 AND ({}, o.{token}) > ({}, s.{token}))",
                ends.value("$2::bigint"),
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
            // Without its user a session is none: the application sees it so.
            join = format!(" JOIN {table} u ON u.{} = s.{user}", quoted(&users.key));
        }
        let of_subject = format!("s.{user} = {}", given(1, &layout.user));
        // What is no instant in milliseconds is the configuration's mistake, and nobody's end.
        let over = |instant: &Instant, by: &str| {
            let by = instant.value(&format!("({by} + (SELECT back FROM clock))"));
            let first = instant.value(&format!("{FIRST_INSTANT}::bigint"));
            format!("s.{column} >= {first} AND s.{column} <= {by}", column = instant.column)
        };
        let by_login =
            login.as_ref().map_or(String::new(), |login| format!(" OR {}", over(login, "$2::bigint")));
        let ended = format!("{}{by_login}", over(&ends, "$1::bigint"));
        let due = format!(
            "{} AND s.{expires} > {} AND s.{expires} <= {}",
            named(1),
            ends.value("$3::bigint"),
            ends.value("$4::bigint")
        );
        Ok(Self {
            find: format!(
                "SELECT s.{user}::text, {}, {}, {newer}{claims} FROM {name} s{join} WHERE {} \
                 AND $2::bigint IS NOT NULL AND ($3::bigint IS NULL OR $3::bigint >= 0)",
                ends.millis("s"),
                login_of("s"),
                named(1)
            )
            .into(),
            // What somebody else holds is left to them: waiting for it would hold up others. The condition stands outside, too:
            // another partition has rows with the same ctid.
            extend: format!(
                "UPDATE {name} AS s SET {expires} = {} WHERE s.ctid = ANY (ARRAY(SELECT s.ctid FROM {name} s \
                 WHERE {due} FOR UPDATE SKIP LOCKED)) AND {due}",
                ends.value("$2::bigint"),
            )
            .into(),
            list: format!(
                "SELECT {id} FROM {name} s WHERE {of_subject} AND {id} IS DISTINCT FROM $2::text LIMIT $3::bigint"
            )
            .into(),
            delete_token: format!("DELETE FROM {name} s WHERE {}", named(1)).into(),
            // Only who has the token can ask for it by name; for anybody else all are looked through.
            delete_session: format!("DELETE FROM {name} s WHERE {id} = $1::text").into(),
            delete_listed: format!("DELETE FROM {name} s WHERE {of_subject} AND {id} = ANY ($2::text[])").into(),
            // Rows that others delete just then don't make a batch look like the last one.
            delete_some: format!(
                "DELETE FROM {name} WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM {name} s LIMIT $1::bigint FOR UPDATE))"
            )
            .into(),
            // By the earlier of two clocks. What another call holds is left to the next purge.
            purge: format!(
                "WITH clock AS (SELECT least(0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 120000 \
                 - $3::bigint) AS back) DELETE FROM {name} AS s WHERE s.ctid = ANY (ARRAY(SELECT s.ctid FROM {name} s \
                 WHERE {ended} LIMIT $4::bigint FOR UPDATE SKIP LOCKED)) AND ({ended}) \
                 AND ($2::bigint IS NULL OR $2::bigint >= 0)"
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
