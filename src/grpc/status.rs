//! The one table from outcomes to the wire: which code, which reason, which action, and when to try again.
//!
//! Messages to callers are fixed texts. Nothing of a token, a claim, a key or the store's own errors is in them.

use crate::revocation::StoreError;
use crate::session::SessionError;
use crate::token::{Action, Reason};
use crate::verify::{Refusal, TableError};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain`.
pub const DOMAIN: &str = "countersign";

/// How long to wait before asking again where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The gRPC code of each reason. No arm is a wildcard: a new reason does not compile until it has its code.
#[must_use]
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::Malformed
        | Reason::TooLarge
        | Reason::UnsupportedType
        | Reason::UnsupportedAlgorithm
        | Reason::UnknownIssuer
        | Reason::UnknownKey
        | Reason::BadSignature
        | Reason::Expired
        | Reason::NotYetValid
        | Reason::WrongAudience
        | Reason::MissingClaim
        | Reason::InvalidClaim
        | Reason::Revoked
        | Reason::SessionEnded
        | Reason::SessionIdle
        | Reason::StaleClaims
        | Reason::RefreshReused
        | Reason::Inactive => Code::Unauthenticated,
        Reason::InsufficientScope | Reason::CallerNotAllowed => Code::PermissionDenied,
        Reason::KeysUnavailable
        | Reason::StoreUnavailable
        | Reason::IssuerUnavailable
        | Reason::TooStale
        | Reason::NotFresh
        | Reason::NotLoaded
        | Reason::DenylistFull => Code::Unavailable,
        Reason::NoSessionsInPolicy | Reason::SessionLimit | Reason::TokenTooLarge => Code::FailedPrecondition,
        Reason::NoSuchSession => Code::NotFound,
        Reason::Overloaded => Code::ResourceExhausted,
        Reason::BadCall => Code::InvalidArgument,
        Reason::InternalError => Code::Internal,
    }
}

/// What a caller is told in words: what happened, and what to do where that is not plain.
const fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed => "the credential is not well formed",
        Reason::TooLarge => "the credential is larger than this sidecar accepts",
        Reason::UnsupportedType => "this kind of credential is not accepted here",
        Reason::UnsupportedAlgorithm => "the token's algorithm is not allowed for its issuer",
        Reason::UnknownIssuer => "the token's issuer is not configured in this sidecar",
        Reason::UnknownKey => "the issuer's key set has no such key",
        Reason::BadSignature => "the signature does not verify",
        Reason::Expired => "the token has expired; refresh it",
        Reason::NotYetValid => "the token is not valid yet",
        Reason::WrongAudience => "the token is meant for another audience",
        Reason::MissingClaim => "the token lacks a required claim",
        Reason::InvalidClaim => "a claim of the token has a wrong type or value",
        Reason::Revoked => "the credential was revoked",
        Reason::SessionEnded => "the session is over; log in again",
        Reason::SessionIdle => "the session was unused for too long; log in again",
        Reason::StaleClaims => "the session's attributes changed; refresh the token",
        Reason::RefreshReused => {
            "the refresh token was used before; its session is now revoked; log in again"
        }
        Reason::InsufficientScope => "a demanded scope is missing",
        Reason::CallerNotAllowed => "this caller may not do this; see callers in the configuration",
        Reason::KeysUnavailable => "undecided: the issuer's keys could not be fetched; try again",
        Reason::StoreUnavailable => "undecided: the store did not answer; try again",
        Reason::TooStale => "undecided: revocations were last confirmed too long ago; try again",
        Reason::NotFresh => "undecided: the demanded revision has not arrived; try again",
        Reason::NotLoaded => "undecided: revocations are still being loaded; try again",
        Reason::DenylistFull => "undecided: the denylist reached its cap; raise denylist.max_entries",
        Reason::NoSessionsInPolicy => "no policy of this sidecar keeps session records",
        Reason::SessionLimit => "the subject has as many sessions as its policy allows",
        Reason::TokenTooLarge => "the access token would exceed 4096 bytes; use fewer or smaller attributes",
        Reason::NoSuchSession => "no such session is live",
        Reason::Overloaded => "too many calls in flight; try again",
        Reason::BadCall => "the call is malformed",
        Reason::InternalError => "internal error",
        Reason::Inactive => "the issuer says that the token is not active",
        Reason::IssuerUnavailable => "undecided: the issuer did not answer; try again",
    }
}

/// Builds a status from the table.
#[must_use]
pub fn status(reason: Reason, action: Action, retry_after: Option<Duration>) -> Status {
    let code = code(reason);
    Status::with_error_details(code, message(reason), details(reason, action, retry_after))
}

fn details(reason: Reason, action: Action, retry_after: Option<Duration>) -> ErrorDetails {
    let metadata = HashMap::from([("action".to_owned(), action.as_str().to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    if matches!(code(reason), Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(retry_after.unwrap_or(RETRY_AFTER)));
    }
    details
}

/// A malformed call: which field, and what to put there.
#[must_use]
pub fn bad_call(field: &str, what_to_do: &str) -> Status {
    let mut details = details(Reason::BadCall, Action::None, None);
    details.add_bad_request_violation(field, what_to_do);
    let message = if field.is_empty() { what_to_do.to_owned() } else { format!("{field}: {what_to_do}") };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A caller without the right to a call, or with a wrong secret.
#[must_use]
pub fn caller_not_allowed() -> Status {
    status(Reason::CallerNotAllowed, Action::None, None)
}

/// Shed at the limit of calls in flight.
#[must_use]
pub fn overloaded() -> Status {
    status(Reason::Overloaded, Action::None, None)
}

/// The call's deadline passed. The code every gRPC client knows; the call may have taken effect.
#[must_use]
pub fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the call's deadline passed before there was an answer")
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied { reason, action, .. } => status(reason, action, None),
            Refusal::Undecided { reason, retry_after, .. } => status(reason, Action::None, Some(retry_after)),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "the store failed a call");
        match error {
            StoreError::Unavailable(_) | StoreError::NotWritable(_) => {
                status(Reason::StoreUnavailable, Action::None, None)
            }
            StoreError::Corrupt(_) => status(Reason::InternalError, Action::None, None),
        }
    }
}

impl From<TableError> for Status {
    fn from(error: TableError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "a session table can't be written");
        status(Reason::StoreUnavailable, Action::None, None)
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Invalid { field, why } => bad_call(field, why),
            SessionError::Store(error) => error.into(),
            SessionError::Mint(cause) => {
                tracing::error!(
                    error = cause.as_ref() as &dyn std::error::Error,
                    "a token could not be made"
                );
                status(Reason::InternalError, Action::None, None)
            }
            told @ (SessionError::Denied { .. }
            | SessionError::NotLoaded
            | SessionError::DenylistFull
            | SessionError::NoSuchSession
            | SessionError::LimitReached
            | SessionError::TokenTooLarge
            | SessionError::NoSessionsInPolicy) => status(told.reason(), told.action(), None),
        }
    }
}

/// The same status, as an item of a stream carries it.
#[must_use]
pub fn to_item(status: &Status) -> tonic_types::Status {
    prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::v1;

    #[test]
    fn every_reason_has_the_name_and_place_the_proto_gives_it() {
        for (number, reason) in (1..).zip(Reason::ALL) {
            let proto = v1::Reason::try_from(number).unwrap();
            assert_eq!(proto.as_str_name(), reason.as_str());
        }
        assert!(v1::Reason::try_from(i32::try_from(Reason::ALL.len()).unwrap() + 1).is_err());
        for action in [Action::None, Action::Refresh, Action::Reauthenticate] {
            assert!(v1::Action::from_str_name(action.as_str()).is_some());
        }
    }

    #[test]
    fn every_status_carries_its_reason_and_only_undecided_ones_a_time_to_retry() {
        for reason in Reason::ALL {
            let status = status(*reason, Action::None, None);
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), DOMAIN));
            let retry = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(details.retry_info().is_some(), retry, "{reason}");
        }
    }

    #[test]
    fn an_item_of_a_stream_carries_the_same_details() {
        let status = status(Reason::Expired, Action::Refresh, None);
        let item = to_item(&status);
        assert_eq!(item.code, Code::Unauthenticated as i32);
        assert_eq!(item.details.len(), 1);
    }
}
