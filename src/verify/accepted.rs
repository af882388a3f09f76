//! An accepted credential: signature and issuer policy passed. Time, demands and the denylist are judged on every call,
//! from here.

use crate::clock::Timestamp;
use crate::revocation::Marks;
use crate::token::Issuer;
use bytes::Bytes;
use std::fmt;

/// Which kind of credential it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signed JWT.
    Jwt,
    /// An opaque session token, judged by its session's record.
    SessionToken,
}

/// What an accepted credential says.
pub struct Accepted {
    pub(super) issuer: Issuer,
    pub(super) subject: String,
    pub(super) audiences: Vec<String>,
    pub(super) token_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) roles: Vec<String>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) claims_json: Bytes,
    pub(super) kind: Kind,
    pub(super) refresh_after: Option<Timestamp>,
    /// The policy our own credentials name.
    pub(super) policy: Option<String>,
    pub(super) marks: Marks,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepted(…)")
    }
}

impl Accepted {
    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `aud`.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The session it belongs to.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// The client it was made for.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The scopes granted.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The roles held.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// `nbf`.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// `exp`; of a session token the earlier of idle and absolute end.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The claims as the issuer wrote them.
    #[must_use]
    pub fn claims_json(&self) -> &Bytes {
        &self.claims_json
    }

    /// Which kind of credential it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When a client should renew.
    #[must_use]
    pub fn refresh_after(&self) -> Option<Timestamp> {
        self.refresh_after
    }

    /// What it is matched with the denylist by.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}
