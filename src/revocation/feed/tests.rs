//! Against a log that fails on demand; the engines' own tests run the feed over real stores.

mod asked;
mod held;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::revocation::denylist;
use crate::revocation::{Appended, DenialKey, Draft, Entry, EntryKind, Page, Revoker, StoreError};

const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const SOON: Duration = Duration::from_secs(20);

/// A log in memory whose faults the test injects.
struct FaultyLog {
    state: Mutex<State>,
    moved: Notify,
    released: Notify,
}

#[derive(Default)]
struct State {
    epoch: u64,
    epoch_age: Duration,
    entries: Vec<Entry>,
    reads_fail: bool,
    reads_hang: bool,
    /// The next read waits with its answer until it is released; `waiting` once it does.
    slow: bool,
    waiting: bool,
    writes_fail: bool,
    reads: u64,
    whole_reads: u64,
    batches: Vec<usize>,
}

impl State {
    fn head(&self) -> Revision {
        Revision { epoch: self.epoch, seq: self.entries.len() as u64 }
    }
}

fn down() -> StoreError {
    StoreError::Unavailable("injected".into())
}

#[tonic::async_trait]
impl RevocationLog for FaultyLog {
    async fn append(&self, draft: Draft) -> Result<Appended, StoreError> {
        let Draft::Token { key, expires_at } = draft else { panic!("only tokens here") };
        let entry = Entry { kind: EntryKind::Token, key, expires_at };
        Ok(Appended { entry, revision: self.push(entry) })
    }

    async fn read_after(&self, cursor: Option<Revision>, limit: usize) -> Result<Page, StoreError> {
        if self.state.lock().reads_hang {
            std::future::pending::<()>().await;
        }
        if std::mem::take(&mut self.state.lock().slow) {
            self.state.lock().waiting = true;
            self.released.notified().await;
        }
        let mut state = self.state.lock();
        state.reads += 1;
        state.whole_reads += u64::from(cursor.is_none());
        if state.reads_fail {
            return Err(down());
        }
        let head = state.head();
        let restarted = cursor.is_some_and(|cursor| !head.covers(&cursor));
        let from = cursor.filter(|_| !restarted).map_or(0, |cursor| usize::try_from(cursor.seq).unwrap());
        let entries: Vec<_> = state.entries.iter().skip(from).take(limit).copied().collect();
        let cursor = Revision { epoch: head.epoch, seq: (from + entries.len()) as u64 };
        Ok(Page { entries, cursor, head, epoch_age: state.epoch_age, restarted })
    }

    async fn restore(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if self.state.lock().writes_fail {
            return Err(StoreError::NotWritable("injected".into()));
        }
        self.state.lock().batches.push(entries.len());
        for entry in entries {
            if !self.state.lock().entries.contains(&entry) {
                self.push(entry);
            }
        }
        Ok(())
    }

    async fn changed(&self, cursor: Revision, at_most: Duration) {
        if self.state.lock().head() == cursor {
            let _ = tokio::time::timeout(at_most, self.moved.notified()).await;
        }
    }
}

impl FaultyLog {
    fn push(&self, entry: Entry) -> Revision {
        let mut state = self.state.lock();
        state.entries.push(entry);
        self.moved.notify_one();
        state.head()
    }

    fn fill(&self, tokens: std::ops::Range<u64>) {
        for n in tokens {
            self.push(token(n));
        }
    }

    /// The store comes back as another incarnation, with only its first `kept` entries.
    fn reincarnate(&self, epoch: u64, kept: usize) {
        let mut state = self.state.lock();
        state.epoch = epoch;
        state.entries.truncate(kept);
        self.moved.notify_one();
    }
}

struct Bench {
    log: Arc<FaultyLog>,
    denylist: Arc<Denylist>,
    feed: Arc<Feed>,
    clock: Clock,
    hands: ManualClock,
    cancel: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    fn new(max_entries: usize) -> Self {
        Self::with(max_entries, |_| {})
    }

    fn with(max_entries: usize, adjust: impl FnOnce(&mut Settings)) -> Self {
        Self::holding(denylist::Settings { max_entries, slack: Duration::ZERO }, adjust)
    }

    fn holding(limits: denylist::Settings, adjust: impl FnOnce(&mut Settings)) -> Self {
        let (clock, hands) = Clock::manual(NOON);
        let state = Mutex::new(State { epoch: 1, epoch_age: Duration::MAX, ..State::default() });
        let log = Arc::new(FaultyLog { state, moved: Notify::new(), released: Notify::new() });
        let denylist = Arc::new(Denylist::new(limits));
        let mut settings = Settings {
            confirm_every: Duration::from_millis(5),
            settle: Duration::ZERO,
            page: 3,
            answer_within: Duration::from_millis(50),
            longest_pause: Duration::from_millis(5),
            resync_gap: Duration::ZERO,
            resync_jitter: Duration::ZERO,
            read_gap: Duration::ZERO,
            jitter_seed: None,
        };
        adjust(&mut settings);
        let feed = Arc::new(Feed::new(log.clone(), Arc::clone(&denylist), clock.clone(), settings));
        Self { log, denylist, feed, clock, hands, cancel: CancellationToken::new() }
    }

