//! Plays a schedule: one runtime on virtual time, the sidecars, the store, and those who call.

use crate::breakage::Breakage;
use crate::chance::hash;
use crate::engine::{Engine, Loss, Setback};
use crate::history::{Answer, Asked, Call, Counts, History};
use crate::people::{Calling, People};
use crate::schedule::{Event, Fault, Schedule, What, Wish};
use crate::sidecar::{BOUND, Sidecar};
use crate::wire::Network;
use countersign::clock::ManualClock;
use countersign::revocation::ResyncCause;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until};

/// Once all faults are over, everything is as it should be within this.
const QUIET: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// All hands move with virtual time, whenever the runtime wakes.
#[derive(Default)]
struct Hands {
    began: Option<Instant>,
    millis: u64,
    clocks: Vec<ManualClock>,
}

impl Hands {
    fn catch_up(&mut self) {
        let Some(began) = self.began else { return };
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap();
        let by = Duration::from_millis(millis - self.millis);
        self.millis = millis;
        if !by.is_zero() {
            self.clocks.iter().for_each(|clock| clock.advance(by));
        }
    }
}

/// Plays the schedule and tells what happened.
pub(crate) fn play(schedule: &Schedule, breakage: Breakage) -> History {
    let hands = Arc::new(Mutex::new(Hands::default()));
    let moved = Arc::clone(&hands);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_unpark(move || moved.lock().catch_up())
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = Engine::new(store_clock(hash(&[schedule.seed, 21])), breakage);
        let network = Network::new(schedule.seed, schedule.sidecars, engine);
        hands.lock().began = Some(Instant::now());
        let mut world = World {
            schedule,
            breakage,
            network,
            hands,
            sidecars: Vec::new(),
            lives: vec![0; schedule.sidecars],
            under: vec![None; schedule.events.len()],
            people: Arc::new(People::new()),
            counts: Counts::default(),
        };
        world.sidecars = (0..schedule.sidecars).map(|number| Some(world.start(number))).collect();
        world.run().await
    })
}

/// Between 8 and 12 seconds ahead of virtual time; sidecars stand between 5 and 15.
fn store_clock(drawn: u64) -> Duration {
    Duration::from_millis(8000 + drawn % 4000)
}

struct World<'a> {
    schedule: &'a Schedule,
    breakage: Breakage,
    network: Arc<Network>,
    hands: Arc<Mutex<Hands>>,
    sidecars: Vec<Option<Arc<Sidecar>>>,
    lives: Vec<u32>,
    /// The life that each fault fell on.
    under: Vec<Option<Arc<Sidecar>>>,
    people: Arc<People>,
    counts: Counts,
}

enum Act {
    Begin,
    End,
}

