//! The simulated store: what the engines' conformance cases ask for, as a value that can be copied, put back and lost.
//!
//! Sessions and cut-offs are stamped and judged by its own clock, as in a store that many machines share.

use crate::breakage::Breakage;
use countersign::clock::Timestamp;
use countersign::revocation::{
    Appended, DenialKey, Denylist, Draft, Entry, EntryKind, Page, StoreError, denylist,
};
use countersign::session::rotation::{Decision, Rules, decide};
use countersign::session::store::{CreateOutcome, Created, NewSession, Rotated, Updated};
use countersign::session::{Attributes, SessionRecord};
use countersign::token::{Revision, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(crate) const ISSUER: &str = "https://auth.example.com";
/// Entries and sessions are kept this much longer than they ask for.
pub(crate) const SLACK: Duration = Duration::from_secs(60);
/// When virtual time begins on a clock that goes right.
pub(crate) const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);

const KEPT_IMAGES: usize = 24;

pub(crate) fn session_key(id: SessionId) -> DenialKey {
    DenialKey::session(ISSUER, &id.to_string())
}

/// What is on the disk.
#[derive(Clone, Default)]
pub(crate) struct Image {
    epoch: u64,
    /// Virtual milliseconds; `None`: long ago.
    born: Option<u64>,
    seq: u64,
    log: BTreeMap<u64, Entry>,
    sessions: BTreeMap<SessionId, Kept>,
    /// Latest creation and latest cut-off of a subject or issuer.
    stamps: BTreeMap<DenialKey, (Timestamp, Timestamp)>,
}

#[derive(Clone)]
struct Kept {
    record: SessionRecord,
    subject: DenialKey,
    issuer: DenialKey,
}

/// An entry that was in the log and is not any more.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) entry: Entry,
    pub(crate) at: u64,
    /// When the log held it again.
    pub(crate) back: Option<u64>,
    /// Who held it at that moment: sidecar and incarnation.
    pub(crate) holders: Vec<(usize, u32)>,
}

/// How the store goes back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setback {
    /// A replica takes over that lacks the last writes.
    Failover { writes: usize },
    /// An old copy is put in place.
    OldCopy { writes: usize },
    /// Everything is gone.
    Flush,
}

/// One write that a rotation made, for the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) session: SessionId,
    pub(crate) to: u64,
}

pub(crate) struct Engine {
    image: Image,
    past: VecDeque<Image>,
    /// Virtual milliseconds, as of the latest operation.
    now: u64,
    /// How far its clock is from virtual time.
    ahead: Duration,
    next_epoch: u64,
    next_session: u64,
    pub(crate) losses: Vec<Loss>,
    /// Every entry that was ever written, and where.
    pub(crate) issued: Vec<(Revision, Entry)>,
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) fast_forwards: u32,
    pub(crate) breakage: Breakage,
    appended: u64,
}

impl Engine {
    pub(crate) fn new(ahead: Duration, breakage: Breakage) -> Self {
        Self {
            image: Image { epoch: 1, ..Image::default() },
            past: VecDeque::new(),
            now: 0,
            ahead,
            next_epoch: 2,
            next_session: 1,
            losses: Vec::new(),
            issued: Vec::new(),
            rotations: Vec::new(),
            fast_forwards: 0,
            breakage,
            appended: 0,
        }
    }

    /// Moves its clock; every operation comes after this.
    pub(crate) fn at(&mut self, virtual_millis: u64) -> &mut Self {
        self.now = virtual_millis;
        self
    }

    pub(crate) fn clock(&self) -> Timestamp {
        NOON.after(self.ahead).after(Duration::from_millis(self.now))
    }

