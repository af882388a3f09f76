//! Revoke: what is named or held into a draft, the draft into the log, and whoever else has to know told.

use crate::clock::Timestamp;
use crate::grpc::callers::{Peer, Right};
use crate::grpc::router::Parts;
use crate::grpc::status;
use crate::grpc::token::{Answering, not_served};
use crate::grpc::v1::revoke_request::Target;
use crate::grpc::v1::{self, RevokeRequest, RevokeResponse};
use crate::keys::HandleKind;
use crate::ops::trace::waiting;
use crate::revocation::{DenialKey, Draft};
use crate::token::{Action, Issuer, Reason, Revision};
use crate::verify::{Possession, RevocationRelay, Rows, SessionRows};
use futures_util::StreamExt;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

/// A subject's sessions in an application's table that are listed, denied and deleted together.
const LISTED_AT_ONCE: usize = 1000;
/// Denials written side by side.
const DENIED_AT_ONCE: usize = 32;
const NOW_ALONE: &str = "leave it out: sessions in this issuer's table are ended as of now";

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
            let Some(target) = message.target else {
                return Err(status::bad_call("target", "name what to revoke"));
            };
            let Some(done) = take_back(parts, peer, &headers, target).await? else {
                // A bad token writes nothing and is told nothing (RFC 7009 §2.2).
                return Ok(revoked(parts.denylist.standing(&parts.clock.now()).revision));
            };
            let Done { revision, kind, caller, told } = done;
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
                let telling = tokio::time::timeout(
                    parts.settings.deadline,
                    waiting("issuer.revoke", relay.revoke(&token)),
                )
                .await;
                if !matches!(telling, Ok(Ok(()))) {
                    return Err(status::status(relay.failure(), Action::None, None));
                }
            }
            Ok(revoked(revision))
        })
    }
}

/// What was taken back, in force here and durable.
struct Done {
    revision: Revision,
    kind: &'static str,
    caller: Option<Arc<str>>,
    /// Who is to be told, and of what.
    told: Option<(Arc<dyn RevocationRelay>, String)>,
}

