//! Opaque session tokens (`css_…`), and sessions read where a fully consistent answer needs them.
//!
//! A session token says nothing by itself: its session's record does. The record may be answered from memory while the
//! denylist, which hears of every end and every change of a session, is fresh; but expiry and idleness move with use,
//! so "over" is only ever said after a read.

use crate::clock::{Now, Timestamp};
use crate::keys::{HandleError, HandleKind};
use crate::revocation::{Denial, DenialKey, StoreError};
use crate::token::{Action, Issuer, Reason, Revision, SessionId, TokenDigest};
use crate::verify::acceptance::Read;
use crate::verify::refusal::Denied;
use crate::verify::verifier::{denied, undecided};
use crate::verify::{Acceptance, Accepted, Kind, Refusal, SessionTokenSettings, Verifier};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A live session, as verification needs it.
#[derive(Clone)]
pub struct LiveSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub subject: String,
    /// The policy it lives under.
    pub policy: String,
    /// The client that opened it.
    pub client_id: String,
    /// Whom its tokens are meant for.
    pub audiences: Vec<String>,
    /// The scopes granted now.
    pub scopes: Vec<String>,
    /// The roles held now.
    pub roles: Vec<String>,
    /// The claims a JWT of this session would carry now, as JSON.
    pub claims_json: Vec<u8>,
    /// The login.
    pub created_at: Timestamp,
    /// The earlier of idle and absolute end.
    pub expires_at: Timestamp,
    /// From here on its activity has to be written again.
    pub touch_at: Timestamp,
    /// The version its attributes are at.
    pub claims_version: u64,
}

/// What a read found.
#[derive(Clone)]
pub enum SessionState {
    /// Live.
    Live(Box<LiveSession>),
    /// Ended, purged, or never there.
    Ended,
    /// Unused for too long.
    Idle,
}

/// A read of a session, and the log's head at the time.
pub struct Reading {
    /// What was found.
    pub state: SessionState,
    /// Read together with it, on the primary.
    pub head: Revision,
}

/// Where sessions are read.
#[tonic::async_trait]
pub trait SessionReader: Send + Sync + std::fmt::Debug + 'static {
    /// Reads a session from the primary now. With `touch`, its activity is written first if that is due.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn read(&self, id: SessionId, touch: bool) -> Result<Reading, StoreError>;
}

impl SessionTokenSettings {
    /// The session a credential names, if it is a session token at all.
    pub(super) fn session_of(&self, token: &str) -> Option<Result<SessionId, Denied>> {
        let kind = HandleKind::of(token)?;
        let opened = match self.handles.open(token) {
            _ if kind == HandleKind::Refresh => {
                Err((Reason::UnsupportedType, "a refresh token is for Refresh alone"))
            }
            Ok(handle) => Ok(handle.session),
            Err(HandleError::Malformed) => Err((Reason::Malformed, "not a session token's layout")),
            Err(HandleError::UnknownKey) => {
                Err((Reason::UnknownKey, "made by a key that is not configured here"))
            }
            Err(HandleError::BadMac) => Err((Reason::BadSignature, "tampered with")),
        };
        Some(opened.map_err(|(reason, detail)| Denied::new(reason, detail)))
    }
}

impl Verifier {
    /// Whether an acceptance from a session's record, or an issuer's word, may be answered from memory: not over, no activity to be written,
    /// read no longer ago than its policy's staleness bound, and no attributes changed since.
    pub(super) fn reading_counts(&self, acceptance: &Acceptance, now: &Now) -> bool {
        acceptance.read.is_some_and(|read| {
            now.judged < acceptance.expires_at
                && now.judged < read.touch_at
                && now.elapsed.saturating_sub(read.at) <= acceptance.freshness.bound.min(read.lasts)
                // A session token is not refreshed: what changed is read instead.
                && self.denylist.judge(&acceptance.marks, now.judged) != Some(Denial::StaleClaims)
        })
    }

