//! What was taken back and is not dead by itself yet, in memory, for every verification to be judged by.
//!
//! A grow-only set with expiry: entries are united, never evicted, and forgotten only when what they hit is dead. At
//! its cap it says so instead of forgetting, and no answer comes from it until it is whole again.

mod held;
mod standing;
mod table;

pub(in crate::revocation) use standing::Position;
pub use standing::{Reading, Standing};

use crate::clock::{Now, Timestamp};
use crate::revocation::entry::{DenialKey, Entry, EntryKind, expiry_from_secs};
use crate::token::{Action, Reason, Revision};
use held::{Claims, CutOff, CutOffs, Point, claims_entry, point_entry};
use standing::Progress;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use table::{Held, NoRoom, Room, SHARDS, Seed, Table, live};
use tokio::sync::watch;

/// How large, and how long past expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// At most this many keys. A million sessions or tokens take about 44 MB.
    pub max_entries: usize,
    /// Entries are kept this much longer than they ask for, against clocks that disagree.
    pub slack: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_entries: 1_000_000, slack: Duration::from_secs(120) }
    }
}

/// What a credential is matched by; computed once when it is accepted, and cached with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// [`DenialKey::issuer`].
    pub issuer: DenialKey,
    /// [`DenialKey::subject`].
    pub subject: DenialKey,
    /// [`DenialKey::token_id`] or [`DenialKey::signing_input`].
    pub token: Option<DenialKey>,
    /// [`DenialKey::session`], where it belongs to one.
    pub session: Option<DenialKey>,
    /// The login it goes back to. `None` is hit by every cut-off.
    pub logged_in_at: Option<Timestamp>,
    /// The attributes version it carries. `None` is never stale.
    pub claims_version: Option<u64>,
}

/// A match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This very token.
    Token,
    /// Its session.
    Session,
    /// Its subject or issuer, as of its login.
    CutOff,
    /// Its session has newer attributes.
    StaleClaims,
}

impl Denial {
    /// The stable reason.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Token | Self::Session | Self::CutOff => Reason::Revoked,
            Self::StaleClaims => Reason::StaleClaims,
        }
    }

    /// What the holder should do.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Token | Self::StaleClaims => Action::Refresh,
            Self::Session | Self::CutOff => Action::Reauthenticate,
        }
    }
}

/// The denylist has no room for the entry. It is incomplete now, and [`Standing::full`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the denylist is full")]
pub struct Full;

/// The denials in force in this sidecar.
pub struct Denylist {
    settings: Settings,
    seed: Seed,
    room: Room,
    tokens: Table<Point>,
    sessions: Table<Point>,
    subjects: Table<CutOffs>,
    issuers: Table<CutOffs>,
    claims: Table<Claims>,
    progress: Progress,
    next_purged: AtomicUsize,
}