    fn start(&self) {
        tokio::spawn(Arc::clone(&self.feed).run(self.cancel.clone()));
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let held = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, held).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn loaded(&self) -> bool {
        self.denylist.standing(&self.clock.now()).loaded
    }

    fn revision(&self) -> Revision {
        self.denylist.standing(&self.clock.now()).revision
    }
}

fn token(n: u64) -> Entry {
    let key = DenialKey::token_id("issuer", &n.to_string());
    Entry { kind: EntryKind::Token, key, expires_at: NOON.after(Duration::from_secs(60)) }
}

#[tokio::test]
async fn the_first_snapshot_is_paged_and_loads_the_denylist_only_at_its_end() {
    let bench = Bench::new(100);
    bench.log.fill(0..10);
    assert!(!bench.loaded());
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    assert!((0..10).all(|n| bench.denylist.holds(&token(n))));
    assert_eq!(bench.revision(), Revision { epoch: 1, seq: 10 });
}

#[tokio::test]
async fn an_idle_log_is_confirmed_again_and_again() {
    let bench = Bench::new(10);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.hands.advance(Duration::from_secs(30));
    bench.until("fresh again", |b| b.denylist.standing(&b.clock.now()).staleness.is_zero()).await;
}

#[tokio::test]
async fn staleness_runs_while_the_log_fails_and_the_feed_survives_it() {
    let bench = Bench::new(10);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.state.lock().reads_fail = true;
    bench.until("failing", |b| b.feed.failures() > 2).await;
    bench.hands.advance(Duration::from_secs(30));
    let failed = bench.feed.failures();
    bench.until("failing on", |b| b.feed.failures() > failed + 1).await;
    assert_eq!(bench.denylist.standing(&bench.clock.now()).staleness, Duration::from_secs(30));
    bench.log.push(token(1));
    bench.log.state.lock().reads_fail = false;
    bench.until("recovered", |b| b.denylist.holds(&token(1))).await;
}

#[tokio::test]
async fn a_log_that_hangs_is_given_up_on_and_tried_again() {
    let bench = Bench::new(10);
    bench.log.state.lock().reads_hang = true;
    bench.start();
    bench.until("given up", |b| b.feed.failures() > 1).await;
    assert!(!bench.loaded());
    bench.log.state.lock().reads_hang = false;
    bench.until("loaded", Bench::loaded).await;
}

#[tokio::test]
async fn a_log_that_went_back_in_time_gets_back_what_it_lost() {
    let bench = Bench::new(100);
    bench.log.fill(0..10);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.reincarnate(2, 4);
    bench.until("healed", |b| b.log.state.lock().entries.len() == 10 && b.revision().epoch == 2).await;
    assert_eq!(bench.feed.resyncs(ResyncCause::LogRestarted), 1);
    assert_eq!(bench.feed.restored(), 6);
    assert!(bench.log.state.lock().batches.iter().all(|batch| *batch <= 3), "batches are bounded");
    assert!((0..10).all(|n| bench.denylist.holds(&token(n))));
}

#[tokio::test]
async fn what_is_dead_by_this_clock_alone_is_given_back() {
    let slack = Duration::from_secs(60);
    let bench = Bench::holding(denylist::Settings { max_entries: 10, slack }, |_| {});
    bench.log.push(token(1));
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.hands.advance(Duration::from_secs(90));
    bench.log.reincarnate(2, 0);
    bench.until("given back", |b| b.log.state.lock().entries == [token(1)]).await;
}

#[tokio::test]
async fn what_is_dead_by_every_clock_is_not_given_back() {
    let bench = Bench::new(10);
    bench.log.push(token(1));
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.hands.advance(Duration::from_secs(60));
    bench.log.reincarnate(2, 0);
    bench.until("read again", |b| b.revision().epoch == 2).await;
    assert_eq!(bench.feed.restored(), 0);
}

#[tokio::test]
async fn a_log_shorter_than_the_cursor_is_noticed_though_its_epoch_is_the_same() {
    let bench = Bench::new(100);
    bench.log.fill(0..5);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.reincarnate(1, 2);
    bench.until("healed", |b| b.log.state.lock().entries.len() == 5).await;
}

