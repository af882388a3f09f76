//! Session tokens of a policy whose floor is `minimize_latency`: answered from memory while that is right.

use super::sources;
use crate::support::{Home, START, Sidecar, as_caller, assert_denied, eventually};
use countersign::clock::{Clock, ManualClock};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Attributes, SessionRevocation, UpdateSessionRequest, VerifyResponse};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Two sidecars on one store and one clock, with this policy beside the default one.
async fn pair(home: &Home, policy: &str) -> (Sidecar, Sidecar, ManualClock) {
    let own = home.own(&format!("    medium: {{preset: medium}}\n    quick: {{{policy}}}\n"));
    let (clock, hands) = Clock::manual(START);
    let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, revoke, sessions]\n";
    let text = home.config(&format!("{api}{own}"));
    let one = Sidecar::start(&text, clock.clone(), &home.path("")).await;
    (one, Sidecar::start(&text, clock, &home.path("")).await, hands)
}

const QUICK: &str = "preset: high, floor: minimize_latency, idle: 10m, absolute: 1h, update_age: 5m, \
                     staleness_bound: 2h";

async fn token_of(sidecar: &Sidecar) -> (String, String) {
    let opened = sidecar.login("alice", "quick").await;
    (opened.session.unwrap().session_id, opened.tokens.unwrap().access_token)
}

async fn change_roles(sidecar: &Sidecar, session: &str, role: &str) {
    let attributes = Attributes { roles: vec![role.into()], ..Attributes::default() };
    let request = UpdateSessionRequest { session_id: session.into(), attributes: Some(attributes) };
    sidecar.sessions().update_session(as_caller(request)).await.unwrap();
}

/// What must not depend on where the answer came from.
fn said(answer: &VerifyResponse) -> (&str, &str, &[String], i64) {
    let ends = answer.expires_at.as_ref().unwrap().seconds;
    (&answer.subject, &answer.session_id, &answer.roles, ends)
}

#[tokio::test]
async fn it_is_answered_from_memory_once_it_was_read() {
    let home = Home::new();
    let (one, _, hands) = pair(&home, QUICK).await;
    let (_, token) = token_of(&one).await;
    let read = one.verify(&token).await.unwrap();
    for _ in 0..3 {
        hands.advance(MINUTE);
        assert_eq!(said(&one.verify(&token).await.unwrap()), said(&read));
    }
    assert_eq!(sources(&one).await, [3.0, 0.0, 1.0]);
    assert_eq!(one.verify_consistently(&token).await.unwrap().subject, "alice");
    assert_eq!(sources(&one).await, [3.0, 0.0, 2.0], "unless the caller asks for more");
}

#[tokio::test]
async fn its_use_is_written_though_answers_come_from_memory() {
    let home = Home::new();
    let (one, _, hands) = pair(&home, QUICK).await;
    let (_, token) = token_of(&one).await;
    for minute in 1..=25 {
        hands.advance(MINUTE);
        assert!(one.verify(&token).await.is_ok(), "in use after {minute} minutes, idle after 10");
    }
    let [cache, _, store] = sources(&one).await;
    assert!(store <= 6.0 && cache >= 19.0, "written at most every five minutes: {store} of {cache}");
}

#[tokio::test]
async fn it_is_never_told_expired_or_idle_from_memory() {
    let home = Home::new();
    let (one, other, hands) = pair(&home, QUICK).await;
    let (_, used) = token_of(&one).await;
    let (_, unused) = token_of(&one).await;
    for token in [&used, &unused] {
        one.verify(token).await.unwrap();
    }
    // Used elsewhere: what this sidecar remembers of its end is no longer true.
    hands.advance(6 * MINUTE);
    other.verify(&used).await.unwrap();
    one.pass(&hands, 5 * MINUTE).await;
    assert!(one.verify(&used).await.is_ok());
    assert_denied(one.verify(&unused).await, "SESSION_IDLE", "REAUTHENTICATE");
    for _ in 0..10 {
        one.pass(&hands, 4 * MINUTE).await;
        assert!(one.verify(&used).await.is_ok());
    }
    one.pass(&hands, 9 * MINUTE).await;
    assert_denied(one.verify(&used).await, "SESSION_ENDED", "REAUTHENTICATE");
}