    pub(crate) fn head(&self) -> Revision {
        Revision { epoch: self.image.epoch, seq: self.image.seq }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.image.log.values()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &SessionRecord> {
        self.image.sessions.values().map(|kept| &kept.record)
    }

    /// Goes back in time, on a machine whose clock stands `ahead`. Returns the entries that are lost.
    pub(crate) fn set_back(&mut self, setback: Setback, ahead: Duration) -> Vec<Entry> {
        let mut had: Vec<Entry> = Vec::new();
        let logged = self.logged();
        for (_, entry) in &self.issued {
            if logged.holds(entry) && entry.expires_at > self.clock() && !had.contains(entry) {
                had.push(*entry);
            }
        }
        self.ahead = ahead;
        let kept = match setback {
            Setback::Failover { writes } | Setback::OldCopy { writes } => {
                let back = self.past.len().saturating_sub(writes);
                let old = self.past.get(back).cloned();
                self.past.truncate(back);
                old.unwrap_or_else(|| self.image.clone())
            }
            Setback::Flush => {
                self.past.clear();
                Image::default()
            }
        };
        let epoch = self.image.epoch;
        self.image = kept;
        if self.breakage == Breakage::SameEpochAfterFailover {
            self.image.epoch = epoch;
        } else {
            self.image.epoch = self.next_epoch;
            self.image.born = Some(self.now);
            self.next_epoch += 1;
        }
        let logged = self.logged();
        had.into_iter().filter(|entry| !logged.holds(entry)).collect()
    }

    /// How long ago its epoch really began.
    pub(crate) fn age(&self) -> Duration {
        self.image.born.map_or(Duration::MAX, |born| Duration::from_millis(self.now - born))
    }

    /// What somebody denies who has read the whole log.
    fn logged(&self) -> Denylist {
        let denylist = Denylist::new(denylist::Settings::default());
        self.entries().for_each(|entry| denylist.insert(entry).unwrap());
        denylist
    }

    pub(crate) fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Page {
        let head = self.head();
        let restarted = cursor.is_some_and(|cursor| !head.covers(&cursor));
        let from = cursor.filter(|_| !restarted).map_or(0, |cursor| cursor.seq);
        let rows: Vec<_> = self.image.log.range(from + 1..).take(limit.max(1)).collect();
        let end = if rows.len() < limit.max(1) { head.seq } else { *rows[rows.len() - 1].0 };
        let mut entries: Vec<_> = rows.into_iter().map(|(_, entry)| *entry).collect();
        if self.breakage == Breakage::SkipsEntries && entries.len() > 1 {
            entries.remove(0);
        }
        let epoch_age = match self.image.born {
            None => Duration::MAX,
            Some(_) if self.breakage == Breakage::NeverYoung => Duration::MAX,
            Some(born) => Duration::from_millis(self.now - born),
        };
        Page { entries, cursor: Revision { epoch: head.epoch, seq: end }, head, epoch_age, restarted }
    }

    pub(crate) fn append(&mut self, draft: &Draft) -> Appended {
        let now = self.clock();
        let entry = match *draft {
            Draft::Token { key, expires_at } => Entry { kind: EntryKind::Token, key, expires_at },
            Draft::Session { key, expires_at } => {
                let ends = self.image.sessions.values().find(|kept| session_key(kept.record.id) == key);
                let expires_at = ends.map_or(expires_at, |kept| kept.record.absolute_end.after(SLACK));
                Entry { kind: EntryKind::Session, key, expires_at }
            }
            Draft::Subject { key, except, before, now: callers, longest } => {
                let now = if self.breakage == Breakage::CallersStamp { callers } else { now };
                let cutoff = before.unwrap_or_else(|| self.stamped(key, now));
                Entry {
                    kind: EntryKind::SubjectBefore { cutoff, except },
                    key,
                    expires_at: cutoff.after(longest),
                }
            }
            Draft::Issuer { key, before, longest, .. } => {
                let cutoff = before.unwrap_or_else(|| self.stamped(key, now));
                Entry { kind: EntryKind::IssuerBefore { cutoff }, key, expires_at: cutoff.after(longest) }
            }
        };
        self.appended += 1;
        if self.breakage == Breakage::AcknowledgesUnwritten && self.appended.is_multiple_of(4) {
            return Appended { entry: entry.rounded(), revision: self.head() };
        }
        self.write(|engine| engine.put(entry))
    }

    pub(crate) fn restore(&mut self, entries: &[Entry]) {
        if self.breakage == Breakage::DropsWhatIsGivenBack {
            return;
        }
        self.write(|engine| {
            for entry in entries {
                engine.put(*entry);
            }
        });
    }

    /// Names the session itself: a run has to repeat itself, and the real room draws ids from the system.
    pub(crate) fn create(&mut self, new: NewSession) -> CreateOutcome {
        let now = self.clock();
        let number = self.next_session;
        self.next_session += 1;
        self.write(|engine| {
            let mut created_at = now;
            for key in [new.subject_key, new.issuer_key] {
                if engine.breakage != Breakage::CallersStamp {
                    let cutoff = engine.image.stamps.get(&key).map(|(_, cutoff)| *cutoff);
                    created_at = cutoff.map_or(created_at, |at| created_at.max(at.after(MILLISECOND)));
                } else {
                    created_at = new.now;
                }
            }
            for key in [new.subject_key, new.issuer_key] {
                let stamp = engine.image.stamps.entry(key).or_default();
                stamp.0 = stamp.0.max(created_at);
            }
            let id = SessionId::from_bytes(u128::from(number).to_be_bytes());
            let record = SessionRecord { id, ..new.record(created_at) };
            let kept = Kept { record: record.clone(), subject: new.subject_key, issuer: new.issuer_key };
            engine.image.sessions.insert(record.id, kept);
            let revision = engine.head();
            CreateOutcome::Created(Box::new(Created { record, evicted: Vec::new(), revision }))
        })
    }

    pub(crate) fn rotate(&mut self, id: SessionId, key: DenialKey, presented: u64, rules: Rules) -> Rotated {
        let now = self.clock();
        self.write(|engine| {
            let no_grace = engine.breakage == Breakage::NoGrace;
            let rules = if no_grace { Rules { grace: Duration::ZERO } } else { rules };
            let kept = engine.image.sessions.get_mut(&id);
            let mut decision = decide(kept.as_deref().map(|kept| &kept.record), presented, rules, now);
            if decision == Decision::Reused && engine.breakage == Breakage::EndlessGrace {
                decision =
                    Decision::Repeat { current: kept.as_deref().map_or(0, |kept| kept.record.generation) };
            }
            let mut denied = None;
            let record = match (decision, kept) {
                (Decision::Rotate { to } | Decision::FastForward { to }, Some(kept)) => {
                    kept.record.generation = to;
                    kept.record.generation_began_at = now;
                    kept.record.last_active_at = kept.record.last_active_at.max(now);
                    let record = kept.record.clone();
                    if matches!(decision, Decision::Rotate { .. }) {
                        engine.rotations.push(Rotation { session: id, to });
                    } else {
                        engine.fast_forwards += 1;
                    }
                    Some(record)
                }
                (Decision::Reused, Some(kept)) => {
                    let expires_at = kept.record.absolute_end.after(SLACK);
                    engine.image.sessions.remove(&id);
                    let entry = Entry { kind: EntryKind::Session, key, expires_at };
                    denied = Some(engine.put(entry).entry);
                    None
                }
                (_, kept) => kept.map(|kept| kept.record.clone()),
            };
            Rotated { decision, record, denied, revision: engine.head() }
        })
    }

    pub(crate) fn update(
        &mut self,
        id: SessionId,
        key: DenialKey,
        attributes: Attributes,
        life: Duration,
    ) -> Option<Updated> {
        let now = self.clock();
        self.write(|engine| {
            let kept = engine.image.sessions.get_mut(&id).filter(|kept| now < kept.record.ends_at())?;
            kept.record.attributes = attributes;
            kept.record.attributes_version += 1;
            let record = kept.record.clone();
            let kind = EntryKind::ClaimsBefore { version: record.attributes_version };
            let Appended { entry, revision } = engine.put(Entry { kind, key, expires_at: now.after(life) });
            Some(Updated { record, entry, revision })
        })
    }

    pub(crate) fn find(&self, id: SessionId) -> (Option<SessionRecord>, Revision) {
        (self.image.sessions.get(&id).map(|kept| kept.record.clone()), self.head())
    }

    pub(crate) fn purge(&mut self) -> u32 {
        let by = self.clock().before(SLACK * 2);
        self.image.sessions.retain(|_, kept| kept.record.ends_at() > by);
        self.image.log.retain(|_, entry| entry.expires_at > by);
        0
    }

    fn write<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        self.past.push_back(self.image.clone());
        if self.past.len() > KEPT_IMAGES {
            self.past.pop_front();
        }
        let result = change(self);
        if self.losses.iter().any(|loss| loss.back.is_none()) {
            let logged = self.logged();
            for loss in self.losses.iter_mut().filter(|loss| loss.back.is_none()) {
                loss.back = logged.holds(&loss.entry).then_some(self.now);
            }
        }
        result
    }

