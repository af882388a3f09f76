//! The feed's loop: read, insert, advance, rest; and the resync.

use super::{Feed, ResyncCause};
use crate::clock::Timestamp;
use crate::revocation::denylist::{Denylist, Full, Reading};
use crate::revocation::entry::Entry;
use crate::revocation::log::{Page, StoreError};
use crate::token::Revision;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Within the time that others wait for it, where that can be.
const OWED_AGAIN_SOONEST: Duration = Duration::from_secs(1);
const OWED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Where the loop stands; nobody else sees it.
#[derive(Default)]
pub(super) struct Tail {
    /// Everything up to here was inserted.
    cursor: Option<Revision>,
    /// A resync that has to complete before anything else.
    due: Option<ResyncCause>,
    /// Nothing is confirmed before this, on the clock's elapsed time.
    settling_until: Option<Duration>,
    /// The epoch that was found young: its holders are given time once, or a store's clock that was set back meanwhile
    /// would let it stay young.
    settled_for: Option<u64>,
    /// The log could not be given what it lost; it is tried again then.
    owed_from: Option<Duration>,
    /// Callers' resyncs begin no sooner.
    resync_from: Duration,
    last_read: Duration,
    last_sweep: Duration,
    failures: u32,
}

/// The read that reached the head, and what it found.
struct AtHead {
    reading: Reading,
    head: Revision,
    epoch_age: Duration,
}

enum Step {
    AtHead,
    MoreToRead,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the log restarted while it was read")]
    Moved,
    #[error("the log has more to read, but does not give it")]
    Stuck,
}

impl Feed {
    pub(super) async fn tail(&self) {
        let mut tail = Tail::default();
        loop {
            self.sweep(&mut tail);
            match self.step(&mut tail).await {
                Ok(Step::MoreToRead) => tail.failures = 0,
                Ok(Step::AtHead) => {
                    tail.failures = 0;
                    self.rest(&tail).await;
                }
                Err(fault) => self.recover(&mut tail, &fault).await,
            }
        }
    }

    async fn step(&self, tail: &mut Tail) -> Result<Step, Fault> {
        self.denylist.house_own(self.dead_by());
        if let Some(cause) = self.resync_due(tail) {
            return self.resync(tail, cause).await;
        }
        tail.last_read = self.elapsed();
        let own_writes = self.denylist.own_writes();
        let reading = self.denylist.begin_read(tail.last_read);
        let page = self.read(tail.cursor).await?;
        if restarted(tail.cursor, &page) || own_writes.iter().any(|write| !page.head.covers(write)) {
            self.note_restart(tail, &page);
            self.pause(self.settings.resync_jitter).await;
            return Ok(Step::MoreToRead);
        }
        self.insert_all(&self.denylist, &page.entries)?;
        let at_head = advance(&mut tail.cursor, &page)?;
        if !at_head {
            return Ok(Step::MoreToRead);
        }
        self.denylist.settle_own_writes(&own_writes);
        self.confirm(tail, AtHead { reading, head: page.head, epoch_age: page.epoch_age });
        Ok(Step::AtHead)
    }

    fn resync_due(&self, tail: &Tail) -> Option<ResyncCause> {
        let now = self.elapsed();
        let owed = tail.owed_from.is_some_and(|from| now >= from);
        let asked = self.resync_wanted.load(Ordering::SeqCst) && now >= tail.resync_from;
        let due = tail.due.or(owed.then_some(ResyncCause::LogRestarted));
        due.or(asked.then_some(ResyncCause::ForeignRevision))
    }

