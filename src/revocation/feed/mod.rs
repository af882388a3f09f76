//! Tails the revocation log into the denylist, and answers those who need the denylist to be fresher than it is.
//!
//! Freshness is what a read confirmed, counted from when that read was sent; an open connection, a hint or a write of
//! our own confirms nothing. A log that went back in time is united with what is held here and gets back what it lost.

mod tail;

use crate::clock::Clock;
use crate::revocation::denylist::Denylist;
use crate::revocation::log::RevocationLog;
use crate::token::{Revision, random_bytes};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// An idle log is read again after this long: at most a third of the tightest staleness bound.
    pub confirm_every: Duration,
    /// After the log went back in time nothing is confirmed for this long, so that other sidecars can give back what
    /// they hold: half the tightest staleness bound.
    pub settle: Duration,
    /// Entries to a read, and to a batch given back.
    pub page: usize,
    /// One read or write of the log takes at most this long.
    pub answer_within: Duration,
    /// A failing log is tried again at least this often.
    pub longest_pause: Duration,
    /// Resyncs that callers ask for begin at least this far apart, and ten times as far as the last one took.
    pub resync_gap: Duration,
    /// A resync after the log went back in time begins up to this much later, so that not all sidecars read at once.
    pub resync_jitter: Duration,
    /// Reads that callers ask for are sent at least this far apart.
    pub read_gap: Duration,
    /// What pauses are drawn from; `None`: the system's randomness. Given only where a run has to repeat itself.
    pub jitter_seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            confirm_every: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            page: 1000,
            answer_within: Duration::from_secs(5),
            longest_pause: Duration::from_secs(2),
            resync_gap: Duration::from_secs(1),
            resync_jitter: Duration::from_millis(250),
            read_gap: Duration::from_millis(1),
            jitter_seed: None,
        }
    }
}

/// Why the whole log was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResyncCause {
    /// The log has another epoch, or is shorter than it was.
    LogRestarted,
    /// A caller holds a revision of another epoch.
    ForeignRevision,
}

impl ResyncCause {
    /// Every cause.
    pub const ALL: [Self; 2] = [Self::LogRestarted, Self::ForeignRevision];

    /// The stable name, for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogRestarted => "log_restarted",
            Self::ForeignRevision => "foreign_revision",
        }
    }
}

/// The denylist did not become as fresh as asked in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the denylist is not as fresh as asked")]
pub struct NotFresh;

/// The feed: one per sidecar.
pub struct Feed {
    log: Arc<dyn RevocationLog>,
    denylist: Arc<Denylist>,
    clock: Clock,
    settings: Settings,
    nudged: Notify,
    resync_wanted: AtomicBool,
    resyncs_begun: AtomicU64,
    /// The number of the latest completed resync, in the order they began.
    resync_completed: watch::Sender<u64>,
    answered: Mutex<Answered>,
    jitter: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    log_restarted: AtomicU64,
    foreign_revision: AtomicU64,
    restored: AtomicU64,
    failures: AtomicU64,
}

/// Foreign epochs that a resync has answered since the log has the epoch `ours`. Bounded: callers choose them.
#[derive(Default)]
struct Answered {
    ours: u64,
    epochs: VecDeque<u64>,
}

impl Answered {
    const MOST: usize = 16;

    fn contains(&self, ours: u64, epoch: u64) -> bool {
        self.ours == ours && self.epochs.contains(&epoch)
    }

    fn remember(&mut self, ours: u64, epoch: u64) {
        if self.ours != ours {
            *self = Self { ours, epochs: VecDeque::new() };
        }
        if ours == epoch || self.epochs.contains(&epoch) {
            return;
        }
        if self.epochs.len() >= Self::MOST {
            self.epochs.pop_front();
        }
        self.epochs.push_back(epoch);
    }
}

