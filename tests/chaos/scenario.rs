//! The faults, each a scenario over the engines where it makes sense.

use crate::fleet::{BOUND, Fleet};
use crate::history::Recorder;
use crate::proxy::Mode;
use crate::random::Random;
use crate::store::{Engine, Setup, Store};
use countersign::clock::ManualClock;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scenario {
    Calm,
    SidecarKilled,
    SidecarFrozen,
    StoreKilled,
    StoreRestarted,
    StoreFrozen,
    Delayed,
    Partitioned,
    RepliesLost,
    ConnectionsReset,
    Flushed,
    OldCopyRestored,
    FailedOver,
    FailedOverConfirmed,
    DiskFull,
    ClockStepped,
    Everything,
}

use Scenario::{
    Calm, ClockStepped, ConnectionsReset, Delayed, DiskFull, Everything, FailedOver, FailedOverConfirmed,
    Flushed, OldCopyRestored, Partitioned, RepliesLost, SidecarFrozen, SidecarKilled, StoreFrozen,
    StoreKilled, StoreRestarted,
};

/// What Redis fsyncs each second may be two seconds behind.
const AFTER: Duration = Duration::from_secs(2);

/// Where each makes sense.
pub(crate) fn all() -> Vec<(Scenario, Engine)> {
    let everywhere = [Calm, SidecarKilled, SidecarFrozen, OldCopyRestored, DiskFull, ClockStepped];
    let servers = [StoreKilled, StoreFrozen, Delayed, Partitioned, RepliesLost, ConnectionsReset, Everything];
    let mut pairs = [Flushed, FailedOver, FailedOverConfirmed].map(|one| (one, Engine::Redis)).to_vec();
    pairs.push((StoreRestarted, Engine::Postgres));
    for engine in [Engine::Sqlite, Engine::Redis, Engine::Postgres] {
        pairs.extend(everywhere.map(|scenario| (scenario, engine)));
    }
    for engine in [Engine::Redis, Engine::Postgres] {
        pairs.extend(servers.map(|scenario| (scenario, engine)));
    }
    pairs.sort();
    pairs
}

impl Scenario {
    pub(crate) fn setup(self, random: &mut Random) -> Setup {
        Setup {
            small_disk: self == DiskFull,
            replica: matches!(self, FailedOver | FailedOverConfirmed),
            confirmed: self == FailedOverConfirmed,
            fsync_always: self == StoreKilled && random.one_in(2),
        }
    }
}

/// What a scenario acts on.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) engine: Engine,
    pub(crate) setup: Setup,
    pub(crate) store: Store,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) hands: Arc<Vec<ManualClock>>,
    pub(crate) random: Random,
}

impl World {
    /// Does its worst for about this long.
    pub(crate) async fn rage(&mut self, during: Duration) {
        let end = self.recorder.now() + during;
        match self.scenario {
            OldCopyRestored => return self.restore_old_copy(during).await,
            Flushed | FailedOver | FailedOverConfirmed => self.pause(400, 1500).await,
            _ => {}
        }
        while self.recorder.now() < end {
            self.once().await;
            if self.setup.replica {
                return;
            }
            self.pause(100, 700).await;
        }
    }

    async fn once(&mut self) {
        let scenario = match self.scenario {
            Everything => {
                let some = [
                    SidecarKilled,
                    SidecarFrozen,
                    StoreFrozen,
                    Partitioned,
                    RepliesLost,
                    ConnectionsReset,
                    Delayed,
                ];
                *self.random.pick(&some).unwrap_or(&SidecarKilled)
            }
            own => own,
        };
        match scenario {
            Calm | Everything | OldCopyRestored => self.pause(200, 400).await,
            SidecarKilled => self.kill_sidecar().await,
            SidecarFrozen => self.freeze_sidecar().await,
            StoreKilled | StoreRestarted => self.end_store(scenario).await,
            StoreFrozen => self.freeze_store().await,
            Delayed => {
                let by = self.random.millis(20, 400);
                self.misbehave(Mode::Delay(by)).await;
            }
            Partitioned => self.misbehave(Mode::Hold).await,
            RepliesLost => self.misbehave(Mode::HoldReplies).await,
            ConnectionsReset => self.misbehave(Mode::Reset).await,
            Flushed => self.flush(),
            FailedOver | FailedOverConfirmed => self.fail_over().await,
            DiskFull => {
                block_in_place(|| self.store.fill_disk());
                self.recorder.fault("disk full");
                self.pause(500, 2000).await;
                self.store.free_disk();
                self.recorder.fault("disk has room");
                if !self.store.runs() {
                    block_in_place(|| self.store.restart());
                    self.recorder.fault("store had ended; restarted");
                }
            }
            ClockStepped => self.step_clock().await,
        }
    }

    async fn pause(&mut self, low: u64, high: u64) {
        let pause = self.random.millis(low, high);
        tokio::time::sleep(pause).await;
    }

    async fn kill_sidecar(&mut self) {
        let sidecar = self.random.below(self.fleet.size());
        block_in_place(|| self.fleet.kill(sidecar));
        self.recorder.killed(sidecar);
        self.recorder.fault(format!("sidecar {sidecar} killed"));
        self.pause(0, 1200).await;
        block_in_place(|| self.fleet.start(sidecar));
        self.recorder.fault(format!("sidecar {sidecar} started"));
    }

