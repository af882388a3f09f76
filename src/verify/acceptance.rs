//! What is kept of an accepted credential: the answer made of it, once, and what every call is judged by. Small, because
//! a hundred thousand of them are kept.

use crate::clock::Timestamp;
use crate::revocation::Marks;
use crate::token::{Issuer, Reason, SessionId, TokenDigest};
use crate::verify::accepted::{Accepted, Kind};
use crate::verify::refusal::Denied;
use crate::verify::{Freshness, IssuerEntry};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Makes the part of an answer that stays the same from call to call. The edge gives it: what it means is its business.
#[derive(Clone)]
pub struct Encode {
    /// Of an accepted credential.
    pub answer: for<'a> fn(&Accepted<'a>) -> Vec<u8>,
    /// Of that answer, as a proxy is told it; where proxies are answered.
    pub for_proxies: Option<EncodeForProxies>,
}

/// Makes of an answer what a proxy is told.
pub type EncodeForProxies = Arc<dyn Fn(&[u8]) -> Box<[u8]> + Send + Sync>;

/// How long a session's record, once read, answers from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// When it was asked for, by the clock that never steps.
    pub(super) at: Duration,
    /// From here on its activity has to be written again.
    pub(super) touch_at: Timestamp,
    /// At most this long, however long the policy bears.
    pub(super) lasts: Duration,
}

/// An accepted credential as it is kept, with what it was accepted under.
pub struct Acceptance {
    pub(super) digest: TokenDigest,
    pub(super) issuer: Arc<IssuerEntry>,
    /// The issuer's key set, or the keys of session tokens, at the time.
    pub(super) generation: u64,
    pub(super) freshness: Arc<Freshness>,
    pub(super) marks: Marks,
    pub(super) kind: Kind,
    /// The session it belongs to, where that is one of ours.
    pub(super) session: Option<SessionId>,
    /// For what is judged by a read.
    pub(super) read: Option<Read>,
    pub(super) expires_at: Timestamp,
    /// The later of `nbf` and `iat`. Without `iat` as long before its end as its issuer's tokens may live: it can't have
    /// been issued earlier.
    valid_from: Timestamp,
    answer: Box<[u8]>,
    /// The same as proxies are told it; empty where none is answered here.
    told_to_proxies: Box<[u8]>,
    /// Audiences, then scopes.
    granted: Box<[Box<str>]>,
    audiences: usize,
}

impl fmt::Debug for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptance(…)")
    }
}

impl Acceptance {
    pub(super) fn new(
        accepted: &Accepted<'_>,
        encode: &Encode,
        digest: TokenDigest,
        issuer: &Arc<IssuerEntry>,
        generation: u64,
        freshness: &Arc<Freshness>,
        read: Option<Read>,
    ) -> Self {
        let own = issuer.settings.policy.is_own();
        let granted = accepted.audiences.iter().chain(&accepted.scopes);
        let longest = issuer.settings.policy.max_lifetime();
        // An opaque token is asked about again and again: how long it lives is its issuer's business.
        let earliest = match accepted.kind {
            Kind::OpaqueToken | Kind::AuthJsSession => Timestamp::default(),
            Kind::Jwt | Kind::SessionToken | Kind::AuthJsCookie => accepted.expires_at.before(longest),
        };
        let issued_at = accepted.issued_at.unwrap_or(earliest);
        let answer = (encode.answer)(accepted);
        Self {
            digest,
            generation,
            freshness: Arc::clone(freshness),
            kind: accepted.kind,
            session: accepted.session_id.as_deref().filter(|_| own).and_then(|id| id.parse().ok()),
            read,
            expires_at: if accepted.open_end { Timestamp::MAX } else { accepted.expires_at },
            valid_from: accepted.not_before.unwrap_or_default().max(issued_at),
            told_to_proxies: encode.for_proxies.as_ref().map(|tell| tell(&answer)).unwrap_or_default(),
            answer: answer.into(),
            granted: granted.map(|name| (**name).into()).collect(),
            audiences: accepted.audiences.len(),
            marks: accepted.marks(&issuer.settings.policy),
            issuer: Arc::clone(issuer),
        }
    }

    /// The answer, as it was encoded when the credential was accepted.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// The answer as proxies are told it, encoded when the credential was accepted.
    #[must_use]
    pub fn told_to_proxies(&self) -> &[u8] {
        &self.told_to_proxies
    }

