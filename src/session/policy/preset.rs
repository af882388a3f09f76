//! The presets, and what can be said otherwise.

use std::fmt;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a login gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One long access token; no server record, so no refresh, no list, no limit.
    Jwt,
    /// A short access token, a rotating refresh token and a session record.
    Hybrid,
    /// An opaque token whose session is in the store.
    Session,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jwt => "jwt",
            Self::Hybrid => "hybrid",
            Self::Session => "session",
        })
    }
}

/// The usual decision, by risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// A blog, content: [`Strategy::Jwt`], 30 days.
    Low,
    /// A shop, social: [`Strategy::Hybrid`], 15 minutes, 30 days idle, 90 days in all.
    #[default]
    Medium,
    /// Finance, medical, back office: [`Strategy::Session`], 30 minutes idle, 2 hours in all, fully consistent.
    High,
}

/// What a preset says.
pub(super) struct Defaults {
    pub(super) strategy: Strategy,
    pub(super) access_token_life: Duration,
    pub(super) idle: Duration,
    pub(super) absolute: Duration,
    pub(super) fully_consistent: bool,
    pub(super) staleness_bound: Duration,
    pub(super) says_stale_after: Option<Duration>,
}

impl Preset {
    pub(super) fn defaults(self) -> Defaults {
        match self {
            Self::Low => Defaults {
                strategy: Strategy::Jwt,
                access_token_life: 30 * DAY,
                idle: 30 * DAY,
                absolute: 30 * DAY,
                fully_consistent: false,
                staleness_bound: DAY,
                says_stale_after: Some(5 * MINUTE),
            },
            Self::Medium => Defaults {
                strategy: Strategy::Hybrid,
                access_token_life: 15 * MINUTE,
                idle: 30 * DAY,
                absolute: 90 * DAY,
                fully_consistent: false,
                staleness_bound: 30 * SECOND,
                says_stale_after: None,
            },
            Self::High => Defaults {
                strategy: Strategy::Session,
                access_token_life: 15 * MINUTE,
                idle: 30 * MINUTE,
                absolute: 2 * HOUR,
                fully_consistent: true,
                staleness_bound: 10 * SECOND,
                says_stale_after: None,
            },
        }
    }
}

/// What happens to a login at the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// The subject's oldest session ends.
    #[default]
    EvictOldest,
    /// The login is refused.
    Reject,
}

/// What a policy says otherwise than its preset; `None` leaves the preset's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// What a login gets.
    pub strategy: Option<Strategy>,
    /// Of `jwt` and `hybrid`: how long an access token lives.
    pub access_token_life: Option<Duration>,
    /// Of `hybrid` and `session`: how long a session lives unused.
    pub idle: Option<Duration>,
    /// How long a session lives however much it is used.
    pub absolute: Option<Duration>,
    /// Whether no caller may ask for less than `fully_consistent`.
    pub fully_consistent: Option<bool>,
    /// How stale an answer may be before it is no answer.
    pub staleness_bound: Option<Duration>,
    /// From which staleness on answers say so.
    pub says_stale_after: Option<Duration>,
    /// Activity is written at most this often; by default the smaller of idle/6 and 24 h.
    pub update_age: Option<Duration>,
    /// How many live sessions a subject may have; by default unlimited.
    pub max_sessions: Option<u32>,
    /// What happens at that limit.
    pub at_limit: Option<AtLimit>,
    /// Of `hybrid`: how long a refresh token may be repeated; by default 10 s.
    pub grace: Option<Duration>,
    /// Which of `roles`, `scope` and the further claims' names go into access tokens; by default all.
    pub access_token_attributes: Option<Vec<String>>,
    /// `aud` of access tokens; by default our own issuer.
    pub audience: Option<Vec<String>>,
    /// Of `hybrid`: how long before its end an access token should be renewed; by default 2 minutes, or half the life
    /// of a token that lives 4 minutes or less.
    pub renew_before: Option<Duration>,
}