#[tokio::test]
async fn nothing_is_confirmed_until_others_had_time_to_give_back() {
    let bench = Bench::with(100, |settings| settings.settle = Duration::from_secs(5));
    bench.log.push(token(1));
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.hands.advance(Duration::from_secs(1));
    bench.until("confirmed", |b| b.denylist.standing(&b.clock.now()).staleness.is_zero()).await;
    bench.log.reincarnate(2, 0);
    bench.until("reached the new epoch", |b| b.revision().epoch == 2).await;
    bench.hands.advance(Duration::from_secs(4));
    bench.log.push(token(2));
    bench.until("still reads", |b| b.denylist.holds(&token(2))).await;
    assert_eq!(bench.denylist.standing(&bench.clock.now()).staleness, Duration::from_secs(4));
    bench.hands.advance(Duration::from_secs(1));
    bench.until("confirmed", |b| b.denylist.standing(&b.clock.now()).staleness.is_zero()).await;
}

#[tokio::test]
async fn who_starts_on_a_young_epoch_waits_for_what_others_give_back() {
    let bench = Bench::with(100, |settings| settings.settle = Duration::from_secs(5));
    bench.log.state.lock().epoch_age = Duration::from_secs(2);
    bench.log.push(token(1));
    bench.start();
    bench.until("read", |b| b.denylist.holds(&token(1))).await;
    assert!(!bench.loaded(), "another sidecar may hold more than this");
    bench.hands.advance(Duration::from_secs(3));
    bench.log.state.lock().epoch_age = Duration::from_secs(5);
    bench.until("loaded", Bench::loaded).await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_back_does_not_stop_verification() {
    let bench = Bench::new(100);
    bench.log.push(token(1));
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.state.lock().writes_fail = true;
    bench.log.reincarnate(2, 0);
    bench.until("confirmed on the new epoch", |b| b.revision().epoch == 2).await;
    bench.log.state.lock().writes_fail = false;
    bench.hands.advance(Duration::from_secs(11));
    bench.until("given back later", |b| b.log.state.lock().entries.len() == 1).await;
}

#[tokio::test]
async fn a_full_denylist_holds_the_cursor_back_until_the_entry_fits() {
    let bench = Bench::new(2);
    bench.log.fill(0..3);
    bench.start();
    bench.until("overflowed", |b| b.denylist.standing(&b.clock.now()).full).await;
    assert!(!bench.loaded(), "an incomplete snapshot is no snapshot");
    bench.hands.advance(Duration::from_secs(61));
    bench.log.state.lock().entries.truncate(1);
    bench.until("whole again", |b| b.loaded() && !b.denylist.standing(&b.clock.now()).full).await;
}

#[tokio::test]
async fn a_full_denylist_gives_back_what_it_holds() {
    let bench = Bench::new(2);
    bench.log.fill(0..2);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.reincarnate(2, 1);
    bench.log.push(token(7));
    bench.until("given back", |b| b.log.state.lock().entries.contains(&token(1))).await;
    assert!(bench.denylist.standing(&bench.clock.now()).full);
    assert_eq!(bench.revision().epoch, 1, "not all of the new epoch is held");
}

#[tokio::test]
async fn an_own_revocation_that_did_not_fit_is_made_good_by_the_feed() {
    let bench = Bench::new(1);
    bench.denylist.insert(&Entry { expires_at: NOON.after(Duration::from_secs(5)), ..token(9) }).unwrap();
    let revoker = Revoker::new(bench.log.clone(), Arc::clone(&bench.denylist));
    let Entry { key, expires_at, .. } = token(1);
    let revision = revoker.revoke(Draft::Token { key, expires_at }).await.unwrap();
    assert!(bench.denylist.standing(&bench.clock.now()).full);
    bench.hands.advance(Duration::from_secs(6));
    bench.start();
    assert!(bench.denylist.wait_for(revision, SOON).await);
    assert!(bench.denylist.holds(&token(1)));
    assert!(!bench.denylist.standing(&bench.clock.now()).full);
}

#[tokio::test]
async fn a_revocation_is_in_force_here_before_the_feed_saw_it() {
    let bench = Bench::new(10);
    let revoker = Revoker::new(bench.log.clone(), Arc::clone(&bench.denylist));
    let Entry { key, expires_at, .. } = token(1);
    revoker.revoke(Draft::Token { key, expires_at }).await.unwrap();
    assert!(bench.denylist.holds(&token(1)));
}

#[tokio::test]
async fn a_log_that_lost_what_was_written_here_before_the_feed_first_read_it_gets_it_back() {
    let bench = Bench::new(10);
    let revoker = Revoker::new(bench.log.clone(), Arc::clone(&bench.denylist));
    let Entry { key, expires_at, .. } = token(1);
    revoker.revoke(Draft::Token { key, expires_at }).await.unwrap();
    bench.log.reincarnate(2, 0);
    bench.start();
    bench.until("given back", |b| b.log.state.lock().entries == [token(1)]).await;
    bench.until("loaded", Bench::loaded).await;
    assert_eq!(bench.feed.resyncs(ResyncCause::LogRestarted), 1, "and that was all");
}
