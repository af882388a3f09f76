//! TokenService: messages into demands, outcomes into answers.

use crate::grpc::callers::{Peer, Right};
use crate::grpc::codec::{AnswerStanding, VerifyAnswer};
use crate::grpc::router::Parts;
use crate::grpc::v1::consistency::Requirement;
use crate::grpc::v1::revoke_request::Target;
use crate::grpc::v1::{self, RefreshRequest, RefreshResponse, RevokeRequest, RevokeResponse, VerifyRequest};
use crate::grpc::{cookies, status, timestamp};
use crate::keys::HandleKind;
use crate::revocation::{DenialKey, Draft};
use crate::session::{Renewed, Tokens};
use crate::token::{Action, Issuer, Reason, Revision};
use crate::verify::{Accepted, Consistency, Demands, Kind, Possession, RevocationRelay, Verdict};
use prost::Message;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// One Verify.
pub(super) struct VerifyCall<'a> {
    pub(super) parts: &'a Parts,
    pub(super) deadline: Duration,
}

impl<'a> UnaryService<VerifyRequest> for VerifyCall<'a> {
    type Response = VerifyAnswer;
    type Future = VerifyFuture<'a>;

    fn call(&mut self, request: Request<VerifyRequest>) -> VerifyFuture<'a> {
        let request = request.into_inner();
        match verify_now(self.parts, &request, self.deadline) {
            Some(result) => VerifyFuture::Ready(Some(result)),
            None => {
                let (parts, deadline) = (self.parts, self.deadline);
                VerifyFuture::Waiting(Box::pin(async move { verify(parts, &request, deadline).await }))
            }
        }
    }
}

/// A verification: answered from memory, or waiting for keys, a revision or the store.
pub(super) enum VerifyFuture<'a> {
    Ready(Option<Result<VerifyAnswer, Status>>),
    Waiting(Pin<Box<dyn Future<Output = Result<VerifyAnswer, Status>> + Send + 'a>>),
}

impl Future for VerifyFuture<'_> {
    type Output = Result<Response<VerifyAnswer>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(result) => match result.take() {
                Some(result) => Poll::Ready(result.map(Response::new)),
                None => Poll::Pending,
            },
            Self::Waiting(waiting) => waiting.as_mut().poll(context).map(|result| result.map(Response::new)),
        }
    }
}

/// The answer, where memory alone gives it.
pub(super) fn verify_now(
    parts: &Parts,
    request: &VerifyRequest,
    deadline: Duration,
) -> Option<Result<VerifyAnswer, Status>> {
    let (token, demands) = match demands(parts, request, deadline) {
        Ok(asked) => asked,
        Err(status) => return Some(Err(status)),
    };
    parts.verifier.verify_now(&token, &demands).map(|result| result.map(answer).map_err(Status::from))
}

pub(super) async fn verify(
    parts: &Parts,
    request: &VerifyRequest,
    deadline: Duration,
) -> Result<VerifyAnswer, Status> {
    let (token, demands) = demands(parts, request, deadline)?;
    parts.verifier.verify(&token, &demands).await.map(answer).map_err(Status::from)
}

fn demands<'r>(
    parts: &'r Parts,
    request: &'r VerifyRequest,
    deadline: Duration,
) -> Result<(Cow<'r, str>, Demands<'r>), Status> {
    let (credential_name, token) = credential(parts, request)?;
    let requirement = request.consistency.as_ref().and_then(|consistency| consistency.requirement.as_ref());
    let consistency = match requirement {
        None | Some(Requirement::MinimizeLatency(_)) => Consistency::MinimizeLatency,
        Some(Requirement::FullyConsistent(true)) => Consistency::FullyConsistent,
        Some(Requirement::FullyConsistent(false)) => {
            return Err(status::bad_call("consistency.fully_consistent", "set it to true or leave it out"));
        }
        Some(Requirement::AtLeastAsFresh(revision)) => {
            let revision = revision.parse::<Revision>();
            Consistency::AtLeastAsFresh(
                revision
                    .map_err(|error| status::bad_call("consistency.at_least_as_fresh", &error.to_string()))?,
            )
        }
    };
    let demands = Demands {
        audiences: &request.audiences,
        scopes: &request.scopes,
        consistency,
        deadline,
        credential_name,
    };
    Ok((token, demands))
}