#[tokio::test]
async fn what_waits_for_a_revision_is_not_told_expired_from_memory_either() {
    let home = Home::new();
    let policy = "preset: high, floor: minimize_latency, idle: 10m, absolute: 1h, update_age: 599s, \
                  staleness_bound: 2h";
    let (one, other, hands) = pair(&home, policy).await;
    let (_, token) = token_of(&one).await;
    let (epoch, seq) = {
        let revision = one.verify(&token).await.unwrap().revision;
        let (epoch, seq) = revision.split_once('.').unwrap();
        (epoch.to_owned(), seq.parse::<u64>().unwrap())
    };
    one.pass(&hands, 598 * SECOND).await;
    let next = format!("{epoch}.{}", seq + 1);
    let waiting = one.verify_after(&token, &next);
    let meanwhile = async {
        // The waiting call is under way: whoever asks for a revision that is not there waits up to a second.
        tokio::time::sleep(Duration::from_millis(200)).await;
        hands.advance(SECOND);
        other.verify(&token).await.unwrap();
        hands.advance(2 * SECOND);
        let target = SessionRevocation { session_id: "another".into(), issuer: None };
        other.revoke(Target::Session(target)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, meanwhile);
    assert_eq!(answer.unwrap().subject, "alice", "it was used in the meantime, and so is not idle");
}

#[tokio::test]
async fn its_changed_attributes_are_read_and_not_called_stale() {
    let home = Home::new();
    let (one, other, hands) = pair(&home, QUICK).await;
    let (session, token) = token_of(&one).await;
    for sidecar in [&one, &other] {
        assert!(sidecar.verify(&token).await.unwrap().roles.is_empty());
    }
    change_roles(&one, &session, "admin").await;
    // There is nothing to refresh: the token is its session's name, and says what the session is now.
    assert_eq!(one.verify(&token).await.unwrap().roles, ["admin"]);
    eventually("the other sidecar hears of it", || async {
        other.verify(&token).await.unwrap().roles == ["admin"]
    })
    .await;
    change_roles(&one, &session, "reader").await;
    other.pass(&hands, Duration::ZERO).await;
    assert_eq!(other.verify(&token).await.unwrap().roles, ["reader"]);
    assert_eq!(other.verify_consistently(&token).await.unwrap().roles, ["reader"]);
}

#[tokio::test]
async fn it_ends_at_once_where_it_is_revoked_and_elsewhere_within_the_bound() {
    let home = Home::new();
    let (one, other, hands) = pair(&home, QUICK).await;
    let (session, token) = token_of(&one).await;
    for sidecar in [&one, &other] {
        sidecar.verify(&token).await.unwrap();
    }
    let target = SessionRevocation { session_id: session, issuer: None };
    one.revoke(Target::Session(target)).await.unwrap();
    assert_denied(one.verify(&token).await, "REVOKED", "REAUTHENTICATE");
    other.pass(&hands, Duration::ZERO).await;
    assert_denied(other.verify(&token).await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test]
async fn it_is_not_too_young_for_a_sidecar_whose_clock_is_behind() {
    let home = Home::new();
    let own = home.own(&format!("    quick: {{{QUICK}}}\n    medium: {{preset: medium}}\n"));
    let text =
        home.config(&format!("api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, sessions]\n{own}"));
    let behind = Sidecar::start(&text, Clock::manual(START).0, &home.path("")).await;
    let ahead = Sidecar::start(&text, Clock::manual(START.after(5 * SECOND)).0, &home.path("")).await;
    let (_, token) = token_of(&ahead).await;
    for sidecar in [&ahead, &behind] {
        assert!(sidecar.verify(&token).await.is_ok());
        assert!(sidecar.verify(&token).await.is_ok(), "from memory, too");
        assert!(sidecar.verify_consistently(&token).await.is_ok());
    }
}