    /// Reads the whole log, unites it with what is held, and gives back what the log lacks.
    async fn resync(&self, tail: &mut Tail, cause: ResyncCause) -> Result<Step, Fault> {
        tail.due = Some(cause);
        tail.owed_from = None;
        self.resync_wanted.store(false, Ordering::SeqCst);
        self.counter(cause).fetch_add(1, Ordering::Relaxed);
        let number = self.resyncs_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let began = self.elapsed();
        tracing::info!(
            cause = cause.as_str(),
            held = self.denylist.len(),
            "reading the whole revocation log again"
        );

        let own_writes = self.denylist.own_writes();
        // What the log holds, to tell what it lacks. Twice the memory for as long as the resync takes.
        let logged = Denylist::new(self.denylist.settings());
        let (mut cursor, mut whole) = (None, Ok(()));
        let mut read = match self.read_to_head(&mut cursor, &logged, &mut whole).await {
            Err(Fault::Moved) => {
                self.start_settling(tail);
                return Err(Fault::Moved);
            }
            read => read?,
        };
        for chunk in self.denylist.chunks() {
            for batch in chunk.chunks(self.settings.page) {
                if tail.owed_from.is_none() && self.give_back(batch, &logged, tail).await {
                    // Read again before each batch: another sidecar may be giving back the same.
                    read = self.read_to_head(&mut cursor, &logged, &mut whole).await?;
                }
            }
        }
        // Only now: others wait for what is held here, whether or not there is room for what they hold.
        whole?;

        self.denylist.settle_own_writes(&own_writes);
        tail.cursor = cursor;
        tail.due = None;
        tail.last_read = self.elapsed();
        let took = tail.last_read.saturating_sub(began);
        tail.resync_from =
            tail.last_read.saturating_add(self.settings.resync_gap.max(took.saturating_mul(10)));
        self.confirm(tail, read);
        self.resync_completed.send_replace(number);
        Ok(Step::AtHead)
    }

    /// Reads pages until one ends at the head; `whole` tells whether all of it found room.
    async fn read_to_head(
        &self,
        cursor: &mut Option<Revision>,
        logged: &Denylist,
        whole: &mut Result<(), Full>,
    ) -> Result<AtHead, Fault> {
        loop {
            let reading = self.denylist.begin_read(self.elapsed());
            let page = self.read(*cursor).await?;
            if restarted(*cursor, &page) {
                return Err(Fault::Moved);
            }
            *whole = self.insert_all(&self.denylist, &page.entries).and(*whole);
            // What finds no room here may be given back once too often, which changes nothing.
            let _ = self.insert_all(logged, &page.entries);
            if advance(cursor, &page)? {
                return Ok(AtHead { reading, head: page.head, epoch_age: page.epoch_age });
            }
        }
    }

    /// All that is alive, even past one that does not fit: what fits is in force. What a store has not purged yet takes no
    /// room.
    fn insert_all(&self, denylist: &Denylist, entries: &[Entry]) -> Result<(), Full> {
        let by = self.dead_by();
        let mut result = Ok(());
        for entry in entries.iter().filter(|entry| entry.expires_at > by) {
            result = denylist.insert(entry).and(result);
        }
        result
    }

    /// What expires by then is dead by any clock.
    fn dead_by(&self) -> Timestamp {
        self.clock.now().purging.before(self.denylist.settings().slack)
    }

    /// Gives back what of the batch is alive and not in the log; whether the log may have grown by it.
    ///
    /// A log that can be read and not written (its disk is full) leaves this sidecar's own denylist whole, so it does
    /// not hold up the resync: what is owed is tried again later.
    async fn give_back(&self, batch: &[Entry], logged: &Denylist, tail: &mut Tail) -> bool {
        // As long as it is held here: where the clock is behind ours, what it denies is not dead yet.
        let by = self.dead_by();
        let lost = |entry: &&Entry| entry.expires_at > by && !logged.holds(entry);
        let lost: Vec<Entry> = batch.iter().filter(lost).copied().collect();
        let count = lost.len();
        if count == 0 {
            return false;
        }
        if let Err(fault) = self.in_time(self.log.restore(lost)).await {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                error = &fault as &dyn std::error::Error,
                "the store can't be given what it lost yet"
            );
            let again_after = (self.settings.settle / 2).clamp(OWED_AGAIN_SOONEST, OWED_AGAIN_AFTER);
            tail.owed_from = Some(self.elapsed().saturating_add(again_after));
        } else {
            tracing::warn!(count, "gave back revocations that the store had lost");
            self.counts.restored.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        true
    }

