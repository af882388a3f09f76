//! The service of this room: what the calls share. Each call is a file beside this one.

use crate::clock::{Clock, Now, Timestamp};
use crate::keys::{Handle, HandleKeys, SigningKeys};
use crate::revocation::{DenialKey, Denylist, Draft, Entry, Marks};
use crate::session::error::SessionError;
use crate::session::mint::Minter;
use crate::session::policy::{Policies, Policy};
use crate::session::record::SessionRecord;
use crate::session::store::SessionStore;
use crate::token::{Issuer, Revision, SessionId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Sessions`] stands on.
#[derive(Clone)]
pub struct Foundation {
    /// Where sessions are kept.
    pub store: Arc<dyn SessionStore>,
    /// What this sidecar knows to be revoked.
    pub denylist: Arc<Denylist>,
    /// Signs access tokens; needed where a policy has JWTs.
    pub signing: Option<Arc<SigningKeys>>,
    /// Authenticates refresh and session tokens; needed where a policy has either.
    pub handles: Option<Arc<HandleKeys>>,
    /// How sessions live.
    pub policies: Policies,
    /// `iss` of what we mint.
    pub issuer: Issuer,
    /// What time it is.
    pub clock: Clock,
}

/// Opens, renews, lists and changes sessions. Ending one is a revocation; [`Sessions::ending`] drafts it.
///
/// Its answers never hold more than the store's one atomic write decided: nothing is read first and relied on later,
/// but for a session's policy, which never changes.
pub struct Sessions {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) denylist: Arc<Denylist>,
    pub(super) minter: Minter,
    pub(super) policies: Policies,
    pub(super) clock: Clock,
    pub(super) fast_forwards: AtomicU64,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("issuer", self.issuer()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Builds the service.
    #[must_use]
    pub fn new(foundation: Foundation) -> Self {
        let Foundation { store, denylist, signing, handles, policies, issuer, clock } = foundation;
        let minter = Minter { issuer, signing, handles };
        Self { store, denylist, minter, policies, clock, fast_forwards: AtomicU64::new(0) }
    }

    /// `iss` of what it mints.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.minter.issuer
    }

    /// The policies it opens sessions under.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// How many refreshes found the store behind their token: it went back in time. Never falls.
    #[must_use]
    pub fn fast_forwards(&self) -> u64 {
        self.fast_forwards.load(Ordering::Relaxed)
    }

    /// The session a refresh or session token speaks for, live or not; `None` where its MAC is not ours. Possession of
    /// such a token is enough to end the session.
    #[must_use]
    pub fn session_of(&self, token: &str) -> Option<SessionId> {
        self.minter.handles.as_ref()?.open(token).ok().map(|Handle { session, .. }| session)
    }

    /// What to append to the log to end a session of ours.
    #[must_use]
    pub fn ending(&self, id: SessionId) -> Draft {
        let expires_at = self.clock.now().judged.after(self.policies.longest_life());
        Draft::Session { key: self.session_key(id), expires_at }
    }

    pub(super) fn session_key(&self, id: SessionId) -> DenialKey {
        DenialKey::session(self.issuer(), &id.to_string())
    }

    pub(super) fn subject_key(&self, subject: &str) -> DenialKey {
        DenialKey::subject(self.issuer(), subject)
    }

    /// Whether a record is ours, not over, and hit by no denial this sidecar knows of. The store is the authority; the
    /// denylist knows better only where the store lost something.
    pub(super) fn is_live(&self, record: &SessionRecord, now: Timestamp) -> bool {
        record.issuer == *self.issuer() && now < record.ends_at() && !self.is_denied(record)
    }

    /// Whether this sidecar knows of a denial that hits the record. Denials count by the more cautious clock: it is the
    /// store's that says whether the session is over, and one that is wrong here must not outlive a denial there.
    pub(super) fn is_denied(&self, record: &SessionRecord) -> bool {
        let marks = Marks {
            issuer: DenialKey::issuer(self.issuer()),
            subject: self.subject_key(&record.subject),
            token: None,
            session: Some(self.session_key(record.id)),
            logged_in_at: Some(record.created_at),
            claims_version: None,
        };
        self.denylist.judge(&marks, self.clock.now().purging).is_some()
    }

    /// A session's policy, while it is configured and still keeps records. One that is not has no say over tokens, so
    /// its sessions count as ended until it is configured again.
    pub(super) fn policy_of(&self, record: &SessionRecord) -> Option<&Arc<Policy>> {
        self.policies.find(&record.policy).filter(|policy| policy.keeps_records())
    }

    /// Puts what the store just denied in force here, without waiting for the feed. When the denylist is full nothing
    /// is accepted here anyway, and the feed brings the entry once there is room.
    pub(super) fn deny(&self, entry: &Entry, revision: Revision) {
        if self.denylist.insert_own(entry, revision).is_err() {
            tracing::warn!("the denylist is full; a denial waits for the feed");
        }
    }

    pub(super) fn require_records(&self) -> Result<(), SessionError> {
        if self.policies.keep_records() { Ok(()) } else { Err(SessionError::NoSessionsInPolicy) }
    }

    pub(super) fn require_denylist(&self, now: &Now) -> Result<(), SessionError> {
        let standing = self.denylist.standing(now);
        if !standing.loaded {
            Err(SessionError::NotLoaded)
        } else if standing.full {
            Err(SessionError::DenylistFull)
        } else {
            Ok(())
        }
    }
}
