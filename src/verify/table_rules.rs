//! What becomes of a row of somebody else's session table: a pure state machine. The application itself knows one rule, an
//! end that moves with use; the others are ours, and hold on the same rows.

use crate::clock::Timestamp;
use std::time::Duration;

/// How sessions of a table live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// From use to the end that the application writes: its `session.maxAge`.
    pub max_age: Duration,
    /// The end is moved at most this often: its `session.updateAge`.
    pub update_age: Duration,
    /// Unused for so long it is over; `max_age` where nothing shorter is asked.
    pub idle: Duration,
    /// Over so long after the login, however much it is used. A row that does not tell its login is over, too.
    pub absolute: Option<Duration>,
    /// How many live sessions a subject may have: with one more the oldest is over.
    pub max_sessions: Option<u32>,
}

/// What a row says of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTimes {
    /// The end that was written last.
    pub expires_at: Timestamp,
    /// The login, where the table tells.
    pub created_at: Option<Timestamp>,
    /// How many live sessions of the same subject are newer.
    pub newer: u32,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is live.
    Live {
        /// The earliest end there is if it is used no more; after the extension, where one is due.
        ends_at: Timestamp,
        /// From here on its end has to be moved again.
        touch_at: Timestamp,
        /// The end to write now.
        extend_to: Option<Timestamp>,
    },
    /// Unused for too long.
    Idle,
    /// Past the absolute limit.
    Ended,
    /// Its subject has as many newer ones as there may be.
    Crowded,
}

/// A row is over that ended by the first, or was created by the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its end.
    pub ended_by: Timestamp,
    /// Its login, where that bounds it.
    pub created_by: Option<Timestamp>,
}

impl TableRules {
    /// Judges a row at an instant.
    #[must_use]
    pub fn judge(&self, row: &RowTimes, now: Timestamp) -> Fate {
        // Nothing but use moves the end, so the end says when that was; and a login is a use.
        let used_at = row.expires_at.before(self.max_age).max(row.created_at.unwrap_or_default()).min(now);
        let absolute_end = self.absolute.map(|absolute| row.created_at.unwrap_or_default().after(absolute));
        if absolute_end.is_some_and(|end| now >= end) {
            return Fate::Ended;
        }
        if now >= row.expires_at || now >= used_at.after(self.idle) {
            return Fate::Idle;
        }
        if self.max_sessions.is_some_and(|most| row.newer >= most) {
            return Fate::Crowded;
        }
        let is_due = now >= used_at.after(self.update_age);
        let expires_at = if is_due { now.after(self.max_age) } else { row.expires_at };
        let used_at = if is_due { now } else { used_at };
        let idle_end = expires_at.min(used_at.after(self.idle));
        Fate::Live {
            ends_at: absolute_end.map_or(idle_end, |end| end.min(idle_end)),
            touch_at: used_at.after(self.update_age),
            extend_to: is_due.then_some(expires_at),
        }
    }

    /// What a row has to say to be over at an instant by what is written in it: its own end, or its login.
    #[must_use]
    pub fn over_by(&self, now: Timestamp) -> Bounds {
        Bounds { ended_by: now, created_by: self.absolute.map(|absolute| now.before(absolute)) }
    }

