//! What the tables hold under a key, and how two of one key unite.
//!
//! Expiry is when everything an entry hits is dead by itself. So an entry may be kept longer than it asks, never
//! shorter, and where one entry swallows another it takes over the later expiry.

use super::Marks;
use super::table::Held;
use crate::clock::Timestamp;
use crate::revocation::entry::{DenialKey, Entry, EntryKind, expiry_from_secs};

/// A token or a session.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) key: DenialKey,
    pub(super) expiry_secs: u32,
}

impl Held for Point {
    fn key(&self) -> &DenialKey {
        &self.key
    }

    fn expiry_secs(&self) -> u32 {
        self.expiry_secs
    }

    fn merge(&mut self, other: &Self) -> bool {
        raise(&mut self.expiry_secs, other.expiry_secs)
    }
}

/// A session's first attributes version that is still accepted.
#[derive(Clone, Copy)]
pub(super) struct Claims {
    pub(super) key: DenialKey,
    pub(super) expiry_secs: u32,
    pub(super) version: u64,
}

impl Held for Claims {
    fn key(&self) -> &DenialKey {
        &self.key
    }

    fn expiry_secs(&self) -> u32 {
        self.expiry_secs
    }

    fn merge(&mut self, other: &Self) -> bool {
        let newer = raise(&mut self.version, other.version);
        raise(&mut self.expiry_secs, other.expiry_secs) || newer
    }
}

/// One cut-off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CutOff {
    pub(super) cutoff: Timestamp,
    pub(super) except: Option<DenialKey>,
    pub(super) expiry_secs: u32,
}

impl CutOff {
    fn hits(&self, marks: &Marks, now_secs: u32) -> bool {
        super::table::live(self.expiry_secs, now_secs)
            && marks.logged_in_at.is_none_or(|login| login <= self.cutoff)
            && (self.except.is_none() || self.except != marks.session)
    }

    /// Whether it reaches at least as late and lasts at least as long.
    fn outdoes(&self, other: &Self) -> bool {
        self.cutoff >= other.cutoff && self.expiry_secs >= other.expiry_secs
    }

    /// Whether it hits by itself all that `other` hits.
    fn covers(&self, other: &Self) -> bool {
        self.outdoes(other) && (self.except.is_none() || self.except == other.except)
    }

    /// Later first; at one instant, the one that spares nobody.
    fn rank(&self) -> (Timestamp, bool) {
        (self.cutoff, self.except.is_none())
    }
}

/// All cut-offs of a subject or an issuer. Two are enough to stand for any number: the latest hits all that any of them
/// hits, but for the session it spares; and that session is hit if the latest that doesn't spare it hits it.
#[derive(Clone, Copy)]
pub(super) struct CutOffs {
    key: DenialKey,
    latest: CutOff,
    other: Option<CutOff>,
}

impl CutOffs {
    pub(super) fn new(key: DenialKey, cutoff: CutOff) -> Self {
        Self { key, latest: cutoff, other: None }
    }

    pub(super) fn hits(&self, marks: &Marks, now_secs: u32) -> bool {
        self.latest.hits(marks, now_secs) || self.other.is_some_and(|other| other.hits(marks, now_secs))
    }

    pub(super) fn each(&self, mut each: impl FnMut(&DenialKey, &CutOff)) {
        each(&self.key, &self.latest);
        if let Some(other) = &self.other {
            each(&self.key, other);
        }
    }

    /// Whether uniting with `other` would change nothing.
    pub(super) fn includes(mut self, other: &Self) -> bool {
        !self.merge(other)
    }

    /// By one of the two, or by both together: they spare different sessions.
    fn covers(&self, new: &CutOff) -> bool {
        self.latest.covers(new)
            || self
                .other
                .is_some_and(|other| other.covers(new) || (self.latest.outdoes(new) && other.outdoes(new)))
    }

    fn take_in(&mut self, new: CutOff) {
        if self.covers(&new) {
            return;
        }
        let (latest, rest) =
            if new.rank() > self.latest.rank() { (new, self.latest) } else { (self.latest, new) };
        let second = self.other.take();
        self.latest = latest;
        for earlier in second.into_iter().chain([rest]) {
            self.keep_beside_latest(earlier);
        }
    }

    fn keep_beside_latest(&mut self, earlier: CutOff) {
        if self.latest.except.is_none() || self.latest.except == earlier.except {
            raise(&mut self.latest.expiry_secs, earlier.expiry_secs);
            return;
        }
        let Some(other) = &mut self.other else {
            self.other = Some(earlier);
            return;
        };
        let dropped = if earlier.rank() > other.rank() { std::mem::replace(other, earlier) } else { earlier };
        raise(&mut other.expiry_secs, dropped.expiry_secs);
        if other.except != dropped.except {
            raise(&mut self.latest.expiry_secs, dropped.expiry_secs);
        }
    }
}

impl Held for CutOffs {
    fn key(&self) -> &DenialKey {
        &self.key
    }

    fn expiry_secs(&self) -> u32 {
        self.latest.expiry_secs.max(self.other.map_or(0, |other| other.expiry_secs))
    }

    fn merge(&mut self, other: &Self) -> bool {
        let before = (self.latest, self.other);
        other.each(|_, cutoff| self.take_in(*cutoff));
        before != (self.latest, self.other)
    }
}

pub(super) fn point_entry(kind: EntryKind, point: &Point) -> Entry {
    Entry { kind, key: point.key, expires_at: expiry_from_secs(point.expiry_secs) }
}

pub(super) fn claims_entry(claims: &Claims) -> Entry {
    let kind = EntryKind::ClaimsBefore { version: claims.version };
    Entry { kind, key: claims.key, expires_at: expiry_from_secs(claims.expiry_secs) }
}

fn raise<T: Ord + Copy>(value: &mut T, to: T) -> bool {
    let higher = to > *value;
    if higher {
        *value = to;
    }
    higher
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks(session: Option<u8>, login: u64) -> Marks {
        let key = DenialKey::subject("i", "s");
        Marks {
            issuer: DenialKey::issuer("i"),
            subject: key,
            token: None,
            session: session.map(|n| DenialKey::session("i", &n.to_string())),
            logged_in_at: Some(Timestamp::from_millis(login)),
            claims_version: None,
        }
    }

    fn cutoff((at, except, expiry_secs): (u64, Option<u8>, u32)) -> CutOff {
        let except = except.map(|n| DenialKey::session("i", &n.to_string()));
        CutOff { cutoff: Timestamp::from_millis(at), except, expiry_secs }
    }

    proptest! {
        #[test]
        fn two_cut_offs_judge_as_all_of_them_would(
            all in prop::collection::vec((0u64..8, prop::option::of(0u8..4), 50u32..60), 1..12),
            session in prop::option::of(0u8..5),
            login in 0u64..9,
        ) {
            let key = DenialKey::subject("i", "s");
            let marks = marks(session, login);
            let mut held = CutOffs::new(key, cutoff(all[0]));
            for one in &all[1..] {
                held.merge(&CutOffs::new(key, cutoff(*one)));
            }
            let any = all.iter().any(|one| cutoff(*one).hits(&marks, 10));
            prop_assert_eq!(held.hits(&marks, 10), any);
            // Nothing that hits now is forgotten before its own expiry.
            for now in 50..60 {
                let any = all.iter().any(|one| cutoff(*one).hits(&marks, now));
                prop_assert!(!any || held.hits(&marks, now));
            }
            for one in &all {
                prop_assert!(held.includes(&CutOffs::new(key, cutoff(*one))));
            }
        }
    }
}
