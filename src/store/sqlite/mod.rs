//! The embedded engine: one SQLite file, durable, nothing to install, shared by the sidecars of one machine.
//!
//! Write-ahead logging with `synchronous=FULL`: what was answered is on disk. One thread writes, committing what queued
//! up meanwhile together; two read, each from its own snapshot; one watches for other processes' commits. None of them
//! is the caller's: no call blocks the runtime.
//!
//! The file has to be on a local file system, and is replaced only together with its `-wal` and `-shm` files: put an older
//! copy in place by removing all three first. Sidecars that run notice the new file, read it, and give it back
//! the revocations it lacks.

mod file;
mod lane;
mod leases;
mod log;
mod rows;
mod sessions;
mod watch;

pub use file::OpenError;

use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Draft, Entry, Page, RevocationLog, StoreError};
use crate::session::LeaseStore;
use crate::session::record::{Attributes, SessionRecord};
use crate::session::rotation::Rules;
use crate::session::store::{CreateOutcome, ListCursor, NewSession, Rotated, SessionStore, Updated};
use crate::token::{Revision, SessionId, TokenDigest};
use file::Site;
use lane::{Lane, Mode};
use std::path::Path;
use std::time::Duration;
use watch::Watch;

/// How the file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long to wait for another process's write to end.
    pub busy_timeout: Duration,
    /// A call is answered within this, queueing included, or not at all.
    pub answer_within: Duration,
    /// Calls that may queue for the writer, and for the readers; more are refused at once.
    pub queue: usize,
    /// Threads that read.
    pub readers: usize,
    /// How often other processes' commits are looked for.
    pub poll_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(2),
            answer_within: Duration::from_secs(5),
            queue: 1024,
            readers: 2,
            poll_every: Duration::from_millis(5),
        }
    }
}

/// An open file. Its threads end when it is dropped, after the write in hand.
pub struct SqliteStore {
    writer: Lane,
    readers: Lane,
    watch: Watch,
}

impl SqliteStore {
    /// Opens the file, creating it with mode 0600 or bringing it to this version's schema where needed. Its directory
    /// has to be there. Blocks while it does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        let (site, first) = Site::open(path, settings.busy_timeout)?;
        let mut readers = Vec::new();
        for _ in 0..settings.readers.max(1) {
            readers.push(file::Link::open(&site)?);
        }
        let watched = file::Link::open(&site)?;
        Ok(Self {
            watch: Watch::start(watched, settings.poll_every)?,
            writer: Lane::start(Mode::Write, vec![first], settings)?,
            readers: Lane::start(Mode::Read, readers, settings)?,
        })
    }
}

#[tonic::async_trait]
impl RevocationLog for SqliteStore {
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError> {
        self.writer.ask(move |file| log::append_draft(file, &draft)).await
    }

    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError> {
        self.readers.ask(move |file| log::read_after(file, cursor, limit)).await
    }

    async fn restore(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.writer
            .ask(move |file| {
                for entry in &entries {
                    log::append(file, entry)?;
                }
                Ok(())
            })
            .await
    }

    async fn changed(&self, cursor: Revision, at_most: Duration) {
        self.watch.moved_from(cursor, at_most).await;
    }
}

#[tonic::async_trait]
impl SessionStore for SqliteStore {
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError> {
        self.writer.ask(move |file| sessions::create(file, &new)).await
    }

    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Rotated, StoreError> {
        self.writer.ask(move |file| sessions::rotate(file, id, session_key, presented, rules, now)).await
    }

    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        now: Timestamp,
    ) -> Result<Option<Updated>, StoreError> {
        self.writer
            .ask(move |file| sessions::update(file, id, session_key, &attributes, token_life, now))
            .await
    }

    async fn touch(&self, id: SessionId, update_age: Duration, now: Timestamp) -> Result<(), StoreError> {
        self.writer.ask(move |file| sessions::touch(file, id, update_age, now)).await
    }

    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError> {
        self.readers.ask(move |file| Ok((sessions::find(file, id)?, log::head(file)?))).await
    }

    async fn list(
        &self,
        subject_key: DenialKey,
        after: Option<ListCursor>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.readers.ask(move |file| sessions::list(file, subject_key, after, limit, now)).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.writer.ask(move |file| sessions::purge(file, now, limit)).await
    }
}

#[tonic::async_trait]
impl LeaseStore for SqliteStore {
    async fn lease(
        &self,
        key: TokenDigest,
        now: Timestamp,
    ) -> Result<(Option<Vec<u8>>, Timestamp), StoreError> {
        // By the one that writes: another's commit may not be visible to a reader's snapshot yet.
        self.writer.ask(move |file| Ok((leases::find(file, key, now)?, now))).await
    }

    async fn put_lease(
        &self,
        key: TokenDigest,
        seen: Option<Vec<u8>>,
        register: Vec<u8>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.writer.ask(move |file| leases::put(file, key, seen.as_deref(), &register, expires_at, now)).await
    }

    async fn purge_leases(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.writer.ask(move |file| leases::purge(file, now, limit)).await
    }
}

#[cfg(test)]
mod tests;
