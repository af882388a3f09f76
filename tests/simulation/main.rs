//! Feed, denylist, revoker and sessions in a simulated world: a store that loses what it had, networks that lose
//! requests and replies, clocks that are stepped, processes that are stopped and killed; all of it drawn from a seed, on
//! virtual time, and the same again under the same seed.
//!
//! `SIMULATION_SEEDS` says how many seeds are played, `SIMULATION_FROM` from which on (`random` draws it), `SIMULATION_SEED`
//! plays one and tells its history.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds otherwise shall fail, and says under which seed"
)]

mod breakage;
mod chance;
mod checker;
mod engine;
mod history;
mod people;
mod schedule;
mod shrink;
mod sidecar;
mod stories;
mod wire;
mod world;

use breakage::Breakage;
use checker::{Violation, check};
use history::Counts;
use parking_lot::Mutex;
use schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use world::play;

/// What `cargo test` plays.
const USUALLY: u64 = 3000;
/// Whatever is broken on purpose is seen under one of so many seeds.
const WITHIN: u64 = 150;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// The same ones unless told otherwise, so that what passes here passes there.
fn first_seed() -> u64 {
    match std::env::var("SIMULATION_FROM").as_deref() {
        Ok("random") => {
            countersign::token::random_bytes().map(u32::from_be_bytes).expect("randomness").into()
        }
        _ => from_environment("SIMULATION_FROM").unwrap_or(1),
    }
}

fn first_violation(seed: u64, breakage: Breakage) -> Option<Violation> {
    check(&play(&Schedule::draw(seed), breakage)).into_iter().next()
}

/// The lowest seed that breaks a rule, on two threads.
fn first_failure(seeds: Range<u64>, breakage: Breakage) -> Option<(u64, Violation)> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while found.lock().is_empty() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    if let Some(violation) = first_violation(seed, breakage) {
                        found.lock().insert(seed, violation);
                    }
                }
            });
        }
    });
    found.into_inner().into_iter().next()
}

#[test]
fn the_rules_hold_whatever_fails() {
    let seeds = match from_environment("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = first_seed();
            from..from + from_environment("SIMULATION_SEEDS").unwrap_or(USUALLY)
        }
    };
    let began = std::time::Instant::now();
    let count = seeds.end - seeds.start;
    eprintln!("seeds {} to {}", seeds.start, seeds.end - 1);
    if let Some((seed, violation)) = first_failure(seeds, Breakage::None) {
        panic!("{}", shrink::told(&Schedule::draw(seed), Breakage::None, &violation));
    }
    eprintln!("{count} seeds in {:.1} s, no violation", began.elapsed().as_secs_f64());
}

#[test]
fn seeds_that_once_broke_a_rule_break_none() {
    for seed in [1_668_536_201, 1_441_107_005, 2_245_779_785] {
        let violation = first_violation(seed, Breakage::None);
        assert!(
            violation.is_none(),
            "seed {seed}: {}",
            violation.map(|found| found.told).unwrap_or_default()
        );
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..=15 {
        let schedule = Schedule::draw(seed);
        let [one, two] = [(); 2].map(|()| {
            let history = play(&schedule, Breakage::None);
            (history.told(None), format!("{:?} {:?}", history.head_reads, history.counts))
        });
        assert_eq!(one, two, "seed {seed}");
    }
}

#[test]
fn runs_exercise_what_they_are_for() {
    let mut answers = BTreeSet::new();
    let mut counts = Counts::default();
    for seed in 1..=60 {
        let history = play(&Schedule::draw(seed), Breakage::None);
        answers.extend(history.calls.iter().map(|call| format!("{:?}", call.answer)));
        counts.restored += history.counts.restored;
        counts.resyncs += history.counts.resyncs;
        counts.fast_forwards += history.counts.fast_forwards;
    }
    for reason in ["Revoked", "StaleClaims", "SessionEnded", "RefreshReused", "Expired", "NotYetValid"] {
        assert!(answers.contains(&format!("Denied({reason})")), "{reason}");
    }
    for reason in ["TooStale", "NotFresh", "NotLoaded", "DenylistFull", "StoreUnavailable"] {
        assert!(answers.contains(&format!("Undecided({reason})")), "{reason}");
    }
    assert!(counts.restored > 0 && counts.resyncs > 0 && counts.fast_forwards > 0, "{counts:?}");
}

/// Shows that the checker can fail.
macro_rules! seen {
    ($($name:ident: $breakage:ident,)+) => {
        $(
            #[test]
            fn $name() {
                let found = first_failure(1..1 + WITHIN, Breakage::$breakage);
                let (seed, violation) = found.expect("seen under one of the seeds");
                eprintln!("seed {seed}: {}: {}", violation.rule, violation.told);
            }
        )+
    };
}

seen! {
    a_log_that_skips_an_entry_is_seen: SkipsEntries,
    a_log_that_acknowledges_what_it_did_not_write_is_seen: AcknowledgesUnwritten,
    a_failover_without_a_new_epoch_is_seen: SameEpochAfterFailover,
    a_young_epoch_that_nobody_waits_for_is_seen: NeverYoung,
    a_store_that_drops_what_it_is_given_back_is_seen: DropsWhatIsGivenBack,
    cut_offs_stamped_by_callers_are_seen: CallersStamp,
    a_revoked_session_that_keeps_its_record_is_seen: RevokedKeepTheirRecord,
    a_retry_taken_for_a_theft_is_seen: NoGrace,
    a_theft_taken_for_a_retry_is_seen: EndlessGrace,
    a_verification_that_ignores_staleness_is_seen: IgnoresStaleness,
    a_consistent_answer_from_memory_is_seen: NeverAsksTheStore,
}
