//! One round: a store, a fleet, users, one scenario; then peace, and the judgement.

use crate::checker::{check, explain};
use crate::client::Client;
use crate::fleet::{BOUND, Fleet, GRACE, run_clocks};
use crate::history::{Answer, Call, How, Kind, Recorder, What};
use crate::random::Random;
use crate::scenario::{Scenario, World};
use crate::store::{Engine, Store};
use crate::workload::User;
use countersign::clock::Clock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SIDECARS: usize = 3;
const USERS: usize = 3;
/// How long a sidecar may take to be of use again once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a round.
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) engine: Engine,
    pub(crate) seed: u64,
    pub(crate) calls: usize,
    /// Accepted, denied, undecided, lost.
    pub(crate) answers: [usize; 4],
    /// Revocations done, refresh tokens exchanged, reuses found: what the rules are about.
    pub(crate) events: [usize; 3],
    /// From the end of faults until every sidecar decided again.
    pub(crate) recovered: Duration,
    pub(crate) violations: Vec<String>,
}

/// Runs one; `None` where this machine can't (a small disk is for root).
pub(crate) async fn run(scenario: Scenario, engine: Engine, seed: u64, faults: Duration) -> Option<Outcome> {
    let mut random = Random::new(seed);
    let setup = scenario.setup(&mut random);
    let store = Store::start(engine, setup, SIDECARS).await?;
    let fleet = Arc::new(Fleet::new(&store, SIDECARS));
    let recorder = Arc::new(Recorder::new(BOUND, GRACE));
    let clocks = CancellationToken::new();
    let mut hands = Vec::new();
    for sidecar in 0..SIDECARS {
        if scenario == Scenario::ClockStepped {
            hands.push(fleet.start_here(sidecar, Clock::system().now().judged));
        } else {
            tokio::task::block_in_place(|| fleet.start(sidecar));
        }
    }
    let hands = Arc::new(hands);
    let ticking = run_clocks(Arc::clone(&hands), clocks.clone());
    let client = Client::new(&recorder, &fleet);
    let mut world = World { scenario, engine, setup, store, fleet, recorder, hands, random };

    let mut violations = Vec::new();
    violations.extend(until_all_decide(&client, &world).await.err());
    let stop = CancellationToken::new();
    let mut users: Vec<_> = (0..USERS)
        .map(|number| User::new(client.clone(), world.random.fork(), number))
        .map(|user| tokio::spawn(user.live(stop.clone())))
        .collect();
    users.push(tokio::spawn(User::new(client.clone(), world.random.fork(), USERS).keep(stop.clone())));
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.rage(faults).await;
    world.heal();
    let healed = world.recorder.now();
    violations.extend(until_all_decide(&client, &world).await.err());
    let recovered = world.recorder.now() - healed;
    // What was lost is given back before anything is confirmed, which takes half the bound after the last change.
    tokio::time::sleep(BOUND + BOUND / 2).await;
    world.recorder.healed();
    tokio::time::sleep(BOUND / 2).await;
    stop.cancel();
    for user in users {
        user.await.unwrap().probe().await;
    }
    violations.extend(world.fleet.dead());
    clocks.cancel();
    let _ = ticking.await;
    Some(judge(&world, seed, recovered, violations))
}

fn judge(world: &World, seed: u64, recovered: Duration, mut violations: Vec<String>) -> Outcome {
    let history = world.recorder.finish();
    let found = check(&history);
    let mut shown = BTreeMap::new();
    for violation in &found {
        // The same again tells nothing new.
        let times: &mut usize = shown.entry(violation.rule).or_default();
        *times += 1;
        if *times <= 2 {
            violations.push(explain(&history, violation));
        }
    }
    if !found.is_empty() {
        violations.push(format!("in all: {shown:?}"));
    }
    if !violations.is_empty() {
        violations.push(format!("{}--- store\n{}", world.fleet.logs(), world.store.log()));
    }
    let mut answers = [0; 4];
    for call in &history.calls {
        let at = match call.answer {
            Answer::Opened(_) | Answer::Accepted | Answer::Refreshed { .. } | Answer::Done(_) => 0,
            Answer::Denied(_) | Answer::Wrong(_) => 1,
            Answer::Undecided(_) => 2,
            Answer::Lost(_) => 3,
        };
        answers[at] += 1;
    }
    let count = |of: &dyn Fn(&Call) -> bool| history.calls.iter().filter(|call| of(call)).count();
    let events = [
        count(&|call| matches!((&call.what, &call.answer), (What::Revoke(_), Answer::Done(_)))),
        count(&|call| match (&call.what, &call.answer) {
            (What::Refresh { token }, Answer::Refreshed { generation }) => {
                history.tokens[token.0].kind != Kind::Refresh { generation: *generation }
            }
            _ => false,
        }),
        count(&|call| call.answer == Answer::Denied("REFRESH_REUSED".to_owned())),
    ];
    let (scenario, engine) = (world.scenario, world.engine);
    Outcome { scenario, engine, seed, calls: history.calls.len(), answers, events, recovered, violations }
}

/// Waits until every sidecar opens sessions and verifies them in each way.
async fn until_all_decide(client: &Client, world: &World) -> Result<(), String> {
    let deadline = world.recorder.now() + PATIENCE;
    for sidecar in 0..client.size() {
        loop {
            let told = decides(client, sidecar).await;
            let Err(told) = told else { break };
            if world.recorder.now() > deadline {
                return Err(format!("sidecar {sidecar} does not recover within {PATIENCE:?}: {told}"));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    Ok(())
}

async fn decides(client: &Client, sidecar: usize) -> Result<(), String> {
    let Some((_, _, given)) = client.login(sidecar, "probe", "shop").await else {
        return Err("no login".to_owned());
    };
    for how in [How::Latency, How::Fully] {
        let answer = client.verify(sidecar, &given.access, how).await;
        // Denied is decided, too: somebody may have revoked the issuer's tokens just now.
        if !matches!(answer, Answer::Accepted | Answer::Denied(_)) {
            return Err(format!("{how:?}: {answer}"));
        }
    }
    Ok(())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [accepted, denied, undecided, lost] = self.answers;
        let [revoked, exchanged, reused] = self.events;
        write!(
            f,
            "{:<20} {:<8} seed {:#018x}: {:>6} calls ({accepted} accepted, {denied} denied, {undecided} undecided, \
             {lost} lost; {revoked} revocations, {exchanged} exchanged, {reused} reused), recovered in {:.1} s, {} violations",
            format!("{:?}", self.scenario),
            format!("{:?}", self.engine),
            self.seed,
            self.calls,
            self.recovered.as_secs_f64(),
            self.violations.len(),
        )
    }
}