impl World<'_> {
    fn start(&mut self, number: usize) -> Arc<Sidecar> {
        let life = self.lives[number];
        self.lives[number] += 1;
        let small = self.schedule.small[number];
        let sidecar =
            Sidecar::start(&self.network, (number, life), (self.schedule.seed, small), self.breakage);
        self.hands.lock().clocks.push(sidecar.hands.clone());
        sidecar
    }

    async fn run(mut self) -> History {
        let began = Instant::now();
        let mut acts = Vec::new();
        for (number, event) in self.schedule.events.iter().enumerate() {
            acts.push((event.at, number, Act::Begin));
            if let What::Fault { lasts, .. } = event.what {
                acts.push(((event.at + lasts).min(self.schedule.length), number, Act::End));
            }
        }
        acts.sort_by_key(|(at, ..)| *at);
        for (at, number, act) in acts {
            sleep_until(began + Duration::from_millis(at)).await;
            let event = self.schedule.events[number];
            match (event.what, act) {
                (What::Call { sidecar, slot, call }, _) => self.call(sidecar, slot, call),
                (What::Fault { fault, .. }, Act::Begin) => self.set_in(number, &event, fault),
                (What::Fault { fault, .. }, Act::End) => self.cease(number, fault),
            }
        }
        sleep_until(began + Duration::from_millis(self.schedule.length) + QUIET).await;
        self.settle().await;
        self.finish()
    }

    fn call(&self, sidecar: usize, slot: usize, wish: Wish) {
        if let Some(sidecar) = &self.sidecars[sidecar] {
            let calling =
                Calling { network: Arc::clone(&self.network), people: Arc::clone(&self.people), slot };
            calling.begin(sidecar, wish);
        }
    }

    fn set_in(&mut self, number: usize, event: &Event, fault: Fault) {
        self.people.history.lock().faults.push((event.at, format!("{:?}", event.what)));
        let network = Arc::clone(&self.network);
        match fault {
            Fault::Partition { sidecar } => network.weather.lock()[sidecar].cut += 1,
            Fault::Flaky { sidecar, per_cent } => network.weather.lock()[sidecar].flaky += per_cent,
            Fault::Stopped { sidecar } => {
                self.under[number] = self.sidecars[sidecar].clone();
                if let Some(sidecar) = &self.under[number] {
                    sidecar.gate.stop();
                }
            }
            Fault::Killed { sidecar } => {
                self.under[number] = self.sidecars[sidecar].take();
                if let Some(sidecar) = self.under[number].clone() {
                    self.count(&sidecar);
                    sidecar.kill();
                }
            }
            Fault::Step { sidecar, forward } => {
                self.under[number] = self.sidecars[sidecar].clone();
                if let Some(sidecar) = &self.under[number] {
                    *sidecar.steps.lock() += 1;
                    step(sidecar, forward);
                }
            }
            Fault::StoreDown => *network.down.lock() += 1,
            Fault::Failover { writes, clock } => self.set_back(Setback::Failover { writes }, clock),
            Fault::OldCopy { writes, clock } => self.set_back(Setback::OldCopy { writes }, clock),
            Fault::Flush { clock } => self.set_back(Setback::Flush, clock),
        }
    }

    fn cease(&mut self, number: usize, fault: Fault) {
        let under = self.under[number].take();
        let mut weather = self.network.weather.lock();
        match fault {
            Fault::Partition { sidecar } => weather[sidecar].cut -= 1,
            Fault::Flaky { sidecar, per_cent } => weather[sidecar].flaky -= per_cent,
            Fault::Stopped { .. } => under.iter().for_each(|sidecar| sidecar.gate.go_on()),
            Fault::Killed { sidecar } => {
                drop(weather);
                if under.is_some() {
                    self.sidecars[sidecar] = Some(self.start(sidecar));
                }
            }
            Fault::Step { forward, .. } => {
                if let Some(sidecar) = under {
                    *sidecar.steps.lock() -= 1;
                    step(&sidecar, !forward);
                }
            }
            Fault::StoreDown => *self.network.down.lock() -= 1,
            Fault::Failover { .. } | Fault::OldCopy { .. } | Fault::Flush { .. } => {}
        }
    }

    fn set_back(&mut self, setback: Setback, clock: u64) {
        let lost = self.network.set_back(setback, store_clock(clock));
        let at = self.network.now();
        self.people.history.lock().setbacks.push(at);
        let live: Vec<_> = self.sidecars.iter().flatten().collect();
        let losses = lost.into_iter().map(|entry| {
            let holders = live.iter().filter(|sidecar| sidecar.denylist.holds(&entry));
            Loss { entry, at, back: None, holders: holders.map(|sidecar| sidecar.by()).collect() }
        });
        self.network.engine.lock().losses.extend(losses);
    }

    /// What has to be true once all has been quiet for long enough.
    async fn settle(&mut self) {
        let mut unsettled = Vec::new();
        let entries: Vec<_> = {
            let mut engine = self.network.engine.lock();
            let now = engine.at(self.network.now()).clock();
            engine.entries().filter(|entry| entry.expires_at > now.after(BOUND)).copied().collect()
        };
        for sidecar in self.sidecars.iter().flatten() {
            let standing = sidecar.denylist.standing(&sidecar.clock.now());
            let whole = standing.loaded && !standing.full && standing.staleness < BOUND;
            let small = self.schedule.small[sidecar.number];
            if !whole && !small {
                unsettled.push(format!("{:?} is not fresh: {standing:?}", sidecar.by()));
            }
            let lacks = entries.iter().filter(|entry| !sidecar.denylist.holds(entry)).count();
            if lacks > 0 && whole {
                unsettled.push(format!("{:?} lacks {lacks} entries", sidecar.by()));
            }
        }
        self.refresh_survivors(&mut unsettled).await;
        self.people.history.lock().unsettled = unsettled;
    }

    async fn refresh_survivors(&self, unsettled: &mut Vec<String>) {
        let survivors: Vec<_> = {
            let mut engine = self.network.engine.lock();
            let soon = engine.at(self.network.now()).clock().after(BOUND);
            let living = engine.records().filter(|record| soon < record.ends_at());
            living.map(|record| (record.id, record.generation)).collect()
        };
        for (number, (session, generation)) in survivors.into_iter().enumerate() {
            let Some(sidecar) = &self.sidecars[number % self.sidecars.len()] else { continue };
            if self.schedule.small[sidecar.number] {
                continue;
            }
            let token = sidecar.refresh_token(session, generation);
            if let Err(error) = sidecar.sessions.refresh(&token).await {
                let reason = error.reason();
                unsettled.push(format!("{session} lives and can't refresh at {:?}: {reason}", sidecar.by()));
            }
        }
    }

    fn count(&mut self, sidecar: &Sidecar) {
        self.counts.restored += sidecar.feed.restored();
        self.counts.resyncs += sidecar.feed.resyncs(ResyncCause::LogRestarted);
    }

    fn finish(mut self) -> History {
        let live: Vec<_> = self.sidecars.iter().flatten().cloned().collect();
        live.iter().for_each(|sidecar| self.count(sidecar));
        live.iter().for_each(|sidecar| sidecar.kill());
        let mut history = std::mem::take(&mut *self.people.history.lock());
        let mut engine = self.network.engine.lock();
        history.survivors = live.iter().map(|sidecar| sidecar.by()).collect();
        history.ended = engine.at(self.network.now()).clock();
        history.logged = engine.entries().copied().collect();
        history.losses = std::mem::take(&mut engine.losses);
        history.rotations = std::mem::take(&mut engine.rotations);
        history.head_reads = std::mem::take(&mut *self.network.head_reads.lock());
        self.counts.fast_forwards = engine.fast_forwards;
        history.counts = self.counts;
        history
    }
}

fn step(sidecar: &Sidecar, forward: bool) {
    let wall = sidecar.hands.wall();
    sidecar.hands.step_wall_to(if forward { wall.after(HOUR) } else { wall.before(HOUR) });
}

impl Call {
    /// A call that nobody has answered yet.
    pub(crate) fn begun(sidecar: &Sidecar, begin: u64, asked: Asked) -> Self {
        let (stepped, counted) = (sidecar.stepped(), sidecar.counted());
        Self { by: sidecar.by(), begin, end: None, asked, answer: Answer::None, stepped, counted }
    }
}
