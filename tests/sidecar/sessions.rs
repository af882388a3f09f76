//! Sessions over the wire: strategies, timeouts, limits, attributes, refresh, rotation and reuse.

use crate::support::{Home, START, as_caller, assert_denied, assert_refused};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{
    Attributes, CredentialKind, GetSessionRequest, ListSessionsRequest, SubjectRevocation,
    UpdateSessionRequest,
};
use std::collections::HashSet;
use std::time::Duration;
use tonic::Code;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn presets(home: &Home) -> String {
    home.own("    low: {preset: low}\n    medium: {preset: medium}\n    high: {preset: high}\n")
}

#[tokio::test]
async fn a_hybrid_session_gives_a_short_jwt_and_a_refresh_token() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let opened = sidecar.login("alice", "medium").await;
    let tokens = opened.tokens.unwrap();
    let session = opened.session.unwrap();
    assert!(tokens.refresh_token.starts_with("csr_"));
    let seconds = START.as_secs() as i64;
    assert_eq!(tokens.access_token_expires_at.unwrap().seconds, seconds + 900);
    assert_eq!(tokens.refresh_after.unwrap().seconds, seconds + 780);
    assert_eq!(session.absolute_expires_at.unwrap().seconds, seconds + 90 * 86_400);

    let answer = sidecar.verify(&tokens.access_token).await.unwrap();
    assert_eq!((answer.subject.as_str(), answer.session_id.as_str()), ("alice", session.session_id.as_str()));
    assert_eq!(answer.client_id, "tests", "the caller's name is the client where the login names none");
    assert_eq!(answer.kind(), CredentialKind::Jwt);

    sidecar.pass(&hands, 15 * MINUTE + Duration::from_secs(61)).await;
    assert_denied(sidecar.verify(&tokens.access_token).await, "EXPIRED", "REFRESH");
    let renewed = sidecar.refresh(&tokens.refresh_token).await.unwrap();
    let renewed_tokens = renewed.tokens.unwrap();
    assert_ne!(renewed_tokens.refresh_token, tokens.refresh_token);
    assert_eq!(sidecar.verify(&renewed_tokens.access_token).await.unwrap().subject, "alice");
}

#[tokio::test]
async fn a_low_risk_login_keeps_no_record() {
    let home = Home::new();
    let (sidecar, _) = home.start_at(&presets(&home)).await;
    let opened = sidecar.login("alice", "low").await;
    assert!(opened.session.is_none());
    let tokens = opened.tokens.unwrap();
    assert!(tokens.refresh_token.is_empty());
    assert!(tokens.refresh_after.is_none());
    let answer = sidecar.verify(&tokens.access_token).await.unwrap();
    assert_eq!(answer.session_id, "");
    let list = ListSessionsRequest { subject: "alice".into(), ..Default::default() };
    assert!(
        sidecar.sessions().list_sessions(as_caller(list)).await.unwrap().into_inner().sessions.is_empty()
    );
    // It can be taken back all the same.
    sidecar
        .revoke(Target::Subject(SubjectRevocation { subject: "alice".into(), ..Default::default() }))
        .await
        .unwrap();
    assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REAUTHENTICATE");
    let again = sidecar.login("alice", "low").await.tokens.unwrap();
    assert!(sidecar.verify(&again.access_token).await.is_ok(), "a login after the cut-off is not hit");
}

