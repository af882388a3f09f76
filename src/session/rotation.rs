//! Refresh-token rotation (RFC 9700 §4.14.2) as a pure state machine: a record, a presented generation and the time
//! in, a decision out. Every engine applies this one decision inside its atomic write.
//!
//! Identity is (session, generation), not bytes: whoever presents a generation the session has moved past holds a
//! copy, unless it is the one just before and the successor is younger than the grace window, which is what a lost
//! reply or a second tab looks like.

use crate::clock::Timestamp;
use crate::session::record::SessionRecord;
use std::time::Duration;

/// What a policy says about rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long the previous generation is still answered with the current one, and the current one with itself.
    pub grace: Duration,
}

/// What to do with a presented refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Current and older than grace: write this next generation, beginning now.
    Rotate {
        /// The successor.
        to: u64,
    },
    /// Current and younger than grace, or the previous one within grace: answer with the current generation.
    Repeat {
        /// The current generation.
        current: u64,
    },
    /// Newer than current: the store went back in time. Write this generation as the current one, beginning now.
    FastForward {
        /// The presented generation.
        to: u64,
    },
    /// Used before: end the session in the same write.
    Reused,
    /// Past its absolute end.
    Ended,
    /// Unused for longer than its idle time.
    Idle,
    /// No record: ended, purged or never there.
    Missing,
}

