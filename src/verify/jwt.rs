//! Signed JWTs, in three types: [`Unverified`] says only which issuer and key to try; [`Signed`] passed a signature;
//! [`Accepted`] passed the issuer's policy, too, and is all that leaves this room.

use crate::clock::Timestamp;
use crate::keys::{Algorithm, VerifyingKey};
use crate::revocation::DenialKey;
use crate::token::Reason;
use crate::verify::accepted::{Accepted, Kind};
use crate::verify::authjs::renew_at;
use crate::verify::claims::{ClaimPath, instant, number, scopes, text, texts};
use crate::verify::clerk::{self, Granted};
use crate::verify::compact::Decoded;
use crate::verify::json::{self, Json, Object};
use crate::verify::policy::{Dialect, IssuerPolicy, MAX_LEEWAY};
use crate::verify::refusal::Denied;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A longer `jti`, session id or subject names nothing we would keep.
const MAX_IDENTIFIER: usize = 1024;

/// A token that is well formed. Nothing it says may be believed.
#[derive(Debug)]
pub struct Unverified<'d> {
    decoded: &'d Decoded<'d>,
    claims: Object<'d>,
}

impl<'d> Unverified<'d> {
    /// Reads header and claims, strictly, once.
    ///
    /// # Errors
    /// MALFORMED, UNSUPPORTED_ALGORITHM, UNSUPPORTED_TYPE; MISSING_CLAIM or INVALID_CLAIM for `iss`.
    pub fn parse(decoded: &'d Decoded<'d>) -> Result<Self, Denied> {
        let claims = json::parse(&decoded.payload)
            .map_err(|_| Denied::new(Reason::Malformed, "the claims are not one strict JSON object"))?;
        Ok(Self { decoded, claims })
    }

    /// `iss`, to choose the keys by.
    ///
    /// # Errors
    /// MISSING_CLAIM, INVALID_CLAIM.
    pub fn issuer(&self) -> Result<&str, Denied> {
        match self.claims.get("iss") {
            None => Err(Denied::new(Reason::MissingClaim, "there is no iss")),
            Some(value) => value.as_text().ok_or(Denied::new(Reason::InvalidClaim, "iss is not text")),
        }
    }

    /// `kid`.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.decoded.header.key_id.as_deref()
    }

    /// `alg`.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.decoded.header.algorithm
    }

    /// `alg` and `typ` against the issuer's policy, before any key is looked up.
    ///
    /// # Errors
    /// UNSUPPORTED_ALGORITHM, UNSUPPORTED_TYPE.
    pub fn check_header(&self, policy: &IssuerPolicy) -> Result<(), Denied> {
        if !policy.allows(self.decoded.header.algorithm) {
            return Err(Denied::new(Reason::UnsupportedAlgorithm, "alg is not allowed for this issuer"));
        }
        if !policy.allows_type(self.decoded.header.token_type.as_deref()) {
            return Err(Denied::new(Reason::UnsupportedType, "typ is not accepted for this issuer"));
        }
        Ok(())
    }

    /// Checks the signature with a key of the issuer's.
    ///
    /// # Errors
    /// UNSUPPORTED_ALGORITHM where the key is for another one, BAD_SIGNATURE.
    pub fn check_signature(self, key: &VerifyingKey) -> Result<Signed<'d>, Denied> {
        if key.algorithm() != self.decoded.header.algorithm {
            return Err(Denied::new(Reason::UnsupportedAlgorithm, "alg is not the key's own"));
        }
        if key.verify(self.decoded.signing_input.as_bytes(), &self.decoded.signature) {
            Ok(Signed {
                signing_input: self.decoded.signing_input,
                payload: &self.decoded.payload,
                claims: self.claims,
                kind: Kind::Jwt,
                ends_at: None,
            })
        } else {
            Err(Denied::new(Reason::BadSignature, "the signature does not verify"))
        }
    }
}

