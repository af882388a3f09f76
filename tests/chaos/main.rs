//! Faults on purpose: real sidecars on real stores, killed, frozen, cut off and sent back in time, while clients log in,
//! verify, refresh and revoke; then every call is held against the rules.
//!
//! `cargo test --test chaos` runs each scenario over each engine once, briefly. `CHAOS_SECONDS=600` goes on for that long;
//! `CHAOS_SEED` brings a round back, `CHAOS_ONLY=Partitioned/Redis` picks scenario and engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that can't go on fails"
)]

mod checker;
mod client;
#[path = "../engines/mod.rs"]
mod engines;
mod fleet;
mod history;
mod proxy;
mod random;
mod round;
mod scenario;
mod store;
mod store_tests;
mod workload;

use crate::random::Random;
use crate::round::Outcome;
use crate::scenario::Scenario;
use crate::store::Engine;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Rounds side by side, when there is time and when they have to be done soon: most of a round is waiting.
const LANES: [usize; 2] = [2, 4];

/// No round may take longer.
const ROUND: Duration = Duration::from_secs(180);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn chosen() -> Vec<(Scenario, Engine)> {
    let only = std::env::var("CHAOS_ONLY").unwrap_or_default();
    let (scenario, engine) = only.split_once('/').unwrap_or((&only, ""));
    let named = |name: String, part: &str| part.is_empty() || name == part;
    let fits = |pair: &(Scenario, Engine)| {
        named(format!("{:?}", pair.0), scenario) && named(format!("{:?}", pair.1), engine)
    };
    let chosen: Vec<_> = scenario::all().into_iter().filter(fits).collect();
    assert!(!chosen.is_empty(), "CHAOS_ONLY={only} names nothing");
    chosen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_fails_whenever_the_rules_hold() {
    let long = number("CHAOS_SECONDS").map(Duration::from_secs);
    let seed = number("CHAOS_SEED");
    let first = seed.unwrap_or_else(|| u64::from_be_bytes(countersign::token::random_bytes().unwrap()));
    eprintln!("CHAOS_SEED={first:#018x}");
    let mut random = Random::new(first);
    let began = Instant::now();
    let chosen = chosen();
    let lanes = Arc::new(Semaphore::new(LANES[usize::from(long.is_none())]));
    let mut rounds = tokio::task::JoinSet::new();
    loop {
        for (scenario, engine) in chosen.clone() {
            let faults = match long {
                Some(_) => random.millis(2000, 9000),
                None => Duration::from_millis(1300),
            };
            // With one scenario and engine chosen, the seed is the round's own.
            let seed = if seed.is_some() && chosen.len() == 1 { first } else { random.next() };
            let lane = Arc::clone(&lanes).acquire_owned().await.unwrap();
            if long.is_some_and(|long| began.elapsed() > long) {
                break;
            }
            rounds.spawn(async move {
                let round = tokio::spawn(round::run(scenario, engine, seed, faults));
                let told = format!("{scenario:?}/{engine:?} seed {seed:#018x}");
                let ended = tokio::time::timeout(ROUND, round).await;
                let outcome = ended.unwrap_or_else(|_| panic!("{told} does not end"));
                let outcome = outcome.unwrap_or_else(|fault| panic!("{told} broke off: {fault}"));
                drop(lane);
                match &outcome {
                    Some(outcome) => eprintln!("{outcome}"),
                    None => eprintln!("{scenario:?} {engine:?} can't run here (it needs root)"),
                }
                outcome
            });
        }
        if long.is_none_or(|long| began.elapsed() > long) {
            break;
        }
    }
    let outcomes: Vec<Outcome> = rounds.join_all().await.into_iter().flatten().collect();
    tell(&outcomes, began.elapsed());
}

/// Prints what was done, and fails where a rule was broken.
fn tell(outcomes: &[Outcome], took: Duration) {
    let mut sums: BTreeMap<(Scenario, Engine), [usize; 3]> = BTreeMap::new();
    for outcome in outcomes {
        let [histories, calls, violations] = sums.entry((outcome.scenario, outcome.engine)).or_default();
        *histories += 1;
        *calls += outcome.calls;
        *violations += outcome.violations.len();
    }
    eprintln!("\n{:<20} {:<8} {:>9} {:>9} {:>10}", "scenario", "engine", "histories", "calls", "violations");
    let mut all = [0; 3];
    for ((scenario, engine), sum) in &sums {
        let (scenario, engine) = (format!("{scenario:?}"), format!("{engine:?}"));
        eprintln!("{scenario:<20} {engine:<8} {:>9} {:>9} {:>10}", sum[0], sum[1], sum[2]);
        (0..3).for_each(|at| all[at] += sum[at]);
    }
    eprintln!("{:<29} {:>9} {:>9} {:>10}   in {:.0} s", "in all", all[0], all[1], all[2], took.as_secs_f64());
    let mut broken = String::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.violations.is_empty()) {
        broken += &format!("\n=== {outcome}\n{}\n", outcome.violations.join("\n"));
    }
    assert!(broken.is_empty(), "rules were broken:\n{broken}");
    if outcomes.len() >= scenario::all().len() / 2 {
        // Rounds in which nothing happens that the rules are about would pass whatever is broken.
        let events = (0..3).map(|at| outcomes.iter().map(|outcome| outcome.events[at]).sum::<usize>());
        let [revoked, exchanged, reused] = [0, 1, 2].map(|at| events.clone().nth(at).unwrap_or_default());
        eprintln!("{revoked} revocations, {exchanged} refresh tokens exchanged, {reused} found used before");
        let enough =
            revoked > 10 * outcomes.len() && exchanged > 2 * outcomes.len() && reused > outcomes.len() / 2;
        assert!(enough, "the rounds exercise too little");
    }
}
