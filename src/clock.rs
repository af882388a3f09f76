//! Time as a parameter: the two clocks a verdict needs, and a clock that tests move by hand.
//!
//! A wall clock can be stepped, in either direction, while tokens are being judged. Expiry is therefore judged by
//! whichever is later, the wall clock or the start plus the time the machine has counted since, so that a step back
//! revives nothing; denials are purged by whichever is earlier, so that a step forward forgets nothing.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An instant as milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The end of time, for what never expires by itself.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch, as in a JWT's NumericDate; saturates.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This instant and `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This instant and `duration` earlier; saturates at the epoch.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(self.0));
        match at {
            Some(at) if self.0 < 253_402_300_800_000 => {
                write!(f, "{}", humantime::format_rfc3339_millis(at))
            }
            _ => write!(f, "{} ms", self.0),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// What expiry is judged by: max(wall clock, start + time counted since start).
    pub judged: Timestamp,
    /// What purging of denials is judged by: the smaller of the two.
    pub purging: Timestamp,
    /// Time counted since an arbitrary origin, suspend included (`CLOCK_BOOTTIME`); never steps. Staleness and
    /// cool-downs are measured on it.
    pub elapsed: Duration,
}

/// Where time comes from. Cheap to clone; clones share the source.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { wall_at_start: Timestamp, elapsed_at_start: Duration },
    Manual(Arc<Mutex<Hands>>),
}

#[derive(Debug)]
struct Hands {
    wall: Timestamp,
    wall_at_start: Timestamp,
    elapsed: Duration,
}

impl Clock {
    /// The machine's clocks, with this moment as the start.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { wall_at_start: system_wall(), elapsed_at_start: system_elapsed() })
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let hands =
            Arc::new(Mutex::new(Hands { wall: start, wall_at_start: start, elapsed: Duration::ZERO }));
        (Self(Source::Manual(Arc::clone(&hands))), ManualClock(hands))
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::System { wall_at_start, elapsed_at_start } => {
                let elapsed = system_elapsed();
                let counted = wall_at_start.after(elapsed.saturating_sub(*elapsed_at_start));
                read(system_wall(), counted, elapsed)
            }
            Source::Manual(hands) => {
                let hands = hands.lock();
                read(hands.wall, hands.wall_at_start.after(hands.elapsed), hands.elapsed)
            }
        }
    }

    /// Reads [`Now::elapsed`] alone.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => system_elapsed(),
            Source::Manual(hands) => hands.lock().elapsed,
        }
    }

    /// How far the wall clock stands from where the counted time says it should, and in which direction.
    #[must_use]
    pub fn step(&self) -> Step {
        let Now { judged, purging, .. } = self.now();
        let apart = judged.since(purging);
        let wall = match &self.0 {
            Source::System { .. } => system_wall(),
            Source::Manual(hands) => hands.lock().wall,
        };
        if apart < Step::NOTICED {
            Step::None
        } else if wall >= judged {
            Step::Forward(apart)
        } else {
            Step::Back(apart)
        }
    }
}

/// Whether the wall clock was stepped since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wall clock and counted time agree to within [`Step::NOTICED`].
    None,
    /// The wall clock was set ahead by this much.
    Forward(Duration),
    /// The wall clock was set back by this much.
    Back(Duration),
}

impl Step {
    /// Smaller differences are slewing, not steps.
    pub const NOTICED: Duration = Duration::from_secs(2);
}

fn read(wall: Timestamp, counted: Timestamp, elapsed: Duration) -> Now {
    Now { judged: wall.max(counted), purging: wall.min(counted), elapsed }
}

/// The hands of a manual clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Hands>>);

impl ManualClock {
    /// Lets time pass: both clocks move on together.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.0.lock();
        hands.wall = hands.wall.after(by);
        hands.elapsed = hands.elapsed.saturating_add(by);
    }

    /// Steps the wall clock alone to `wall`, as an operator or NTP might.
    pub fn step_wall_to(&self, wall: Timestamp) {
        self.0.lock().wall = wall;
    }

    /// Where the wall clock stands.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.0.lock().wall
    }
}

fn system_elapsed() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn system_wall() -> Timestamp {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(at.tv_nsec.unsigned_abs() / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn time_passes_on_both_clocks() {
        let (clock, hands) = Clock::manual(NOON);
        hands.advance(HOUR);
        let now = clock.now();
        assert_eq!(now.judged, NOON.after(HOUR));
        assert_eq!(now.purging, NOON.after(HOUR));
        assert_eq!(clock.step(), Step::None);
    }

    #[test]
    fn a_step_back_revives_nothing() {
        let (clock, hands) = Clock::manual(NOON);
        hands.advance(HOUR);
        hands.step_wall_to(NOON);
        assert_eq!(clock.now().judged, NOON.after(HOUR));
        assert_eq!(clock.step(), Step::Back(HOUR));
    }

    #[test]
    fn a_blip_forward_leaves_nobody_expired_and_purges_nothing_early() {
        let (clock, hands) = Clock::manual(NOON);
        hands.step_wall_to(NOON.after(HOUR));
        assert_eq!(clock.now().judged, NOON.after(HOUR));
        assert_eq!(clock.now().purging, NOON);
        assert_eq!(clock.step(), Step::Forward(HOUR));
        hands.step_wall_to(NOON);
        assert_eq!(clock.now().judged, NOON);
    }

    #[test]
    fn the_machine_s_clocks_move_and_agree() {
        let clock = Clock::system();
        let first = clock.now();
        let second = clock.now();
        assert!(second.elapsed >= first.elapsed);
        assert!(second.judged >= first.judged);
        assert_eq!(clock.step(), Step::None);
    }
}