#[tokio::test]
async fn a_high_risk_session_is_an_opaque_token_that_idles_and_ends() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at(&presets(&home)).await;
    let tokens = sidecar.login("alice", "high").await.tokens.unwrap();
    assert!(tokens.access_token.starts_with("css_"));
    assert!(tokens.refresh_token.is_empty());
    let answer = sidecar.verify(&tokens.access_token).await.unwrap();
    assert_eq!(answer.kind(), CredentialKind::SessionToken);
    assert_eq!(answer.subject, "alice");

    // Use keeps it alive past its idle time …
    for _ in 0..3 {
        sidecar.pass(&hands, 25 * MINUTE).await;
        assert!(sidecar.verify(&tokens.access_token).await.is_ok());
    }
    // … but not past its absolute end.
    sidecar.pass(&hands, 25 * MINUTE).await;
    assert!(sidecar.verify(&tokens.access_token).await.is_ok());
    sidecar.pass(&hands, 21 * MINUTE).await;
    assert_denied(sidecar.verify(&tokens.access_token).await, "SESSION_ENDED", "REAUTHENTICATE");

    let unused = sidecar.login("bob", "high").await.tokens.unwrap();
    sidecar.pass(&hands, 31 * MINUTE).await;
    assert_denied(sidecar.verify(&unused.access_token).await, "SESSION_IDLE", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_session_token_is_no_refresh_token_and_the_other_way_round() {
    let home = Home::new();
    let sidecar = home.start(&presets(&home)).await;
    let session = sidecar.login("alice", "high").await.tokens.unwrap().access_token;
    let refresh = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    assert_denied(sidecar.refresh(&session).await, "UNSUPPORTED_TYPE", "NONE");
    assert_denied(sidecar.verify(&refresh).await, "UNSUPPORTED_TYPE", "NONE");
    let swapped = refresh.replacen("csr_", "css_", 1);
    assert_denied(sidecar.verify(&swapped).await, "BAD_SIGNATURE", "NONE");
}

#[tokio::test]
async fn a_repeated_refresh_within_grace_is_answered_with_the_same_successor() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let first = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    sidecar.pass(&hands, MINUTE).await;
    let successor = sidecar.refresh(&first).await.unwrap().tokens.unwrap().refresh_token;
    sidecar.pass(&hands, Duration::from_secs(9)).await;
    assert_eq!(sidecar.refresh(&first).await.unwrap().tokens.unwrap().refresh_token, successor);
    // The successor itself, still young, is answered with itself.
    assert_eq!(sidecar.refresh(&successor).await.unwrap().tokens.unwrap().refresh_token, successor);
}

#[tokio::test]
async fn a_stolen_refresh_token_replayed_after_grace_ends_the_session() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let stolen = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    sidecar.pass(&hands, MINUTE).await;
    let renewed = sidecar.refresh(&stolen).await.unwrap().tokens.unwrap();
    sidecar.pass(&hands, Duration::from_secs(11)).await;
    assert_denied(sidecar.refresh(&stolen).await, "REFRESH_REUSED", "REAUTHENTICATE");
    assert_denied(sidecar.verify(&renewed.access_token).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(sidecar.refresh(&renewed.refresh_token).await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_refreshes_at_once_have_one_successor() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    sidecar.pass(&hands, MINUTE).await;
    let calls = (0..64).map(|_| sidecar.refresh(&token));
    let answers = futures_util::future::join_all(calls).await;
    let successors: HashSet<_> =
        answers.into_iter().map(|answer| answer.unwrap().tokens.unwrap().refresh_token).collect();
    assert_eq!(successors.len(), 1);
    assert!(!successors.contains(&token));
}

#[tokio::test]
async fn a_forged_refresh_token_is_denied_without_a_word_to_the_store() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let good = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    let mut flipped = good.clone().into_bytes();
    let last = flipped.len() - 10;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    assert_denied(sidecar.refresh(&String::from_utf8(flipped).unwrap()).await, "BAD_SIGNATURE", "NONE");
    for junk in ["", "csr_", "csr_AAAA", "x", &good[4..], &format!("{good}="), &format!("{good}A")] {
        assert_denied(sidecar.refresh(junk).await, "MALFORMED", "NONE");
    }
}

#[tokio::test]
async fn changed_attributes_take_effect_at_once() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let attributes = Attributes { roles: vec!["reader".into()], ..Default::default() };
    let opened = sidecar.try_login("alice", "medium", attributes).await.unwrap();
    let (session, tokens) = (opened.session.unwrap().session_id, opened.tokens.unwrap());
    assert_eq!(sidecar.verify(&tokens.access_token).await.unwrap().roles, ["reader"]);
    let request = UpdateSessionRequest {
        session_id: session,
        attributes: Some(Attributes { roles: vec!["admin".into()], ..Default::default() }),
    };
    let updated = sidecar.sessions().update_session(as_caller(request)).await.unwrap().into_inner();
    assert_eq!(updated.session.unwrap().attributes_version, 2);
    assert_denied(sidecar.verify(&tokens.access_token).await, "STALE_CLAIMS", "REFRESH");
    assert_denied(sidecar.verify_consistently(&tokens.access_token).await, "STALE_CLAIMS", "REFRESH");
    sidecar.pass(&hands, MINUTE).await;
    let renewed = sidecar.refresh(&tokens.refresh_token).await.unwrap().tokens.unwrap();
    assert_eq!(sidecar.verify(&renewed.access_token).await.unwrap().roles, ["admin"]);
    assert!(sidecar.verify_consistently(&renewed.access_token).await.is_ok());
}

