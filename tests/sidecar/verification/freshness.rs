//! How fresh an answer is: within its bound, past it, before the first snapshot, and when the denylist is full.

use super::{known_issuer, sources};
use crate::mint::{Claims, Key, LOGIN};
use crate::support::{
    Home, START, Sidecar, as_caller, assert_denied, assert_refused, eventually, verify_request,
};
use countersign::clock::Clock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{
    Attributes, RevokeRequest, SessionRevocation, SubjectRevocation, UpdateSessionRequest,
};
use futures_util::{StreamExt, stream};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Takes the store away, as a volume that went; or gives it back.
fn move_store(home: &Home, from: &str, to: &str) {
    std::fs::rename(home.path(from), home.path(to)).unwrap();
}

fn undecided<T: std::fmt::Debug>(result: Result<T, Status>, reason: &str) {
    let details = result.as_ref().unwrap_err().get_error_details();
    assert!(details.retry_info().is_some_and(|retry| retry.retry_delay > Some(Duration::ZERO)));
    assert_refused(result, Code::Unavailable, reason, "NONE");
}

fn other_listeners() -> &'static str {
    "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, revoke, refresh, sessions]\n"
}

#[tokio::test]
async fn without_the_store_answers_come_from_memory_up_to_the_bound_and_none_past_it() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let issuer = known_issuer(&home, &key, "staleness_bound: 20s\nsays_stale_after: 10s\n");
    let (sidecar, hands) = home.start_at(&issuer).await;
    let token = |id: u32| key.token(&Claims::good().with("jti", format!("\"{id}\"")));
    let warm = token(0);
    sidecar.verify(&warm).await.unwrap();
    let revoked = token(99);
    let request = RevokeRequest { target: Some(Target::Token(revoked.clone())), ..Default::default() };
    sidecar.tokens().revoke(request).await.unwrap();
    sidecar.pass(&hands, Duration::ZERO).await;
    move_store(&home, "store.db", "store.away");

    for (second, id) in [(0, 1), (9, 2), (10, 3), (20, 4)] {
        let since = Duration::from_secs(second);
        hands.advance(since.saturating_sub(Duration::from_secs(hands.wall().since(START).as_secs())));
        for token in [&warm, &token(id)] {
            let answer = sidecar.verify(token).await.unwrap();
            assert_eq!(answer.staleness.unwrap().seconds, i64::try_from(second).unwrap());
            assert_eq!(answer.stale, second >= 10, "after {second} s");
        }
    }
    hands.advance(Duration::from_secs(1));
    undecided(sidecar.verify(&warm).await, "TOO_STALE");
    undecided(sidecar.verify(&token(5)).await, "TOO_STALE");
    // What is known to be no good is said to be no good, however long ago anything was confirmed.
    assert_denied(sidecar.verify(&revoked).await, "REVOKED", "REFRESH");
    assert_denied(sidecar.verify("junk").await, "MALFORMED", "NONE");

    move_store(&home, "store.away", "store.db");
    eventually("it is fresh again", || async { sidecar.verify(&warm).await.is_ok() }).await;
    assert!(!sidecar.verify(&warm).await.unwrap().stale);
}

#[tokio::test]
async fn what_needs_the_store_is_undecided_without_it_and_says_so_at_once() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let (sidecar, _) = home.start_at(&known_issuer(&home, &key, "")).await;
    let token = key.token(&Claims::good());
    let own = sidecar.login("alice", "medium").await.tokens.unwrap();
    for token in [&token, &own.access_token] {
        sidecar.verify(token).await.unwrap();
    }
    move_store(&home, "store.db", "store.away");
    for token in [&token, &own.access_token] {
        undecided(sidecar.verify_consistently(token).await, "STORE_UNAVAILABLE");
        sidecar.verify(token).await.unwrap();
    }
    undecided(sidecar.refresh(&own.refresh_token).await, "STORE_UNAVAILABLE");
    let request = RevokeRequest { target: Some(Target::Token(token.clone())), ..Default::default() };
    undecided(sidecar.tokens().revoke(request).await, "STORE_UNAVAILABLE");
    sidecar.verify(&token).await.unwrap();
}

#[tokio::test]
async fn no_caller_goes_under_an_issuer_s_floor() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let (sidecar, _) = home.start_at(&known_issuer(&home, &key, "floor: fully_consistent\n")).await;
    let token = key.token(&Claims::good());
    for _ in 0..2 {
        let revision = sidecar.verify(&token).await.unwrap().revision;
        sidecar.verify_after(&token, &revision).await.unwrap();
    }
    assert_eq!(sources(&sidecar).await, [0.0, 0.0, 4.0]);
    move_store(&home, "store.db", "store.away");
    undecided(sidecar.verify(&token).await, "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn before_the_first_snapshot_nothing_is_accepted() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let issuer = known_issuer(&home, &key, "");
    // A revocation that a first look into the store would find.
    let (before, _) = home.start_at(&issuer).await;
    let (good, revoked) = (key.token(&Claims::good().with("jti", "\"good\"")), key.token(&Claims::good()));
    let request = RevokeRequest { target: Some(Target::Token(revoked.clone())), ..Default::default() };
    before.tokens().revoke(request).await.unwrap();
    before.tell_to_stop();

    let (from, to) = (home.path("store.db"), home.path("store.away"));
    let (clock, _hands) = Clock::manual(START);
    let text = home.config(&format!("{}{issuer}", other_listeners()));
    let take_away = move || std::fs::rename(from, to).unwrap();
    let (sidecar, readiness) = Sidecar::launch(&text, clock, &home.path(""), take_away).await;
    for token in [&good, &revoked] {
        undecided(sidecar.verify(token).await, "NOT_LOADED");
    }
    assert_denied(sidecar.verify("junk").await, "MALFORMED", "NONE");
    assert_eq!(crate::lifecycle::get(&sidecar.ops, "/readyz").await.0, 503);
    move_store(&home, "store.away", "store.db");
    assert!(tokio::time::timeout(Duration::from_secs(10), readiness.reached()).await.unwrap());
    sidecar.verify(&good).await.unwrap();
    assert_denied(sidecar.verify(&revoked).await, "REVOKED", "REFRESH");
}

