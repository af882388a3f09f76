//! Opening a session.

use crate::clock::Timestamp;
use crate::revocation::DenialKey;
use crate::session::claims::Holder;
use crate::session::error::SessionError;
use crate::session::login::Login;
use crate::session::mint::Tokens;
use crate::session::policy::{Policy, Strategy};
use crate::session::record::SessionRecord;
use crate::session::sessions::Sessions;
use crate::session::store::{CreateOutcome, Created, NewSession};
use crate::token::{Revision, SessionId};

/// An opened session.
#[derive(Clone, Debug)]
pub struct Opened {
    /// As recorded; `None` under `jwt`, which keeps no record.
    pub record: Option<SessionRecord>,
    /// For the client.
    pub tokens: Tokens,
    /// The sessions ended to stay within the policy's limit.
    pub evicted: Vec<SessionId>,
    /// The log's head after the login.
    pub revision: Revision,
}

impl Sessions {
    /// Opens a session for a login, stamped by the store after every cut-off that came before it, and mints its
    /// tokens. Evicted sessions are denied here when this returns.
    ///
    /// # Errors
    /// [`SessionError::Invalid`], [`SessionError::TokenTooLarge`] and [`SessionError::LimitReached`] leave nothing
    /// recorded; after [`SessionError::Store`] it can't be known, and a session nobody holds tokens of goes idle.
    pub async fn create(&self, login: Login) -> Result<Opened, SessionError> {
        login.check()?;
        let policy = match &login.policy {
            None => self.policies.default_policy(),
            Some(name) => self
                .policies
                .find(name)
                .ok_or(SessionError::Invalid { field: "policy", why: "is not configured" })?,
        };
        let now = self.clock.now().judged;
        let id = SessionId::random()?;
        self.minter.check_size(policy, prospect(&login, policy, id, now), now)?;
        let new = self.new_session(login, policy, id, now);
        let Created { record, evicted, revision } = match self.store.create(new).await? {
            CreateOutcome::Created(created) => *created,
            CreateOutcome::LimitReached => return Err(SessionError::LimitReached),
        };
        for (_, entry) in &evicted {
            self.deny(entry, revision);
        }
        let tokens = self.minter.tokens(policy, &record, self.clock.now().judged)?;
        Ok(Opened {
            record: policy.keeps_records().then_some(record),
            tokens,
            evicted: evicted.into_iter().map(|(id, _)| id).collect(),
            revision,
        })
    }

    fn new_session(&self, login: Login, policy: &Policy, id: SessionId, now: Timestamp) -> NewSession {
        NewSession {
            id,
            issuer: self.issuer().clone(),
            subject_key: self.subject_key(&login.subject),
            issuer_key: DenialKey::issuer(self.issuer()),
            session_key: self.session_key(id),
            subject: login.subject,
            policy: policy.name().to_owned(),
            client_id: login.client_id,
            device: login.device,
            attributes: login.attributes,
            now,
            idle: policy.idle(),
            absolute: policy.absolute(),
            generation: u64::from(policy.strategy() == Strategy::Hybrid),
            limit: policy.limit(),
            recorded: policy.keeps_records(),
        }
    }
}

/// Whom the login's tokens will be for, before the store has stamped it.
fn prospect<'a>(login: &'a Login, policy: &Policy, id: SessionId, now: Timestamp) -> Holder<'a> {
    Holder {
        subject: &login.subject,
        client_id: &login.client_id,
        attributes: &login.attributes,
        session: policy.keeps_records().then_some((id, 1)),
        logged_in_at: now,
        absolute_end: now.after(policy.absolute()),
    }
}
