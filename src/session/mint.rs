//! Makes the tokens a client gets: a signed access token (RFC 9068) or an opaque session token, and the refresh token
//! that renews it.

use crate::clock::Timestamp;
use crate::keys::{HandleKeys, HandleKind, SigningKeys};
use crate::revocation::StoreError;
use crate::session::claims::{AccessClaims, Holder, Validity};
use crate::session::error::SessionError;
use crate::session::extra::Extra;
use crate::session::policy::{Policy, Strategy};
use crate::session::record::SessionRecord;
use crate::token::{Issuer, random_bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::sync::Arc;

/// The largest access token, in bytes: what browsers keep of a cookie (RFC 6265 §6.1).
pub const MAX_TOKEN_BYTES: usize = 4096;

/// What a client gets from a login or a refresh. `Debug` shows when the tokens end, never the tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// A JWT, or under `session` an opaque token.
    pub access_token: String,
    /// When the access token ends; never after its session's absolute end. Whole seconds for a JWT.
    pub access_expires_at: Timestamp,
    /// Under `hybrid` alone.
    pub refresh_token: Option<String>,
    /// When the refresh token ends if it is not used before.
    pub refresh_expires_at: Option<Timestamp>,
    /// When to renew.
    pub refresh_after: Option<Timestamp>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("access_expires_at", &self.access_expires_at)
            .field("refresh_expires_at", &self.refresh_expires_at)
            .finish_non_exhaustive()
    }
}

/// Makes tokens under one issuer's keys.
pub(super) struct Minter {
    pub(super) issuer: Issuer,
    pub(super) signing: Option<Arc<SigningKeys>>,
    pub(super) handles: Option<Arc<HandleKeys>>,
}

impl Minter {
    /// Refuses a holder whose access token would be too large, whatever its numbers. Signs one that nobody gets: how
    /// large a signature is depends on the key, and a key that can't sign is better found before the store is written.
    pub(super) fn check_size(
        &self,
        policy: &Policy,
        holder: Holder<'_>,
        now: Timestamp,
    ) -> Result<(), SessionError> {
        match policy.strategy() {
            Strategy::Session => Ok(()),
            Strategy::Jwt | Strategy::Hybrid => {
                self.access_token(policy, holder.at_its_longest(), now).map(drop)
            }
        }
    }

    /// The tokens of a session as its record stands.
    pub(super) fn tokens(
        &self,
        policy: &Policy,
        record: &SessionRecord,
        now: Timestamp,
    ) -> Result<Tokens, SessionError> {
        let opaque = |kind| {
            let handles = self.handles.as_ref().ok_or_else(no_keys)?;
            Ok::<_, SessionError>(handles.mint(kind, record.id, record.generation, now))
        };
        if policy.strategy() == Strategy::Session {
            return Ok(Tokens {
                access_token: opaque(HandleKind::Session)?,
                access_expires_at: record.ends_at(),
                refresh_token: None,
                refresh_expires_at: None,
                refresh_after: None,
            });
        }
        let (access_token, access_expires_at) = self.access_token(policy, Holder::of(record, policy), now)?;
        let renewed = policy.strategy() == Strategy::Hybrid;
        Ok(Tokens {
            access_token,
            access_expires_at,
            refresh_token: renewed.then(|| opaque(HandleKind::Refresh)).transpose()?,
            refresh_expires_at: renewed.then(|| record.ends_at()),
            refresh_after: renewed.then(|| access_expires_at.before(policy.renew_before()).max(now)),
        })
    }

    fn access_token(
        &self,
        policy: &Policy,
        holder: Holder<'_>,
        now: Timestamp,
    ) -> Result<(String, Timestamp), SessionError> {
        let unreadable = |_| SessionError::Store(StoreError::Corrupt("a session's further claims"));
        let extra = Extra::read(&holder.attributes.claims_json).map_err(unreadable)?;
        let validity = Validity::of(policy, &holder, now);
        let token_id = URL_SAFE_NO_PAD.encode(random_bytes::<16>()?);
        let claims = AccessClaims {
            issuer: &self.issuer,
            policy,
            holder,
            extra: &extra,
            token_id: Some(&token_id),
            validity,
        };
        let payload = serde_json::to_vec(&claims).map_err(|cause| SessionError::Mint(Box::new(cause)))?;
        let signing = self.signing.as_ref().ok_or_else(no_keys)?;
        let token = signing.sign(now, &payload).map_err(|cause| SessionError::Mint(Box::new(cause)))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(SessionError::TokenTooLarge);
        }
        Ok((token, validity.expires_at))
    }
}

/// Configuration sees to it that the keys a policy needs are there.
fn no_keys() -> SessionError {
    SessionError::Mint("the keys this policy's tokens need are not configured".into())
}
