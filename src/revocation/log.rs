//! The revocation log, as this room asks for it. One shape for every engine: append, read after a cursor, and a hint
//! that something changed. A missed hint costs delay, never loss.

use crate::clock::Timestamp;
use crate::revocation::entry::{DenialKey, Entry};
use crate::token::Revision;
use std::time::Duration;

/// What to append. The store stamps cut-offs itself, in the same atomic write, because two sidecars' clocks differ.
#[derive(Clone, Debug)]
pub enum Draft {
    /// One token.
    Token {
        /// [`DenialKey::token_id`] or [`DenialKey::signing_input`].
        key: DenialKey,
        /// The token's expiry and leeway.
        expires_at: Timestamp,
    },
    /// One session. Its record, if it is one of ours, ends in the same write.
    Session {
        /// [`DenialKey::session`].
        key: DenialKey,
        /// Used where no record says when the session ends.
        expires_at: Timestamp,
    },
    /// All of a subject. Its session records that were created at or before the cut-off end in the same write.
    Subject {
        /// [`DenialKey::subject`].
        key: DenialKey,
        /// Spared, by its [`DenialKey::session`].
        except: Option<DenialKey>,
        /// An instant in the past; `None` is now: max(`now`, the subject's last creation stamp).
        before: Option<Timestamp>,
        /// The sidecar's clock.
        now: Timestamp,
        /// The longest life of anything it can hit, counted from the cut-off.
        longest: Duration,
    },
    /// All of an issuer. Its session records that were created at or before the cut-off end in the same write.
    Issuer {
        /// [`DenialKey::issuer`].
        key: DenialKey,
        /// An instant in the past; `None` is now: max(`now`, the issuer's last creation stamp).
        before: Option<Timestamp>,
        /// The sidecar's clock.
        now: Timestamp,
        /// The longest life of anything it can hit, counted from the cut-off.
        longest: Duration,
    },
}

/// What a durable append left in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The entry as stored, cut-off stamped.
    pub entry: Entry,
    /// Its position; an identical live entry's position if there was one already.
    pub revision: Revision,
}

/// A stretch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In order, without gaps; expired entries may be missing.
    pub entries: Vec<Entry>,
    /// Where this page ends: hand it to the next read.
    pub cursor: Revision,
    /// The log's head, confirmed against the primary.
    pub head: Revision,
    /// How long ago the head's epoch began, by the store's clock; [`Duration::MAX`] for long ago. While an epoch is
    /// young, the sidecars that hold what an earlier one lost may not have given it back yet.
    pub epoch_age: Duration,
    /// The cursor given was of another epoch or beyond what the log still holds, so this page starts at the log's
    /// beginning: the reader unites it with what it has and gives back what is missing.
    pub restarted: bool,
}

/// The store could not do it. The code callers see is STORE_UNAVAILABLE; the cause is for logs.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached or did not answer in time; trying again can help.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store has no room or may not be written; reads may go on.
    #[error("the store can't be written")]
    NotWritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store answered something that it can't have been told by us.
    #[error("the store holds something unreadable in {0}")]
    Corrupt(&'static str),
}

/// The log as an engine keeps it.
#[tonic::async_trait]
pub trait RevocationLog: Send + Sync + 'static {
    /// Appends durably. An entry identical in kind, key, exception and instant that is already there is not added
    /// again, unless the new one expires later: then it is added, and takes the other's place. An engine may answer
    /// with, or replace, any entry of that kind, key and exception that hits as much for as long. Expiries are kept
    /// [`Entry::rounded`].
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was written, or it can't be known.
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError>;

    /// Reads at most `limit` entries after `cursor` (`None`: from the beginning), and the head.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError>;

    /// Gives back entries that the store lost; session records they hit end in the same write. Identical live ones are
    /// not added again.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn restore(&self, entries: Vec<Entry>) -> Result<(), StoreError>;

    /// Resolves when the log may have moved past `cursor`, or after `at_most`. A hint, nothing more.
    async fn changed(&self, cursor: Revision, at_most: Duration);
}
