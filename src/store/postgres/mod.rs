//! PostgreSQL, 13 or later: joins the sidecars of a fleet.
//!
//! One schema is ours. The log's numbers come from one row, locked last in each appending transaction, so that they are
//! without gaps and in the order of commits. Logins and cut-offs are ordered by advisory locks; refreshes and revocations
//! of a session by its row. Read is from the primary alone: a server that was promoted, put back from a backup or emptied
//! is noticed, and its log gets a new epoch, so that the sidecars give back what it lost.
//!
//! Sessions' settings, prepared statements, advisory locks and LISTEN are used: behind a pooler only its session mode works.

mod address;
pub(super) mod failed;
mod heads;
mod inspect;
mod leases;
pub(super) mod link;
mod listen;
mod locks;
mod log;
mod login;
mod namespace;
mod pause;
pub(super) mod pool;
mod restore;
mod rows;
mod sessions;
pub(super) mod tls;

pub use address::{Address, BadAddress};

use crate::clock::Timestamp;
use crate::revocation::{Appended, DenialKey, Draft, Entry, Page, RevocationLog, StoreError};
use crate::session::LeaseStore;
use crate::session::record::{Attributes, SessionRecord};
use crate::session::rotation::Rules;
use crate::session::store::{CreateOutcome, ListCursor, NewSession, Rotated, SessionStore, Updated};
use crate::store::{Access, Migration, Report, ServerFault, Shared};
use crate::token::{Revision, SessionId, TokenDigest};
use log::Terms;
use pool::{Pool, Purpose};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows that one statement of a purge deletes at most.
const PURGE_BATCH: u32 = 500;

/// One namespace on one server, or on whichever of several is the primary.
pub struct PostgresStore {
    pool: Arc<Pool>,
    terms: Terms,
}

impl PostgresStore {
    /// Reads the files that TLS needs, and connects nowhere. To be called in a Tokio runtime: all connections live in it,
    /// whichever runtime calls come from.
    ///
    /// # Errors
    /// [`ServerFault::File`], or [`ServerFault::Odd`] where the system has no authorities or this is no runtime.
    pub fn new(address: Address, access: Access) -> Result<Self, ServerFault> {
        if address.hosts().iter().any(|host| address.tls_to(host)) {
            tls::connector(&access)?;
        }
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|error| ServerFault::Odd(error.into()))?;
        let terms = Terms { judge_by: access.judge_by, lock: locks::of_namespace(&access.namespace) };
        Ok(Self { pool: Arc::new(Pool::new(address, access, runtime)), terms })
    }
}

#[tonic::async_trait]
impl RevocationLog for PostgresStore {
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError> {
        let terms = self.terms;
        self.pool
            .run(move |link| {
                let draft = draft.clone();
                Box::pin(async move { log::append(link, terms, &draft).await })
            })
            .await
    }

    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError> {
        self.pool.follow(move |link| Box::pin(log::read_after(link, cursor, limit))).await
    }

    async fn restore(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let terms = self.terms;
        for batch in restore::batches(entries) {
            let batch: Arc<[Entry]> = batch.into();
            self.pool
                .follow(move |link| {
                    let batch = Arc::clone(&batch);
                    Box::pin(async move { restore::batch(link, terms, &batch).await })
                })
                .await?;
        }
        Ok(())
    }

    async fn changed(&self, cursor: Revision, at_most: Duration) {
        self.pool.heads.moved_from(cursor, at_most).await;
    }
}

