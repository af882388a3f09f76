//! Opaque OAuth tokens, judged by their issuer's introspection endpoint (RFC 7662).
//!
//! The issuer's word is cached no longer than the token lives, the policy's staleness bound and a configured bound; its
//! age is the answer's staleness. Where the issuer can't be asked nothing is said, and nothing is remembered.

use crate::clock::Timestamp;
use crate::revocation::Draft;
use crate::token::{Action, Issuer, Reason, TokenDigest};
use crate::verify::acceptance::Read;
use crate::verify::json::{self, Json, Object};
use crate::verify::jwt::Signed;
use crate::verify::refusal::Denied;
use crate::verify::{
    Acceptance, Consistency, Demands, IssuerEntry, Possession, RETRY_AFTER, Refusal, Verifier,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a token without an end is denied: ten years.
const WITHOUT_END: Duration = Duration::from_secs(3650 * 86_400);

/// How an issuer's opaque tokens are judged.
#[derive(Debug)]
pub struct OpaqueTokenSettings {
    /// Who is asked.
    pub introspection: Arc<dyn Introspection>,
    /// How long an answer is used at most.
    pub lasts: Duration,
    /// What its tokens begin with; empty: whatever is no other kind of credential.
    pub prefix: String,
}

/// An issuer's introspection endpoint.
#[tonic::async_trait]
pub trait Introspection: Send + Sync + std::fmt::Debug + 'static {
    /// What the issuer says of a token. The exchange may be shared with others who ask of the same token.
    ///
    /// # Errors
    /// [`IssuerFailed`]: no answer; the cause was logged.
    async fn introspect(&self, token: &str, since: Since) -> Result<Said, IssuerFailed>;
}

/// An issuer's revocation endpoint (RFC 7009).
#[tonic::async_trait]
pub trait RevocationRelay: Send + Sync + std::fmt::Debug + 'static {
    /// Tells the issuer that its token is taken back. `Ok` also where it knows no such token, or can't revoke its kind.
    ///
    /// # Errors
    /// [`IssuerFailed`]: it may not know yet; the cause was logged.
    async fn revoke(&self, token: &str) -> Result<(), IssuerFailed>;

    /// What callers are told where it fails.
    fn failure(&self) -> Reason {
        Reason::IssuerUnavailable
    }
}

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Asked for after this call: the issuer's present word.
    Now,
    /// Still under way at this instant of the clock that never steps, when a caller began to ask; or a "not active" of a
    /// moment before.
    Begun(Duration),
}

/// What an issuer said.
#[derive(Clone)]
pub struct Said {
    /// Its answer, JSON.
    pub body: Arc<[u8]>,
    /// When it was asked, by the clock that never steps.
    pub asked_at: Duration,
}

/// The issuer did not answer, or not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer did not answer as it should")]
pub struct IssuerFailed;

/// What the issuer said.
enum Word<'a> {
    Active(Object<'a>),
    Inactive,
}

/// Whether an introspection answer calls its token active.
///
/// # Errors
/// [`IssuerFailed`] for what is no answer: not one strict JSON object, without `active`, or for another issuer.
pub fn says_active(body: &[u8], issuer: &str) -> Result<bool, IssuerFailed> {
    read(body, issuer).map(|word| matches!(word, Word::Active(_)))
}

impl Verifier {
    /// Asks the issuer and keeps what it says.
    pub(super) async fn introspect(
        &self,
        entry: &Arc<IssuerEntry>,
        token: &str,
        digest: TokenDigest,
        demands: &Demands<'_>,
    ) -> Result<Arc<Acceptance>, Refusal> {
        let policy = &entry.settings.policy;
        let Some(opaque) = &entry.settings.opaque else { return Err(failed(policy.issuer())) };
        let asked = self.clock.now();
        let since = match entry.settings.freshness.at_least(demands.consistency) {
            Consistency::FullyConsistent => Since::Now,
            Consistency::MinimizeLatency | Consistency::AtLeastAsFresh(_) => Since::Begun(asked.elapsed),
        };
        let said = ask(opaque, token, since, demands.deadline).await;
        let Said { body, asked_at } = said.map_err(|_| failed(policy.issuer()))?;
        // Whatever it says now, what it said before is over.
        self.cache.forget(&digest);
        let claims = match read(&body, policy.issuer()).map_err(|_| failed(policy.issuer()))? {
            Word::Active(claims) => claims,
            Word::Inactive => {
                let inactive = Denied::new(Reason::Inactive, "the issuer says that it is not active");
                return Err(refused(inactive, policy.issuer()));
            }
        };
        check_use(&claims).map_err(|denied| refused(denied, policy.issuer()))?;
        let signed = Signed::introspected(token, &body, claims, asked.judged.after(opaque.lasts));
        let accepted = signed.judge(policy).map_err(|denied| refused(denied, policy.issuer()))?;
        let read = Read { at: asked_at, touch_at: Timestamp::MAX, lasts: opaque.lasts };
        Ok(self.keep(accepted, digest, entry, 0, Some(read)))
    }

