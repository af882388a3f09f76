//! Where the three sidecars keep sessions and revocations, and how they hear of each other's.

use crate::engines::{Postgres, Redis};
use clap::ValueEnum;
use std::path::Path;

/// What kind of store.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// One file that all three open: the embedded engine, good for pods of one machine.
    Sqlite,
    /// A Redis server.
    Redis,
    /// A Postgres server.
    Postgres,
}

/// A store that is there; a server ends when it is dropped.
#[derive(Debug)]
pub(crate) enum Store {
    /// At this URL.
    File(String),
    /// A server of our own.
    Redis(Redis),
    /// A server of our own.
    Postgres(Postgres),
}

impl Store {
    pub(crate) fn open(kind: Kind, home: &Path) -> Self {
        match kind {
            Kind::Sqlite => Self::File(format!("sqlite:{}", home.join("store.db").display())),
            Kind::Redis => Self::Redis(Redis::start()),
            Kind::Postgres => Self::Postgres(Postgres::start()),
        }
    }

    /// As flags of countersign's. All three sidecars are given the same, which is how they hear of each other's
    /// revocations.
    pub(crate) fn settings(&self) -> Vec<String> {
        let settings = match self {
            Self::File(url) => vec![format!("store.url={url}")],
            Self::Redis(server) => vec![format!("store.url={}", server.url())],
            Self::Postgres(server) => vec![
                format!("store.url={}", server.url()),
                format!("store.password_file={}", server.password_file().display()),
            ],
        };
        settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }
}