/// A token whose signature is good, or that a key of its issuer's decrypted. Whether it is accepted is the issuer's
/// policy's to say.
pub struct Signed<'d> {
    signing_input: &'d str,
    payload: &'d [u8],
    claims: Object<'d>,
    kind: Kind,
    /// When it ends where it doesn't say: an opaque token's answer, which is then asked for again.
    ends_at: Option<Timestamp>,
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signed(…)")
    }
}

impl<'d> Signed<'d> {
    /// A cookie's content, after a key of its issuer's opened it.
    ///
    /// # Errors
    /// MALFORMED.
    pub(super) fn decrypted(cookie: &'d str, payload: &'d [u8]) -> Result<Self, Denied> {
        let claims = json::parse(payload)
            .map_err(|_| Denied::new(Reason::Malformed, "the claims are not one strict JSON object"))?;
        Ok(Self { signing_input: cookie, payload, claims, kind: Kind::AuthJsCookie, ends_at: None })
    }

    /// Shows this in an answer, in place of the whole.
    pub(super) fn show(&mut self, shown: &'d [u8]) {
        self.payload = shown;
    }

    /// How long it was issued for; where it doesn't say since when, how long it still lives.
    pub(super) fn life(&self, now: Timestamp) -> Option<Duration> {
        let expires_at = instant(self.claims.get("exp"), "").ok().flatten()?;
        let issued_at = instant(self.claims.get("iat"), "").ok().flatten().unwrap_or(now);
        Some(expires_at.since(issued_at))
    }

    /// What an issuer says of an opaque token that is active.
    pub(super) fn introspected(
        token: &'d str,
        payload: &'d [u8],
        claims: Object<'d>,
        ends_at: Timestamp,
    ) -> Self {
        Self { signing_input: token, payload, claims, kind: Kind::OpaqueToken, ends_at: Some(ends_at) }
    }

    /// What a row of a session table says of its token.
    pub(super) fn of_row(token: &'d str, payload: &'d [u8], claims: Object<'d>) -> Self {
        Self { signing_input: token, payload, claims, kind: Kind::AuthJsSession, ends_at: None }
    }

    /// The session a credential that stands for a whole session names.
    pub(super) fn session_id(&self, policy: &IssuerPolicy) -> Option<String> {
        text(policy.paths().session.find(&self.claims), "").ok().flatten().map(Cow::into_owned)
    }

    /// What denies this token, and until when: by `jti`, or without one by its signing input. `None` where it says no
    /// usable expiry; such a token is never accepted.
    ///
    /// The rest of the issuer's policy is not asked, and the leeway is the largest there is: another sidecar may accept
    /// what this one would not (any more).
    #[must_use]
    pub fn denial(&self, policy: &IssuerPolicy) -> Option<(DenialKey, Timestamp)> {
        let expires_at = instant(self.claims.get("exp"), "").ok().flatten()?;
        let token_id = text(self.claims.get("jti"), "").ok()?;
        Some((self.token_key(policy, token_id.as_deref()), expires_at.after(MAX_LEEWAY)))
    }

    /// What denies this token whatever it says of its end.
    pub(super) fn key(&self, policy: &IssuerPolicy) -> Option<DenialKey> {
        let token_id = text(self.claims.get("jti"), "").ok()?;
        Some(self.token_key(policy, token_id.as_deref()))
    }

    fn token_key(&self, policy: &IssuerPolicy, token_id: Option<&str>) -> DenialKey {
        match token_id {
            Some(id) => DenialKey::token_id(policy.issuer(), id),
            None => DenialKey::signing_input(policy.issuer(), self.signing_input.as_bytes()),
        }
    }

