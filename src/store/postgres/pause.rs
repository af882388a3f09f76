//! How long no new connection is tried after one failed.

use crate::revocation::StoreError;
use crate::store::ServerFault;
use crate::token::random_bytes;
use std::time::Duration;
use tokio::time::Instant;

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why and how long no new connection is tried.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Option<Instant>,
    length: Duration,
    why: String,
}

impl Pause {
    pub(super) fn over(&self) -> Result<(), StoreError> {
        match self.until {
            Some(until) if Instant::now() < until => {
                Err(StoreError::Unavailable(format!("not tried again yet: {}", self.why).into()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Grows, with as much again by chance so that sidecars don't come back together.
    pub(super) fn grow(&mut self, fault: &ServerFault) -> Duration {
        self.length = (self.length * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let pause = self.length / 2 + by_chance(self.length / 2);
        self.until = Some(Instant::now() + pause);
        self.why = with_causes(fault);
        pause
    }
}

/// Up to this long.
pub(super) fn by_chance(at_most: Duration) -> Duration {
    let drawn = random_bytes().map_or(128, |[byte]| byte);
    at_most * u32::from(drawn) / 255
}

fn with_causes(fault: &ServerFault) -> String {
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
