//! The engines. Each implements, on one store, the revocation log and the session store, so that a session's change and
//! the log entry that tells of it are one write.

pub mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;

pub use sqlite::SqliteStore;
