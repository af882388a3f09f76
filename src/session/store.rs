//! The session store, as this room asks for it. Every change is one atomic write: "read, decide, write" in three
//! steps is a defect.

use crate::clock::Timestamp;
use crate::revocation::{DenialKey, Entry, StoreError};
use crate::session::record::{Attributes, Device, SessionRecord};
use crate::session::rotation::{Decision, Rules};
use crate::token::{Issuer, Revision, SessionId};
use std::time::Duration;

/// How many sessions a subject may have under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most this many live ones, the new one included.
    pub sessions: u32,
    /// At the limit: end the oldest (by creation), or refuse the new one.
    pub evict_oldest: bool,
}

/// A login to be recorded.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Drawn by the caller of the store.
    pub id: SessionId,
    /// Our issuer.
    pub issuer: Issuer,
    /// Whose it is.
    pub subject: String,
    /// [`DenialKey::subject`].
    pub subject_key: DenialKey,
    /// [`DenialKey::issuer`].
    pub issuer_key: DenialKey,
    /// [`DenialKey::session`].
    pub session_key: DenialKey,
    /// The policy's name.
    pub policy: String,
    /// The OAuth client.
    pub client_id: String,
    /// Where from.
    pub device: Device,
    /// What it says.
    pub attributes: Attributes,
    /// The sidecar's clock. The creation stamp is max(this, last cut-off of subject or issuer + 1 ms).
    pub now: Timestamp,
    /// How long it lives unused.
    pub idle: Duration,
    /// How long it lives at most, from the creation stamp.
    pub absolute: Duration,
    /// 1 where it has refresh tokens, else 0.
    pub generation: u64,
    /// `None`: unlimited.
    pub limit: Option<Limit>,
    /// False under the `jwt` strategy: the login is stamped against cut-offs, and no record is kept.
    pub recorded: bool,
}

impl NewSession {
    /// The record of this login, once the store has stamped it.
    #[must_use]
    pub fn record(&self, created_at: Timestamp) -> SessionRecord {
        SessionRecord {
            id: self.id,
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            policy: self.policy.clone(),
            client_id: self.client_id.clone(),
            device: self.device.clone(),
            attributes: self.attributes.clone(),
            attributes_version: 1,
            created_at,
            last_active_at: created_at,
            idle: self.idle,
            absolute_end: created_at.after(self.absolute),
            generation: self.generation,
            generation_began_at: created_at,
        }
    }
}

/// A recorded login.
#[derive(Clone, Debug)]
pub struct Created {
    /// The record, creation stamped.
    pub record: SessionRecord,
    /// Ended to stay within the limit, with the entries that deny them.
    pub evicted: Vec<(SessionId, Entry)>,
    /// The log's head after the write.
    pub revision: Revision,
}

/// What became of a login.
#[derive(Clone, Debug)]
pub enum CreateOutcome {
    /// Recorded.
    Created(Box<Created>),
    /// At the limit, and the policy says to refuse.
    LimitReached,
}

/// What one atomic refresh did.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// What the state machine decided, on the store's view.
    pub decision: Decision,
    /// The record after the write; `None` where there is none (any more).
    pub record: Option<SessionRecord>,
    /// On reuse: the entry that denies the session from now on.
    pub denied: Option<Entry>,
    /// The log's head after the write.
    pub revision: Revision,
}

/// Changed attributes.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The record after the write.
    pub record: SessionRecord,
    /// The entry that makes older access tokens stale.
    pub entry: Entry,
    /// Its position.
    pub revision: Revision,
}

/// Where a page of a subject's sessions starts: after the one created at this instant with this id.
pub type ListCursor = (Timestamp, SessionId);

/// Sessions as an engine keeps them.
#[tonic::async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Stamps and records a login, evicting or refusing at the limit, in one write. The limit counts sessions that are
    /// live at `now` under the same policy.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn create(&self, new: NewSession) -> Result<CreateOutcome, StoreError>;

    /// Applies [`crate::session::rotation::decide`] to the record and writes what it decides, in one write. Reuse
    /// deletes the record and appends `session_key`'s entry in that same write.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn rotate(
        &self,
        id: SessionId,
        session_key: DenialKey,
        presented: u64,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Rotated, StoreError>;

    /// Replaces a live session's attributes and appends the entry that makes older access tokens stale, in one write.
    /// The entry lives for `token_life` from now. `None`: no such live session.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn update(
        &self,
        id: SessionId,
        session_key: DenialKey,
        attributes: Attributes,
        token_life: Duration,
        now: Timestamp,
    ) -> Result<Option<Updated>, StoreError>;

    /// Moves a session's last activity to `now`, unless that was written less than `update_age` ago or the session is
    /// over. One conditional write.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn touch(&self, id: SessionId, update_age: Duration, now: Timestamp) -> Result<(), StoreError>;

    /// A session's record, live or merely not yet purged, and the log's head, read together from the primary.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find(&self, id: SessionId) -> Result<(Option<SessionRecord>, Revision), StoreError>;

    /// A subject's sessions live at `now`, newest first, at most `limit`, after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(
        &self,
        subject_key: DenialKey,
        after: Option<ListCursor>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError>;

    /// Deletes at most `limit` records (and stamps and log entries) that were over by `now` less two minutes of slack;
    /// returns how many. `now` is [`crate::clock::Now::purging`]. Call it again while it returns `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError>;
}
