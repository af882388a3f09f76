//! How fresh an answer must be: what the policy bears, and what the caller asks beyond it.

use crate::revocation::Standing;
use crate::token::{Reason, Revision};
use std::time::Duration;

/// What a caller asks (the words are SpiceDB's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Memory alone.
    MinimizeLatency,
    /// Memory, once it holds this revision.
    AtLeastAsFresh(Revision),
    /// The store, now.
    FullyConsistent,
}

/// What a policy bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Every answer is fully consistent, whatever the caller asks.
    pub fully_consistent: bool,
    /// Beyond this staleness there is no answer.
    pub bound: Duration,
    /// Beyond this staleness answers say that they are stale.
    pub says_stale_after: Duration,
    /// How long before expiry a client should renew, where the policy says so and not the issuer; `Some` zero: there is
    /// nothing to renew with.
    pub renew_before: Option<Duration>,
}

impl Freshness {
    /// The strictest there is, for a token whose policy is not configured here: nobody can say how stale its answers
    /// may be.
    pub const STRICTEST: Self = Self {
        fully_consistent: true,
        bound: Duration::from_secs(10),
        says_stale_after: Duration::from_secs(10),
        renew_before: None,
    };

    /// What the caller asks, or more where the policy sets a floor.
    #[must_use]
    pub fn at_least(&self, asked: Consistency) -> Consistency {
        if self.fully_consistent { Consistency::FullyConsistent } else { asked }
    }

    /// Whether an acceptance may be given on this standing; `Ok` says whether it is to be called stale.
    ///
    /// # Errors
    /// The reason why nobody can tell.
    pub fn judge(&self, standing: &Standing) -> Result<bool, Reason> {
        if !standing.loaded {
            Err(Reason::NotLoaded)
        } else if standing.full {
            Err(Reason::DenylistFull)
        } else if standing.staleness > self.bound {
            Err(Reason::TooStale)
        } else {
            Ok(standing.staleness >= self.says_stale_after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIUM: Freshness = Freshness {
        fully_consistent: false,
        bound: Duration::from_secs(30),
        says_stale_after: Duration::from_secs(15),
        renew_before: None,
    };

    fn standing(staleness: u64) -> Standing {
        Standing {
            loaded: true,
            full: false,
            revision: Revision { epoch: 1, seq: 1 },
            staleness: Duration::from_secs(staleness),
        }
    }

    #[test]
    fn past_its_bound_there_is_no_answer() {
        assert_eq!(MEDIUM.judge(&standing(0)), Ok(false));
        assert_eq!(MEDIUM.judge(&standing(15)), Ok(true));
        assert_eq!(MEDIUM.judge(&standing(30)), Ok(true));
        assert_eq!(MEDIUM.judge(&standing(31)), Err(Reason::TooStale));
    }

    #[test]
    fn an_incomplete_denylist_gives_no_answer() {
        assert_eq!(MEDIUM.judge(&Standing { loaded: false, ..standing(0) }), Err(Reason::NotLoaded));
        assert_eq!(MEDIUM.judge(&Standing { full: true, ..standing(0) }), Err(Reason::DenylistFull));
    }

    #[test]
    fn no_caller_goes_under_a_policy_s_floor() {
        let revision = Consistency::AtLeastAsFresh(Revision { epoch: 1, seq: 1 });
        for asked in [Consistency::MinimizeLatency, revision, Consistency::FullyConsistent] {
            assert_eq!(Freshness::STRICTEST.at_least(asked), Consistency::FullyConsistent);
            assert_eq!(MEDIUM.at_least(asked), asked);
        }
    }
}
