//! What a session call can come to besides an answer.

use crate::revocation::StoreError;
use crate::token::{Action, NoRandomness, Reason};
use std::error::Error;

/// Why a session call was not served. Holds no token, no claim and no key: callers may see the reason, logs the cause.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The credential is no good, and will not become good.
    #[error("denied: {reason}")]
    Denied {
        /// Why.
        reason: Reason,
        /// What its holder should do.
        action: Action,
    },
    /// The store did not do it; trying again can help.
    #[error("undecided: the store did not answer")]
    Store(#[from] StoreError),
    /// The first denylist snapshot is not complete; trying again will help.
    #[error("undecided: the denylist is not loaded")]
    NotLoaded,
    /// The denylist is at its cap, so nothing can be said to be unrevoked.
    #[error("undecided: the denylist is full")]
    DenylistFull,
    /// No such live session.
    #[error("no such session")]
    NoSuchSession,
    /// The subject has as many sessions as its policy allows.
    #[error("the subject has as many sessions as allowed")]
    LimitReached,
    /// The access token would exceed what an access token may have; nothing was written.
    #[error("the access token would exceed 4096 bytes")]
    TokenTooLarge,
    /// No configured policy keeps session records.
    #[error("no policy here keeps session records")]
    NoSessionsInPolicy,
    /// The call itself is malformed.
    #[error("{field}: {why}")]
    Invalid {
        /// The field as the proto names it, from the request's root.
        field: &'static str,
        /// What is wrong, without its value.
        why: &'static str,
    },
    /// A token could not be made, through no fault of the caller.
    #[error("a token could not be made")]
    Mint(#[source] Box<dyn Error + Send + Sync>),
}

impl SessionError {
    pub(super) const ENDED: Self =
        Self::Denied { reason: Reason::SessionEnded, action: Action::Reauthenticate };

    pub(super) fn denied(reason: Reason) -> Self {
        Self::Denied { reason, action: Action::None }
    }

    pub(super) fn reauthenticate(reason: Reason) -> Self {
        Self::Denied { reason, action: Action::Reauthenticate }
    }

    /// The stable code for wire, logs and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Denied { reason, .. } => *reason,
            Self::Store(_) => Reason::StoreUnavailable,
            Self::NotLoaded => Reason::NotLoaded,
            Self::DenylistFull => Reason::DenylistFull,
            Self::NoSuchSession => Reason::NoSuchSession,
            Self::LimitReached => Reason::SessionLimit,
            Self::TokenTooLarge => Reason::TokenTooLarge,
            Self::NoSessionsInPolicy => Reason::NoSessionsInPolicy,
            Self::Invalid { .. } => Reason::BadCall,
            Self::Mint(_) => Reason::InternalError,
        }
    }

    /// What the holder of the refused credential should do.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Denied { action, .. } => *action,
            Self::Store(_)
            | Self::NotLoaded
            | Self::DenylistFull
            | Self::NoSuchSession
            | Self::LimitReached
            | Self::TokenTooLarge
            | Self::NoSessionsInPolicy
            | Self::Invalid { .. }
            | Self::Mint(_) => Action::None,
        }
    }
}

impl From<NoRandomness> for SessionError {
    fn from(cause: NoRandomness) -> Self {
        Self::Mint(Box::new(cause))
    }
}
