//! `countersign verify`: asks a running sidecar and explains what it said.

use crate::cli::output::{Output, Tone, printable};
use crate::cli::{NO, UNDECIDED, USAGE, VerifyArgs, YES, client};
use crate::grpc::v1::consistency::Requirement;
use crate::grpc::v1::token_service_client::TokenServiceClient;
use crate::grpc::v1::{Consistency, VerifyRequest, VerifyResponse};
use std::time::{Duration, UNIX_EPOCH};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) fn run(args: &VerifyArgs, token: &str, output: &Output) -> u8 {
    let requirement = if args.fully_consistent {
        Requirement::FullyConsistent(true)
    } else if let Some(revision) = &args.at_least_as_fresh {
        Requirement::AtLeastAsFresh(revision.clone())
    } else {
        Requirement::MinimizeLatency(true)
    };
    let request = VerifyRequest {
        token: Some(token.to_owned()),
        credential_name: args.name.clone(),
        audiences: args.audiences.clone(),
        scopes: args.scopes.clone(),
        consistency: Some(Consistency { requirement: Some(requirement) }),
        cookie_header: None,
    };
    let asked = client::block_on(async {
        let channel = client::connect(&args.target.address, args.target.timeout).await?;
        Ok::<_, String>(TokenServiceClient::new(channel).verify(request).await)
    });
    match asked.flatten() {
        Ok(Ok(answer)) => {
            accepted(&answer.into_inner(), output);
            YES
        }
        Ok(Err(status)) => refused(&status, output),
        Err(why) => output.undecided(&why),
    }
}

fn accepted(answer: &VerifyResponse, output: &Output) {
    output.headline(Tone::Good, "ACCEPTED", "");
    output.field("issuer", &printable(&answer.issuer));
    output.field("subject", &printable(&answer.subject));
    output.field("audience", &printable(&answer.audiences.join(", ")));
    output.field("session", &printable(&answer.session_id));
    output.field("client", &printable(&answer.client_id));
    output.field("scopes", &printable(&answer.scopes.join(" ")));
    output.field("roles", &printable(&answer.roles.join(" ")));
    for (name, at) in [("expires", &answer.expires_at), ("renew after", &answer.refresh_after)] {
        output.field(name, &at.as_ref().map(instant).unwrap_or_default());
    }
    let staleness = answer.staleness.as_ref().and_then(|staleness| Duration::try_from(*staleness).ok());
    let staleness =
        staleness.map(|staleness| humantime::format_duration(whole_millis(staleness)).to_string());
    let stale = if answer.stale { ", stale" } else { "" };
    let standing = format!("{}, confirmed {} ago{stale}", answer.revision, staleness.unwrap_or_default());
    output.field("revision", &standing);
    output.field("claims", &printable(&String::from_utf8_lossy(&answer.claims_json)));
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// An instant in human time.
pub(crate) fn instant(at: &prost_types::Timestamp) -> String {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .map(|at| humantime::format_rfc3339_seconds(at).to_string())
        .unwrap_or_default()
}

/// Explains a status; the exit code says whether it is a "no", a "can't tell" or a mistake in the call.
pub(crate) fn refused(status: &Status, output: &Output) -> u8 {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let action =
        details.error_info().and_then(|info| info.metadata.get("action").cloned()).unwrap_or_default();
    let (tone, word, code) = match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unknown
        | Code::Cancelled => (Tone::Unsure, "UNDECIDED", UNDECIDED),
        Code::InvalidArgument | Code::Unimplemented => (Tone::Bad, "BAD CALL", USAGE),
        Code::Ok
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => (Tone::Bad, "DENIED", NO),
    };
    output.headline(tone, word, if reason.is_empty() { status.code().description() } else { &reason });
    output.field("because", status.message());
    output.field("code", &format!("{:?}", status.code()));
    let advice = match action.as_str() {
        "REFRESH" => "exchange the refresh token for a new access token and try again",
        "REAUTHENTICATE" => "log in again",
        _ => "",
    };
    output.field("what to do", advice);
    let retry = details.retry_info().and_then(|retry| retry.retry_delay);
    output.field(
        "try again",
        &retry.map(|delay| format!("in {}", humantime::format_duration(delay))).unwrap_or_default(),
    );
    code
}