    /// What the holder of an opaque token may take back: itself, while its issuer calls it active.
    pub(super) async fn possession_of_opaque(
        &self,
        entry: &Arc<IssuerEntry>,
        token: &str,
        deadline: Duration,
    ) -> Result<Possession, Refusal> {
        let policy = &entry.settings.policy;
        let Some(opaque) = &entry.settings.opaque else { return Ok(Possession::Nothing) };
        let said = ask(opaque, token, Since::Now, deadline).await;
        let Said { body, .. } = said.map_err(|_| failed(policy.issuer()))?;
        let now = self.clock.now().judged;
        let Word::Active(claims) = read(&body, policy.issuer()).map_err(|_| failed(policy.issuer()))? else {
            self.cache.forget(&TokenDigest::of(token.as_bytes()));
            return Ok(Possession::Nothing);
        };
        let signed = Signed::introspected(token, &body, claims, now);
        let own = self.own_denial(&signed, entry);
        if matches!(own, Possession::Proven { .. }) {
            return Ok(own);
        }
        // Without an end of its own it is denied for as good as ever.
        let expires_at = now.after(WITHOUT_END);
        Ok(signed.key(policy).map_or(Possession::Nothing, |key| Possession::Proven {
            draft: Draft::Token { key, expires_at },
            relay: entry.settings.relay.clone(),
        }))
    }
}

async fn ask(
    opaque: &OpaqueTokenSettings,
    token: &str,
    since: Since,
    deadline: Duration,
) -> Result<Said, IssuerFailed> {
    let asking = opaque.introspection.introspect(token, since);
    tokio::time::timeout(deadline, asking).await.unwrap_or(Err(IssuerFailed))
}

/// An answer that is not one strict object with `active`, or that speaks for another issuer, is none.
fn read<'b>(body: &'b [u8], issuer: &str) -> Result<Word<'b>, IssuerFailed> {
    let claims = json::parse(body).map_err(|_| IssuerFailed)?;
    match claims.get("active") {
        Some(Json::Bool(true)) => {}
        Some(Json::Bool(false)) => return Ok(Word::Inactive),
        Some(_) | None => return Err(IssuerFailed),
    }
    match claims.get("iss") {
        Some(Json::Text(named)) if named != issuer => Err(IssuerFailed),
        Some(Json::Text(_)) | None => Ok(Word::Active(claims)),
        Some(_) => Err(IssuerFailed),
    }
}

/// Issuers call refresh tokens active, too; their names for them differ.
fn check_use(claims: &Object<'_>) -> Result<(), Denied> {
    let names_refresh = |name: &str| {
        let value = claims.get(name).and_then(Json::as_text);
        value.is_some_and(|value| {
            ["refresh", "refresh_token"].iter().any(|refresh| value.eq_ignore_ascii_case(refresh))
        })
    };
    if ["token_type", "token_use", "typ"].into_iter().any(names_refresh) {
        return Err(Denied::new(Reason::UnsupportedType, "a refresh token is not for services"));
    }
    Ok(())
}

fn failed(issuer: &Issuer) -> Refusal {
    Refusal::Undecided {
        reason: Reason::IssuerUnavailable,
        retry_after: RETRY_AFTER,
        issuer: Some(Arc::clone(issuer)),
    }
}

fn refused(denied: Denied, issuer: &Issuer) -> Refusal {
    let action: Action = denied.action();
    Refusal::Denied { reason: denied.reason, action, issuer: Some(Arc::clone(issuer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_active_or_for_another_issuer_is_none() {
        for body in [
            "{}",
            "[]",
            "",
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":true,"active":false}"#,
            r#"{"active":true,"iss":"other"}"#,
            r#"{"active":true,"iss":7}"#,
        ] {
            assert!(read(body.as_bytes(), "i").is_err(), "{body}");
        }
        assert!(matches!(read(br#"{"active":false,"iss":"other"}"#, "i"), Ok(Word::Inactive)));
        assert!(matches!(read(br#"{"active":true,"iss":"i"}"#, "i"), Ok(Word::Active(_))));
    }

    #[test]
    fn a_refresh_token_is_refused_by_every_name_issuers_have_for_it() {
        let denied = |text: &str| check_use(&json::parse(text.as_bytes()).unwrap()).is_err();
        assert!(denied(r#"{"token_use":"refresh_token"}"#));
        assert!(denied(r#"{"typ":"Refresh"}"#));
        assert!(denied(r#"{"token_type":"refresh_token"}"#));
        assert!(!denied(r#"{"token_type":"Bearer","token_use":"access_token","typ":"Bearer"}"#));
    }
}
