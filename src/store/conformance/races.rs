//! Rotation under concurrency: whatever several sidecars ask of one session at once, a generation has one successor, what
//! is over stays over, and only a thief or a revocation ends it.

use super::*;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::collections::HashSet;

/// What is asked through one of the stores.
#[derive(Clone, Debug)]
enum Act {
    /// Presents the generation this far behind the one current before the round.
    Refresh(u64),
    Revoke,
    Update,
}

/// What is asked at once, and how long after the round before.
type Round = (u64, Vec<(usize, Act)>);

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let act = prop_oneof![
        20 => Just(Act::Refresh(0)),
        5 => Just(Act::Refresh(1)),
        1 => Just(Act::Refresh(2)),
        1 => Just(Act::Revoke),
        3 => Just(Act::Update),
    ];
    // Within grace, at its very end, and after it.
    let wait = prop_oneof![0..10_u64, Just(10), 11..60_u64];
    prop::collection::vec((wait, prop::collection::vec((0..3_usize, act), 1..24)), 1..8)
}

/// What the session must be between two rounds.
struct Model {
    generation: u64,
    began: Timestamp,
    alive: bool,
}

/// Over three stores on one namespace, each time a new session.
pub(crate) fn races<E: Engine, K>(open: impl AsyncFn() -> ([E; 3], K)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stores, _kept) = runtime.block_on(open());
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    runner.run(&rounds(), |rounds| runtime.block_on(race(&stores, &rounds))).unwrap();
}

async fn race<E: Engine>(stores: &[E; 3], rounds: &[Round]) -> Result<(), TestCaseError> {
    let id = open_session(&stores[0], login("alice", NOON)).await.record.id;
    let mut model = Model { generation: 1, began: NOON, alive: true };
    let mut now = NOON;
    let mut rotated = HashSet::new();
    for (wait, acts) in rounds {
        now = now.after(Duration::from_secs(*wait));
        let asked = acts.iter().map(|(store, act)| ask(&stores[*store], id, act, model.generation, now));
        let decisions: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let ripe = now >= model.began.after(RULES.grace);
        let revoked = acts.iter().any(|(_, act)| matches!(act, Act::Revoke));
        let current = model.generation;
        let (mut grown, mut stolen) = (false, false);
        for (presented, decision) in &decisions {
            let of_the_last = presented + 1 == current;
            let right = match decision {
                // Each once, ever.
                Decision::Rotate { to } => {
                    grown = true;
                    model.alive && ripe && *presented == current && *to == current + 1 && rotated.insert(*to)
                }
                Decision::Repeat { current: answered } if *answered == current => {
                    model.alive && !ripe && (*presented == current || of_the_last)
                }
                Decision::Repeat { current: answered } => {
                    model.alive && ripe && *presented == current && *answered == current + 1
                }
                Decision::Reused => {
                    stolen = true;
                    model.alive && (presented + 1 < current || of_the_last && ripe)
                }
                Decision::Missing => true,
                Decision::FastForward { .. } | Decision::Ended | Decision::Idle => false,
            };
            prop_assert!(right, "{presented} presented at {current}, ripe: {ripe}: {decision:?}");
        }
        let ends = revoked || stolen;
        let thief = |presented: &u64| presented + 1 < current || presented + 1 == current && ripe;
        let seen_thief = decisions.iter().any(|(presented, _)| thief(presented));
        prop_assert!(!model.alive || stolen || revoked || !seen_thief, "a replay after grace goes unnoticed");
        let missing = decisions.iter().any(|(_, decision)| *decision == Decision::Missing);
        prop_assert!(!missing || !model.alive || ends, "it died of nothing");
        if grown {
            (model.generation, model.began) = (current + 1, now);
        }
        model.alive &= !ends;
        for store in stores {
            let record = store.find(id).await.unwrap().0;
            prop_assert_eq!(
                record.as_ref().map(|record| record.generation),
                model.alive.then_some(model.generation)
            );
        }
    }
    Ok(())
}

async fn ask(
    store: &dyn Engine,
    id: SessionId,
    act: &Act,
    current: u64,
    now: Timestamp,
) -> Option<(u64, Decision)> {
    match act {
        Act::Refresh(behind) => {
            let presented = current.saturating_sub(*behind).max(1);
            Some((presented, rotate(store, id, presented, now).await))
        }
        Act::Revoke => {
            store.append(Draft::Session { key: session_key(id), expires_at: now }).await.unwrap();
            None
        }
        Act::Update => {
            let attributes = Attributes { roles: vec!["admin".to_owned()], ..Attributes::default() };
            store.update(id, session_key(id), attributes, HOUR, now).await.unwrap();
            None
        }
    }
}