/// Decides. The caller has already found the session not revoked.
///
/// Checked in this order: absolute end, idle end, generation.
#[must_use]
pub fn decide(record: Option<&SessionRecord>, presented: u64, rules: Rules, now: Timestamp) -> Decision {
    let Some(record) = record else { return Decision::Missing };
    if now >= record.absolute_end {
        return Decision::Ended;
    }
    if now >= record.idle_end() {
        return Decision::Idle;
    }
    let current = record.generation;
    let in_grace = now < record.generation_began_at.after(rules.grace);
    if presented == current {
        if in_grace {
            Decision::Repeat { current }
        } else {
            Decision::Rotate { to: current.saturating_add(1) }
        }
    } else if presented > current {
        Decision::FastForward { to: presented }
    } else if presented.saturating_add(1) == current && in_grace {
        Decision::Repeat { current }
    } else {
        Decision::Reused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::{Attributes, Device};
    use crate::token::SessionId;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
    const RULES: Rules = Rules { grace: Duration::from_secs(10) };
    const IDLE: Duration = Duration::from_secs(3600);
    const ABSOLUTE: Duration = Duration::from_secs(3 * 3600);

    fn record(generation: u64) -> SessionRecord {
        SessionRecord {
            id: SessionId::from_bytes([1; 16]),
            issuer: "https://auth.example.com".into(),
            subject: "alice".into(),
            policy: "medium".into(),
            client_id: String::new(),
            device: Device::default(),
            attributes: Attributes::default(),
            attributes_version: 1,
            created_at: NOON,
            last_active_at: NOON,
            idle: IDLE,
            absolute_end: NOON.after(ABSOLUTE),
            generation,
            generation_began_at: NOON,
        }
    }

    fn after(seconds: u64) -> Timestamp {
        NOON.after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_current_generation_rotates_once_it_is_older_than_grace() {
        assert_eq!(decide(Some(&record(5)), 5, RULES, after(10)), Decision::Rotate { to: 6 });
    }

    #[test]
    fn a_second_tab_gets_the_current_generation_again() {
        assert_eq!(decide(Some(&record(5)), 5, RULES, after(9)), Decision::Repeat { current: 5 });
    }

    #[test]
    fn a_lost_reply_is_answered_with_the_successor_within_grace() {
        assert_eq!(decide(Some(&record(5)), 4, RULES, after(9)), Decision::Repeat { current: 5 });
    }

    #[test]
    fn rotate_refuses_a_generation_used_twice() {
        assert_eq!(decide(Some(&record(5)), 4, RULES, after(10)), Decision::Reused);
    }

    #[test]
    fn rotate_refuses_an_older_generation_even_within_grace() {
        assert_eq!(decide(Some(&record(5)), 3, RULES, after(1)), Decision::Reused);
    }

    #[test]
    fn a_store_that_went_back_in_time_is_moved_on() {
        assert_eq!(decide(Some(&record(5)), 9, RULES, after(1)), Decision::FastForward { to: 9 });
    }

    #[test]
    fn fast_forward_revives_no_session_that_is_over() {
        assert_eq!(decide(Some(&record(5)), 9, RULES, after(3600)), Decision::Idle);
        assert_eq!(decide(Some(&record(5)), 9, RULES, after(3 * 3600)), Decision::Ended);
        assert_eq!(decide(None, 9, RULES, NOON), Decision::Missing);
    }

    #[test]
    fn the_absolute_end_comes_before_idleness_and_idleness_before_reuse() {
        assert_eq!(decide(Some(&record(5)), 1, RULES, after(3 * 3600)), Decision::Ended);
        assert_eq!(decide(Some(&record(5)), 1, RULES, after(3600)), Decision::Idle);
    }

    /// Writes what was decided, as every engine does.
    fn apply(record: &mut Option<SessionRecord>, decision: Decision, now: Timestamp) {
        match decision {
            Decision::Rotate { to } | Decision::FastForward { to } => {
                if let Some(record) = record {
                    record.generation = to;
                    record.generation_began_at = now;
                    record.last_active_at = now;
                }
            }
            Decision::Reused => *record = None,
            Decision::Repeat { .. } | Decision::Ended | Decision::Idle | Decision::Missing => {}
        }
    }

    proptest! {
        #[test]
        fn whoever_presents_what_and_when_a_generation_has_one_successor_and_the_dead_stay_dead(
            steps in prop::collection::vec((0u64..4, 0u64..2000), 1..60),
        ) {
            let mut stored = Some(record(1));
            let mut now = NOON;
            let mut over = false;
            for (behind, wait) in steps {
                now = now.after(Duration::from_secs(wait));
                let before = stored.clone();
                let current = before.as_ref().map_or(1, |record| record.generation);
                // Only what was minted can be presented: the store has not lost anything here.
                let presented = current.saturating_sub(behind).max(1);
                let decision = decide(stored.as_ref(), presented, RULES, now);
                apply(&mut stored, decision, now);
                match decision {
                    Decision::Rotate { to } => {
                        prop_assert_eq!((presented, to), (current, current + 1));
                        prop_assert!(!over, "an ended session was refreshed");
                    }
                    Decision::Repeat { current: told } => {
                        let began = before.map_or(NOON, |record| record.generation_began_at);
                        prop_assert_eq!(told, current);
                        prop_assert!(current - presented <= 1 && now.since(began) < RULES.grace);
                        prop_assert!(!over, "an ended session was refreshed");
                    }
                    Decision::Reused => {
                        prop_assert!(presented < current && stored.is_none());
                        over = true;
                    }
                    Decision::FastForward { .. } => prop_assert!(false, "nothing was lost"),
                    Decision::Ended | Decision::Idle | Decision::Missing => over = true,
                }
            }
        }

        #[test]
        fn no_input_overflows_the_machine(
            generation: u64, presented: u64, began: u64, active: u64, end: u64, now: u64, grace: u64,
        ) {
            let odd = SessionRecord {
                generation_began_at: Timestamp::from_millis(began),
                last_active_at: Timestamp::from_millis(active),
                absolute_end: Timestamp::from_millis(end),
                ..record(generation)
            };
            let rules = Rules { grace: Duration::from_millis(grace) };
            let decision = decide(Some(&odd), presented, rules, Timestamp::from_millis(now));
            if now >= end {
                prop_assert_eq!(decision, Decision::Ended);
            }
        }
    }
}