    /// Holds the claims against the issuer's policy: types, presence, audience, and the lifetime of a token with `iat`.
    /// What depends on the time is judged on every call.
    ///
    /// # Errors
    /// MISSING_CLAIM, INVALID_CLAIM, WRONG_AUDIENCE.
    pub fn judge(self, policy: &IssuerPolicy) -> Result<Accepted<'d>, Denied> {
        let claims = &self.claims;
        let paths = policy.paths();
        // An application writes its users' rows into its cookies, and columns without a value are `null` there.
        let is_of_application = matches!(self.kind, Kind::AuthJsCookie | Kind::AuthJsSession);
        let is_there = |value: &&Json<'_>| !is_of_application || !matches!(value, Json::Null);
        let missing = |detail| Denied::new(Reason::MissingClaim, detail);
        text(claims.get("sub"), "sub is not text")?;
        let subject = identifier(text(paths.subject.find(claims), "the subject is not text")?)?;
        let subject = subject.ok_or(missing("there is no subject"))?;
        let audiences = match self.kind {
            Kind::Jwt | Kind::SessionToken => audiences(claims, policy, policy.allows_missing_audience())?,
            // The issuer answers whoever it trusts with the token; `aud` is optional (RFC 7662 §2.2).
            Kind::OpaqueToken => audiences(claims, policy, true)?,
            // Auth.js names nobody: its sessions are for whoever the configuration says.
            Kind::AuthJsCookie | Kind::AuthJsSession => {
                policy.audiences().iter().map(|name| Cow::Owned(name.clone())).collect()
            }
        };
        let told_end = instant(claims.get("exp"), "exp is no NumericDate")?;
        let expires_at = told_end.or(self.ends_at);
        let expires_at = expires_at.ok_or(missing("there is no exp"))?;
        let issued_at = instant(claims.get("iat"), "iat is no NumericDate")?;
        let not_before = instant(claims.get("nbf"), "nbf is no NumericDate")?;
        if let (Some(issued_at), None) = (issued_at, self.ends_at) {
            check_life(policy, issued_at, expires_at)?;
        }
        if policy.required().iter().any(|name| claims.get(name).is_none()) {
            return Err(missing("a claim this issuer's tokens must have is missing"));
        }
        let token_id = identifier(text(claims.get("jti"), "jti is not text")?)?;
        let session_id =
            identifier(text(paths.session.find(claims).filter(is_there), "the session is not text")?)?;
        let party = text(claims.get("azp").filter(is_there), "azp is not text")?;
        check_party(policy, party.as_deref())?;
        let client = paths.client.iter().find_map(|path| path.find(claims).filter(is_there));
        let client_id = text(client, "the client is not text")?.or(party);
        let granted = match policy.dialect() {
            Dialect::Plain => Granted::default(),
            Dialect::Clerk => clerk::granted(claims)?,
        };
        let found = |paths: &[ClaimPath]| -> Vec<&Json<'d>> {
            paths.iter().filter_map(|path| path.find(claims).filter(is_there)).collect()
        };
        let own = Own::read(claims, policy)?;
        let logged_in_at = match own.logged_in_at {
            Some(at) => Some(at),
            None => foreign_login(claims, policy, issued_at, is_there)?,
        };
        Ok(Accepted {
            issuer: Arc::clone(policy.issuer()),
            subject,
            audiences,
            token_id,
            session_id,
            client_id,
            scopes: united(found(&paths.scopes), granted.permissions, |value| {
                scopes(Some(value), "scopes are not text or an array of texts")
            })?,
            roles: united(found(&paths.roles), granted.roles, |value| {
                Ok(texts(Some(value), "roles are not text or an array of texts")?.unwrap_or_default())
            })?,
            issued_at,
            not_before,
            expires_at,
            open_end: told_end.is_none(),
            claims_json: Cow::Borrowed(self.payload),
            kind: self.kind,
            refresh_after: told_end.map(|end| match (self.kind, issued_at) {
                (Kind::AuthJsCookie, Some(issued_at)) => renew_at(issued_at, end, policy.renew_before()),
                _ => end.before(policy.renew_before()),
            }),
            policy: own.policy,
            logged_in_at,
            claims_version: own.claims_version,
            signing_input: Some(self.signing_input),
        })
    }
}

fn audiences<'a>(
    claims: &Object<'a>,
    policy: &IssuerPolicy,
    may_miss: bool,
) -> Result<Vec<Cow<'a, str>>, Denied> {
    let audiences = texts(claims.get("aud"), "aud is not text or an array of texts")?;
    let Some(audiences) = audiences else {
        return if may_miss {
            Ok(policy.audiences().iter().map(|name| Cow::Owned(name.clone())).collect())
        } else {
            Err(Denied::new(Reason::MissingClaim, "there is no aud"))
        };
    };
    if policy.accepts_audience(&audiences) {
        Ok(audiences)
    } else {
        Err(Denied::new(Reason::WrongAudience, "aud names none of the accepted audiences"))
    }
}

