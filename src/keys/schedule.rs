//! When a key set is fetched: a pure state machine over the counted time, so that every rule of it can be tested by
//! moving numbers.

use std::time::Duration;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const SLOWEST_RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(30);

/// What came of asking for fresher keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// A fetch was made just now: look again, then it is an unknown key.
    Fetched,
    /// Fetched well within the cool-down, maybe while the caller was looking: look again, then it is an unknown key.
    FreshEnough,
    /// The last fetch failed or did not end in time: it can't be told whether there is such a key.
    Failed,
    /// The source is not fetched; what it has is all there is.
    NotFetchable,
}

/// The periods, as configured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    pub(super) refresh_every: Duration,
    pub(super) cool_down: Duration,
    pub(super) max_age: Duration,
}

/// Fetches that were and will be. Instants are counted time ([`crate::clock::Now::elapsed`]).
#[derive(Debug)]
pub(super) struct Schedule {
    periods: Periods,
    due: Duration,
    wanted: bool,
    flying: bool,
    closed_until: Duration,
    last_succeeded: Option<bool>,
    failures: u32,
    fetched_at: Option<Duration>,
}

impl Schedule {
    /// The first fetch is due at once.
    pub(super) fn new(periods: Periods) -> Self {
        Self {
            periods,
            due: Duration::ZERO,
            wanted: false,
            flying: false,
            closed_until: Duration::ZERO,
            last_succeeded: None,
            failures: 0,
            fetched_at: None,
        }
    }

    /// Somebody met an unknown key. `None`: a fetch is under way or was just ordered, wait for its end.
    pub(super) fn seek(&mut self, now: Duration) -> Option<Sought> {
        if self.flying || self.wanted {
            return None;
        }
        match self.last_succeeded {
            Some(true) if now < self.closed_until => Some(Sought::FreshEnough),
            Some(false) if now < self.closed_until => Some(Sought::Failed),
            Some(_) | None => {
                self.wanted = true;
                None
            }
        }
    }

    /// Whether to fetch now; if so, the fetch counts as under way.
    pub(super) fn begin(&mut self, now: Duration) -> bool {
        self.flying = self.wanted || now >= self.due;
        self.flying
    }

    /// A fetch that began at `began` ended at `now`. `jitter` in 0..=255 spreads a fleet's fetches.
    pub(super) fn end(&mut self, began: Duration, now: Duration, succeeded: bool, jitter: u8) {
        self.flying = false;
        self.wanted = false;
        self.last_succeeded = Some(succeeded);
        let share =
            |whole: Duration, divisor: u32| (whole / (divisor * 255)).saturating_mul(u32::from(jitter));
        let pause = self.periods.cool_down.saturating_add(share(self.periods.cool_down, 4));
        self.closed_until = now.saturating_add(pause);
        if succeeded {
            self.failures = 0;
            self.fetched_at = Some(began);
            let period = self.periods.refresh_every;
            self.due = now.saturating_add(period.saturating_sub(share(period, 10)));
        } else {
            let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
            let slowest = if self.usable(now) {
                self.periods.refresh_every
            } else {
                SLOWEST_RETRY_WITHOUT_KEYS.min(self.periods.refresh_every)
            };
            let pause = doubled.min(slowest);
            self.failures = self.failures.saturating_add(1);
            self.due = now.saturating_add(pause.saturating_sub(share(pause, 4)));
        }
    }

    /// What the waiting are told after a fetch ended.
    pub(super) fn outcome(&self) -> Sought {
        if self.last_succeeded == Some(true) { Sought::Fetched } else { Sought::Failed }
    }

    /// Whether what was fetched last is not too old. Counted from when the fetch was sent.
    pub(super) fn usable(&self, now: Duration) -> bool {
        self.age(now).is_some_and(|age| age <= self.periods.max_age)
    }

