//! An accepted credential: signature and issuer policy passed. Time, demands and the denylist are judged on every call,
//! from here.

use crate::clock::Timestamp;
use crate::revocation::{DenialKey, Marks};
use crate::token::Issuer;
use crate::verify::policy::IssuerPolicy;
use std::borrow::Cow;
use std::fmt;

/// Which kind of credential it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signed JWT.
    Jwt,
    /// An opaque session token, judged by its session's record.
    SessionToken,
    /// An encrypted session cookie of Auth.js or NextAuth.
    AuthJsCookie,
    /// An opaque OAuth token, judged by its issuer's introspection endpoint.
    OpaqueToken,
    /// A session of Auth.js' strategy `database`, judged by its row in the application's table.
    AuthJsSession,
}

impl Kind {
    /// Whether such a credential is judged by what is read elsewhere: its answer ages.
    #[must_use]
    pub(super) const fn is_read(self) -> bool {
        matches!(self, Self::SessionToken | Self::OpaqueToken | Self::AuthJsSession)
    }

    /// Whether what is read is somebody else's: our denylist hears nothing of its changes.
    #[must_use]
    pub(super) const fn is_theirs(self) -> bool {
        matches!(self, Self::OpaqueToken | Self::AuthJsSession)
    }

    /// Whether it is its own refresh token, or has none: once it is refused nothing but a login brings another.
    #[must_use]
    pub(super) const fn is_refreshed_by_login_alone(self) -> bool {
        matches!(self, Self::AuthJsCookie | Self::AuthJsSession)
    }
}

/// What an accepted credential says. Borrows from the credential: what has to stay is made into an answer at once.
pub struct Accepted<'a> {
    pub(super) issuer: Issuer,
    pub(super) subject: Cow<'a, str>,
    pub(super) audiences: Vec<Cow<'a, str>>,
    pub(super) token_id: Option<Cow<'a, str>>,
    pub(super) session_id: Option<Cow<'a, str>>,
    pub(super) client_id: Option<Cow<'a, str>>,
    pub(super) scopes: Vec<Cow<'a, str>>,
    pub(super) roles: Vec<Cow<'a, str>>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    /// It has no end of its own: `expires_at` is when its issuer is asked again, and is not judged.
    pub(super) open_end: bool,
    pub(super) claims_json: Cow<'a, [u8]>,
    pub(super) kind: Kind,
    pub(super) refresh_after: Option<Timestamp>,
    /// The policy our own credentials name.
    pub(super) policy: Option<Cow<'a, str>>,
    /// The login it goes back to, for cut-offs.
    pub(super) logged_in_at: Option<Timestamp>,
    /// The version of its session's attributes, in our own credentials.
    pub(super) claims_version: Option<u64>,
    /// What was signed, of a JWT.
    pub(super) signing_input: Option<&'a str>,
}

impl fmt::Debug for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepted(…)")
    }
}

impl<'a> Accepted<'a> {
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
    pub fn audiences(&self) -> &[Cow<'a, str>] {
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
    pub fn scopes(&self) -> &[Cow<'a, str>] {
        &self.scopes
    }

    /// The roles held.
    #[must_use]
    pub fn roles(&self) -> &[Cow<'a, str>] {
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
    pub fn claims_json(&self) -> &[u8] {
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
    pub(super) fn marks(&self, policy: &IssuerPolicy) -> Marks {
        let issuer = policy.issuer();
        let token = match (&self.token_id, self.signing_input) {
            (Some(id), Some(_)) => Some(DenialKey::token_id(issuer, id)),
            (None, Some(input)) => Some(DenialKey::signing_input(issuer, input.as_bytes())),
            (_, None) => None,
        };
        Marks {
            issuer: policy.issuer_key(),
            subject: DenialKey::subject(issuer, &self.subject),
            token,
            session: self.session_id.as_deref().map(|session| DenialKey::session(issuer, session)),
            logged_in_at: self.logged_in_at,
            claims_version: self.claims_version,
        }
    }

    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}
