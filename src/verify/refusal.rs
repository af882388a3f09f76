//! What a verification says when it does not accept: a definite no, or that nobody can tell now. Never one for the
//! other.

use crate::token::{Action, Issuer, Reason};
use std::time::Duration;

/// A verification's "no" or "can't tell".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Definite: asking again brings the same.
    Denied {
        /// Why.
        reason: Reason,
        /// What the holder should do.
        action: Action,
        /// Whose credential it was, where that is one of the configured issuers.
        issuer: Option<Issuer>,
    },
    /// Nobody can tell now.
    Undecided {
        /// Why.
        reason: Reason,
        /// When to ask again.
        retry_after: Duration,
        /// Whose credential it was, where that is one of the configured issuers.
        issuer: Option<Issuer>,
    },
}

impl Refusal {
    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Denied { reason, .. } | Self::Undecided { reason, .. } => *reason,
        }
    }
}

/// A step's "no". The detail is a fixed phrase for people who look into a token; it holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub reason: Reason,
    /// Why, in words.
    pub detail: &'static str,
}

impl Denied {
    /// A denial for a reason.
    #[must_use]
    pub const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    /// What the holder should do: an expired or inactive token or stale claims can be refreshed, a session that is over begun anew.
    #[must_use]
    pub const fn action(&self) -> Action {
        if matches!(self.reason, Reason::Expired | Reason::StaleClaims | Reason::Inactive) {
            Action::Refresh
        } else if matches!(self.reason, Reason::SessionEnded | Reason::SessionIdle) {
            Action::Reauthenticate
        } else {
            Action::None
        }
    }
}