/// The credential and the name it was found under. A header without it holds an empty one, which is a denial and not a
/// malformed call: that a visitor brings no cookie is nobody's mistake.
fn credential<'r>(parts: &'r Parts, request: &'r VerifyRequest) -> Result<(&'r str, Cow<'r, str>), Status> {
    let name = request.credential_name.as_str();
    match (&request.token, &request.cookie_header) {
        (Some(token), None) => Ok((name, Cow::Borrowed(token))),
        (None, Some(header)) if name.is_empty() => {
            Ok(cookies::find(header, parts.verifier.cookie_names()).unwrap_or_default())
        }
        (None, Some(header)) => Ok(cookies::find(header, [name]).unwrap_or_default()),
        (None, None) => Err(status::bad_call("token", "set it to the credential")),
        (Some(_), Some(_)) => Err(status::bad_call("cookie_header", "set this or `token`, not both")),
    }
}

fn answer(verdict: Verdict) -> VerifyAnswer {
    let Verdict { acceptance, revision, staleness, stale, .. } = verdict;
    VerifyAnswer { acceptance, standing: AnswerStanding { revision, staleness, stale } }
}

/// Fields 1 to 14 of the answer, encoded once when a credential is accepted; the others vary from call to call.
#[must_use]
pub fn encode(accepted: &Accepted<'_>) -> Vec<u8> {
    let texts = |names: &[Cow<'_, str>]| names.iter().map(|name| (**name).to_owned()).collect();
    let response = v1::VerifyResponse {
        issuer: accepted.issuer().to_string(),
        subject: accepted.subject().to_owned(),
        audiences: texts(accepted.audiences()),
        token_id: accepted.token_id().unwrap_or_default().to_owned(),
        session_id: accepted.session_id().unwrap_or_default().to_owned(),
        client_id: accepted.client_id().unwrap_or_default().to_owned(),
        scopes: texts(accepted.scopes()),
        roles: texts(accepted.roles()),
        issued_at: accepted.issued_at().map(timestamp),
        not_before: accepted.not_before().map(timestamp),
        expires_at: Some(timestamp(accepted.expires_at())),
        claims_json: accepted.claims_json().to_vec(),
        kind: match accepted.kind() {
            Kind::Jwt => v1::CredentialKind::Jwt,
            Kind::SessionToken => v1::CredentialKind::SessionToken,
            Kind::AuthJsCookie => v1::CredentialKind::AuthjsCookie,
            Kind::OpaqueToken => v1::CredentialKind::OpaqueToken,
        }
        .into(),
        refresh_after: accepted.refresh_after().map(timestamp),
        revision: String::new(),
        staleness: None,
        stale: false,
    };
    response.encode_to_vec()
}

/// One Refresh.
pub(super) struct RefreshCall<'a> {
    pub(super) parts: &'a Parts,
}

impl<'a> UnaryService<RefreshRequest> for RefreshCall<'a> {
    type Response = RefreshResponse;
    type Future = Answering<'a, RefreshResponse>;

    fn call(&mut self, request: Request<RefreshRequest>) -> Self::Future {
        let parts = self.parts;
        Box::pin(async move {
            let RefreshRequest { refresh_token: token, credential_name: name } = request.into_inner();
            let token =
                token.ok_or_else(|| status::bad_call("refresh_token", "set it to the refresh token"))?;
            if parts.verifier.renews(&token) {
                return renew_cookie(parts, &token, &name).await;
            }
            let sessions = parts.sessions.as_ref().ok_or_else(not_served)?;
            let refreshed = sessions.refresh(&token).await;
            parts.metrics.refresh(refreshed.as_ref().map_or_else(|error| error.reason().as_str(), |_| "ok"));
            let Renewed { session, tokens, revision } = refreshed?;
            Ok(Response::new(RefreshResponse {
                tokens: Some(tokens_message(tokens)),
                session_id: session.to_string(),
                revision: revision.to_string(),
                cookies: Vec::new(),
            }))
        })
    }
}