    /// How long ago the last good fetch was sent.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.fetched_at.map(|at| now.saturating_sub(at))
    }

    /// How long nothing will happen by itself.
    pub(super) fn idle(&self, now: Duration) -> Duration {
        let until_due = self.due.saturating_sub(now);
        match self.age(now) {
            Some(age) if age <= self.periods.max_age => {
                let left = self.periods.max_age.saturating_sub(age);
                until_due.min(left.saturating_add(Duration::from_millis(1)))
            }
            Some(_) | None => until_due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn schedule() -> Schedule {
        Schedule::new(Periods { refresh_every: s(300), cool_down: s(30), max_age: s(86_400) })
    }

    fn fetched_at(at: Duration, jitter: u8) -> Schedule {
        let mut schedule = schedule();
        assert!(schedule.begin(at));
        schedule.end(at, at, true, jitter);
        schedule
    }

    #[test]
    fn the_first_fetch_is_due_at_once_and_the_next_after_the_period() {
        let mut schedule = fetched_at(s(0), 0);
        assert!(!schedule.begin(s(299)));
        assert!(schedule.begin(s(300)));
        assert!(fetched_at(s(0), 255).begin(s(271)), "jitter is up to a tenth earlier");
    }

    #[test]
    fn an_unknown_kid_within_the_cool_down_starts_no_fetch() {
        let mut schedule = fetched_at(s(0), 0);
        assert_eq!(schedule.seek(s(29)), Some(Sought::FreshEnough));
        assert!(!schedule.begin(s(29)));
        assert_eq!(schedule.seek(s(30)), None);
        assert!(schedule.begin(s(30)));
        let mut jittered = fetched_at(s(0), 255);
        assert_eq!(jittered.seek(s(37)), Some(Sought::FreshEnough));
        assert_eq!(jittered.seek(s(38)), None);
    }

    #[test]
    fn a_storm_of_unknown_kids_joins_one_fetch() {
        let mut schedule = fetched_at(s(0), 0);
        assert!((0..100).all(|_| schedule.seek(s(40)).is_none()));
        assert!(schedule.begin(s(40)));
        assert!((0..100).all(|_| schedule.seek(s(41)).is_none()));
        schedule.end(s(40), s(42), true, 0);
        assert_eq!(schedule.outcome(), Sought::Fetched);
        assert!(!schedule.begin(s(42)), "answered for all of them");
        assert_eq!(schedule.seek(s(42)), Some(Sought::FreshEnough));
    }

    #[test]
    fn after_a_failure_it_can_t_be_told() {
        let mut schedule = fetched_at(s(0), 0);
        assert_eq!(schedule.seek(s(40)), None);
        assert!(schedule.begin(s(40)));
        schedule.end(s(40), s(45), false, 0);
        assert_eq!(schedule.outcome(), Sought::Failed);
        assert_eq!(schedule.seek(s(46)), Some(Sought::Failed));
    }

    #[test]
    fn failures_back_off_to_half_a_minute_until_there_are_keys() {
        let mut schedule = schedule();
        let mut now = s(0);
        for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert!(schedule.begin(now));
            schedule.end(now, now, false, 0);
            assert!(!schedule.begin(now + s(pause) - Duration::from_millis(1)));
            now += s(pause);
        }
        assert!(schedule.begin(now));
        schedule.end(now, now, true, 0);
        assert!(!schedule.begin(now + s(299)));
    }

    #[test]
    fn failures_with_keys_at_hand_back_off_to_the_period() {
        let mut schedule = fetched_at(s(0), 0);
        let mut now = s(300);
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert!(schedule.begin(now));
            schedule.end(now, now, false, 0);
            assert_eq!(schedule.idle(now), s(pause));
            now += s(pause);
        }
    }

    #[test]
    fn periods_without_end_overflow_nothing() {
        let endless = Duration::MAX;
        let mut schedule =
            Schedule::new(Periods { refresh_every: endless, cool_down: endless, max_age: endless });
        for succeeded in [true, false] {
            schedule.end(s(1), s(2), succeeded, 255);
            assert!(schedule.idle(s(2)) > s(0));
            assert!(schedule.usable(s(3)));
        }
    }

    #[test]
    fn keys_are_unusable_past_the_hard_age_counted_from_sending() {
        let mut schedule = schedule();
        assert!(!schedule.usable(s(0)));
        assert!(schedule.begin(s(0)));
        schedule.end(s(0), s(5), true, 0);
        assert!(schedule.usable(s(86_400)));
        assert!(!schedule.usable(s(86_401)));
        assert_eq!(schedule.age(s(7)), Some(s(7)));
    }
}
