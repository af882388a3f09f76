//! How other issuers' tokens are taken back.

use super::World;
use crate::mint::{Claims, Key, LOGIN};
use crate::support::{START, assert_denied};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{IssuerRevocation, RevokeRequest, SessionRevocation, SubjectRevocation};
use std::time::Duration;

impl World {
    /// Takes a token back by holding it; the revision of the answer.
    async fn revoke_by_possession(&self, token: &str) -> String {
        let request = RevokeRequest { target: Some(Target::Token(token.into())), reason: "logout".into() };
        self.sidecar.tokens().revoke(request).await.unwrap().into_inner().revision
    }

    async fn cut_off(&self, before: Option<i64>) {
        let before = before
            .map(|seconds| prost_types::Timestamp { seconds: START.as_secs() as i64 + seconds, nanos: 0 });
        let target = SubjectRevocation {
            subject: "alice".into(),
            issuer: Some(LOGIN.into()),
            before,
            ..Default::default()
        };
        self.sidecar.revoke(Target::Subject(target)).await.unwrap();
    }

    async fn is_accepted(&self, claims: Claims) {
        self.sidecar.verify(&self.token(claims)).await.unwrap();
    }

    async fn is_cut_off(&self, claims: Claims) {
        assert_denied(self.sidecar.verify(&self.token(claims)).await, "REVOKED", "REAUTHENTICATE");
    }
}

#[tokio::test]
async fn a_token_is_taken_back_by_holding_it_with_and_without_jti() {
    let world = World::start().await;
    for claims in [Claims::good(), Claims::good().without("jti")] {
        let token = world.token(claims.clone());
        let spared = world.token(claims.with("sub", "\"bob\"").with("jti", "\"t2\""));
        world.sidecar.verify(&spared).await.unwrap();
        world.revoke_by_possession(&token).await;
        assert_denied(world.sidecar.verify(&token).await, "REVOKED", "REFRESH");
        world.sidecar.verify(&spared).await.unwrap();
    }
    // By its id all tokens of that id are meant, whoever signed them again.
    let again = world.token(Claims::good().with("scope", "\"read\""));
    assert_denied(world.sidecar.verify(&again).await, "REVOKED", "REFRESH");
}

#[tokio::test]
async fn an_id_of_one_issuer_s_token_takes_back_no_other_issuer_s() {
    let world = World::start().await;
    let own = world.sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let id = world.sidecar.verify(&own).await.unwrap().token_id;
    let namesake = world.token(Claims::good().with("jti", format!("\"{id}\"")));
    world.revoke_by_possession(&namesake).await;
    assert_denied(world.sidecar.verify(&namesake).await, "REVOKED", "REFRESH");
    world.sidecar.verify(&own).await.unwrap();
}