#[tokio::test]
async fn a_full_denylist_evicts_nothing_and_accepts_nothing_until_it_drains() {
    let (home, key) = (Home::new(), Key::ed25519("k"));
    let sections = known_issuer(&home, &key, "") + "denylist:\n  max_entries: 1000\n";
    let (sidecar, hands) = home.start_at(&sections).await;
    let token = |id: u32| key.token(&Claims::good().with("jti", format!("\"{id}\"")));
    let good = key.token(&Claims::good().at("exp", 7200));
    let revoke = async |id: u32| {
        let request = RevokeRequest { target: Some(Target::Token(token(id))), ..Default::default() };
        sidecar.tokens().revoke(request).await.unwrap();
    };
    stream::iter(0..1000).for_each_concurrent(64, &revoke).await;
    sidecar.verify(&good).await.unwrap();
    // One too many is durable all the same, so it is OK; only this sidecar can't hold it.
    revoke(1000).await;
    undecided(sidecar.verify(&good).await, "DENYLIST_FULL");
    undecided(sidecar.verify_consistently(&good).await, "STORE_UNAVAILABLE");
    for id in [0, 500, 999] {
        assert_denied(sidecar.verify(&token(id)).await, "REVOKED", "REFRESH");
    }
    undecided(sidecar.verify(&token(1000)).await, "DENYLIST_FULL");
    // Once what fills it is dead by itself there is room again. The feed can't confirm anything before that.
    hands.advance(Duration::from_secs(3600));
    eventually("it drained", || async { sidecar.verify(&good).await.is_ok() }).await;
    assert_denied(sidecar.verify(&token(1000)).await, "EXPIRED", "REFRESH");
}

#[tokio::test]
async fn a_fully_consistent_answer_knows_what_another_sidecar_just_wrote() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let issuer = known_issuer(&home, &key, "");
    let (clock, _hands) = Clock::manual(START);
    let one = Sidecar::start(&home.config(&issuer), clock.clone(), &home.path("")).await;
    let text = home.config(&format!("{}{issuer}", other_listeners()));
    let other = Sidecar::start(&text, clock, &home.path("")).await;
    for round in 0..10 {
        let name = format!("user-{round}");
        let quoted = format!("\"{name}\"");
        let token = key.token(&Claims::good().with("sub", &quoted).with("jti", &quoted));
        other.verify(&token).await.unwrap();
        let target = SubjectRevocation {
            subject: name.clone(),
            issuer: Some(LOGIN.into()),
            ..SubjectRevocation::default()
        };
        one.revoke(Target::Subject(target)).await.unwrap();
        assert_denied(other.verify_consistently(&token).await, "REVOKED", "REAUTHENTICATE");

        let changed = one.login(&name, "medium").await;
        let ended = one.login(&name, "medium").await;
        let (session, access) = (changed.session.unwrap().session_id, changed.tokens.unwrap().access_token);
        other.verify_consistently(&access).await.unwrap();
        let request = UpdateSessionRequest { session_id: session, attributes: Some(Attributes::default()) };
        one.sessions().update_session(as_caller(request)).await.unwrap();
        assert_denied(other.verify_consistently(&access).await, "STALE_CLAIMS", "REFRESH");
        let (session, access) = (ended.session.unwrap().session_id, ended.tokens.unwrap().access_token);
        let target = SessionRevocation { session_id: session, issuer: None };
        one.revoke(Target::Session(target)).await.unwrap();
        assert_denied(other.verify_consistently(&access).await, "REVOKED", "REAUTHENTICATE");
    }
}

#[tokio::test]
async fn an_answer_says_what_it_stands_on() {
    let (home, key) = (Home::new(), Key::p256("k"));
    let (sidecar, _) = home.start_at(&known_issuer(&home, &key, "")).await;
    let token = key.token(&Claims::good());
    let before = sidecar.verify(&token).await.unwrap();
    let revoked = sidecar
        .revoke(Target::Session(SessionRevocation { session_id: "other".into(), issuer: None }))
        .await
        .unwrap();
    let after = sidecar.verify_after(&token, &revoked.revision).await.unwrap();
    assert_ne!(before.revision, after.revision);
    assert_eq!(after.revision, revoked.revision);
    let again = sidecar.tokens().verify(verify_request(&token)).await.unwrap().into_inner();
    assert_eq!(again.revision, revoked.revision, "from the cache, and yet no older");
}
