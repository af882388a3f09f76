//! Who may refresh a foreign session now: a pure state machine over a register that a store keeps for each refresh token.
//! Issuers know no fence. So whoever may have sent a token is not overtaken while its lease runs; and after that one other
//! tries, knowing that the token may be used up.

use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::token::TokenDigest;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a lease that ended without a result is remembered, so that the next attempt is known to follow one.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Registers as an engine keeps them: small, by key, until they expire. The state machine is on top.
#[tonic::async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// What is there, unless it has expired, and the instant to judge it by: the store's own, where it has a clock.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn lease(
        &self,
        key: TokenDigest,
        now: Timestamp,
    ) -> Result<(Option<Vec<u8>>, Timestamp), StoreError>;

    /// Puts a register in the place of the one that was seen, or where none was; in one write. `false`: another is there
    /// by now.
    ///
    /// # Errors
    /// [`StoreError`]; it may have been written.
    async fn put_lease(
        &self,
        key: TokenDigest,
        seen: Option<Vec<u8>>,
        register: Vec<u8>,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Deletes at most `limit` registers that have expired; by the earlier of two clocks where the store has one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge_leases(&self, now: Timestamp, limit: u32) -> Result<u32, StoreError>;
}

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Tokens, sealed under a key that only the presented token yields.
    Sealed(String),
    /// The issuer says that the refresh token is no good.
    Refused,
}

/// A register's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose it is; drawn for each attempt.
    holder: u64,
    /// When the lease or, once it has one, the outcome ends, in ms.
    until: u64,
    outcome: Option<Outcome>,
    /// Nothing was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
    /// It was sent, and no answer will come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unanswered: bool,
}

/// What whoever presents a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Send it. `ambiguous`: somebody may have sent it before, and nobody knows what came of it.
    Send {
        /// Whether an attempt before ended without a result.
        ambiguous: bool,
    },
    /// Wait: somebody else is at it.
    Wait {
        /// Until then at most.
        until: Timestamp,
        /// Nothing will come of it before: its answer was lost.
        unanswered: bool,
    },
    /// Take this.
    Take(Outcome),
}

/// What becomes of the register when an attempt has its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settling {
    /// It is written.
    Write,
    /// Another counts.
    Keep(Outcome),
    /// It is told and not written: somebody else is at it, and may fare better.
    Tell,
}

impl Lease {
    /// A lease that begins now.
    #[must_use]
    pub fn new(holder: u64, now: Timestamp, lasts: Duration) -> Self {
        Self {
            holder,
            until: now.after(lasts).as_millis(),
            outcome: None,
            released: false,
            unanswered: false,
        }
    }

    /// The same with its outcome, for latecomers.
    #[must_use]
    pub fn settled(holder: u64, outcome: Outcome, now: Timestamp, grace: Duration) -> Self {
        Self { outcome: Some(outcome), ..Self::new(holder, now, grace) }
    }

    /// The same, over at once: nothing was sent.
    #[must_use]
    pub fn released(self, now: Timestamp) -> Self {
        Self { released: true, until: now.as_millis(), ..self }
    }

    /// The same, of which no answer will come: nobody has to look again before it ends.
    #[must_use]
    pub fn unanswered(self) -> Self {
        Self { unanswered: true, ..self }
    }

    /// Whether this holder is still at it.
    #[must_use]
    pub fn is_held_by(&self, holder: u64) -> bool {
        self.holder == holder && self.outcome.is_none() && !self.released
    }

    fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until)
    }

    /// Until when the register is kept.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        if self.outcome.is_some() || self.released { self.until() } else { self.until().after(REMEMBERED) }
    }

    /// As a register.
    ///
    /// # Errors
    /// Never, as far as known.
    pub fn register(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|_| StoreError::Corrupt("a lease"))
    }

    /// From a register.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn read(register: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(register).map_err(|_| StoreError::Corrupt("a lease"))
    }
}

/// What whoever presents a token may do, by what is there.
#[must_use]
pub fn turn(lease: Option<&Lease>, now: Timestamp) -> Turn {
    match lease {
        None => Turn::Send { ambiguous: false },
        Some(lease) if now < lease.until() => match &lease.outcome {
            Some(outcome) => Turn::Take(outcome.clone()),
            None => Turn::Wait { until: lease.until(), unanswered: lease.unanswered },
        },
        Some(lease) => Turn::Send { ambiguous: lease.outcome.is_none() && !lease.released },
    }
}