    /// Whose credential it is.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        self.issuer.settings.policy.issuer()
    }

    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let granted: usize = self.granted.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        size_of::<Self>() + self.answer.len() + self.told_to_proxies.len() + granted
    }

    /// `exp`, `nbf` and `iat` against the time, with the issuer's leeway. A session token has none: its record's times
    /// are our own. Nor is it ever too young: the sidecar that opened the session may have a clock ahead of this one.
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Denied> {
        let leeway = match self.kind {
            Kind::Jwt | Kind::AuthJsCookie | Kind::OpaqueToken => self.issuer.settings.policy.leeway(),
            Kind::SessionToken | Kind::AuthJsSession if now < self.expires_at => return Ok(()),
            Kind::SessionToken | Kind::AuthJsSession => {
                return Err(Denied::new(Reason::SessionEnded, "its session is over"));
            }
        };
        if now >= self.expires_at.after(leeway) {
            return Err(Denied::new(Reason::Expired, "exp has passed"));
        }
        if self.valid_from > now.after(leeway) {
            return Err(Denied::new(
                Reason::NotYetValid,
                "nbf or iat lies in the future, or exp too far in it",
            ));
        }
        Ok(())
    }

    /// What the caller demands: any of the audiences, all of the scopes.
    pub(super) fn check_demands(&self, audiences: &[String], scopes: &[String]) -> Result<(), Denied> {
        let (own_audiences, own_scopes) = self.granted.split_at_checked(self.audiences).unwrap_or_default();
        let among = |names: &[Box<str>], name: &String| names.iter().any(|one| **one == **name);
        if !audiences.is_empty() && !audiences.iter().any(|audience| among(own_audiences, audience)) {
            return Err(Denied::new(Reason::WrongAudience, "none of the demanded audiences"));
        }
        if !scopes.iter().all(|scope| among(own_scopes, scope)) {
            return Err(Denied::new(Reason::InsufficientScope, "a demanded scope is missing"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::minting::{ISSUER, NOON, acceptance, entry};

    fn accepted(kind: Kind) -> Accepted<'static> {
        Accepted {
            issuer: ISSUER.into(),
            subject: "alice".into(),
            audiences: vec!["shop".into(), "bank".into()],
            token_id: None,
            session_id: None,
            client_id: None,
            scopes: vec!["read".into(), "write".into()],
            roles: Vec::new(),
            issued_at: Some(NOON),
            not_before: Some(NOON.after(Duration::from_secs(10))),
            expires_at: NOON.after(Duration::from_secs(900)),
            open_end: false,
            claims_json: b"{}".into(),
            kind,
            refresh_after: None,
            policy: None,
            logged_in_at: None,
            claims_version: None,
            signing_input: None,
        }
    }

    fn kept(kind: Kind) -> Acceptance {
        acceptance(&accepted(kind), TokenDigest::of(b"token"), &entry())
    }

    fn reason_at(kept: &Acceptance, millis: i64) -> Option<Reason> {
        let now = Timestamp::from_millis(NOON.as_millis().saturating_add_signed(millis));
        kept.check_time(now).err().map(|denied| denied.reason)
    }

    #[test]
    fn a_token_is_judged_by_its_dates_and_its_issuer_s_leeway_of_a_minute() {
        let kept = kept(Kind::Jwt);
        assert_eq!(reason_at(&kept, -50_001), Some(Reason::NotYetValid));
        assert_eq!(reason_at(&kept, -50_000), None);
        assert_eq!(reason_at(&kept, 959_999), None);
        assert_eq!(reason_at(&kept, 960_000), Some(Reason::Expired));
    }

    #[test]
    fn a_token_without_iat_is_valid_for_as_long_as_its_issuer_s_tokens_may_live() {
        let day = 86_400_000;
        let expires_at = NOON.after(Duration::from_secs(10 * 86_400));
        let undated = Accepted { issued_at: None, not_before: None, expires_at, ..accepted(Kind::Jwt) };
        let kept = acceptance(&undated, TokenDigest::of(b"token"), &entry());
        assert_eq!(reason_at(&kept, 9 * day - 60_001), Some(Reason::NotYetValid));
        assert_eq!(reason_at(&kept, 9 * day - 60_000), None);
        assert_eq!(reason_at(&kept, 10 * day + 59_999), None);
        assert_eq!(reason_at(&kept, 10 * day + 60_000), Some(Reason::Expired));
    }

    #[test]
    fn a_session_token_ends_with_its_session_without_leeway_and_is_never_too_young() {
        let kept = kept(Kind::SessionToken);
        assert_eq!(reason_at(&kept, -3_600_000), None);
        assert_eq!(reason_at(&kept, 899_999), None);
        assert_eq!(reason_at(&kept, 900_000), Some(Reason::SessionEnded));
    }

    #[test]
    fn any_demanded_audience_is_enough_and_every_demanded_scope_is_needed() {
        let kept = kept(Kind::Jwt);
        let demanding = |audiences: &[&str], scopes: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            kept.check_demands(&own(audiences), &own(scopes)).err().map(|denied| denied.reason)
        };
        assert_eq!(demanding(&[], &[]), None);
        assert_eq!(demanding(&["tax", "bank"], &["write", "read"]), None);
        assert_eq!(demanding(&["tax"], &[]), Some(Reason::WrongAudience));
        assert_eq!(demanding(&["read"], &[]), Some(Reason::WrongAudience), "a scope is no audience");
        assert_eq!(demanding(&[], &["shop"]), Some(Reason::InsufficientScope), "nor the other way round");
        assert_eq!(demanding(&[], &["read", "delete"]), Some(Reason::InsufficientScope));
        assert_eq!(demanding(&[], &["read write"]), Some(Reason::InsufficientScope));
        assert_eq!(demanding(&["Shop"], &[]), Some(Reason::WrongAudience));
    }

    #[test]
    fn a_large_answer_weighs_what_it_takes() {
        let small = kept(Kind::Jwt).weight();
        let large = Accepted { claims_json: vec![b' '; 10_002].into(), ..accepted(Kind::Jwt) };
        let large = acceptance(&large, TokenDigest::of(b"token"), &entry()).weight();
        assert_eq!(large, small + 10_000);
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", kept(Kind::Jwt)), "Acceptance(…)");
    }
}
