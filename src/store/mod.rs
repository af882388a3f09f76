//! The engines. Each implements, on one store, the revocation log and the session store, so that a session's change and
//! the log entry that tells of it are one write.

pub mod postgres;
pub mod redis;
pub mod session_table;
pub mod shared;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;

/// Real servers to test the engines against.
#[cfg(test)]
#[path = "../../tests/engines/mod.rs"]
pub(crate) mod engines;

pub use postgres::PostgresStore;
pub use redis::RedisStore;
pub use shared::{Access, Durability, JudgeBy, Migration, Namespace, Report, ServerFault, Shared};
pub use sqlite::SqliteStore;
