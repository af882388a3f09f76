//! How far the denylist has come: what it stands on, since when, and whether it is whole.

use crate::revocation::entry::Entry;
use crate::token::Revision;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// What an answer stands on.
///
/// Take it *before* judging: then everything that the revision covers was in force when the credential was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The first complete snapshot is in. Before that nothing may be accepted.
    pub loaded: bool,
    /// An entry did not fit, so the denylist is incomplete and nothing may be accepted.
    pub full: bool,
    /// Everything up to here is held. Meaningless until `loaded`.
    pub revision: Revision,
    /// How long ago the read was sent that last confirmed the head; [`Duration::MAX`] until `loaded`.
    pub staleness: Duration,
}

/// A read of the log that is about to be sent; what it finds confirms the state as of now, not as of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    sent: Duration,
    number: u64,
    overflows: u64,
}

impl Reading {
    /// When, on the clock's elapsed time.
    pub(in crate::revocation) fn sent(&self) -> Duration {
        self.sent
    }
}

/// Where the denylist stands, as those who wait see it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::revocation) struct Position {
    pub(in crate::revocation) revision: Option<Revision>,
    /// When the last confirming read was sent.
    sent: Option<Duration>,
    /// Which read that was.
    pub(in crate::revocation) number: u64,
}

impl Position {
    pub(in crate::revocation) fn covers(&self, revision: &Revision) -> bool {
        self.revision.is_some_and(|held| held.covers(revision))
    }

    pub(in crate::revocation) fn loaded(&self) -> Option<Revision> {
        self.sent.and(self.revision)
    }
}

/// Written by the feed, read by every verification.
pub(super) struct Progress {
    position: ArcSwap<Position>,
    waiters: watch::Sender<Position>,
    reads: AtomicU64,
    overflows: AtomicU64,
    cleared: AtomicU64,
    /// Where this sidecar wrote itself and the feed has not been since: the last one of each epoch, of which there is
    /// one, or two while the log goes back in time.
    own_writes: Mutex<Vec<Revision>>,
    /// What was written here itself and did not fit. The log has it; should the log lose it, nobody else may.
    homeless: Mutex<Vec<Entry>>,
    any_homeless: AtomicBool,
}

/// Entries without a place that are kept, some 200 kB. Beyond them what is said of them holds while the log does.
const MOST_HOMELESS: usize = 4096;

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            position: ArcSwap::from_pointee(Position::default()),
            waiters: watch::Sender::new(Position::default()),
            reads: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            own_writes: Mutex::default(),
            homeless: Mutex::default(),
            any_homeless: AtomicBool::new(false),
        }
    }

    pub(super) fn keep_homeless(&self, entry: Entry) {
        let mut homeless = self.homeless.lock();
        if homeless.len() < MOST_HOMELESS && !homeless.contains(&entry) {
            homeless.push(entry);
            self.any_homeless.store(true, Ordering::SeqCst);
        }
    }

    pub(super) fn homeless(&self) -> Vec<Entry> {
        if self.any_homeless.load(Ordering::SeqCst) { self.homeless.lock().clone() } else { Vec::new() }
    }

    pub(super) fn settle_homeless(&self, settled: &[Entry]) {
        let mut homeless = self.homeless.lock();
        homeless.retain(|entry| !settled.contains(entry));
        self.any_homeless.store(!homeless.is_empty(), Ordering::SeqCst);
    }

    pub(super) fn wrote(&self, revision: Revision) {
        let mut writes = self.own_writes.lock();
        match writes.iter_mut().find(|last| last.epoch == revision.epoch) {
            Some(last) => last.seq = last.seq.max(revision.seq),
            None => writes.push(revision),
        }
    }

    pub(super) fn own_writes(&self) -> Vec<Revision> {
        self.own_writes.lock().clone()
    }

    pub(super) fn settle_own_writes(&self, settled: &[Revision]) {
        self.own_writes.lock().retain(|write| !settled.iter().any(|settled| settled.covers(write)));
    }

    pub(super) fn begin_read(&self, sent: Duration) -> Reading {
        let overflows = self.overflows.load(Ordering::SeqCst);
        Reading { sent, number: self.reads.fetch_add(1, Ordering::SeqCst) + 1, overflows }
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// All up to `revision` is held, and `revision` was the head when `reading` was sent.
    pub(super) fn confirm(&self, reading: Reading, revision: Revision) {
        // Entries that did not fit before this read was sent were in the log by then, so they were read and did fit.
        self.cleared.fetch_max(reading.overflows, Ordering::SeqCst);
        self.update(|position| {
            position.revision = Some(revision);
            position.sent = position.sent.max(Some(reading.sent));
            position.number = position.number.max(reading.number);
        });
    }

    pub(super) fn reached(&self, revision: Revision) {
        self.update(|position| position.revision = Some(revision));
    }

    pub(super) fn overflowed(&self) {
        self.overflows.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn full(&self) -> bool {
        self.any_homeless.load(Ordering::SeqCst)
            || self.cleared.load(Ordering::SeqCst) < self.overflows.load(Ordering::SeqCst)
    }

    pub(super) fn standing(&self, elapsed: Duration) -> Standing {
        let Position { revision, sent, .. } = **self.position.load();
        Standing {
            loaded: sent.is_some(),
            full: self.full(),
            revision: revision.unwrap_or(Revision { epoch: 0, seq: 0 }),
            staleness: sent.map_or(Duration::MAX, |sent| elapsed.saturating_sub(sent)),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Position> {
        self.waiters.subscribe()
    }

    fn update(&self, change: impl FnOnce(&mut Position)) {
        self.waiters.send_modify(|position| {
            change(position);
            self.position.store(Arc::new(*position));
        });
    }
}
