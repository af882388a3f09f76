//! Refresh of sessions that somebody else keeps.

use crate::clock::Timestamp;
use crate::grpc::router::Parts;
use crate::grpc::v1::{self, RefreshResponse, VerifyResponse};
use crate::grpc::{status, timestamp};
use crate::ops::trace::waiting;
use crate::session::{Issued, Relay, RelayError};
use crate::token::{Action, Reason};
use crate::verify::{Consistency, Demands, Refusal};
use prost::Message;
use std::time::Duration;
use tonic::{Response, Status};

/// Before its end, or after half of a shorter life, an access token should be renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// Relays it, and looks at what came: a session that was taken back here is not given new tokens.
pub(super) async fn refresh(
    parts: &Parts,
    relay: &Relay,
    token: &str,
) -> Result<Response<RefreshResponse>, Status> {
    let deadline = parts.settings.deadline;
    let unread = match token.len() {
        0 => Some(Reason::Malformed),
        length => (length > parts.verifier.max_token_bytes()).then_some(Reason::TooLarge),
    };
    if let Some(reason) = unread {
        parts.metrics.refresh(reason.as_str());
        return Err(status::status(reason, Action::None, None));
    }
    let refreshed =
        waiting("issuer.refresh", relay.refresh(token, deadline)).await.map_err(|error| match error {
            RelayError::Refused => (Reason::Inactive, Action::Reauthenticate, None),
            RelayError::Unavailable { retry_after } => {
                (Reason::IssuerUnavailable, Action::None, Some(retry_after))
            }
            RelayError::Store => (Reason::StoreUnavailable, Action::None, None),
        });
    let issued = refreshed.map_err(|(reason, action, retry_after)| {
        parts.metrics.refresh(reason.as_str());
        status::status(reason, action, retry_after)
    })?;
    let demands = Demands {
        audiences: &[],
        scopes: &[],
        consistency: Consistency::FullyConsistent,
        deadline,
        credential_name: "",
    };
    // What can't be judged now, or is not meant for services here, is judged wherever it is presented.
    let judged = parts.verifier.verify(&issued.access_token, &demands).await;
    if let Err(Refusal::Denied { reason: reason @ (Reason::Revoked | Reason::SessionEnded), .. }) = &judged {
        parts.metrics.refresh(reason.as_str());
        return Err(status::status(*reason, Action::Reauthenticate, None));
    }
    parts.metrics.refresh("ok");
    let said = judged.ok().and_then(|verdict| VerifyResponse::decode(verdict.acceptance.answer()).ok());
    let revision = parts.denylist.standing(&parts.clock.now()).revision;
    Ok(Response::new(RefreshResponse {
        session_id: said.as_ref().map(|said| said.session_id.clone()).unwrap_or_default(),
        tokens: Some(tokens(&issued, said.and_then(|said| said.expires_at), parts.clock.now().judged)),
        revision: revision.to_string(),
        cookies: Vec::new(),
    }))
}

fn tokens(issued: &Issued, expires_at: Option<prost_types::Timestamp>, now: Timestamp) -> v1::Tokens {
    let told = issued.expires_at.map(Timestamp::from_millis);
    let renew_at = told.map(|end| end.before(RENEW_BEFORE.min(end.since(now) / 2)));
    v1::Tokens {
        access_token: issued.access_token.clone(),
        access_token_expires_at: told.map(timestamp).or(expires_at),
        refresh_token: issued.refresh_token.clone(),
        refresh_token_expires_at: None,
        refresh_after: renew_at.map(timestamp),
        id_token: issued.id_token.clone().unwrap_or_default(),
    }
}
