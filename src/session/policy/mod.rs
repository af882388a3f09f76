//! How a session lives: the decision "JWT or session" by risk, as configuration. A policy is built from a preset and
//! what is said otherwise, and once built its times agree with each other.

mod build;
mod preset;
mod set;

pub use build::PolicyError;
pub use preset::{AtLimit, Overrides, Preset, Strategy};
pub use set::{Policies, PoliciesError};

use crate::session::store::Limit;
use std::collections::BTreeSet;
use std::time::Duration;

/// How far clocks may stand apart: a denial is kept this much longer than what it denies can live.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// How sessions of one kind live. Its times agree: access token ≤ idle ≤ absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: String,
    strategy: Strategy,
    access_token_life: Duration,
    idle: Duration,
    absolute: Duration,
    fully_consistent: bool,
    staleness_bound: Duration,
    says_stale_after: Option<Duration>,
    update_age: Duration,
    limit: Option<Limit>,
    grace: Duration,
    access_token_attributes: Option<BTreeSet<String>>,
    audience: Vec<String>,
    renew_before: Duration,
}

impl Policy {
    /// Its name, which its tokens carry as `pol`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a login gets.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whether it keeps session records.
    #[must_use]
    pub fn keeps_records(&self) -> bool {
        self.strategy != Strategy::Jwt
    }

    /// How long an access token lives; `None` under `session`, whose token lives as long as the session.
    #[must_use]
    pub fn access_token_life(&self) -> Option<Duration> {
        (self.strategy != Strategy::Session).then_some(self.access_token_life)
    }

    /// How long a session lives unused; under `jwt` as long as [`Policy::absolute`].
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// How long a session lives however much it is used.
    #[must_use]
    pub fn absolute(&self) -> Duration {
        self.absolute
    }

    /// Whether no caller may ask for less than `fully_consistent`.
    #[must_use]
    pub fn fully_consistent(&self) -> bool {
        self.fully_consistent
    }

    /// How stale an answer may be before it is no answer.
    #[must_use]
    pub fn staleness_bound(&self) -> Duration {
        self.staleness_bound
    }

    /// From which staleness on answers say so.
    #[must_use]
    pub fn says_stale_after(&self) -> Option<Duration> {
        self.says_stale_after
    }

    /// Activity is written at most this often.
    #[must_use]
    pub fn update_age(&self) -> Duration {
        self.update_age
    }

    /// How many live sessions a subject may have.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// How long a refresh token may be repeated.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether access tokens carry `roles`, `scope` or the further claim of this name.
    #[must_use]
    pub fn carries(&self, attribute: &str) -> bool {
        self.access_token_attributes.as_ref().is_none_or(|names| names.contains(attribute))
    }

    /// `aud` of access tokens; never empty.
    #[must_use]
    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    /// How long before its end an access token should be renewed.
    #[must_use]
    pub fn renew_before(&self) -> Duration {
        self.renew_before
    }

    /// The longest that anything of a session can be accepted, counted from the login, leeway included: how long a
    /// denial of it must be kept.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.absolute.saturating_add(LEEWAY)
    }

    /// How long attributes that were replaced can still be met with: in an access token as long as that lives, under
    /// `session` in an answer kept as long as it may be stale; and leeway before and after.
    #[must_use]
    pub fn stale_claims_life(&self) -> Duration {
        self.access_token_life().unwrap_or(self.staleness_bound).saturating_add(2 * LEEWAY)
    }
}