/// An encrypted session cookie is renewed by presenting it: it is its own refresh token.
async fn renew_cookie(parts: &Parts, cookie: &str, name: &str) -> Result<Response<RefreshResponse>, Status> {
    if name.is_empty() {
        return Err(status::bad_call(
            "credential_name",
            "set it to the cookie's name: the key depends on it",
        ));
    }
    let renewed = parts.verifier.renew_cookie(cookie, name, parts.settings.deadline).await;
    parts.metrics.refresh(renewed.as_ref().map_or_else(|refusal| refusal.reason().as_str(), |_| "ok"));
    let renewed = renewed?;
    Ok(Response::new(RefreshResponse {
        tokens: Some(v1::Tokens {
            access_token: renewed.value,
            access_token_expires_at: Some(timestamp(renewed.expires_at)),
            refresh_token: String::new(),
            refresh_token_expires_at: None,
            refresh_after: Some(timestamp(renewed.refresh_after)),
        }),
        session_id: renewed.session_id,
        revision: renewed.revision.to_string(),
        cookies: renewed.cookies.into_iter().map(|(name, value)| v1::Cookie { name, value }).collect(),
    }))
}

/// Tokens as the wire has them.
pub(super) fn tokens_message(tokens: Tokens) -> v1::Tokens {
    v1::Tokens {
        access_token_expires_at: Some(timestamp(tokens.access_expires_at)),
        refresh_token_expires_at: tokens.refresh_expires_at.map(timestamp),
        refresh_after: tokens.refresh_after.map(timestamp),
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token.unwrap_or_default(),
    }
}

fn not_served() -> Status {
    Status::unimplemented("this sidecar keeps no sessions; ask one that does")
}

/// One Revoke.
pub(super) struct RevokeCall<'a> {
    pub(super) parts: &'a Parts,
    pub(super) peer: &'a Peer,
}

impl<'a> UnaryService<RevokeRequest> for RevokeCall<'a> {
    type Response = RevokeResponse;
    type Future = Answering<'a, RevokeResponse>;

    fn call(&mut self, request: Request<RevokeRequest>) -> Self::Future {
        let (parts, peer) = (self.parts, self.peer);
        Box::pin(async move {
            let (metadata, _, message) = request.into_parts();
            let headers = metadata.into_headers();
            check_audit_reason(&message.reason)?;
            let mut told = None;
            let (draft, kind, caller) = match message.target {
                None => return Err(status::bad_call("target", "name what to revoke")),
                Some(Target::Token(token)) => match possessed(parts, &token).await? {
                    Some((draft, relay)) => {
                        told = relay.map(|relay| (relay, token));
                        (draft, "token", None)
                    }
                    // A bad token writes nothing and is told nothing (RFC 7009 §2.2).
                    None => return Ok(revoked(parts.denylist.standing(&parts.clock.now()).revision)),
                },
                Some(Target::Session(target)) => {
                    let caller = parts.allow(Right::RevokeSession, peer, &headers)?;
                    (session_draft(parts, &target)?, "session", Some(caller))
                }
                Some(Target::Subject(target)) => {
                    let caller = parts.allow(Right::RevokeSubject, peer, &headers)?;
                    (subject_draft(parts, &target)?, "subject", Some(caller))
                }
                Some(Target::Issuer(target)) => {
                    let caller = parts.allow(Right::RevokeIssuer, peer, &headers)?;
                    (issuer_draft(parts, &target)?, "issuer", Some(caller))
                }
            };
            let revision = parts.revoker.revoke(draft).await?;
            parts.metrics.revoke(kind);
            tracing::info!(
                target: "countersign::audit",
                kind,
                caller = caller.as_deref().unwrap_or("holder"),
                reason = message.reason,
                %revision,
                "revoked"
            );
            // Denied everywhere already; who asks again does no harm, and the issuer is told then.
            if let Some((relay, token)) = told {
                let telling = tokio::time::timeout(parts.settings.deadline, relay.revoke(&token)).await;
                if !matches!(telling, Ok(Ok(()))) {
                    return Err(status::status(Reason::IssuerUnavailable, Action::None, None));
                }
            }
            Ok(revoked(revision))
        })
    }
}

fn revoked(revision: Revision) -> Response<RevokeResponse> {
    Response::new(RevokeResponse { revision: revision.to_string() })
}

/// A short code can be logged; free text could be anything, a token among it.
fn check_audit_reason(reason: &str) -> Result<(), Status> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if reason.len() <= 64 && reason.bytes().all(plain) {
        Ok(())
    } else {
        Err(status::bad_call(
            "reason",
            "use at most 64 lower-case letters and underscores, such as password_changed",
        ))
    }
}