/// Whether the site a token was made at is one of those that may hold it.
fn check_party(policy: &IssuerPolicy, party: Option<&str>) -> Result<(), Denied> {
    let allowed = policy.authorized_parties();
    match party {
        _ if allowed.is_empty() => Ok(()),
        None => Err(Denied::new(Reason::MissingClaim, "there is no azp")),
        Some(party) if allowed.iter().any(|allowed| allowed == party) => Ok(()),
        Some(_) => Err(Denied::new(Reason::WrongAudience, "azp is none of the authorized parties")),
    }
}

/// What stands at several places, each name once.
fn united<'a>(
    found: Vec<&Json<'a>>,
    mut names: Vec<Cow<'a, str>>,
    read: impl Fn(&Json<'a>) -> Result<Vec<Cow<'a, str>>, Denied>,
) -> Result<Vec<Cow<'a, str>>, Denied> {
    let mut found = found.into_iter();
    if names.is_empty() {
        names = found.next().map(&read).transpose()?.unwrap_or_default();
    }
    for value in found {
        for name in read(value)? {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Whether a token's life, from one instant to the other, is one that its issuer's tokens may have.
fn check_life(policy: &IssuerPolicy, issued_at: Timestamp, expires_at: Timestamp) -> Result<(), Denied> {
    if expires_at < issued_at {
        return Err(Denied::new(Reason::InvalidClaim, "exp lies before iat"));
    }
    if expires_at.since(issued_at) > policy.max_lifetime() {
        return Err(Denied::new(Reason::InvalidClaim, "it lives longer than this issuer's tokens may"));
    }
    Ok(())
}

/// The login a foreign token goes back to: by the configured claim, else `auth_time`, else `iat`.
fn foreign_login(
    claims: &Object<'_>,
    policy: &IssuerPolicy,
    issued_at: Option<Timestamp>,
    is_there: impl Fn(&&Json<'_>) -> bool,
) -> Result<Option<Timestamp>, Denied> {
    let configured = policy.paths().login.as_ref().and_then(|path| path.find(claims)).filter(is_there);
    let login = match instant(configured, "the login instant is no NumericDate")? {
        Some(at) => Some(at),
        None => instant(claims.get("auth_time"), "auth_time is no NumericDate")?,
    };
    let login = match policy.dialect() {
        Dialect::Clerk => login.or_else(|| clerk::login(claims, issued_at)),
        Dialect::Plain => login,
    };
    // Nobody logs in after the token was made: a later login would only dodge cut-offs.
    Ok(match (login, issued_at) {
        (Some(login), Some(issued_at)) => Some(login.min(issued_at)),
        (login, issued_at) => login.or(issued_at),
    })
}

/// What only our own tokens say.
#[derive(Default)]
struct Own<'a> {
    policy: Option<Cow<'a, str>>,
    logged_in_at: Option<Timestamp>,
    claims_version: Option<u64>,
}

impl<'a> Own<'a> {
    fn read(claims: &Object<'a>, policy: &IssuerPolicy) -> Result<Self, Denied> {
        if !policy.is_own() {
            return Ok(Self::default());
        }
        Ok(Self {
            policy: text(claims.get("pol"), "pol is not text")?,
            logged_in_at: number(claims.get("sct"), "sct is no number")?.map(Timestamp::from_millis),
            claims_version: number(claims.get("sav"), "sav is no number")?,
        })
    }
}

fn identifier(name: Option<Cow<'_, str>>) -> Result<Option<Cow<'_, str>>, Denied> {
    match name {
        Some(name) if name.len() > MAX_IDENTIFIER => {
            Err(Denied::new(Reason::InvalidClaim, "an identifier is longer than 1024 bytes"))
        }
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests;
