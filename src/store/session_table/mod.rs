//! Tables of sessions that applications keep in databases of their own, as Auth.js does. Nothing there is ours: no schema is
//! made, no setting of the database changed, and no column written but the one that says when a session ends.

mod postgres;
mod postgres_sql;
mod sqlite;

pub use postgres::PostgresTable;
pub use sqlite::SqliteTable;

use crate::clock::Timestamp;
use crate::verify::TableError;

/// Earlier instants, in milliseconds, are seconds that somebody took for milliseconds.
const FIRST_INSTANT: i64 = 100_000_000_000;

/// How tables and columns are named, as their database writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The schema; of Postgres alone.
    pub schema: String,
    /// The table of sessions.
    pub table: String,
    /// Its column of tokens.
    pub token: String,
    /// Its column of users.
    pub user: String,
    /// Its column of ends.
    pub expires: String,
    /// Its column of logins, where it has one.
    pub created: Option<String>,
    /// What is told of users.
    pub users: Option<Users>,
    /// Whether a user's newer sessions are counted.
    pub counts: bool,
}

/// A table of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Its name.
    pub table: String,
    /// The column that sessions name a user by.
    pub key: String,
    /// The columns that become claims.
    pub columns: Vec<String>,
}

impl Layout {
    /// The columns of the table of sessions that are used.
    fn columns(&self) -> impl Iterator<Item = &str> {
        let usual = [&self.token, &self.user, &self.expires];
        usual.into_iter().chain(&self.created).map(String::as_str)
    }

    /// Refuses a table that lacks one of these columns, or is not there.
    fn check<'n>(
        table: &str,
        needed: impl Iterator<Item = &'n str>,
        found: &[String],
    ) -> Result<(), TableError> {
        if found.is_empty() {
            return Err(TableError::Malformed(format!("there is no table `{table}` that this user may see")));
        }
        let missing: Vec<_> = needed
            .filter(|name| !found.iter().any(|found| found == name))
            .map(|name| format!("`{name}`"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(TableError::Malformed(format!("`{table}` has no column {}", missing.join(", "))))
    }

    fn instant(&self, column: &str, millis: Option<i64>) -> Result<Timestamp, TableError> {
        match millis {
            Some(millis) if millis >= FIRST_INSTANT => Ok(Timestamp::from_millis(millis.unsigned_abs())),
            Some(_) | None => {
                let table = &self.table;
                Err(TableError::Malformed(format!(
                    "`{column}` of `{table}` is no timestamp, nor milliseconds since 1970"
                )))
            }
        }
    }
}

/// A name as SQL has it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
