//! TokenService but for Revoke: messages into demands, outcomes into answers.

use crate::grpc::codec::{AnswerStanding, VerifyAnswer};
use crate::grpc::router::Parts;
use crate::grpc::v1::consistency::Requirement;
use crate::grpc::v1::{self, RefreshRequest, RefreshResponse, VerifyRequest};
use crate::grpc::{cookies, relay, status, timestamp};
use crate::keys::HandleKind;
use crate::ops::trace::{self, waiting};
use crate::session::{Relay, Renewed, Tokens};
use crate::token::Revision;
use crate::verify::{Accepted, Consistency, Demands, Kind, Refusal, Verdict};
use prost::Message;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

/// A call that is being answered.
pub(super) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

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
    let result = parts.verifier.verify_now(&token, &demands)?;
    note(parts, &result);
    Some(result.map(answer).map_err(Status::from))
}

pub(super) async fn verify(
    parts: &Parts,
    request: &VerifyRequest,
    deadline: Duration,
) -> Result<VerifyAnswer, Status> {
    let (token, demands) = demands(parts, request, deadline)?;
    let result = parts.verifier.verify(&token, &demands).await;
    note(parts, &result);
    result.map(answer).map_err(Status::from)
}

/// For the call's span: a configured issuer, and what the answer stands on.
pub(super) fn note(parts: &Parts, result: &Result<Verdict, Refusal>) {
    if parts.tracer.is_none() {
        return;
    }
    match result {
        Ok(verdict) => trace::note(Some(verdict.acceptance.issuer()), Some(verdict.source.as_str())),
        Err(Refusal::Denied { issuer, .. } | Refusal::Undecided { issuer, .. }) => {
            let configured = issuer.as_ref().and_then(|issuer| parts.verifier.issuer(issuer));
            trace::note(configured.as_ref(), None);
        }
    }
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
            Kind::AuthJsSession => v1::CredentialKind::AuthjsSession,
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
            let RefreshRequest { refresh_token: token, credential_name: name, issuer } = request.into_inner();
            let token =
                token.ok_or_else(|| status::bad_call("refresh_token", "set it to the refresh token"))?;
            let is_ours = HandleKind::of(&token).is_some();
            // Some issuers' refresh tokens look like cookies: whose one is counts before what it looks like.
            if !is_ours && issuer.is_none() && parts.verifier.renews(&token) {
                return renew_cookie(parts, &token, &name).await;
            }
            if !is_ours && let Some(relay) = relay_of(parts, issuer.as_deref())? {
                return relay::refresh(parts, relay, &token).await;
            }
            let sessions = parts.sessions.as_ref().ok_or_else(not_served)?;
            let refreshed = waiting("session.refresh", sessions.refresh(&token)).await;
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

/// Who refreshes a token that is not ours.
fn relay_of<'p>(parts: &'p Parts, issuer: Option<&str>) -> Result<Option<&'p Relay>, Status> {
    let relays = parts.relays.as_slice();
    match (issuer, relays) {
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only)),
        (None, _) => {
            Err(status::bad_call("issuer", "name whose refresh token it is: several are refreshed here"))
        }
        (Some(name), _) => {
            let named = relays.iter().find(|relay| **relay.issuer() == *name);
            let unknown = || status::bad_call("issuer", "name an issuer whose sessions are refreshed here");
            named.map(|relay| Some(&**relay)).ok_or_else(unknown)
        }
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
            id_token: String::new(),
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
        id_token: String::new(),
    }
}

/// For what this sidecar has no keys or sessions for.
pub(super) fn not_served() -> Status {
    Status::unimplemented("this sidecar keeps no sessions; ask one that does")
}