    fn put(&mut self, entry: Entry) -> Appended {
        let entry = entry.rounded();
        self.take_effect(&entry);
        let there = self.image.log.iter().find(|(_, there)| covers(there, &entry));
        if let Some((seq, there)) = there {
            let revision = Revision { epoch: self.image.epoch, seq: *seq };
            return Appended { entry: *there, revision };
        }
        self.image.log.retain(|_, there| !covers(&entry, there));
        self.image.seq += 1;
        self.image.log.insert(self.image.seq, entry);
        self.issued.push((self.head(), entry));
        Appended { entry, revision: self.head() }
    }

    fn take_effect(&mut self, entry: &Entry) {
        if self.breakage == Breakage::RevokedKeepTheirRecord {
            return;
        }
        let sessions = &mut self.image.sessions;
        match entry.kind {
            EntryKind::Token => {}
            EntryKind::Session => sessions.retain(|id, _| session_key(*id) != entry.key),
            EntryKind::SubjectBefore { cutoff, except } => {
                sessions.retain(|id, kept| {
                    kept.subject != entry.key
                        || kept.record.created_at > cutoff
                        || except == Some(session_key(*id))
                });
            }
            EntryKind::IssuerBefore { cutoff } => {
                sessions.retain(|_, kept| kept.issuer != entry.key || kept.record.created_at > cutoff);
            }
            EntryKind::ClaimsBefore { version } => {
                for kept in sessions.values_mut().filter(|kept| session_key(kept.record.id) == entry.key) {
                    kept.record.attributes_version = kept.record.attributes_version.max(version);
                }
            }
        }
        if let EntryKind::SubjectBefore { cutoff, .. } | EntryKind::IssuerBefore { cutoff } = entry.kind {
            let stamp = self.image.stamps.entry(entry.key).or_default();
            stamp.1 = stamp.1.max(cutoff);
        }
    }

    fn stamped(&self, key: DenialKey, now: Timestamp) -> Timestamp {
        let created = self.image.stamps.get(&key).map(|(created, _)| *created);
        if self.breakage == Breakage::CallersStamp { now } else { created.map_or(now, |at| at.max(now)) }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// Whether `there` hits as much as `entry`, for as long.
fn covers(there: &Entry, entry: &Entry) -> bool {
    let as_far = match (there.kind, entry.kind) {
        (EntryKind::Token, EntryKind::Token) | (EntryKind::Session, EntryKind::Session) => true,
        (
            EntryKind::SubjectBefore { cutoff, except },
            EntryKind::SubjectBefore { cutoff: other, except: spared },
        ) => cutoff >= other && except == spared,
        (EntryKind::IssuerBefore { cutoff }, EntryKind::IssuerBefore { cutoff: other }) => cutoff >= other,
        (EntryKind::ClaimsBefore { version }, EntryKind::ClaimsBefore { version: other }) => version >= other,
        _ => false,
    };
    as_far && there.key == entry.key && there.expires_at >= entry.expires_at
}

pub(crate) fn down(why: &'static str) -> StoreError {
    StoreError::Unavailable(why.into())
}
