//! What went wrong, as callers and operators are told.

use crate::revocation::StoreError;
use crate::store::ServerFault;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// A piece of work on a connection failed.
#[derive(Debug)]
pub(in crate::store) enum Failed {
    /// The server or the connection.
    Postgres(Error),
    /// The connection can't be used any more: it leads to a replica, or what it relied on is gone.
    Stale(&'static str),
    /// Something else.
    Store(StoreError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failed {
    /// Two calls were in each other's way, and this one gave in: the same again can succeed.
    pub(super) fn is_collision(&self) -> bool {
        let state = self.state();
        state == Some(&SqlState::T_R_SERIALIZATION_FAILURE) || state == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether the connection is as good as before, once rolled back.
    pub(super) fn spares_connection(&self) -> bool {
        let Some(state) = self.state() else {
            return matches!(self, Self::Store(StoreError::NotWritable(_)));
        };
        self.is_collision()
            || *state == SqlState::QUERY_CANCELED
            || *state == SqlState::LOCK_NOT_AVAILABLE
            || state.code().starts_with("23")
            || state.code().starts_with("53")
    }

    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Stale(_) | Self::Store(_) => None,
        }
    }

    pub(super) fn told(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Stale(why) => StoreError::Unavailable(why.into()),
            Self::Postgres(error) => {
                let Some(state) = error.code() else { return StoreError::Unavailable(error.into()) };
                let not_writable = [
                    SqlState::DISK_FULL,
                    SqlState::OUT_OF_MEMORY,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::INSUFFICIENT_PRIVILEGE,
                ];
                // A table that is gone is looked for, and made again, by the next connection.
                let found_anew = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
                if not_writable.contains(state) {
                    StoreError::NotWritable(error.into())
                } else if found_anew.contains(state) {
                    StoreError::Unavailable(error.into())
                } else if state.code().starts_with("42") || state.code().starts_with("XX") {
                    tracing::error!(%error, "the store's tables are not as they should be");
                    StoreError::Corrupt("the schema")
                } else {
                    StoreError::Unavailable(error.into())
                }
            }
        }
    }
}

/// The server could not be connected to.
pub(super) fn no_connection(error: Error, server: &str, database: &str) -> ServerFault {
    let state = error.code().cloned();
    let server = server.to_owned();
    match state {
        Some(SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            ServerFault::Refused { server, source: error.into() }
        }
        Some(SqlState::INVALID_CATALOG_NAME) => ServerFault::Unreachable {
            server: format!("the database `{database}` of {server}"),
            source: error.into(),
        },
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => ServerFault::Forbidden {
            what: format!("connect to the database `{database}`; it needs CONNECT on it"),
            source: error.into(),
        },
        Some(_) | None => ServerFault::Unreachable { server, source: error.into() },
    }
}

/// A look or a change at set-up failed; `what` names what was tried and which right it needs.
pub(super) fn no_right(error: Error, server: &str, what: impl FnOnce() -> String) -> ServerFault {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            ServerFault::Forbidden { what: what(), source: error.into() }
        }
        Some(state) if !is_of_connection(state) => ServerFault::Odd(error.into()),
        Some(_) | None => ServerFault::Unreachable { server: server.to_owned(), source: error.into() },
    }
}

fn is_of_connection(state: &SqlState) -> bool {
    ["08", "57", "53", "40", "55"].iter().any(|class| state.code().starts_with(class))
}