    async fn read(&self, cursor: Option<Revision>) -> Result<Page, Fault> {
        self.in_time(self.log.read_after(cursor, self.settings.page)).await
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, Fault> {
        let answer = tokio::time::timeout(self.settings.answer_within, call).await;
        Ok(answer.map_err(|_| Fault::TooSlow)??)
    }

    fn note_restart(&self, tail: &mut Tail, page: &Page) {
        tracing::warn!(head = %page.head, "the revocation log went back in time or was replaced");
        tail.cursor = None;
        tail.due = Some(ResyncCause::LogRestarted);
        self.start_settling(tail);
    }

    fn start_settling(&self, tail: &mut Tail) {
        tail.settling_until = Some(self.elapsed().saturating_add(self.settings.settle));
    }

    fn confirm(&self, tail: &mut Tail, AtHead { reading, head, epoch_age }: AtHead) {
        if epoch_age < self.settings.settle && tail.settled_for != Some(head.epoch) {
            tail.settled_for = Some(head.epoch);
            // Whoever starts now can't know what the epoch before this one held; those who do are giving it back.
            let until = self.elapsed().saturating_add(self.settings.settle - epoch_age);
            tail.settling_until = tail.settling_until.max(Some(until));
        }
        // By when it was sent: what a slow read found was there before the holders had their time.
        if tail.settling_until.is_some_and(|until| reading.sent() < until) {
            self.denylist.reached(head);
        } else {
            tail.settling_until = None;
            self.denylist.confirm(reading, head);
        }
    }

    /// At the head: until the log hints, somebody asks, or it is time to confirm again.
    async fn rest(&self, tail: &Tail) {
        let Some(cursor) = tail.cursor else { return };
        let now = self.elapsed();
        let mut at_most = self.settings.confirm_every;
        if let Some(until) = tail.settling_until {
            at_most = at_most.min(until.saturating_sub(now));
        }
        if self.resync_wanted.load(Ordering::SeqCst) {
            at_most = at_most.min(tail.resync_from.saturating_sub(now));
        }
        tokio::select! {
            biased;
            () = self.log.changed(cursor, at_most) => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.nudged.notified() => {
                let since = self.elapsed().saturating_sub(tail.last_read);
                tokio::time::sleep(self.settings.read_gap.saturating_sub(since)).await;
            }
        }
    }

    async fn recover(&self, tail: &mut Tail, fault: &Fault) {
        tail.failures = tail.failures.saturating_add(1);
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        if tail.failures == 1 {
            tracing::warn!(error = fault as &dyn std::error::Error, "the revocation log can't be followed");
        } else {
            tracing::debug!(error = fault as &dyn std::error::Error, failures = tail.failures, "still can't");
        }
        if matches!(fault, Fault::Full(_)) {
            self.denylist.purge_all(self.clock.now());
        }
        let doubled = SHORTEST_PAUSE.saturating_mul(1 << tail.failures.min(10));
        let longest = doubled.min(self.settings.longest_pause);
        tokio::time::sleep(longest / 2).await;
        self.pause(longest / 2).await;
    }

    /// Sleeps for up to `at_most`, at random.
    async fn pause(&self, at_most: Duration) {
        let drawn = u32::try_from(self.draw() >> 32).unwrap_or(u32::MAX);
        tokio::time::sleep(at_most.mul_f64(f64::from(drawn) / f64::from(u32::MAX))).await;
    }

    /// SplitMix64: evenly spread, and no secret.
    pub(super) fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.jitter.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn sweep(&self, tail: &mut Tail) {
        let now = self.clock.now();
        if now.elapsed.saturating_sub(tail.last_sweep) >= SWEEP_EVERY {
            tail.last_sweep = now.elapsed;
            self.denylist.purge(now);
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().elapsed
    }
}

/// Whether the page does not go on where the cursor stood.
fn restarted(cursor: Option<Revision>, page: &Page) -> bool {
    cursor.is_some_and(|cursor| page.restarted || !page.head.covers(&cursor))
}

/// Moves the cursor to the page's end; whether that is the head.
fn advance(cursor: &mut Option<Revision>, page: &Page) -> Result<bool, Fault> {
    let at_head = page.cursor == page.head;
    if !at_head && *cursor == Some(page.cursor) {
        return Err(Fault::Stuck);
    }
    *cursor = Some(page.cursor);
    Ok(at_head)
}