impl Denylist {
    /// An empty one, not loaded.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, Seed::random())
    }

    /// As [`Self::new`], with keys spread by `seed`: only where a run has to repeat itself. Whoever knows the seed can
    /// pick keys that fill one bucket.
    #[must_use]
    pub fn seeded(settings: Settings, seed: u64) -> Self {
        Self::with(settings, Seed::fixed(seed))
    }

    fn with(settings: Settings, seed: Seed) -> Self {
        Self {
            settings,
            seed,
            room: Room::new(settings.max_entries),
            tokens: Table::new(),
            sessions: Table::new(),
            subjects: Table::new(),
            issuers: Table::new(),
            claims: Table::new(),
            progress: Progress::new(),
            next_purged: AtomicUsize::new(0),
        }
    }

    /// Judges a credential. Of several matches the one that asks most of its holder is told.
    ///
    /// Allocates nothing, and costs one load for each kind of denial there is none of. Whether the denylist is loaded,
    /// whole and fresh enough is not checked: that is [`Self::standing`], taken before.
    #[must_use]
    pub fn judge(&self, marks: &Marks, now: Timestamp) -> Option<Denial> {
        let now_secs = secs(now);
        let cut = |held: &CutOffs| held.hits(marks, now_secs);
        if marks.session.is_some_and(|key| self.denies_session(key, now)) {
            Some(Denial::Session)
        } else if self.subjects.any(&self.seed, &marks.subject, cut)
            || self.issuers.any(&self.seed, &marks.issuer, cut)
        {
            Some(Denial::CutOff)
        } else if marks.token.is_some_and(|key| self.is_held(&self.tokens, &key, now_secs)) {
            Some(Denial::Token)
        } else if self.stale(marks, now_secs) {
            Some(Denial::StaleClaims)
        } else {
            None
        }
    }

    /// Whether a session itself was taken back. Cut-offs that hit it are not checked: they need all of its marks.
    #[must_use]
    pub fn denies_session(&self, key: DenialKey, now: Timestamp) -> bool {
        self.is_held(&self.sessions, &key, secs(now))
    }

    /// Unites with an entry: the longer expiry, the later cut-off, the higher version wins. More about a key already
    /// held always fits.
    ///
    /// # Errors
    /// [`Full`] at the cap.
    pub fn insert(&self, entry: &Entry) -> Result<(), Full> {
        let (key, expiry_secs) = (entry.key, entry.expiry_secs());
        let (seed, room) = (&self.seed, &self.room);
        let inserted = match entry.kind {
            EntryKind::Token => self.tokens.insert(seed, room, Point { key, expiry_secs }),
            EntryKind::Session => self.sessions.insert(seed, room, Point { key, expiry_secs }),
            EntryKind::SubjectBefore { cutoff, except } => {
                let cutoff = CutOff { cutoff, except, expiry_secs };
                self.subjects.insert(seed, room, CutOffs::new(key, cutoff))
            }
            EntryKind::IssuerBefore { cutoff } => {
                let cutoff = CutOff { cutoff, except: None, expiry_secs };
                self.issuers.insert(seed, room, CutOffs::new(key, cutoff))
            }
            EntryKind::ClaimsBefore { version } => {
                self.claims.insert(seed, room, Claims { key, expiry_secs, version })
            }
        };
        inserted.map_err(|NoRoom| {
            self.progress.overflowed();
            Full
        })
    }

    /// The same with an entry that this sidecar has just written to the log itself, at `revision`. The feed has not read it
    /// yet: should the log go back in time before it does, only this tells it that something is to be given back.
    ///
    /// # Errors
    /// [`Full`] at the cap.
    pub fn insert_own(&self, entry: &Entry, revision: Revision) -> Result<(), Full> {
        let inserted = self.insert(entry);
        if inserted.is_err() {
            self.progress.keep_homeless(*entry);
        }
        self.progress.wrote(revision);
        inserted
    }

    /// Finds a place for what was written here itself and did not fit; nothing is accepted until all of it has one, or is
    /// over `by` then.
    pub(in crate::revocation) fn house_own(&self, by: Timestamp) {
        let homeless = self.progress.homeless();
        if homeless.is_empty() {
            return;
        }
        let settled = |entry: &Entry| entry.expires_at <= by || self.insert(entry).is_ok();
        let settled: Vec<Entry> = homeless.into_iter().filter(settled).collect();
        self.progress.settle_homeless(&settled);
    }

    /// What was written here and not seen in the log since. Take it before a read of the log; a log whose head does not
    /// cover it has lost it.
    pub(in crate::revocation) fn own_writes(&self) -> Vec<Revision> {
        self.progress.own_writes()
    }

    /// These are in the log, or were given back to it.
    pub(in crate::revocation) fn settle_own_writes(&self, settled: &[Revision]) {
        self.progress.settle_own_writes(settled);
    }

    /// Whether inserting the entry would change nothing.
    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        let (key, expiry_secs, seed) = (entry.key, entry.expiry_secs(), &self.seed);
        let as_long = |point: &Point| point.expiry_secs >= expiry_secs;
        match entry.kind {
            EntryKind::Token => self.tokens.any(seed, &key, as_long),
            EntryKind::Session => self.sessions.any(seed, &key, as_long),
            EntryKind::SubjectBefore { cutoff, except } => {
                let one = CutOffs::new(key, CutOff { cutoff, except, expiry_secs });
                self.subjects.any(seed, &key, |held| held.includes(&one))
            }
            EntryKind::IssuerBefore { cutoff } => {
                let one = CutOffs::new(key, CutOff { cutoff, except: None, expiry_secs });
                self.issuers.any(seed, &key, |held| held.includes(&one))
            }
            EntryKind::ClaimsBefore { version } => {
                self.claims.any(seed, &key, |held| held.version >= version && held.expiry_secs >= expiry_secs)
            }
        }
    }

    /// Everything held, and what was written here itself and found no place, in chunks of bounded size; each chunk is a
    /// copy, and no lock is held between chunks.
    pub fn chunks(&self) -> impl Iterator<Item = Vec<Entry>> + Send + '_ {
        (0..SHARDS).map(|shard| self.chunk(shard)).chain(std::iter::once_with(|| self.progress.homeless()))
    }

    /// Forgets what expired, by the more cautious clock and less slack, in a sixteenth of the shards; the next call
    /// goes on with the next. Returns how many keys went.
    pub fn purge(&self, now: Now) -> usize {
        const AT_ONCE: usize = SHARDS / 16;
        let first = self.next_purged.fetch_add(AT_ONCE, Ordering::Relaxed);
        (first..first.saturating_add(AT_ONCE)).map(|shard| self.purge_shard(shard % SHARDS, now)).sum()
    }

    /// Forgets what expired, everywhere. For when the denylist is full.
    pub fn purge_all(&self, now: Now) -> usize {
        (0..SHARDS).map(|shard| self.purge_shard(shard, now)).sum()
    }

    /// Notes that a read of the log is being sent, at `elapsed` of [`Now`]. Call it before the read.
    #[must_use]
    pub fn begin_read(&self, elapsed: Duration) -> Reading {
        self.progress.begin_read(elapsed)
    }

    /// The read found `revision` to be the head, and everything up to it was inserted without a [`Full`]. Staleness
    /// counts from when the read was sent; what did not fit before then has fitted now.
    pub fn confirm(&self, reading: Reading, revision: Revision) {
        self.progress.confirm(reading, revision);
    }

    /// Everything up to `revision` was inserted, though that may not be all there is: staleness keeps running.
    pub fn reached(&self, revision: Revision) {
        self.progress.reached(revision);
    }

    /// What an answer given now stands on. A few atomic loads; see [`Standing`] for when to call it.
    #[must_use]
    pub fn standing(&self, now: &Now) -> Standing {
        self.progress.standing(now.elapsed)
    }

    /// Waits until everything up to `revision` is held, at most `at_most`; whether it is. Never true across epochs:
    /// for those ask [`crate::revocation::Feed::catch_up`].
    pub async fn wait_for(&self, revision: Revision, at_most: Duration) -> bool {
        let mut position = self.watch();
        let covered = position.wait_for(|position| position.covers(&revision));
        tokio::time::timeout(at_most, covered).await.is_ok_and(|covered| covered.is_ok())
    }

    /// How many keys are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.room.taken()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much of the cap is taken, from 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        let ratio = self.len() as f64 / self.room.cap().max(1) as f64;
        ratio
    }

    /// The memory its tables have allocated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.tokens.memory_bytes()
            + self.sessions.memory_bytes()
            + self.subjects.memory_bytes()
            + self.issuers.memory_bytes()
            + self.claims.memory_bytes()
    }

    /// As it was made.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    pub(in crate::revocation) fn watch(&self) -> watch::Receiver<Position> {
        self.progress.watch()
    }

    pub(in crate::revocation) fn reads(&self) -> u64 {
        self.progress.reads()
    }

    fn is_held(&self, points: &Table<Point>, key: &DenialKey, now_secs: u32) -> bool {
        points.any(&self.seed, key, |point| live(point.expiry_secs(), now_secs))
    }

    fn stale(&self, marks: &Marks, now_secs: u32) -> bool {
        let (Some(session), Some(version)) = (marks.session, marks.claims_version) else { return false };
        self.claims
            .any(&self.seed, &session, |held| live(held.expiry_secs, now_secs) && version < held.version)
    }

    fn purge_shard(&self, shard: usize, now: Now) -> usize {
        let by = secs(now.purging.before(self.settings.slack));
        let (seed, room) = (&self.seed, &self.room);
        self.tokens.purge(seed, room, shard, by)
            + self.sessions.purge(seed, room, shard, by)
            + self.subjects.purge(seed, room, shard, by)
            + self.issuers.purge(seed, room, shard, by)
            + self.claims.purge(seed, room, shard, by)
    }

    fn chunk(&self, shard: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.tokens.read_shard(shard, |point| entries.push(point_entry(EntryKind::Token, point)));
        self.sessions.read_shard(shard, |point| entries.push(point_entry(EntryKind::Session, point)));
        self.claims.read_shard(shard, |claims| entries.push(claims_entry(claims)));
        let mut cut = |key: &DenialKey, held: &CutOff, kind| {
            entries.push(Entry { kind, key: *key, expires_at: expiry_from_secs(held.expiry_secs) });
        };
        self.subjects.read_shard(shard, |held| {
            held.each(|key, one| {
                cut(key, one, EntryKind::SubjectBefore { cutoff: one.cutoff, except: one.except });
            });
        });
        self.issuers.read_shard(shard, |held| {
            held.each(|key, one| cut(key, one, EntryKind::IssuerBefore { cutoff: one.cutoff }));
        });
        entries
    }
}

fn secs(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs()).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests;