/// What the holder of a token may take back: a refresh or session token its session, an access token itself.
async fn possessed(
    parts: &Parts,
    token: &str,
) -> Result<Option<(Draft, Option<Arc<dyn RevocationRelay>>)>, Status> {
    if let Some(handle) = parts.handles.as_ref().and_then(|handles| handles.open(token).ok()) {
        let issuer = own_issuer(parts)?;
        let key = DenialKey::session(&issuer, &handle.session.to_string());
        let expires_at = parts.clock.now().judged.after(longest(parts, &issuer)?);
        return Ok(Some((Draft::Session { key, expires_at }, None)));
    }
    if HandleKind::of(token).is_some() && parts.handles.is_none() {
        // It may well be good; only nobody here can tell. OK would claim that it is revoked.
        return Err(status::status(Reason::UnsupportedType, Action::None, None));
    }
    match parts.verifier.possession(token, parts.settings.deadline).await? {
        Possession::Proven { draft, relay } => Ok(Some((draft, relay))),
        Possession::Nothing => Ok(None),
    }
}

fn session_draft(parts: &Parts, target: &v1::SessionRevocation) -> Result<Draft, Status> {
    if target.session_id.is_empty() || target.session_id.len() > 256 {
        return Err(status::bad_call("session.session_id", "set it, to at most 256 bytes"));
    }
    let issuer = issuer_of(parts, target.issuer.as_deref(), "session.issuer")?;
    let key = DenialKey::session(&issuer, &target.session_id);
    Ok(Draft::Session { key, expires_at: parts.clock.now().judged.after(longest(parts, &issuer)?) })
}

fn subject_draft(parts: &Parts, target: &v1::SubjectRevocation) -> Result<Draft, Status> {
    if target.subject.is_empty() || target.subject.len() > 256 {
        return Err(status::bad_call("subject.subject", "set it, to at most 256 bytes"));
    }
    let issuer = issuer_of(parts, target.issuer.as_deref(), "subject.issuer")?;
    let except = target.except_session_id.as_deref().map(|session| DenialKey::session(&issuer, session));
    let now = parts.clock.now().judged;
    Ok(Draft::Subject {
        key: DenialKey::subject(&issuer, &target.subject),
        except,
        before: past(target.before.as_ref(), now, "subject.before")?,
        now,
        longest: longest(parts, &issuer)?,
    })
}

fn issuer_draft(parts: &Parts, target: &v1::IssuerRevocation) -> Result<Draft, Status> {
    let issuer = issuer_of(parts, Some(&target.issuer), "issuer.issuer")?;
    let now = parts.clock.now().judged;
    Ok(Draft::Issuer {
        key: DenialKey::issuer(&issuer),
        before: past(target.before.as_ref(), now, "issuer.before")?,
        now,
        longest: longest(parts, &issuer)?,
    })
}

fn past(
    before: Option<&prost_types::Timestamp>,
    now: crate::clock::Timestamp,
    field: &str,
) -> Result<Option<crate::clock::Timestamp>, Status> {
    let Some(before) = before else { return Ok(None) };
    let seconds = u64::try_from(before.seconds).ok();
    let nanos = u64::try_from(before.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let before = seconds.zip(nanos).and_then(|(seconds, nanos)| {
        seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000).map(crate::clock::Timestamp::from_millis)
    });
    match before {
        Some(before) if before <= now => Ok(Some(before)),
        _ => Err(status::bad_call(field, "use an instant in the past, or leave it out for now")),
    }
}

fn issuer_of(parts: &Parts, named: Option<&str>, field: &str) -> Result<Issuer, Status> {
    match named {
        None => {
            own_issuer(parts).map_err(|_| status::bad_call(field, "set it: this sidecar has no own issuer"))
        }
        Some(name) => parts
            .verifier
            .issuer(name)
            .ok_or_else(|| status::bad_call(field, "name an issuer that is configured in this sidecar")),
    }
}

fn own_issuer(parts: &Parts) -> Result<Issuer, Status> {
    parts.own_issuer.clone().ok_or_else(not_served)
}

/// How long anything of an issuer can live: what a denial must outlast.
fn longest(parts: &Parts, issuer: &Issuer) -> Result<Duration, Status> {
    parts.verifier.longest_life(issuer).ok_or_else(not_served)
}