impl Feed {
    /// From `log` into `denylist`. Nothing happens until [`Self::run`].
    #[must_use]
    pub fn new(
        log: Arc<dyn RevocationLog>,
        denylist: Arc<Denylist>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let seed = settings.jitter_seed.or_else(|| random_bytes().map(u64::from_be_bytes).ok());
        Self {
            log,
            denylist,
            clock,
            settings: Settings { page: settings.page.max(1), ..settings },
            nudged: Notify::new(),
            resync_wanted: AtomicBool::new(false),
            resyncs_begun: AtomicU64::new(0),
            resync_completed: watch::Sender::new(0),
            answered: Mutex::default(),
            jitter: AtomicU64::new(seed.unwrap_or_default()),
            counts: Counts::default(),
        }
    }

    /// Keeps the denylist up with the log until cancelled. Survives every failure of the log: staleness tells of it.
    ///
    /// Also purges the denylist as it goes.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.tail()).await;
    }

    /// Reads the log soon, as if it had hinted at a change.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Waits, at most `at_most`, until everything up to `revision` is held.
    ///
    /// A revision of another epoch than the log's can't be compared; for it, one complete resync that began after this
    /// call has to end. Callers share resyncs, and an epoch once answered stays answered while the log keeps its own.
    ///
    /// # Errors
    /// [`NotFresh`] when time is up.
    pub async fn catch_up(&self, revision: Revision, at_most: Duration) -> Result<(), NotFresh> {
        tokio::time::timeout(at_most, self.caught_up(revision)).await.map_err(|_| NotFresh)?
    }

    /// Waits, at most `at_most`, until a read that was sent after this call has confirmed the log's head.
    ///
    /// # Errors
    /// [`NotFresh`] when time is up.
    pub async fn reach_head(&self, at_most: Duration) -> Result<(), NotFresh> {
        let mut position = self.denylist.watch();
        let sent_before = self.denylist.reads();
        self.nudge();
        let confirmed = position.wait_for(|position| position.number > sent_before);
        match tokio::time::timeout(at_most, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotFresh),
        }
    }

    /// How many resyncs began for this cause.
    #[must_use]
    pub fn resyncs(&self, cause: ResyncCause) -> u64 {
        self.counter(cause).load(Ordering::Relaxed)
    }

    /// How many entries were given back to the log.
    #[must_use]
    pub fn restored(&self) -> u64 {
        self.counts.restored.load(Ordering::Relaxed)
    }

    /// How many reads or writes of the log failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }

    async fn caught_up(&self, revision: Revision) -> Result<(), NotFresh> {
        let begun_before = self.resyncs_begun.load(Ordering::SeqCst);
        let mut completed = self.resync_completed.subscribe();
        let mut position = self.denylist.watch();
        let held =
            position.wait_for(|position| position.loaded().is_some()).await.map_err(|_| NotFresh)?.revision;
        let ours = held.map_or(0, |held| held.epoch);
        if held.is_some_and(|held| held.covers(&revision)) {
            return Ok(());
        }
        if ours != revision.epoch {
            if self.answered.lock().contains(ours, revision.epoch) {
                return Ok(());
            }
            self.resync_wanted.store(true, Ordering::SeqCst);
        }
        self.nudge();
        tokio::select! {
            biased;
            held = position.wait_for(|position| position.covers(&revision)) => {
                held.map_err(|_| NotFresh)?;
            }
            done = completed.wait_for(|number| *number > begun_before) => {
                done.map_err(|_| NotFresh)?;
                self.remember(revision.epoch);
            }
        }
        Ok(())
    }

    fn remember(&self, epoch: u64) {
        if let Some(held) = self.denylist.watch().borrow().revision {
            self.answered.lock().remember(held.epoch, epoch);
        }
    }

    fn counter(&self, cause: ResyncCause) -> &AtomicU64 {
        match cause {
            ResyncCause::LogRestarted => &self.counts.log_restarted,
            ResyncCause::ForeignRevision => &self.counts.foreign_revision,
        }
    }
}

#[cfg(test)]
mod tests;