    /// Reads a session token's session from the store and keeps what it says. Goes to the log's head at the same time:
    /// what a store that went back in time forgot may still be held by others.
    pub(super) async fn read_session(
        &self,
        token: &str,
        digest: TokenDigest,
        patience: Duration,
    ) -> Result<Arc<Acceptance>, Refusal> {
        let Some(tokens) = &self.session_tokens else {
            return Err(denied(Reason::UnsupportedType, Action::None, None));
        };
        let generation = tokens.handles.generation();
        let id = match tokens.session_of(token) {
            Some(Ok(id)) => id,
            Some(Err(refusal)) => return Err(denied(refusal.reason, refusal.action(), None)),
            None => return Err(denied(Reason::Malformed, Action::None, None)),
        };
        let Some(entry) = self.issuers.get(&tokens.issuer) else {
            return Err(denied(Reason::UnknownIssuer, Action::None, None));
        };
        let asked_at = self.clock.now().elapsed;
        let (reading, reached) = tokio::join!(tokens.reader.read(id, true), self.feed.reach_head(patience));
        let reading = reading.map_err(|error| store_failed(&error))?;
        reached.map_err(|_| undecided(Reason::StoreUnavailable, None))?;
        match reading.state {
            SessionState::Live(session) => {
                let read = Read { at: asked_at, touch_at: session.touch_at, lasts: Duration::MAX };
                Ok(self.keep(accepted(*session, &tokens.issuer), digest, entry, generation, Some(read)))
            }
            SessionState::Ended => Err(self.ended(&tokens.issuer, id)),
            SessionState::Idle => Err(Refusal::Denied {
                reason: Reason::SessionIdle,
                action: Action::Reauthenticate,
                issuer: Some(Arc::clone(&tokens.issuer)),
            }),
        }
    }

    /// Over: revoked if the denylist knows it, else ended.
    fn ended(&self, issuer: &Issuer, id: SessionId) -> Refusal {
        let key = DenialKey::session(issuer, &id.to_string());
        let revoked = self.denylist.denies_session(key, self.clock.now().judged);
        let reason = if revoked { Reason::Revoked } else { Reason::SessionEnded };
        Refusal::Denied { reason, action: Action::Reauthenticate, issuer: Some(Arc::clone(issuer)) }
    }

    /// Brings a JWT's answer to the store's present: its session's state, where it has one of ours, and the log's head.
    /// `Some` is why the session denies it.
    pub(super) async fn ask_store(
        &self,
        acceptance: &Acceptance,
        patience: Duration,
    ) -> Result<Option<(Reason, Action)>, Refusal> {
        let out_of_reach = |_| undecided(Reason::StoreUnavailable, Some(acceptance));
        let (Some(id), Some(reader)) = (acceptance.session, &self.sessions) else {
            return self.feed.reach_head(patience).await.map(|()| None).map_err(out_of_reach);
        };
        let (reading, reached) = tokio::join!(reader.read(id, false), self.feed.reach_head(patience));
        reached.map_err(out_of_reach)?;
        Ok(match reading.map_err(|error| store_failed(&error))?.state {
            SessionState::Ended => Some((Reason::SessionEnded, Action::Reauthenticate)),
            SessionState::Idle => Some((Reason::SessionIdle, Action::Reauthenticate)),
            SessionState::Live(session) => {
                let stale =
                    acceptance.marks.claims_version.is_some_and(|version| version < session.claims_version);
                stale.then_some((Reason::StaleClaims, Action::Refresh))
            }
        })
    }
}

/// A live session as an accepted credential: no `jti` of its own, because its token is its session's name.
fn accepted(session: LiveSession, issuer: &Issuer) -> Accepted<'static> {
    let owned = |names: Vec<String>| names.into_iter().map(Cow::Owned).collect();
    Accepted {
        issuer: Arc::clone(issuer),
        subject: Cow::Owned(session.subject),
        audiences: owned(session.audiences),
        token_id: None,
        session_id: Some(Cow::Owned(session.id.to_string())),
        client_id: Some(Cow::Owned(session.client_id)),
        scopes: owned(session.scopes),
        roles: owned(session.roles),
        issued_at: Some(session.created_at),
        not_before: None,
        expires_at: session.expires_at,
        open_end: false,
        claims_json: Cow::Owned(session.claims_json),
        kind: Kind::SessionToken,
        refresh_after: None,
        policy: Some(Cow::Owned(session.policy)),
        logged_in_at: Some(session.created_at),
        claims_version: Some(session.claims_version),
        signing_input: None,
    }
}

fn store_failed(error: &StoreError) -> Refusal {
    tracing::warn!(error = error as &dyn std::error::Error, "a session could not be read");
    undecided(Reason::StoreUnavailable, None)
}

#[cfg(test)]
mod tests;
