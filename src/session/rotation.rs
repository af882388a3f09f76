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
