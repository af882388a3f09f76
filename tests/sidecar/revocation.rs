//! Revocation over the wire: what each target hits, at once and on other sidecars, and what it spares.

use crate::support::{Home, ISSUER, as_caller, assert_denied, assert_refused, eventually, verify_request};
use countersign::clock::Clock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{IssuerRevocation, RevokeRequest, SessionRevocation, SubjectRevocation};
use std::time::Duration;
use tonic::Code;

fn session(id: &str) -> Target {
    Target::Session(SessionRevocation { session_id: id.into(), issuer: None })
}

fn subject(name: &str) -> Target {
    Target::Subject(SubjectRevocation { subject: name.into(), ..Default::default() })
}

#[tokio::test]
async fn a_token_takes_back_itself_and_its_session_refreshes_on() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let tokens = sidecar.login("alice", "medium").await.tokens.unwrap();
    // By possession: no caller is named.
    let request =
        RevokeRequest { target: Some(Target::Token(tokens.access_token.clone())), reason: "logout".into() };
    sidecar.tokens().revoke(request.clone()).await.unwrap();
    assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REFRESH");
    let renewed = sidecar.refresh(&tokens.refresh_token).await.unwrap().tokens.unwrap();
    assert!(sidecar.verify(&renewed.access_token).await.is_ok());
    sidecar.tokens().revoke(request).await.unwrap();
}

#[tokio::test]
async fn a_refresh_token_takes_back_its_session() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let tokens = sidecar.login("alice", "medium").await.tokens.unwrap();
    let request =
        RevokeRequest { target: Some(Target::Token(tokens.refresh_token.clone())), reason: String::new() };
    sidecar.tokens().revoke(request).await.unwrap();
    assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(sidecar.refresh(&tokens.refresh_token).await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_bad_token_takes_back_nothing_and_is_told_nothing() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let before = sidecar.revoke(session("AAAAAAAAAAAAAAAAAAAAAA")).await.unwrap().revision;
    let tokens = sidecar.login("alice", "medium").await.tokens.unwrap();
    // From here on the feed, too, has what was written.
    sidecar.verify_after(&tokens.access_token, &before).await.unwrap();
    let forged = format!("{}AAAA", &tokens.access_token[..tokens.access_token.len() - 4]);
    for bad in [forged.as_str(), "", "junk", "a.b.c", "csr_junk"] {
        let request = RevokeRequest { target: Some(Target::Token(bad.into())), reason: String::new() };
        let answer = sidecar.tokens().revoke(request).await.unwrap().into_inner();
        assert_eq!(answer.revision, before, "nothing was written for {bad:?}");
    }
    assert!(sidecar.verify(&tokens.access_token).await.is_ok());
}

#[tokio::test]
async fn revoking_twice_or_the_unknown_is_fine() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let id = sidecar.login("alice", "medium").await.session.unwrap().session_id;
    let first = sidecar.revoke(session(&id)).await.unwrap().revision;
    let again = sidecar.revoke(session(&id)).await.unwrap().revision;
    assert!(!first.is_empty() && !again.is_empty());
    sidecar.revoke(session("unknown")).await.unwrap();
    sidecar.revoke(subject("nobody")).await.unwrap();
}

#[tokio::test]
async fn an_issuer_cut_off_hits_every_login_before_and_none_after() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let alice = sidecar.login("alice", "medium").await.tokens.unwrap();
    let bob = sidecar.login("bob", "medium").await.tokens.unwrap();
    let target = Target::Issuer(IssuerRevocation { issuer: ISSUER.into(), before: None });
    sidecar.revoke(target).await.unwrap();
    for tokens in [alice, bob] {
        assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REAUTHENTICATE");
        assert_denied(sidecar.refresh(&tokens.refresh_token).await, "SESSION_ENDED", "REAUTHENTICATE");
    }
    let after = sidecar.login("alice", "medium").await.tokens.unwrap();
    assert!(sidecar.verify(&after.access_token).await.is_ok());
    assert!(sidecar.refresh(&after.refresh_token).await.is_ok());
}

#[tokio::test]
async fn cut_offs_hold_between_sidecars_whose_clocks_differ() {
    let home = Home::new();
    let (ahead, hands) = home.start_at("").await;
    ahead.pass(&hands, Duration::from_secs(5)).await;
    let other = home.config(&other_listeners());
    let (clock, _) = Clock::manual(crate::support::START);
    let behind = crate::support::Sidecar::start(&other, clock, &home.path("")).await;

    let before = ahead.login("alice", "medium").await.tokens.unwrap();
    let cut = behind.revoke(subject("alice")).await.unwrap().revision;
    assert_denied(behind.verify_after(&before.access_token, &cut).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(ahead.verify_after(&before.access_token, &cut).await, "REVOKED", "REAUTHENTICATE");
    let after = behind.login("alice", "medium").await.tokens.unwrap();
    assert!(behind.verify(&after.access_token).await.is_ok());
    assert!(ahead.verify(&after.access_token).await.is_ok());
}

#[tokio::test]
async fn a_future_cut_off_is_the_caller_s_mistake() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let before = Some(prost_types::Timestamp { seconds: 32_503_680_000, nanos: 0 });
    let target = Target::Subject(SubjectRevocation { subject: "alice".into(), before, ..Default::default() });
    assert_refused(sidecar.revoke(target).await, Code::InvalidArgument, "BAD_CALL", "NONE");
    let before = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    let target = Target::Issuer(IssuerRevocation { issuer: ISSUER.into(), before });
    assert_refused(sidecar.revoke(target).await, Code::InvalidArgument, "BAD_CALL", "NONE");
}