#[tonic::async_trait]
impl SessionStore for PostgresStore {
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError> {
        let terms = self.terms;
        let new = Arc::new(new);
        self.pool
            .run(move |link| {
                let new = Arc::clone(&new);
                Box::pin(async move { sessions::create(link, terms, &new).await })
            })
            .await
    }

    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Rotated, StoreError> {
        let terms = self.terms;
        self.pool
            .run(move |link| Box::pin(sessions::rotate(link, terms, id, session_key, presented, rules, now)))
            .await
    }

    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        now: Timestamp,
    ) -> Result<Option<Updated>, StoreError> {
        let terms = self.terms;
        let attributes = Arc::new(attributes);
        self.pool
            .run(move |link| {
                let attributes = Arc::clone(&attributes);
                Box::pin(async move {
                    sessions::update(link, terms, id, session_key, &attributes, token_life, now).await
                })
            })
            .await
    }

    async fn touch(&self, id: SessionId, update_age: Duration, now: Timestamp) -> Result<(), StoreError> {
        let terms = self.terms;
        self.pool.run(move |link| Box::pin(sessions::touch(link, terms, id, update_age, now))).await
    }

    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError> {
        self.pool.run(move |link| Box::pin(sessions::find(link, id))).await
    }

    async fn list(
        &self,
        subject_key: DenialKey,
        after: Option<ListCursor>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let terms = self.terms;
        self.pool.run(move |link| Box::pin(sessions::list(link, terms, subject_key, after, limit, now))).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let terms = self.terms;
        let mut left = limit;
        // Small transactions, between which others get their turn.
        while left > 0 {
            let batch = i64::from(left.min(PURGE_BATCH));
            let gone = self.pool.run(move |link| Box::pin(sessions::purge(link, terms, now, batch))).await?;
            left = left.saturating_sub(u32::try_from(gone).unwrap_or(left));
            if gone < batch {
                break;
            }
        }
        Ok(limit - left)
    }
}

#[tonic::async_trait]
impl LeaseStore for PostgresStore {
    async fn lease(
        &self,
        key: TokenDigest,
        now: Timestamp,
    ) -> Result<(Option<Vec<u8>>, Timestamp), StoreError> {
        let terms = self.terms;
        self.pool.run(move |link| Box::pin(leases::find(link, terms, key, now))).await
    }

    async fn put_lease(
        &self,
        key: TokenDigest,
        seen: Option<Vec<u8>>,
        register: Vec<u8>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let terms = self.terms;
        let registers = Arc::new((seen, register));
        self.pool
            .run(move |link| {
                let registers = Arc::clone(&registers);
                Box::pin(async move {
                    let (seen, register) = &*registers;
                    leases::put(link, terms, key, (seen.as_deref(), register), expires_at, now).await
                })
            })
            .await
    }

    async fn purge_leases(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let terms = self.terms;
        self.pool.run(move |link| Box::pin(leases::purge(link, terms, now, i64::from(limit)))).await
    }
}

#[tonic::async_trait]
impl Shared for PostgresStore {
    async fn inspect(&self) -> Result<Report, ServerFault> {
        let pool = Arc::clone(&self.pool);
        let looked = self.pool.runtime.spawn(async move {
            let access = &pool.access;
            let link = pool.dial_to(Purpose::Look).await?;
            let report = inspect::report(&link, access.durability);
            tokio::time::timeout(access.answer_within, report).await.map_err(|_| late(&pool))?
        });
        looked.await.map_err(|error| ServerFault::Odd(error.into()))?
    }

    async fn migrate(&self) -> Result<Migration, ServerFault> {
        let pool = Arc::clone(&self.pool);
        let migrated = self.pool.runtime.spawn(async move {
            let access = &pool.access;
            let link = pool.dial_to(Purpose::Migrate).await?;
            let migrated = namespace::migrate(&link, &access.namespace, namespace::Birth::LongAgo);
            // Others may be at it.
            tokio::time::timeout(access.answer_within * 10, migrated).await.map_err(|_| late(&pool))?
        });
        migrated.await.map_err(|error| ServerFault::Odd(error.into()))?
    }

    async fn listen(&self, cancel: CancellationToken) {
        cancel.run_until_cancelled(listen::listen(Arc::clone(&self.pool))).await;
    }
}

fn late(pool: &Pool) -> ServerFault {
    ServerFault::Unreachable { server: pool.address.to_string(), source: "no answer in time".into() }
}

#[cfg(test)]
mod tests;