#[tokio::test]
async fn further_claims_travel_to_the_digit() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let attributes = Attributes {
        claims_json: r#"{"tenant":12345678901234567890123,"ratio":0.10,"deep":{"b":1,"a":[null,true]}}"#
            .into(),
        ..Default::default()
    };
    let tokens = sidecar.try_login("alice", "medium", attributes).await.unwrap().tokens.unwrap();
    let claims = sidecar.verify(&tokens.access_token).await.unwrap().claims_json;
    let claims = String::from_utf8(claims).unwrap();
    assert!(claims.contains(r#""tenant":12345678901234567890123,"#), "{claims}");
    assert!(claims.contains(r#""ratio":0.10"#), "{claims}");
}

#[tokio::test]
async fn claims_that_could_pass_for_ours_are_refused() {
    let home = Home::new();
    let sidecar = home.start("").await;
    for claims in
        [r#"{"sub":"root"}"#, r#"{"exp":9999999999}"#, r#"{"pol":"low"}"#, r#"{"a":1,"a":2}"#, "[]", "{", "1"]
    {
        let attributes = Attributes { claims_json: claims.into(), ..Default::default() };
        let result = sidecar.try_login("alice", "medium", attributes).await;
        assert_refused(result, Code::InvalidArgument, "BAD_CALL", "NONE");
    }
}

#[tokio::test]
async fn a_token_too_large_for_a_cookie_is_refused_and_nothing_is_recorded() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let roles = (0..200).map(|number| format!("role-{number:020}")).collect();
    let result = sidecar.try_login("alice", "medium", Attributes { roles, ..Default::default() }).await;
    assert_refused(result, Code::FailedPrecondition, "TOKEN_TOO_LARGE", "NONE");
    let list = ListSessionsRequest { subject: "alice".into(), ..Default::default() };
    assert!(
        sidecar.sessions().list_sessions(as_caller(list)).await.unwrap().into_inner().sessions.is_empty()
    );
}

#[tokio::test]
async fn a_second_device_ends_the_first_where_the_policy_says_so() {
    let home = Home::new();
    let own = home.own("    medium: {preset: medium, max_sessions: 1, at_limit: evict_oldest}\n");
    let sidecar = home.start(&own).await;
    let first = sidecar.login("alice", "medium").await;
    let second = sidecar.login("alice", "medium").await;
    assert_eq!(second.evicted_session_ids, [first.session.unwrap().session_id]);
    let tokens = first.tokens.unwrap();
    assert_denied(sidecar.verify(&tokens.access_token).await, "REVOKED", "REAUTHENTICATE");
    assert_denied(sidecar.refresh(&tokens.refresh_token).await, "REVOKED", "REAUTHENTICATE");
    assert!(sidecar.verify(&second.tokens.unwrap().access_token).await.is_ok());
    assert!(sidecar.login("bob", "medium").await.evicted_session_ids.is_empty());
}

#[tokio::test]
async fn a_second_device_is_refused_where_the_policy_says_so() {
    let home = Home::new();
    let own = home.own("    medium: {preset: medium, max_sessions: 1, at_limit: reject}\n");
    let (sidecar, hands) = home.start_at(&own).await;
    sidecar.login("alice", "medium").await;
    let refused = sidecar.try_login("alice", "medium", Attributes::default()).await;
    assert_refused(refused, Code::FailedPrecondition, "SESSION_LIMIT", "NONE");
    sidecar.pass(&hands, 31 * DAY).await;
    assert!(
        sidecar.try_login("alice", "medium", Attributes::default()).await.is_ok(),
        "an idle session takes no place"
    );
}

#[tokio::test]
async fn sessions_are_listed_newest_first_in_pages() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(sidecar.login("alice", "medium").await.session.unwrap().session_id);
        sidecar.pass(&hands, MINUTE).await;
    }
    opened.reverse();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListSessionsRequest { subject: "alice".into(), page_size: 2, page_token };
        let page = sidecar.sessions().list_sessions(as_caller(request)).await.unwrap().into_inner();
        assert!(page.sessions.len() <= 2);
        listed.extend(page.sessions.into_iter().map(|session| session.session_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, opened);
    let bad = ListSessionsRequest { subject: "alice".into(), page_token: "junk".into(), page_size: 0 };
    assert_refused(
        sidecar.sessions().list_sessions(as_caller(bad)).await,
        Code::InvalidArgument,
        "BAD_CALL",
        "NONE",
    );
}

#[tokio::test]
async fn a_session_that_is_not_there_is_not_found() {
    let home = Home::new();
    let sidecar = home.start("").await;
    for id in ["AAAAAAAAAAAAAAAAAAAAAA", "no id of ours"] {
        let request = GetSessionRequest { session_id: id.into() };
        let result = sidecar.sessions().get_session(as_caller(request)).await;
        assert_refused(result, Code::NotFound, "NO_SUCH_SESSION", "NONE");
        let request = UpdateSessionRequest { session_id: id.into(), attributes: Some(Attributes::default()) };
        let result = sidecar.sessions().update_session(as_caller(request)).await;
        assert_refused(result, Code::NotFound, "NO_SUCH_SESSION", "NONE");
    }
}

#[tokio::test]
async fn where_no_policy_keeps_records_session_calls_say_so() {
    let home = Home::new();
    let own = home.own("    low: {preset: low}\n") + "  default_policy: low\n";
    let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, sessions]\n";
    let sidecar = home.start(&format!("{api}{own}")).await;
    let request = GetSessionRequest { session_id: "AAAAAAAAAAAAAAAAAAAAAA".into() };
    let result = sidecar.sessions().get_session(as_caller(request)).await;
    assert_refused(result, Code::FailedPrecondition, "NO_SESSIONS_IN_POLICY", "NONE");
}

#[tokio::test]
async fn a_password_change_ends_all_sessions_but_the_one_that_did_it() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let other = sidecar.login("alice", "medium").await;
    let this = sidecar.login("alice", "medium").await;
    let this_id = this.session.unwrap().session_id;
    sidecar
        .revoke(Target::Subject(SubjectRevocation {
            subject: "alice".into(),
            except_session_id: Some(this_id),
            ..Default::default()
        }))
        .await
        .unwrap();
    let (this, other) = (this.tokens.unwrap(), other.tokens.unwrap());
    assert!(sidecar.verify(&this.access_token).await.is_ok());
    assert!(sidecar.verify_consistently(&this.access_token).await.is_ok());
    assert!(sidecar.refresh(&this.refresh_token).await.is_ok());
    assert_denied(sidecar.verify(&other.access_token).await, "REVOKED", "REAUTHENTICATE");
    // Its record went with the cut-off, and a refresh token does not say whose it is.
    assert_denied(sidecar.refresh(&other.refresh_token).await, "SESSION_ENDED", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_hybrid_session_unused_for_its_idle_time_refreshes_no_more() {
    let home = Home::new();
    let (sidecar, hands) = home.start_at("").await;
    let idle = sidecar.login("alice", "medium").await.tokens.unwrap().refresh_token;
    sidecar.pass(&hands, 31 * DAY).await;
    assert_denied(sidecar.refresh(&idle).await, "SESSION_IDLE", "REAUTHENTICATE");
    let mut token = sidecar.login("bob", "medium").await.tokens.unwrap().refresh_token;
    for _ in 0..3 {
        sidecar.pass(&hands, 29 * DAY).await;
        token = sidecar.refresh(&token).await.unwrap().tokens.unwrap().refresh_token;
    }
    sidecar.pass(&hands, 4 * DAY).await;
    assert_denied(sidecar.refresh(&token).await, "SESSION_ENDED", "REAUTHENTICATE");
}
