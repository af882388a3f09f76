//! `floor`, `staleness_bound`, `says_stale_after`: how fresh a verification must be, for own policies and issuers.

use super::reader::Section;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// The least consistency of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Memory answers, at most as stale as the bound.
    MinimizeLatency,
    /// The store is asked on each call.
    FullyConsistent,
}

/// How fresh a foreign issuer's verifications must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Callers can ask for more, not for less.
    pub floor: Floor,
    /// Staler answers are none.
    pub staleness_bound: Duration,
    /// From which staleness on answers say so; less than the bound.
    pub says_stale_after: Option<Duration>,
}

/// The same for an own policy, `None` being its preset's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreshnessOverrides {
    /// See [`Freshness::floor`].
    pub floor: Option<Floor>,
    /// See [`Freshness::staleness_bound`].
    pub staleness_bound: Option<Duration>,
    /// See [`Freshness::says_stale_after`].
    pub says_stale_after: Option<Duration>,
}

pub(super) fn read_freshness(section: &Section<'_>) -> Freshness {
    let read = read_overrides(section);
    Freshness {
        floor: read.floor.unwrap_or(Floor::MinimizeLatency),
        staleness_bound: read.staleness_bound.unwrap_or_default(),
        says_stale_after: read.says_stale_after,
    }
}

pub(super) fn read_overrides(section: &Section<'_>) -> FreshnessOverrides {
    let read = FreshnessOverrides {
        floor: section.choice("floor", |word| match word {
            "minimize_latency" => Some(Floor::MinimizeLatency),
            "fully_consistent" => Some(Floor::FullyConsistent),
            _ => None,
        }),
        staleness_bound: section.duration("staleness_bound", SECOND..=WEEK),
        says_stale_after: section.duration("says_stale_after", Duration::ZERO..=WEEK),
    };
    if let (Some(says), Some(bound)) = (read.says_stale_after, read.staleness_bound)
        && says >= bound
    {
        let message = "must be less than `staleness_bound`: staler answers are not given at all";
        section.fault("says_stale_after", message);
    }
    read
}
