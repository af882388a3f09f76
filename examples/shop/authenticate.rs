//! How a service finds out who is calling: it hands the token to its own sidecar and takes one of three answers.
//!
//! This is all of authentication a service needs. No key, no JWT library, no session store.
//!
//! The clients come from the `countersign` crate; in another language, generate them from `proto/countersign/v1`.

use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{Consistency, VerifyRequest};
use std::collections::HashMap;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt};

/// `ErrorInfo.domain` of this shop's own answers.
const DOMAIN: &str = "shop.example";

/// The sidecar answers in microseconds from memory; one that has not answered by now can't tell.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who is calling, as the sidecar read it from an accepted token.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The account.
    pub(crate) subject: String,
    /// The session the token belongs to.
    pub(crate) session: String,
    /// Its roles.
    roles: Vec<String>,
}

impl Caller {
    /// Authorization stays the service's own business: this is one way.
    ///
    /// # Errors
    /// PERMISSION_DENIED where the caller has no such role.
    pub(crate) fn require_role(&self, role: &str) -> Result<(), Status> {
        if self.roles.iter().any(|has| has == role) {
            return Ok(());
        }
        Err(status(Code::PermissionDenied, "this needs a role that you don't have", "ROLE_MISSING", "NONE"))
    }
}

/// What a call demands of the token it comes with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// All of these.
    pub(crate) scopes: &'static [&'static str],
    /// Whether the sidecar has to ask the store now. Costs a read; without it memory answers, at most as stale as the
    /// policy bears and usually by milliseconds.
    pub(crate) fully_consistent: bool,
}

/// Asks the sidecar beside this service.
#[derive(Clone, Debug)]
pub(crate) struct Authenticator {
    sidecar: TokenServiceClient<Channel>,
}

impl Authenticator {
    /// Over a connection to the service's own sidecar.
    pub(crate) fn new(sidecar: Channel) -> Self {
        Self { sidecar: TokenServiceClient::new(sidecar) }
    }

    /// Who is calling.
    ///
    /// # Errors
    /// The service's answer to the call, see [`refusal`].
    pub(crate) async fn authenticate(
        &self,
        metadata: &MetadataMap,
        demands: Demands,
    ) -> Result<Caller, Status> {
        let requirement = if demands.fully_consistent {
            Requirement::FullyConsistent(true)
        } else {
            Requirement::MinimizeLatency(true)
        };
        let mut request = Request::new(VerifyRequest {
            token: Some(presented(metadata)?.to_owned()),
            scopes: demands.scopes.iter().map(|&scope| scope.to_owned()).collect(),
            consistency: Some(Consistency { requirement: Some(requirement) }),
            ..VerifyRequest::default()
        });
        request.set_timeout(PATIENCE);
        // OK means accepted, and nothing else does: there is no flag in the answer to forget.
        let accepted = self.sidecar.clone().verify(request).await.map_err(|said| refusal(&said))?;
        let accepted = accepted.into_inner();
        Ok(Caller { subject: accepted.subject, session: accepted.session_id, roles: accepted.roles })
    }
}

/// What the service answers where its sidecar did not say OK.
///
/// - no: UNAUTHENTICATED with the sidecar's reason, and what the client should do about it;
/// - not for that: PERMISSION_DENIED;
/// - can't tell, for whatever cause: UNAVAILABLE. Neither let in nor logged out: the client tries again.
pub(crate) fn refusal(said: &Status) -> Status {
    let details = said.get_error_details();
    let info = details.error_info().filter(|info| info.domain == "countersign");
    let reason = info.map_or("SIDECAR_UNREACHABLE", |info| info.reason.as_str());
    match (said.code(), reason) {
        // Without details it is not the sidecar's word.
        (Code::Unauthenticated, reason) if info.is_some() => {
            status(Code::Unauthenticated, "the sidecar denies this token", reason, action_in(info))
        }
        (Code::PermissionDenied, "INSUFFICIENT_SCOPE") => {
            status(Code::PermissionDenied, "the token is not good for this", reason, action_in(info))
        }
        // Only opening a session is answered so, such as at a policy's limit.
        (Code::FailedPrecondition, reason) if info.is_some() => {
            status(Code::FailedPrecondition, "no session can be opened", reason, action_in(info))
        }
        (_, reason) => status(Code::Unavailable, "can't tell who you are; try again", reason, "NONE"),
    }
}

/// A status with a reason and an action that a client can act on, in the shape of the sidecar's own.
pub(crate) fn status(code: Code, message: &str, reason: &str, action: &str) -> Status {
    let metadata = HashMap::from([("action".to_owned(), action.to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if code == Code::Unavailable {
        details.set_retry_info(Some(Duration::from_secs(1)));
    }
    Status::with_error_details(code, message, details)
}

/// The same message as a request with this bearer token or secret.
///
/// # Errors
/// INTERNAL where it holds what no header can.
pub(crate) fn with_bearer<T>(message: T, token: &str) -> Result<Request<T>, Status> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| Status::internal("a token with characters that no header can hold"))?;
    // Keeps it out of logs and of header compression's memory.
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

/// The token of the one `authorization: Bearer …` (RFC 6750 §2.1). It is not looked into: that is the sidecar's work.
fn presented(metadata: &MetadataMap) -> Result<&str, Status> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(no_token());
    };
    let value = value.to_str().map_err(|_| no_token())?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(no_token()),
    }
}

fn no_token() -> Status {
    status(Code::Unauthenticated, "send one `authorization: Bearer …`", "NO_TOKEN", "REAUTHENTICATE")
}

fn action_in(info: Option<&ErrorInfo>) -> &str {
    info.and_then(|info| info.metadata.get("action")).map_or("NONE", String::as_str)
}
