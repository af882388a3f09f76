//! The real store, with a switch to take it down and a moment to interfere in.

use countersign::clock::Timestamp;
use countersign::revocation::{DenialKey, StoreError};
use countersign::session::rotation::Rules;
use countersign::session::store::{ListCursor, Rotated, Updated};
use countersign::session::{Attributes, CreateOutcome, NewSession, SessionRecord, SessionStore};
use countersign::store::sqlite::SqliteStore;
use countersign::token::{Revision, SessionId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

type Interference = Box<dyn FnOnce() + Send>;

/// A store that tests interfere with.
pub(crate) struct TestStore {
    pub(crate) inner: Arc<SqliteStore>,
    down: AtomicBool,
    purges: AtomicU32,
    after_rotate: Mutex<Option<Interference>>,
}

impl TestStore {
    pub(crate) fn over(inner: Arc<SqliteStore>) -> Arc<Self> {
        let (down, purges) = (AtomicBool::new(false), AtomicU32::new(0));
        Arc::new(Self { inner, down, purges, after_rotate: Mutex::new(None) })
    }

    /// From here on every call fails.
    pub(crate) fn take_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    /// Once, between the next rotation's write and its answer.
    pub(crate) fn after_rotate(&self, interference: impl FnOnce() + Send + 'static) {
        *self.after_rotate.lock() = Some(Box::new(interference));
    }

    /// How often purging was asked for.
    pub(crate) fn purges(&self) -> u32 {
        self.purges.load(Ordering::SeqCst)
    }

    /// The record as it stands.
    pub(crate) async fn find_now(&self, id: SessionId) -> Option<SessionRecord> {
        self.inner.find(id).await.unwrap().0
    }

    fn up(&self) -> Result<&SqliteStore, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("taken down".into()));
        }
        Ok(&self.inner)
    }
}

#[tonic::async_trait]
impl SessionStore for TestStore {
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError> {
        self.up()?.create(new).await
    }

    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Rotated, StoreError> {
        let rotated = self.up()?.rotate(id, session_key, presented, rules, now).await;
        if let Some(interfere) = self.after_rotate.lock().take() {
            interfere();
        }
        rotated
    }

    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        now: Timestamp,
    ) -> Result<Option<Updated>, StoreError> {
        self.up()?.update(id, session_key, attributes, token_life, now).await
    }

    async fn touch(&self, id: SessionId, update_age: Duration, now: Timestamp) -> Result<(), StoreError> {
        self.up()?.touch(id, update_age, now).await
    }

    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError> {
        self.up()?.find(id).await
    }

    async fn list(
        &self,
        subject_key: DenialKey,
        after: Option<ListCursor>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        self.up()?.list(subject_key, after, limit, now).await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.purges.fetch_add(1, Ordering::SeqCst);
        self.up()?.purge(now, limit).await
    }
}