    async fn freeze_sidecar(&mut self) {
        let sidecar = self.random.below(self.fleet.size());
        block_in_place(|| self.fleet.signal(sidecar, "STOP"));
        self.recorder.fault(format!("sidecar {sidecar} frozen"));
        self.pause(300, 2 * BOUND.as_millis() as u64 + 300).await;
        block_in_place(|| self.fleet.signal(sidecar, "CONT"));
        self.recorder.fault(format!("sidecar {sidecar} goes on"));
    }

    async fn end_store(&mut self, scenario: Scenario) {
        let at = self.recorder.now();
        if scenario == StoreKilled {
            block_in_place(|| self.store.kill());
            if self.engine == Engine::Redis && !self.setup.fsync_always {
                self.recorder.loss(true, at.saturating_sub(AFTER), at, self.recorder.now());
            }
            self.recorder.fault("store killed");
        } else {
            let at_once = self.random.one_in(2);
            block_in_place(|| self.store.stop(at_once));
            self.recorder.fault(if at_once { "store stopped at once" } else { "store stopped" });
        }
        self.pause(0, 1500).await;
        block_in_place(|| self.store.restart());
        self.recorder.fault("store restarted");
    }

    async fn freeze_store(&mut self) {
        block_in_place(|| self.store.signal("STOP"));
        self.recorder.fault("store frozen");
        self.pause(300, 3 * BOUND.as_millis() as u64).await;
        block_in_place(|| self.store.signal("CONT"));
        self.recorder.fault("store goes on");
    }

    /// Some of the proxies, for a while.
    async fn misbehave(&mut self, mode: Mode) {
        let some: Vec<usize> = (0..self.store.proxies().len()).filter(|_| self.random.one_in(2)).collect();
        for sidecar in &some {
            self.store.proxies()[*sidecar].set(mode);
        }
        self.recorder.fault(format!("{mode:?} between sidecars {some:?} and the store"));
        self.pause(200, 3 * BOUND.as_millis() as u64).await;
        for sidecar in &some {
            self.store.proxies()[*sidecar].set(Mode::Pass);
        }
        self.recorder.fault("all connections pass");
    }

    fn flush(&mut self) {
        let at = self.recorder.now();
        block_in_place(|| self.store.flush());
        self.recorder.loss(true, Duration::ZERO, at, self.recorder.now());
        self.recorder.fault("FLUSHALL");
    }

    /// The primary is killed as soon as it has acknowledged a revocation: one that reached no replica, where nobody waits
    /// for that; or one that did, because its class says so, and then nothing is excused that was acknowledged.
    async fn fail_over(&mut self) {
        let confirmed = self.setup.confirmed;
        let behind = self.recorder.now();
        if !confirmed {
            block_in_place(|| self.store.detach_replica());
            self.recorder.fault("replica falls behind");
        }
        self.recorder.until_revoked(Duration::from_secs(3)).await;
        let at = self.recorder.now();
        block_in_place(|| self.store.fail_over());
        let from = if confirmed { at.saturating_sub(AFTER) } else { behind.saturating_sub(AFTER / 2) };
        self.recorder.loss(!confirmed, from, at, self.recorder.now());
        self.recorder.fault("primary killed, replica promoted");
    }

    async fn restore_old_copy(&mut self, during: Duration) {
        let copied = self.recorder.now().saturating_sub(AFTER);
        block_in_place(|| self.store.keep_copy());
        self.recorder.fault("store copied");
        tokio::time::sleep(during.mul_f64(0.6)).await;
        self.pause(0, 500).await;
        let at = self.recorder.now();
        block_in_place(|| self.store.put_copy_back());
        self.recorder.loss(true, copied, at, self.recorder.now() + Duration::from_millis(200));
        self.recorder.fault("old copy in place");
        tokio::time::sleep(during.mul_f64(0.4)).await;
    }

    /// An hour, either way, and back: for all processes of one machine, or for one sidecar of a fleet.
    async fn step_clock(&mut self) {
        let hour = Duration::from_secs(3600);
        let ahead = self.random.one_in(2);
        let all = self.engine == Engine::Sqlite || self.random.one_in(3);
        let alone = (!all).then(|| self.random.below(self.hands.len()));
        self.step(alone, |hand| if ahead { hand.wall().after(hour) } else { hand.wall().before(hour) });
        let whose = alone.map_or_else(|| "all clocks".to_owned(), |one| format!("sidecar {one}'s clock"));
        self.recorder.fault(format!("{whose} an hour {}", if ahead { "ahead" } else { "back" }));
        self.pause(200, 900).await;
        self.step(alone, |hand| if ahead { hand.wall().before(hour) } else { hand.wall().after(hour) });
        self.recorder.fault("clock right again");
    }

    fn step(&self, alone: Option<usize>, to: impl Fn(&ManualClock) -> countersign::clock::Timestamp) {
        self.recorder.step();
        for (number, hand) in self.hands.iter().enumerate() {
            if alone.is_none_or(|one| one == number) {
                hand.step_wall_to(to(hand));
            }
        }
        self.recorder.step();
    }

    /// No fault any more.
    pub(crate) fn heal(&mut self) {
        block_in_place(|| {
            for sidecar in 0..self.fleet.size() {
                self.fleet.signal(sidecar, "CONT");
                if self.scenario != ClockStepped {
                    self.fleet.start(sidecar);
                }
            }
            self.store.heal();
        });
        self.recorder.fault("no fault any more");
    }
}
