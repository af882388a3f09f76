//! The nouns every room shares: digests, ids, revisions, and the stable reasons of a refusal.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// `iss`, compared as a string and never normalised (RFC 7519 §4.1.1).
pub type Issuer = Arc<str>;

/// Fills an array with randomness from the operating system.
///
/// # Errors
/// When the system has none to give, which on Linux happens only before early boot has finished.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    #[allow(clippy::disallowed_methods, reason = "the one home of randomness")]
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct NoRandomness;

/// SHA-256 of a credential: what caches are keyed by, so that they hold no usable token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Digests a credential.
    #[must_use]
    pub fn of(credential: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, credential);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Digests a credential together with the name it was found under, where it is good under that name alone.
    #[must_use]
    pub fn of_named(name: &str, credential: &[u8]) -> Self {
        // No text has this byte, so no credential by itself has such a digest.
        Self::of(&[&[0xff][..], &Self::of(credential).0, name.as_bytes()].concat())
    }

    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// The id of a session of our own: 128 random bits, written as 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Draws a new id.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn random() -> Result<Self, NoRandomness> {
        random_bytes().map(Self)
    }

    /// From its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The text is no session id of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 22 characters of base64url")]
pub struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadSessionId)?;
        Ok(Self(bytes.try_into().map_err(|_| BadSessionId)?))
    }
}

/// A position in the revocation log. Opaque on the wire, where it reads `epoch.seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Names the log's incarnation; a store that was recreated has another.
    pub epoch: u64,
    /// Counts entries from 1, without gaps; 0 is the empty log.
    pub seq: u64,
}

impl Revision {
    /// Whether holding `self` means holding everything up to `other`. Never across epochs.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.seq >= other.seq
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch, self.seq)
    }
}

/// The text is no revision.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a revision reads epoch.seq, as an earlier answer gave it")]
pub struct BadRevision;

impl FromStr for Revision {
    type Err = BadRevision;

    fn from_str(text: &str) -> Result<Self, BadRevision> {
        let (epoch, seq) = text.split_once('.').ok_or(BadRevision)?;
        let canonical = epoch.len() == 16
            && epoch.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && seq.bytes().all(|b| b.is_ascii_digit())
            && (seq == "0" || !seq.starts_with('0'));
        if !canonical {
            return Err(BadRevision);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| BadRevision)?,
            seq: seq.parse().map_err(|_| BadRevision)?,
        })
    }
}

/// A secret's bytes: erased when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one operation that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

macro_rules! reasons {
    ($($variant:ident => $name:literal, $doc:literal;)+) => {
        /// Why a credential was refused or a call not served. The names are stable and the same on the wire, in logs
        /// and in metrics; the proto's `Reason` documents each for callers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $doc] $variant,)+
        }

        impl Reason {
            /// Every reason, in the proto's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    Malformed => "MALFORMED", "Not well formed.";
    TooLarge => "TOO_LARGE", "Larger than accepted.";
    UnsupportedType => "UNSUPPORTED_TYPE", "A kind, `typ`, `crit` or serialization that is not accepted.";
    UnsupportedAlgorithm => "UNSUPPORTED_ALGORITHM", "`alg` not allowed for the issuer, or not the key's own.";
    UnknownIssuer => "UNKNOWN_ISSUER", "No such issuer is configured.";
    UnknownKey => "UNKNOWN_KEY", "The issuer's current key set has no such key, or more than one.";
    BadSignature => "BAD_SIGNATURE", "The signature does not verify.";
    Expired => "EXPIRED", "`exp` has passed.";
    NotYetValid => "NOT_YET_VALID", "`nbf` or `iat` lies in the future.";
    WrongAudience => "WRONG_AUDIENCE", "No accepted or demanded audience.";
    MissingClaim => "MISSING_CLAIM", "A required claim is absent.";
    InvalidClaim => "INVALID_CLAIM", "A claim has the wrong type or an impossible value.";
    Revoked => "REVOKED", "Taken back.";
    SessionEnded => "SESSION_ENDED", "The session is over.";
    SessionIdle => "SESSION_IDLE", "The session was unused for too long.";
    StaleClaims => "STALE_CLAIMS", "The session's attributes changed since.";
    RefreshReused => "REFRESH_REUSED", "A refresh token was used twice.";
    InsufficientScope => "INSUFFICIENT_SCOPE", "A demanded scope is missing.";
    CallerNotAllowed => "CALLER_NOT_ALLOWED", "This caller may not call this rpc.";
    KeysUnavailable => "KEYS_UNAVAILABLE", "The issuer's keys could not be fetched.";
    StoreUnavailable => "STORE_UNAVAILABLE", "The store did not answer.";
    TooStale => "TOO_STALE", "Confirmed longer ago than the policy bears.";
    NotFresh => "NOT_FRESH", "The demanded revision did not arrive in time.";
    NotLoaded => "NOT_LOADED", "The first denylist snapshot is not complete.";
    DenylistFull => "DENYLIST_FULL", "The denylist reached its cap.";
    NoSessionsInPolicy => "NO_SESSIONS_IN_POLICY", "No policy here keeps session records.";
    SessionLimit => "SESSION_LIMIT", "The subject has as many sessions as allowed.";
    TokenTooLarge => "TOKEN_TOO_LARGE", "The access token would exceed 4096 bytes.";
    NoSuchSession => "NO_SUCH_SESSION", "No such session.";
    Overloaded => "OVERLOADED", "Too many calls in flight.";
    BadCall => "BAD_CALL", "The call itself is malformed.";
    InternalError => "INTERNAL_ERROR", "A defect in countersign.";
    Inactive => "INACTIVE", "The issuer says that the token is not active.";
    IssuerUnavailable => "ISSUER_UNAVAILABLE", "The issuer's endpoint did not answer.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the holder of a refused credential should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing helps with this credential.
    None,
    /// Present the refresh token, then try again.
    Refresh,
    /// Log in again.
    Reauthenticate,
}

impl Action {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Refresh => "REFRESH",
            Self::Reauthenticate => "REAUTHENTICATE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_survives_the_wire() {
        let revision = Revision { epoch: 0x00ab, seq: 17 };
        assert_eq!(revision.to_string(), "00000000000000ab.17");
        assert_eq!(revision.to_string().parse(), Ok(revision));
    }

    #[test]
    fn a_revision_has_one_spelling() {
        for bad in [
            "",
            ".",
            "ab.1",
            "00000000000000AB.1",
            "00000000000000ab.01",
            "00000000000000ab.-1",
            "00000000000000ab.",
            "00000000000000ab.18446744073709551616",
            "+0000000000000ab.1",
        ] {
            assert_eq!(bad.parse::<Revision>(), Err(BadRevision), "{bad:?}");
        }
    }

    #[test]
    fn no_revision_covers_another_epoch() {
        assert!(!Revision { epoch: 1, seq: 9 }.covers(&Revision { epoch: 2, seq: 1 }));
        assert!(Revision { epoch: 1, seq: 9 }.covers(&Revision { epoch: 1, seq: 9 }));
    }

    #[test]
    fn a_session_id_has_one_spelling() {
        let id = SessionId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 22);
        assert!(format!("{id}=").parse::<SessionId>().is_err());
        assert!("BwcHBwcHBwcHBwcHBwcHBx".parse::<SessionId>().is_err(), "trailing bits must be zero");
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(…)");
    }
}