    /// The same for rows that count as a subject's live ones; those unused for too long don't.
    #[must_use]
    pub fn counts_after(&self, now: Timestamp) -> Bounds {
        let spare = self.max_age.saturating_sub(self.idle);
        Bounds { ended_by: now.after(spare), ..self.over_by(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Timestamp = Timestamp::from_secs(1_900_000_000);
    const AUTH_JS: TableRules = TableRules {
        max_age: Duration::from_secs(30 * 86_400),
        update_age: DAY,
        idle: Duration::from_secs(30 * 86_400),
        absolute: None,
        max_sessions: None,
    };

    fn used(ago: Duration) -> RowTimes {
        RowTimes { expires_at: NOW.before(ago).after(AUTH_JS.max_age), created_at: None, newer: 0 }
    }

    #[test]
    fn within_its_update_age_nothing_is_written() {
        let fate = AUTH_JS.judge(&used(DAY - HOUR), NOW);
        let ends_at = used(DAY - HOUR).expires_at;
        assert_eq!(fate, Fate::Live { ends_at, touch_at: NOW.after(HOUR), extend_to: None });
    }

    #[test]
    fn past_its_update_age_the_end_moves_as_auth_js_moves_it() {
        let ends_at = NOW.after(AUTH_JS.max_age);
        let live = Fate::Live { ends_at, touch_at: NOW.after(DAY), extend_to: Some(ends_at) };
        // `expires - maxAge + updateAge <= now`
        assert_eq!(AUTH_JS.judge(&used(DAY), NOW), live);
        assert_eq!(AUTH_JS.judge(&used(20 * DAY), NOW), live);
    }

    #[test]
    fn past_the_end_that_is_written_it_is_idle() {
        assert_eq!(AUTH_JS.judge(&used(AUTH_JS.max_age), NOW), Fate::Idle);
    }

    #[test]
    fn an_idle_limit_of_ours_ends_what_auth_js_would_still_take() {
        let rules = TableRules { idle: HOUR, update_age: HOUR / 6, ..AUTH_JS };
        assert_eq!(rules.judge(&used(HOUR), NOW), Fate::Idle);
        let Fate::Live { ends_at, extend_to, .. } = rules.judge(&used(HOUR / 2), NOW) else { panic!() };
        assert_eq!((ends_at, extend_to), (NOW.after(HOUR), Some(NOW.after(rules.max_age))));
    }

    #[test]
    fn a_login_is_a_use_whatever_end_the_application_wrote() {
        let rules = TableRules { idle: HOUR, update_age: HOUR / 6, ..AUTH_JS };
        let written =
            RowTimes { expires_at: NOW.after(7 * DAY), created_at: Some(NOW.before(HOUR / 2)), newer: 0 };
        assert!(matches!(rules.judge(&written, NOW), Fate::Live { .. }));
    }

    #[test]
    fn the_absolute_limit_counts_from_the_login_and_no_use_moves_it() {
        let rules = TableRules { absolute: Some(10 * DAY), ..AUTH_JS };
        let row = |days| RowTimes { created_at: Some(NOW.before(days * DAY)), ..used(DAY) };
        assert_eq!(rules.judge(&row(10), NOW), Fate::Ended);
        let Fate::Live { ends_at, extend_to, .. } = rules.judge(&row(9), NOW) else { panic!() };
        assert_eq!((ends_at, extend_to), (NOW.after(DAY), Some(NOW.after(AUTH_JS.max_age))));
        assert_eq!(rules.judge(&used(DAY), NOW), Fate::Ended, "a row that tells no login");
    }

    #[test]
    fn with_as_many_newer_ones_as_may_be_it_is_crowded_out() {
        let rules = TableRules { max_sessions: Some(2), ..AUTH_JS };
        assert_eq!(rules.judge(&RowTimes { newer: 2, ..used(HOUR) }, NOW), Fate::Crowded);
        assert!(matches!(rules.judge(&RowTimes { newer: 1, ..used(HOUR) }, NOW), Fate::Live { .. }));
    }

    proptest! {
        #[test]
        fn a_live_row_that_is_extended_stays_live_and_asks_for_no_second_write(
            ago in 0_u64..3_000_000, absolute in proptest::option::of(1_u64..5_000_000), age in 0_u64..5_000_000,
            idle in 60_u64..2_592_000, update in 1_u64..59,
        ) {
            let rules = TableRules {
                idle: Duration::from_secs(idle),
                update_age: Duration::from_secs(update),
                absolute: absolute.map(Duration::from_secs),
                ..AUTH_JS
            };
            // Nothing is used before its login.
            let created = NOW.before(Duration::from_secs(age.max(ago)));
            let row = RowTimes { created_at: Some(created), ..used(Duration::from_secs(ago)) };
            if let Fate::Live { ends_at, touch_at, extend_to: Some(to) } = rules.judge(&row, NOW) {
                let again = rules.judge(&RowTimes { expires_at: to, ..row }, NOW);
                prop_assert_eq!(again, Fate::Live { ends_at, touch_at, extend_to: None });
                prop_assert!(ends_at > NOW && touch_at > NOW);
            }
            // What counts among a subject's live ones is just what would be judged so.
            let Bounds { ended_by, created_by } = rules.counts_after(NOW);
            let counted = row.expires_at > ended_by && created_by.is_none_or(|by| created > by);
            prop_assert_eq!(counted, matches!(rules.judge(&row, NOW), Fate::Live { .. }));
        }
    }
}