/// `None`: a token that nothing can be taken back by.
async fn take_back(
    parts: &Parts,
    peer: &Peer,
    headers: &HeaderMap,
    target: Target,
) -> Result<Option<Done>, Status> {
    let by_caller = |kind, caller, revision| Done { revision, kind, caller: Some(caller), told: None };
    Ok(Some(match target {
        Target::Token(token) => {
            let Some((draft, relay)) = possessed(parts, &token).await? else { return Ok(None) };
            let revision = waiting("log.append", parts.revoker.revoke(draft)).await?;
            Done { revision, kind: "token", caller: None, told: relay.map(|relay| (relay, token)) }
        }
        Target::Session(target) => {
            let caller = parts.allow(Right::RevokeSession, peer, headers)?;
            by_caller("session", caller, end_session(parts, &target).await?)
        }
        Target::Subject(target) => {
            let caller = parts.allow(Right::RevokeSubject, peer, headers)?;
            by_caller("subject", caller, end_subject(parts, &target).await?)
        }
        Target::Issuer(target) => {
            let caller = parts.allow(Right::RevokeIssuer, peer, headers)?;
            by_caller("issuer", caller, end_issuer(parts, &target).await?)
        }
    }))
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

async fn end_session(parts: &Parts, target: &v1::SessionRevocation) -> Result<Revision, Status> {
    let id = &target.session_id;
    if id.is_empty() || id.len() > 256 {
        return Err(status::bad_call("session.session_id", "set it, to at most 256 bytes"));
    }
    let issuer = issuer_of(parts, target.issuer.as_deref(), "session.issuer")?;
    let revision = parts.revoker.revoke(session_draft(parts, &issuer, id)?).await?;
    if let Some(rows) = parts.verifier.session_rows(&issuer) {
        rows.table().delete(&Rows::Session(id.clone())).await?;
    }
    Ok(revision)
}

fn session_draft(parts: &Parts, issuer: &Issuer, id: &str) -> Result<Draft, Status> {
    let key = DenialKey::session(issuer, id);
    Ok(Draft::Session { key, expires_at: parts.clock.now().judged.after(longest(parts, issuer)?) })
}

async fn end_subject(parts: &Parts, target: &v1::SubjectRevocation) -> Result<Revision, Status> {
    if target.subject.is_empty() || target.subject.len() > 256 {
        return Err(status::bad_call("subject.subject", "set it, to at most 256 bytes"));
    }
    let issuer = issuer_of(parts, target.issuer.as_deref(), "subject.issuer")?;
    let now = parts.clock.now().judged;
    let before = past(target.before.as_ref(), now, "subject.before")?;
    if let Some(rows) = parts.verifier.session_rows(&issuer) {
        if before.is_some() {
            return Err(status::bad_call("subject.before", NOW_ALONE));
        }
        return end_rows(parts, &issuer, rows, target).await;
    }
    let except = target.except_session_id.as_deref().map(|session| DenialKey::session(&issuer, session));
    let key = DenialKey::subject(&issuer, &target.subject);
    let longest = longest(parts, &issuer)?;
    Ok(parts.revoker.revoke(Draft::Subject { key, except, before, now, longest }).await?)
}

/// Ends a subject's sessions in an application's table. Its rows say better than any cut-off which logins there were: two
/// clocks take no part. Each is denied before it is deleted, so that it is refused at once everywhere; and no other is deleted,
/// so that whoever calls again after a failure finds what is left. A login that comes after the last listing is one after this.
async fn end_rows(
    parts: &Parts,
    issuer: &Issuer,
    rows: &SessionRows,
    target: &v1::SubjectRevocation,
) -> Result<Revision, Status> {
    let mut revision = parts.denylist.standing(&parts.clock.now()).revision;
    let (subject, except) = (&target.subject, target.except_session_id.as_deref());
    loop {
        let sessions = rows.table().list(subject, except, LISTED_AT_ONCE).await?;
        let is_last = sessions.len() < LISTED_AT_ONCE;
        deny(parts, issuer, &sessions, &mut revision).await?;
        rows.end(&Rows::Listed { subject: subject.clone(), sessions }).await?;
        if is_last {
            return Ok(revision);
        }
    }
}

/// Denies each; `revision` becomes one that shows them all.
async fn deny(
    parts: &Parts,
    issuer: &Issuer,
    sessions: &[String],
    revision: &mut Revision,
) -> Result<(), Status> {
    let drafts: Vec<_> =
        sessions.iter().map(|session| session_draft(parts, issuer, session)).collect::<Result<_, _>>()?;
    let mut denying = futures_util::stream::iter(drafts)
        .map(|draft| parts.revoker.revoke(draft))
        .buffer_unordered(DENIED_AT_ONCE);
    while let Some(denied) = denying.next().await {
        let appended = denied?;
        if appended.covers(revision) {
            *revision = appended;
        } else if appended.epoch != revision.epoch {
            // The log was replaced meanwhile: what stands here now has them all.
            *revision = parts.denylist.standing(&parts.clock.now()).revision;
        }
    }
    Ok(())
}

async fn end_issuer(parts: &Parts, target: &v1::IssuerRevocation) -> Result<Revision, Status> {
    let issuer = issuer_of(parts, Some(&target.issuer), "issuer.issuer")?;
    let now = parts.clock.now().judged;
    let before = past(target.before.as_ref(), now, "issuer.before")?;
    let rows = parts.verifier.session_rows(&issuer);
    if rows.is_some() && before.is_some() {
        return Err(status::bad_call("issuer.before", NOW_ALONE));
    }
    let key = DenialKey::issuer(&issuer);
    let cut_off = |longest| parts.revoker.revoke(Draft::Issuer { key, before, now, longest });
    let Some(rows) = rows else { return Ok(cut_off(longest(parts, &issuer)?).await?) };
    // A cut-off where logins are told; without, it would hit those to come. It is for what other sidecars hold in memory, and
    // lasts no longer than that: the application's clock may stand behind.
    let held = parts.verifier.staleness_bound(&issuer).unwrap_or_default();
    let revision = match rows.tells_logins() {
        true => cut_off(held).await?,
        false => parts.denylist.standing(&parts.clock.now()).revision,
    };
    rows.end(&Rows::All).await?;
    Ok(revision)
}

fn past(
    before: Option<&prost_types::Timestamp>,
    now: Timestamp,
    field: &str,
) -> Result<Option<Timestamp>, Status> {
    let Some(before) = before else { return Ok(None) };
    let seconds = u64::try_from(before.seconds).ok();
    let nanos = u64::try_from(before.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let before = seconds.zip(nanos).and_then(|(seconds, nanos)| {
        seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000).map(Timestamp::from_millis)
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
