//! Renewing a session's tokens (RFC 6749 §6, RFC 9700 §4.14.2).

use crate::keys::{Handle, HandleError, HandleKind};
use crate::revocation::StoreError;
use crate::session::error::SessionError;
use crate::session::mint::Tokens;
use crate::session::policy::Strategy;
use crate::session::record::SessionRecord;
use crate::session::rotation::{Decision, Rules};
use crate::session::sessions::Sessions;
use crate::token::{Reason, Revision, SessionId};
use std::sync::atomic::Ordering;

/// A renewed session.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// Which one.
    pub session: SessionId,
    /// A new access token, and the current refresh token.
    pub tokens: Tokens,
    /// The log's head when this was decided.
    pub revision: Revision,
}

impl Sessions {
    /// Exchanges a refresh token. Judged in this order: its MAC, this sidecar's denylist, then in the store's one
    /// write whether the session is there, its absolute end, its idle end, its generation; and what came of it by the
    /// denylist once more, now with subject and login known, so that no access token minted beside a revocation that
    /// this sidecar holds is handed out.
    ///
    /// # Errors
    /// [`SessionError::Denied`] when the token is no good: MALFORMED, UNKNOWN_KEY, BAD_SIGNATURE, UNSUPPORTED_TYPE (a
    /// session token), or REVOKED, SESSION_ENDED, SESSION_IDLE, REFRESH_REUSED, after which only a login helps.
    /// [`SessionError::NotLoaded`], [`SessionError::DenylistFull`] and [`SessionError::Store`] say nothing about the
    /// token: try again.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Renewed, SessionError> {
        let Handle { session, generation, .. } = self.open_refresh(refresh_token)?;
        let now = self.clock.now();
        self.require_denylist(&now)?;
        let session_key = self.session_key(session);
        if self.denylist.denies_session(session_key, now.purging) {
            return Err(SessionError::reauthenticate(Reason::Revoked));
        }
        let rules = self.rules_for(session).await?;
        let rotated = self.store.rotate(session, session_key, generation, rules, now.judged).await?;
        if let Some(entry) = &rotated.denied {
            self.deny(entry, rotated.revision);
        }
        let record = self.decided(session, rotated.decision, rotated.record)?;
        let tokens = self.renewed_tokens(&record)?;
        if self.is_denied(&record) {
            return Err(SessionError::reauthenticate(Reason::Revoked));
        }
        Ok(Renewed { session, tokens, revision: rotated.revision })
    }

    fn open_refresh(&self, token: &str) -> Result<Handle, SessionError> {
        let handles = self.minter.handles.as_ref();
        let handles = handles.ok_or(SessionError::denied(Reason::UnsupportedType))?;
        let handle = handles.open(token).map_err(|error| {
            SessionError::denied(match error {
                HandleError::Malformed => Reason::Malformed,
                HandleError::UnknownKey => Reason::UnknownKey,
                HandleError::BadMac => Reason::BadSignature,
            })
        })?;
        match handle.kind {
            HandleKind::Refresh => Ok(handle),
            HandleKind::Session => Err(SessionError::denied(Reason::UnsupportedType)),
        }
    }

    /// The session's policy's rules. Which policy that is never changes, so reading it first decides nothing; where
    /// all policies have the same rules it need not be read.
    async fn rules_for(&self, session: SessionId) -> Result<Rules, SessionError> {
        if let Some(grace) = self.policies.shared_grace() {
            return Ok(Rules { grace });
        }
        let (record, _) = self.store.find(session).await?;
        let record = record.ok_or(SessionError::ENDED)?;
        let policy = self.policy_of(&record).filter(|policy| policy.strategy() == Strategy::Hybrid);
        Ok(Rules { grace: policy.ok_or(SessionError::ENDED)?.grace() })
    }

    fn decided(
        &self,
        session: SessionId,
        decision: Decision,
        record: Option<SessionRecord>,
    ) -> Result<SessionRecord, SessionError> {
        match decision {
            Decision::Rotate { .. } | Decision::Repeat { .. } => {}
            Decision::FastForward { .. } => {
                self.fast_forwards.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%session, "the store is behind a refresh token: it went back in time");
            }
            Decision::Reused => {
                tracing::warn!(%session, "a refresh token was used twice; its session is revoked");
                return Err(SessionError::reauthenticate(Reason::RefreshReused));
            }
            Decision::Ended | Decision::Missing => return Err(SessionError::ENDED),
            Decision::Idle => return Err(SessionError::reauthenticate(Reason::SessionIdle)),
        }
        record.ok_or(SessionError::Store(StoreError::Corrupt("a rotated session")))
    }

    fn renewed_tokens(&self, record: &SessionRecord) -> Result<Tokens, SessionError> {
        let policy = self.policy_of(record).filter(|policy| policy.strategy() == Strategy::Hybrid);
        let Some(policy) = policy.filter(|_| record.issuer == *self.issuer()) else {
            tracing::warn!(policy = record.policy, "a session's policy no longer has refresh tokens here");
            return Err(SessionError::ENDED);
        };
        self.minter.tokens(policy, record, self.clock.now().judged)
    }
}
