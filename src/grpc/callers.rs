//! Who may call what. A pod's containers share loopback, so being able to connect proves nothing: a caller has only
//! the free calls until it shows a peer uid, a client certificate or a secret that the configuration names.

use crate::token::{Secret, TokenDigest};
use http::HeaderMap;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A right beyond the free calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// CreateSession.
    CreateSessions,
    /// GetSession and ListSessions.
    ReadSessions,
    /// UpdateSession.
    UpdateSessions,
    /// Revoke by session id.
    RevokeSession,
    /// Revoke by subject.
    RevokeSubject,
    /// Revoke by issuer.
    RevokeIssuer,
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 6] = [
        Self::CreateSessions,
        Self::ReadSessions,
        Self::UpdateSessions,
        Self::RevokeSession,
        Self::RevokeSubject,
        Self::RevokeIssuer,
    ];
}

/// How a caller proves who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The peer's user id on the Unix socket.
    Uid(u32),
    /// A URI or DNS name in the client certificate, to the letter.
    Certificate(String),
    /// `authorization: Bearer …` metadata. Kept as a digest.
    Secret(SecretDigest),
}

/// The digest of a caller's secret, compared in constant time.
#[derive(Clone)]
pub struct SecretDigest(TokenDigest);

impl SecretDigest {
    /// Digests a secret as its file holds it, without the newline at its end.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self(TokenDigest::of(secret.expose().trim_ascii_end()))
    }

    fn matches(&self, presented: &[u8]) -> bool {
        let presented = TokenDigest::of(presented);
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), presented.as_bytes()).is_ok()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

/// A named caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// For the audit log, and the default `client_id` of sessions it opens.
    pub name: Arc<str>,
    /// How it proves itself.
    pub proof: Proof,
    /// What it may do.
    pub rights: Vec<Right>,
}

/// What a connection says about its peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// On a Unix socket.
    pub uid: Option<u32>,
    /// URI and DNS names of a client certificate that was verified against the configured authority.
    pub certificate_names: Vec<String>,
    /// Cancelled when the connection is to end: its streams should, too.
    pub leaving: CancellationToken,
}

/// The callers this sidecar knows.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    named: Vec<Caller>,
    everyone: Option<Arc<str>>,
}

/// Not a caller with that right, or a wrong secret.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAllowed;

impl Callers {
    /// The configured callers.
    #[must_use]
    pub fn new(named: Vec<Caller>) -> Self {
        Self { named, everyone: None }
    }

    /// Everyone may do everything, under this name. For development.
    #[must_use]
    pub fn danger_everyone(name: &str) -> Self {
        Self { named: Vec::new(), everyone: Some(name.into()) }
    }

    /// The name of the caller, if it has the right.
    ///
    /// A presented secret decides alone: if it is wrong, a uid or certificate does not help.
    ///
    /// # Errors
    /// [`NotAllowed`].
    pub fn allow(&self, right: Right, peer: &Peer, headers: &HeaderMap) -> Result<Arc<str>, NotAllowed> {
        if let Some(name) = &self.everyone {
            return Ok(Arc::clone(name));
        }
        let mut presented = headers.get_all(http::header::AUTHORIZATION).iter();
        let secret = match (presented.next(), presented.next()) {
            (None, _) => None,
            (Some(one), None) => Some(bearer(one.as_bytes()).ok_or(NotAllowed)?),
            (Some(_), Some(_)) => return Err(NotAllowed),
        };
        let proven = |caller: &&Caller| match (&caller.proof, secret) {
            (Proof::Secret(digest), Some(secret)) => digest.matches(secret),
            (Proof::Uid(uid), None) => peer.uid == Some(*uid),
            (Proof::Certificate(name), None) => peer.certificate_names.contains(name),
            (Proof::Secret(_), None) | (Proof::Uid(_) | Proof::Certificate(_), Some(_)) => false,
        };
        self.named
            .iter()
            .filter(proven)
            .find(|caller| caller.rights.contains(&right))
            .map(|caller| Arc::clone(&caller.name))
            .ok_or(NotAllowed)
    }
}

/// The token of an RFC 6750 §2.1 header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> Callers {
        let secret = SecretDigest::of(&Secret::new(b"correct horse\n".to_vec()));
        Callers::new(vec![
            Caller { name: "user".into(), proof: Proof::Uid(1000), rights: vec![Right::CreateSessions] },
            Caller {
                name: "admin".into(),
                proof: Proof::Certificate("spiffe://example.com/admin".into()),
                rights: vec![Right::RevokeSubject],
            },
            Caller {
                name: "support".into(),
                proof: Proof::Secret(secret),
                rights: vec![Right::ReadSessions],
            },
        ])
    }

    fn with_authorization(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_proof_gives_its_own_rights_and_no_others() {
        let callers = callers();
        let nobody = Peer::default();
        let user = Peer { uid: Some(1000), ..Peer::default() };
        let admin = Peer { certificate_names: vec!["spiffe://example.com/admin".into()], ..Peer::default() };
        let none = HeaderMap::new();
        let support = with_authorization(&["Bearer correct horse"]);
        assert_eq!(callers.allow(Right::CreateSessions, &user, &none).as_deref(), Ok("user"));
        assert_eq!(callers.allow(Right::RevokeSubject, &admin, &none).as_deref(), Ok("admin"));
        assert_eq!(callers.allow(Right::ReadSessions, &nobody, &support).as_deref(), Ok("support"));
        assert_eq!(callers.allow(Right::RevokeSubject, &user, &none), Err(NotAllowed));
        for right in Right::ALL {
            assert_eq!(callers.allow(right, &nobody, &none), Err(NotAllowed));
        }
    }

    #[test]
    fn another_container_in_the_pod_is_nobody() {
        let other = Peer { uid: Some(1001), ..Peer::default() };
        assert_eq!(callers().allow(Right::CreateSessions, &other, &HeaderMap::new()), Err(NotAllowed));
    }

    #[test]
    fn a_wrong_secret_is_not_mended_by_a_right_uid() {
        let user = Peer { uid: Some(1000), ..Peer::default() };
        for bad in [
            &["Bearer wrong"][..],
            &["Basic correct horse"],
            &["Bearer "],
            &["Bearer correct horse "],
            &["Bearer correct horse", "Bearer correct horse"],
        ] {
            let headers = with_authorization(bad);
            assert_eq!(callers().allow(Right::CreateSessions, &user, &headers), Err(NotAllowed), "{bad:?}");
            assert_eq!(callers().allow(Right::ReadSessions, &user, &headers), Err(NotAllowed), "{bad:?}");
        }
    }
}
