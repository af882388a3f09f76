//! What an answer stands on: cache or signature, memory or store, and how stale it may be.

mod edge_side;
mod freshness;
mod same_answer;
mod session_tokens;

use crate::issuer::entry;
use crate::mint::{Claims, Key, LOGIN, jwks};
use crate::support::{Home, Sidecar, assert_denied};
use std::time::Duration;

/// The sum of a metric's series that have all of these labels.
pub(crate) async fn counted(sidecar: &Sidecar, name: &str, has: &[&str]) -> f64 {
    let (_, metrics) = crate::lifecycle::get(&sidecar.ops, "/metrics").await;
    let of_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && has.iter().all(|part| line.contains(part))
    };
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    metrics.lines().filter(of_it).map(value).sum()
}

/// How many acceptances came from the cache, from a signature and from the store.
async fn sources(sidecar: &Sidecar) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for (count, source) in counts.iter_mut().zip(["cache", "signature", "store"]) {
        *count = counted(sidecar, "countersign_verify_total", &[&format!("source=\"{source}\"")]).await;
    }
    counts
}

/// Puts an issuer's key on disk; its part of `issuers`.
fn known_issuer(home: &Home, key: &Key, more: &str) -> String {
    std::fs::write(home.path("login.json"), jwks([key])).unwrap();
    let keys = format!("{{jwks_file: {}}}", home.path("login.json").display());
    format!("issuers:\n{}", entry(LOGIN, &keys, more))
}

#[tokio::test]
async fn a_warm_answer_comes_from_the_cache_and_says_the_same() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let (sidecar, _) = home.start_at(&known_issuer(&home, &key, "")).await;
    let token = key.token(&Claims::good());
    let cold = sidecar.verify(&token).await.unwrap();
    assert_eq!(sources(&sidecar).await, [0.0, 1.0, 0.0]);
    let warm = sidecar.verify(&token).await.unwrap();
    assert_eq!(sources(&sidecar).await, [1.0, 1.0, 0.0]);
    assert_eq!(cold, warm);
    sidecar.verify_consistently(&token).await.unwrap();
    assert_eq!(sources(&sidecar).await, [1.0, 1.0, 1.0]);
}

#[tokio::test]
async fn a_cache_of_no_entries_keeps_none() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let sections = known_issuer(&home, &key, "") + "cache:\n  max_entries: 0\n";
    let (sidecar, _) = home.start_at(&sections).await;
    let token = key.token(&Claims::good());
    for _ in 0..3 {
        sidecar.verify(&token).await.unwrap();
    }
    assert_eq!(sources(&sidecar).await, [0.0, 3.0, 0.0]);
}

#[tokio::test]
async fn an_expired_token_is_refused_out_of_the_cache_and_dropped_from_it() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let (sidecar, hands) = home.start_at(&known_issuer(&home, &key, "")).await;
    let token = key.token(&Claims::good());
    for _ in 0..2 {
        sidecar.verify(&token).await.unwrap();
    }
    let seen = async || {
        let hits = counted(&sidecar, "countersign_cache_hits_total", &[]).await;
        (hits, counted(&sidecar, "countersign_cache_misses_total", &[]).await)
    };
    assert_eq!(seen().await, (1.0, 1.0));
    sidecar.pass(&hands, Duration::from_secs(930)).await;
    assert_denied(sidecar.verify(&token).await, "EXPIRED", "REFRESH");
    assert_eq!(seen().await, (2.0, 1.0), "it was found there");
    assert_denied(sidecar.verify(&token).await, "EXPIRED", "REFRESH");
    assert_eq!(seen().await, (2.0, 2.0), "it was there no more");
}