#[tokio::test]
async fn a_past_cut_off_spares_later_logins() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let early = sidecar.login("alice", "medium").await.tokens.unwrap();
    sidecar.pass(&hands, Duration::from_secs(60)).await;
    let late = sidecar.login("alice", "medium").await.tokens.unwrap();
    let before =
        Some(prost_types::Timestamp { seconds: crate::support::START.as_secs() as i64 + 30, nanos: 0 });
    let target = Target::Subject(SubjectRevocation { subject: "alice".into(), before, ..Default::default() });
    sidecar.revoke(target).await.unwrap();
    assert_denied(sidecar.verify(&early.access_token).await, "REVOKED", "REAUTHENTICATE");
    assert!(sidecar.verify(&late.access_token).await.is_ok());
    assert!(sidecar.refresh(&late.refresh_token).await.is_ok());
}

fn other_listeners() -> String {
    "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, refresh, revoke, sessions, jwks]\n".to_owned()
}

#[tokio::test]
async fn a_revocation_reaches_a_sidecar_that_shares_the_store() {
    let home = Home::new();
    let one = home.start("").await;
    let other = home.start(&other_listeners()).await;
    let opened = one.login("alice", "medium").await;
    let token = opened.tokens.unwrap().access_token;
    assert!(other.verify(&token).await.is_ok());
    let revoked = one.revoke(session(&opened.session.unwrap().session_id)).await.unwrap();
    assert_denied(one.verify(&token).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(other.verify_after(&token, &revoked.revision).await, "REVOKED", "REAUTHENTICATE");

    let token = one.login("alice", "medium").await.tokens.unwrap().access_token;
    one.revoke(subject("alice")).await.unwrap();
    assert_denied(other.verify_consistently(&token).await, "REVOKED", "REAUTHENTICATE");
    let token = one.login("alice", "medium").await.tokens.unwrap().access_token;
    one.revoke(subject("alice")).await.unwrap();
    eventually("the other sidecar hears of it unasked", || async { other.verify(&token).await.is_err() })
        .await;
}

#[tokio::test]
async fn a_revision_that_can_t_be_reached_is_undecided() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let revision = sidecar.verify(&token).await.unwrap().revision;
    let (epoch, _) = revision.split_once('.').unwrap();
    let far = sidecar.verify_after(&token, &format!("{epoch}.999999")).await;
    assert_refused(far, Code::Unavailable, "NOT_FRESH", "NONE");
    assert!(sidecar.verify_after(&token, &revision).await.is_ok());
    // A revision of another epoch: one complete resync later this sidecar has whatever there is.
    assert!(sidecar.verify_after(&token, "0123456789abcdef.7").await.is_ok());
    let mut junk = verify_request(&token);
    junk.consistency = Some(countersign::grpc::v1::Consistency {
        requirement: Some(countersign::grpc::v1::consistency::Requirement::AtLeastAsFresh("7".into())),
    });
    assert_refused(sidecar.verify_demanding(junk).await, Code::InvalidArgument, "BAD_CALL", "NONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_refreshes_beside_a_revocation() {
    let home = Home::new();
    let sidecar = home.start("").await;
    for round in 0..20 {
        let name = format!("user-{round}");
        let tokens = sidecar.login(&name, "medium").await.tokens.unwrap();
        let refreshes =
            futures_util::future::join_all((0..8).map(|_| sidecar.refresh(&tokens.refresh_token)));
        let (refreshed, revoked) = tokio::join!(refreshes, sidecar.revoke(subject(&name)));
        revoked.unwrap();
        for tokens in refreshed.into_iter().flatten().map(|answer| answer.tokens.unwrap()).chain([tokens]) {
            assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REAUTHENTICATE");
            assert!(sidecar.refresh(&tokens.refresh_token).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_call_that_names_nothing_or_the_unknown_is_malformed() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let nothing = sidecar.tokens().revoke(RevokeRequest::default()).await;
    assert_refused(nothing, Code::InvalidArgument, "BAD_CALL", "NONE");
    let target =
        Target::Issuer(IssuerRevocation { issuer: "https://unknown.example.com".into(), before: None });
    assert_refused(sidecar.revoke(target).await, Code::InvalidArgument, "BAD_CALL", "NONE");
    assert_refused(sidecar.revoke(subject("")).await, Code::InvalidArgument, "BAD_CALL", "NONE");
    let request = RevokeRequest { target: Some(subject("alice")), reason: "eyJhbGciOi".into() };
    let free_text = sidecar.tokens().revoke(as_caller(request)).await;
    assert_refused(free_text, Code::InvalidArgument, "BAD_CALL", "NONE");
}
