//! What a store's outage takes down, and what it does not.

use crate::on_each_engine;
use crate::servers::{Server, Store, bound};
use crate::support::{Sidecar, assert_refused, eventually, told};
use countersign::clock::Clock;
use countersign::grpc::v1::revoke_request::Target;
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tonic::Code;

on_each_engine!(
    without_the_store_jwts_are_verified_up_to_the_bound_and_none_past_it,
    each_policy_has_its_own_bound,
    a_store_that_hangs_is_given_up_on_in_time,
    a_sidecar_that_starts_without_its_store_becomes_ready_when_it_answers,
    what_a_killed_store_had_acknowledged_is_in_force_after_its_restart,
    a_storm_of_reconnects_is_paced,
);

async fn answers(sidecar: &Sidecar, token: &str) -> Result<(), (Code, String)> {
    sidecar.verify(token).await.map(|_| ()).map_err(|status| {
        let (code, reason, _) = told(&status);
        (code, reason)
    })
}

fn too_stale() -> Result<(), (Code, String)> {
    Err((Code::Unavailable, "TOO_STALE".to_owned()))
}

async fn without_the_store_jwts_are_verified_up_to_the_bound_and_none_past_it(mut store: Store) {
    let [one, two] = store.fleet(&bound(Duration::from_secs(3))).await;
    let warm = one.login("alice", "medium").await.tokens.unwrap();
    let cold = one.login("bob", "medium").await.tokens.unwrap();
    assert!(two.verify(&warm.access_token).await.is_ok());
    store.kill();
    let killed = Instant::now();
    assert_eq!(answers(&two, &warm.access_token).await, Ok(()), "warm");
    assert_eq!(answers(&two, &cold.access_token).await, Ok(()), "cold");
    for undecided in [
        one.refresh(&warm.refresh_token).await.map(|_| ()),
        one.revoke(Target::Token(warm.access_token.clone())).await.map(|_| ()),
    ] {
        assert_refused(undecided, Code::Unavailable, "STORE_UNAVAILABLE", "NONE");
    }
    let asked = one.verify_consistently(&warm.access_token).await.unwrap_err();
    assert_eq!(asked.code(), Code::Unavailable, "{asked:?}");
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "no call waits for what is gone: {:?}",
        killed.elapsed()
    );
    eventually("past the bound", || async { answers(&two, &warm.access_token).await == too_stale() }).await;
    assert!(killed.elapsed() >= Duration::from_secs(1), "and not before: {:?}", killed.elapsed());
    store.restart();
    eventually("verified again", || async { answers(&two, &warm.access_token).await.is_ok() }).await;
    eventually("refreshed again", || async { one.refresh(&cold.refresh_token).await.is_ok() }).await;
}

async fn each_policy_has_its_own_bound(mut store: Store) {
    let policies = "    medium: {preset: medium, staleness_bound: 2s}\n    \
                    patient: {preset: medium, staleness_bound: 60s}\n";
    let [one] = store.fleet(policies).await;
    let strict = one.login("alice", "medium").await.tokens.unwrap().access_token;
    let patient = one.login("alice", "patient").await.tokens.unwrap().access_token;
    store.kill();
    eventually("past the shorter bound", || async { answers(&one, &strict).await == too_stale() }).await;
    assert_eq!(answers(&one, &patient).await, Ok(()), "and within the longer one");
}

async fn a_store_that_hangs_is_given_up_on_in_time(store: Store) {
    let [one] = store.fleet(&bound(Duration::from_secs(3))).await;
    let tokens = one.login("alice", "medium").await.tokens.unwrap();
    store.signal("STOP");
    let stopped = Instant::now();
    let refreshed = one.refresh(&tokens.refresh_token).await;
    assert_refused(refreshed.map(|_| ()), Code::Unavailable, "STORE_UNAVAILABLE", "NONE");
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    eventually("an open connection is not freshness", || async {
        answers(&one, &tokens.access_token).await == too_stale()
    })
    .await;
    store.signal("CONT");
    eventually("fresh again", || async { answers(&one, &tokens.access_token).await.is_ok() }).await;
    eventually("refreshed again", || async { one.refresh(&tokens.refresh_token).await.is_ok() }).await;
}

async fn a_sidecar_that_starts_without_its_store_becomes_ready_when_it_answers(mut store: Store) {
    let [one] = store.fleet(&bound(Duration::from_secs(2))).await;
    let token = one.login("alice", "medium").await.tokens.unwrap().access_token;
    one.stop();
    store.kill();
    let text = store.config(&bound(Duration::from_secs(2)), "");
    let (late, readiness) = Sidecar::launch(&text, Clock::system(), &store.home.path(""), || ()).await;
    let undecided = Err((Code::Unavailable, "NOT_LOADED".to_owned()));
    assert_eq!(answers(&late, &token).await, undecided);
    store.restart();
    tokio::time::timeout(Duration::from_secs(15), readiness.reached()).await.expect("it gets ready");
    assert_eq!(answers(&late, &token).await, Ok(()));
}

async fn what_a_killed_store_had_acknowledged_is_in_force_after_its_restart(mut store: Store) {
    let [one, two] = store.fleet(&bound(Duration::from_secs(2))).await;
    let token = one.login("alice", "medium").await.tokens.unwrap().access_token;
    assert!(two.verify(&token).await.is_ok());
    one.revoke(Target::Token(token.clone())).await.unwrap();
    store.kill();
    store.restart();
    // What the store lost, if it did, its holder gives back.
    eventually("denied by the other", || async {
        matches!(answers(&two, &token).await, Err((Code::Unauthenticated, _)))
    })
    .await;
    two.stop();
    let newcomer = store.sidecar(&bound(Duration::from_secs(2))).await;
    assert!(matches!(answers(&newcomer, &token).await, Err((Code::Unauthenticated, _))), "and by a newcomer");
}

async fn a_storm_of_reconnects_is_paced(mut store: Store) {
    let sidecars = store.fleet::<8>("").await;
    let mut tokens = Vec::new();
    for sidecar in &sidecars {
        tokens.push(sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token);
    }
    // Everybody wants it at once, while it is away and when it comes back.
    let storm = async |seconds: u64| {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut answered = 0;
        while Instant::now() < until {
            let calls = sidecars.iter().zip(&tokens).map(|(sidecar, token)| sidecar.refresh(token));
            answered += join_all(calls).await.iter().filter(|answer| answer.is_ok()).count();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        answered
    };
    store.kill();
    assert_eq!(storm(2).await, 0, "nothing is refreshed without a store");
    let before = connections_received(&store);
    store.restart();
    let answered = storm(5).await;
    assert!(answered > 0, "the store is used again");
    let connections = connections_received(&store) - before;
    // Eight sidecars with their connections each, some made twice: not one for every call that wanted one.
    assert!((8..=80).contains(&connections), "{connections} connections for {answered} answers");
}

/// Connections made to the server: since it started (Redis), or ever (Postgres).
fn connections_received(store: &Store) -> u64 {
    match &store.server {
        Server::Redis(server) if server.process().runs() => {
            let info = server.command("INFO stats");
            let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
            line.unwrap().trim().parse().unwrap()
        }
        Server::Redis(_) => 0,
        Server::Postgres(server) => {
            let log = std::fs::read_to_string(server.directory().join("log")).unwrap();
            log.lines().filter(|line| line.contains("connection received")).count() as u64
        }
    }
}
