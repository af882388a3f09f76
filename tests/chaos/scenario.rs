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
    DiskFull,
    ClockStepped,
    Everything,
}

use Scenario::{
    Calm, ClockStepped, ConnectionsReset, Delayed, DiskFull, Everything, FailedOver, Flushed,
    OldCopyRestored, Partitioned, RepliesLost, SidecarFrozen, SidecarKilled, StoreFrozen, StoreKilled,
    StoreRestarted,
};

/// Where each makes sense.
pub(crate) fn all() -> Vec<(Scenario, Engine)> {
    let everywhere = [Calm, SidecarKilled, SidecarFrozen, OldCopyRestored, DiskFull];
    let servers = [StoreKilled, StoreFrozen, Delayed, Partitioned, RepliesLost, ConnectionsReset, Everything];
    let mut pairs =
        vec![(ClockStepped, Engine::Sqlite), (Flushed, Engine::Redis), (FailedOver, Engine::Redis)];
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
            replica: self == FailedOver,
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
            Flushed | FailedOver => self.pause(400, 1500).await,
            _ => {}
        }
        while self.recorder.now() < end {
            self.once().await;
            if matches!(self.scenario, FailedOver) {
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
            FailedOver => self.fail_over(),
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
                // What is fsynced each second may be two seconds behind.
                self.recorder.loss(at.saturating_sub(Duration::from_secs(2)), at, self.recorder.now());
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
        self.recorder.loss(Duration::ZERO, at, self.recorder.now());
        self.recorder.fault("FLUSHALL");
    }

    fn fail_over(&mut self) {
        let at = self.recorder.now();
        block_in_place(|| self.store.fail_over());
        // Replication is asynchronous; the replica was right behind.
        self.recorder.loss(at.saturating_sub(Duration::from_secs(1)), at, self.recorder.now());
        self.recorder.fault("primary killed, replica promoted");
    }

    async fn restore_old_copy(&mut self, during: Duration) {
        let copied = self.recorder.now();
        block_in_place(|| self.store.keep_copy());
        self.recorder.fault("store copied");
        tokio::time::sleep(during.mul_f64(0.6)).await;
        self.pause(0, 500).await;
        let at = self.recorder.now();
        block_in_place(|| self.store.put_copy_back());
        self.recorder.loss(copied, at, self.recorder.now() + Duration::from_millis(200));
        self.recorder.fault("old copy in place");
        tokio::time::sleep(during.mul_f64(0.4)).await;
    }

    /// An hour, either way, as all processes of one machine see it; and back.
    async fn step_clock(&mut self) {
        let hour = Duration::from_secs(3600);
        let ahead = self.random.one_in(2);
        self.step(|hand| if ahead { hand.wall().after(hour) } else { hand.wall().before(hour) });
        self.recorder.fault(if ahead { "clock an hour ahead" } else { "clock an hour back" });
        self.pause(200, 900).await;
        self.step(|hand| if ahead { hand.wall().before(hour) } else { hand.wall().after(hour) });
        self.recorder.fault("clock right again");
    }

    fn step(&self, to: impl Fn(&ManualClock) -> countersign::clock::Timestamp) {
        self.recorder.step();
        for hand in self.hands.iter() {
            hand.step_wall_to(to(hand));
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