/// What becomes of what is there when this holder has an outcome. Tokens count before a refusal, whoever got them: a token
/// that was sent twice is refused the second time.
#[must_use]
pub fn settle(lease: Option<&Lease>, holder: u64, outcome: &Outcome, now: Timestamp) -> Settling {
    let standing = lease.filter(|lease| now < lease.until());
    match (standing.map(|lease| (lease.holder, &lease.outcome)), outcome) {
        (Some((_, Some(sealed @ Outcome::Sealed(_)))), _) => Settling::Keep(sealed.clone()),
        (_, Outcome::Sealed(_)) | (None, Outcome::Refused) => Settling::Write,
        (Some((other, None)), Outcome::Refused) if other != holder => Settling::Tell,
        (Some((_, None | Some(Outcome::Refused))), Outcome::Refused) => Settling::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
    const GRACE: Duration = Duration::from_secs(10);

    fn sealed(text: &str) -> Outcome {
        Outcome::Sealed(text.to_owned())
    }

    #[test]
    fn the_first_sends_and_the_others_wait() {
        assert_eq!(turn(None, NOON), Turn::Send { ambiguous: false });
        let lease = Lease::new(1, NOON, GRACE);
        let until = NOON.after(GRACE);
        assert_eq!(turn(Some(&lease), NOON.after(GRACE / 2)), Turn::Wait { until, unanswered: false });
        let lost = lease.unanswered();
        assert_eq!(turn(Some(&lost), NOON.after(GRACE / 2)), Turn::Wait { until, unanswered: true });
        assert_eq!(turn(Some(&lost), until), Turn::Send { ambiguous: true });
    }

    #[test]
    fn a_lease_that_ran_out_is_followed_by_one_attempt_that_knows_of_it() {
        let lease = Lease::new(1, NOON, GRACE);
        assert_eq!(turn(Some(&lease), NOON.after(GRACE)), Turn::Send { ambiguous: true });
        assert!(lease.expires_at() > NOON.after(GRACE), "so it is remembered for a while");
        let next = Lease::new(2, NOON.after(GRACE), GRACE);
        let until = NOON.after(GRACE * 2);
        assert_eq!(turn(Some(&next), NOON.after(GRACE)), Turn::Wait { until, unanswered: false });
    }

    #[test]
    fn an_outcome_is_there_for_latecomers_within_grace_and_gone_after() {
        for outcome in [sealed("x"), Outcome::Refused] {
            let lease = Lease::settled(1, outcome.clone(), NOON, GRACE);
            assert_eq!(turn(Some(&lease), NOON.after(GRACE / 2)), Turn::Take(outcome));
            assert_eq!(turn(Some(&lease), NOON.after(GRACE)), Turn::Send { ambiguous: false });
            assert_eq!(lease.expires_at(), NOON.after(GRACE));
        }
    }

    #[test]
    fn what_was_never_sent_leaves_no_doubt() {
        let lease = Lease::new(1, NOON, GRACE).released(NOON);
        assert_eq!(turn(Some(&lease), NOON), Turn::Send { ambiguous: false });
    }

    #[test]
    fn tokens_count_before_a_refusal_whoever_got_them() {
        let later = NOON.after(Duration::from_secs(1));
        let others = Lease::new(2, NOON, GRACE);
        assert_eq!(settle(Some(&others), 1, &sealed("x"), later), Settling::Write, "late, and good");
        assert_eq!(settle(Some(&others), 1, &Outcome::Refused, later), Settling::Tell);
        assert_eq!(settle(Some(&others), 2, &Outcome::Refused, later), Settling::Write);
        let taken = Lease::settled(2, sealed("x"), NOON, GRACE);
        assert_eq!(settle(Some(&taken), 1, &Outcome::Refused, later), Settling::Keep(sealed("x")));
        assert_eq!(settle(Some(&taken), 1, &sealed("y"), later), Settling::Keep(sealed("x")));
        let refused = Lease::settled(2, Outcome::Refused, NOON, GRACE);
        assert_eq!(settle(Some(&refused), 1, &sealed("x"), later), Settling::Write);
    }

    #[test]
    fn a_register_says_what_it_said() {
        let lease = Lease::settled(u64::MAX, sealed("x"), NOON, GRACE);
        assert!(Lease::read(&lease.register().unwrap()).unwrap() == lease);
        assert!(Lease::read(b"{}").is_err());
    }

    proptest! {
        /// Sidecars in any order, each with its own speed: at no instant may two send, unless a lease ran out between.
        #[test]
        fn never_two_send_within_one_lease(steps in proptest::collection::vec((0_u64..6, 0_u64..4_000), 1..60)) {
            let mut lease: Option<Lease> = None;
            let (mut now, mut sending) = (NOON, None::<Timestamp>);
            for (holder, pause) in steps {
                now = now.after(Duration::from_millis(pause));
                match turn(lease.as_ref(), now) {
                    Turn::Send { ambiguous } => {
                        prop_assert!(sending.is_none_or(|until| now >= until));
                        prop_assert_eq!(ambiguous, sending.is_some());
                        lease = Some(Lease::new(holder, now, GRACE));
                        sending = Some(now.after(GRACE));
                    }
                    Turn::Wait { until, .. } => {
                        prop_assert_eq!(Some(until), sending);
                        if holder == 0 {
                            lease = Some(Lease::settled(holder, Outcome::Refused, now, GRACE));
                            sending = None;
                        }
                    }
                    Turn::Take(_) => prop_assert!(sending.is_none()),
                }
            }
        }
    }
}