#[tokio::test]
async fn who_holds_no_good_signature_takes_back_nothing() {
    let world = World::start().await;
    let token = world.token(Claims::good());
    let before = world.revoke_by_possession("junk").await;
    let forged = Key::ed25519("k").token(&Claims::good());
    let unknown = Key::ed25519("other").token(&Claims::good());
    let stranger = world.token(Claims::of("https://nobody.example.com"));
    let id_token = world.key.token_of(r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#, Claims::good().text());
    for bad in [forged, unknown, stranger, id_token, format!("{token}."), format!("{token}=")] {
        assert_eq!(world.revoke_by_possession(&bad).await, before);
    }
    world.sidecar.verify(&token).await.unwrap();
}

#[tokio::test]
async fn a_token_meant_for_another_audience_can_be_taken_back_and_a_dead_one_leaves_nothing() {
    let world = World::start().await;
    let before = world.revoke_by_possession("junk").await;
    let expired = world.token(Claims::good().at("iat", -7200).at("exp", -3600));
    assert_eq!(world.revoke_by_possession(&expired).await, before);
    let elsewhere = world.token(Claims::good().with("aud", "\"elsewhere\""));
    assert_ne!(world.revoke_by_possession(&elsewhere).await, before);
}

#[tokio::test]
async fn a_token_that_nobody_can_accept_leaves_no_denial() {
    let world = World::start().await;
    let before = world.revoke_by_possession("junk").await;
    for claims in [
        Claims::good().with("exp", "1e18"),
        Claims::good().with("exp", "\"1900000900\""),
        Claims::good().without("exp"),
        Claims::good().with("jti", "7"),
    ] {
        let token = world.token(claims);
        world.sidecar.verify(&token).await.unwrap_err();
        assert_eq!(world.revoke_by_possession(&token).await, before);
    }
}

#[tokio::test]
async fn a_cut_off_by_subject_judges_by_the_login_and_not_by_the_token_s_age() {
    let world = World::start().await;
    world.is_accepted(Claims::good().at("auth_time", -7200)).await;
    world.cut_off(None).await;
    world.sidecar.pass(&world.hands, Duration::from_secs(60)).await;
    // The issuer renewed the token after the cut-off; the login it goes back to is older.
    world.is_cut_off(Claims::good().at("auth_time", -7200).at("iat", 60)).await;
    world.is_cut_off(Claims::good().at("auth_time", 0).at("iat", 60)).await;
    world.is_accepted(Claims::good().at("auth_time", 1).at("iat", 60)).await;
    world.is_accepted(Claims::good().with("sub", "\"bob\"").at("auth_time", -7200)).await;
}

#[tokio::test]
async fn a_cut_off_judges_by_iat_where_no_login_is_told_and_denies_what_tells_neither() {
    let world = World::start().await;
    let neither = Claims::good().without("iat");
    world.is_accepted(neither.clone()).await;
    world.cut_off(None).await;
    world.sidecar.pass(&world.hands, Duration::from_secs(60)).await;
    world.is_cut_off(Claims::good()).await;
    world.is_accepted(Claims::good().at("iat", 1)).await;
    world.is_cut_off(neither.clone()).await;
    world.is_cut_off(neither.at("nbf", 60)).await;
}

#[tokio::test]
async fn a_configured_login_claim_goes_before_auth_time() {
    let world = World::start_with("claims: {login: /session/began}\n").await;
    world.cut_off(None).await;
    world.sidecar.pass(&world.hands, Duration::from_secs(60)).await;
    let began = |seconds: u64| format!("{{\"began\":{}}}", START.as_secs() + seconds);
    let claims = Claims::good().at("iat", 60);
    world.is_cut_off(claims.clone().with("session", began(0)).at("auth_time", 50)).await;
    world.is_accepted(claims.clone().with("session", began(10)).at("auth_time", -50)).await;
    world.is_cut_off(claims.clone().at("auth_time", -50)).await;
    world.is_accepted(claims).await;
}

#[tokio::test]
async fn a_login_told_to_lie_in_the_future_escapes_no_cut_off() {
    let world = World::start().await;
    world.cut_off(None).await;
    // No login is later than the token that tells of it.
    world.is_cut_off(Claims::good().at("auth_time", 3600)).await;
}

#[tokio::test]
async fn a_cut_off_in_the_past_hits_what_was_issued_since_under_an_older_login() {
    let world = World::start_with("max_lifetime: 1h\n").await;
    let renewed = Claims::good().at("auth_time", -2 * 86_400).at("exp", 3600);
    world.is_accepted(renewed.clone()).await;
    world.cut_off(Some(-86_400)).await;
    world.is_cut_off(renewed.clone()).await;
    world.is_accepted(renewed.clone().at("auth_time", -3600)).await;
    world.sidecar.pass(&world.hands, Duration::from_secs(3599)).await;
    world.is_cut_off(renewed).await;
}

#[tokio::test]
async fn a_foreign_session_and_a_whole_issuer_are_taken_back_by_name() {
    let world = World::start().await;
    let session = |id: &str, issuer: Option<&str>| {
        Target::Session(SessionRevocation { session_id: id.into(), issuer: issuer.map(str::to_owned) })
    };
    // Of our own issuer, where none is named.
    world.sidecar.revoke(session("s1", None)).await.unwrap();
    world.is_accepted(Claims::good()).await;
    world.sidecar.revoke(session("s1", Some(LOGIN))).await.unwrap();
    world.is_cut_off(Claims::good()).await;
    let other = Claims::good().with("sid", "\"s2\"").with("jti", "\"t2\"");
    world.is_accepted(other.clone()).await;
    let own = world.sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let target = Target::Issuer(IssuerRevocation { issuer: LOGIN.into(), before: None });
    world.sidecar.revoke(target).await.unwrap();
    world.is_cut_off(other).await;
    world.sidecar.verify(&own).await.unwrap();
}

#[tokio::test]
async fn a_cut_off_spares_the_session_that_asked_for_it() {
    let world = World::start().await;
    let other = Claims::good().with("sid", "\"s2\"").with("jti", "\"t2\"");
    let target = SubjectRevocation {
        subject: "alice".into(),
        issuer: Some(LOGIN.into()),
        except_session_id: Some("s1".into()),
        ..Default::default()
    };
    world.sidecar.revoke(Target::Subject(target)).await.unwrap();
    world.is_accepted(Claims::good()).await;
    world.is_cut_off(other).await;
    world.is_cut_off(Claims::good().without("sid").with("jti", "\"t3\"")).await;
}

#[tokio::test]
async fn a_revocation_holds_after_a_restart() {
    let world = World::start().await;
    let token = world.token(Claims::good());
    world.revoke_by_possession(&token).await;
    let keys = format!("{{jwks_file: {}}}", world.home.path("keys.json").display());
    let sections = format!(
        "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify]\nissuers:\n{}",
        crate::issuer::entry(LOGIN, &keys, "")
    );
    world.sidecar.tell_to_stop();
    let (again, _) = world.home.start_at(&sections).await;
    assert_denied(again.verify(&token).await, "REVOKED", "REFRESH");
}
