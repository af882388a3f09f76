//! Reading a session for verification: what its record says, whether it is over, and writing that it was used. Needs no
//! key, so a sidecar that only verifies can read sessions, too.

use crate::clock::{Clock, Timestamp};
use crate::revocation::StoreError;
use crate::session::policy::{Policies, Policy, Strategy};
use crate::session::record::SessionRecord;
use crate::session::store::SessionStore;
use crate::token::{Issuer, Revision, SessionId};
use std::fmt;
use std::sync::Arc;

/// A live session and the policy it lives under.
#[derive(Clone, Debug)]
pub struct Live {
    /// As the store has it.
    pub record: SessionRecord,
    /// Its policy.
    pub policy: Arc<Policy>,
    /// From here on its next use has to be written; the end of time where use is not written.
    pub touch_at: Timestamp,
}

/// What a read found.
#[derive(Clone, Debug)]
pub enum Found {
    /// Live.
    Live(Box<Live>),
    /// Ended, purged, never there, of another issuer, or of a policy that is not configured (any more).
    Ended,
    /// Unused for too long.
    Idle,
}

/// Reads sessions. Does not look at the denylist: whoever reads judges by that, too.
#[derive(Clone)]
pub struct Reader {
    /// Where sessions are kept.
    pub store: Arc<dyn SessionStore>,
    /// How they live.
    pub policies: Policies,
    /// Whose they are.
    pub issuer: Issuer,
    /// What time it is.
    pub clock: Clock,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads a session from the primary, with the log's head at that moment. With `touch`, writes that it was used, if
    /// its policy counts use and the last was written longer than `update_age` ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, id: SessionId, touch: bool) -> Result<(Found, Revision), StoreError> {
        let (record, head) = self.store.find(id).await?;
        let now = self.clock.now().judged;
        let Some(mut record) = record.filter(|record| record.issuer == self.issuer) else {
            return Ok((Found::Ended, head));
        };
        let policy = self.policies.find(&record.policy).filter(|policy| policy.keeps_records());
        let Some(policy) = policy.filter(|_| now < record.absolute_end) else {
            return Ok((Found::Ended, head));
        };
        if now >= record.idle_end() {
            return Ok((Found::Idle, head));
        }
        let counts_use = policy.strategy() == Strategy::Session;
        if touch && counts_use && now >= record.last_active_at.after(policy.update_age()) {
            match self.store.touch(id, policy.update_age(), now).await {
                Ok(()) => record.last_active_at = now,
                // Reading goes on where writing doesn't: the session just isn't extended by this use.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "a session's use could not be written");
                }
            }
        }
        let touch_at =
            if counts_use { record.last_active_at.after(policy.update_age()) } else { Timestamp::MAX };
        Ok((Found::Live(Box::new(Live { record, policy: Arc::clone(policy), touch_at })), head))
    }
}
