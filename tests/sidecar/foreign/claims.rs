//! What is read out of other issuers' claims.

use super::World;
use crate::mint::{Claims, LOGIN};
use crate::support::{START, assert_denied};
use countersign::grpc::v1::CredentialKind;
use std::time::Duration;

#[tokio::test]
async fn an_answer_says_what_the_token_claims() {
    let world = World::start().await;
    let claims = Claims::good()
        .with("aud", r#"["bank","shop"]"#)
        .with("roles", r#"["buyer","vip"]"#)
        .with("azp", "\"app\"")
        .at("nbf", -10)
        .with("big", "12345678901234567890123")
        .with("ratio", "0.10");
    let answer = world.sidecar.verify(&world.token(claims.clone())).await.unwrap();
    assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), (LOGIN, "alice"));
    assert_eq!(answer.audiences, ["bank", "shop"]);
    assert_eq!((answer.token_id.as_str(), answer.session_id.as_str()), ("t1", "s1"));
    assert_eq!(answer.client_id, "app");
    assert_eq!(
        (answer.scopes, answer.roles),
        (vec!["read".into(), "write".into()], vec!["buyer".into(), "vip".into()])
    );
    let seconds = |at: Option<prost_types::Timestamp>| at.unwrap().seconds - START.as_secs() as i64;
    assert_eq!((seconds(answer.issued_at), seconds(answer.not_before)), (0, -10));
    assert_eq!((seconds(answer.expires_at), seconds(answer.refresh_after)), (900, 780));
    assert_eq!(answer.kind, i32::from(CredentialKind::Jwt));
    assert_eq!(answer.claims_json, claims.text().into_bytes(), "to the byte");
}

#[tokio::test]
async fn claims_are_found_where_the_issuer_puts_them() {
    let world = World::start_with(
        "claims:\n  subject: /realm/user/id\n  session: session_state\n  client: cid\n  \
         roles: /realm/access~1roles\n  scopes: scp\n  login: /realm/login\n",
    )
    .await;
    let realm = r#"{"user":{"id":"u1"},"access/roles":["admin"],"login":1899990000}"#;
    let claims = Claims::good()
        .with("realm", realm)
        .with("session_state", "\"s9\"")
        .with("cid", "\"web\"")
        .with("scp", r#"["read","pay"]"#)
        .with("roles", r#"["forged"]"#);
    let answer = world.sidecar.verify(&world.token(claims.clone())).await.unwrap();
    assert_eq!((answer.subject.as_str(), answer.session_id.as_str()), ("u1", "s9"));
    assert_eq!((answer.client_id.as_str(), answer.roles), ("web", vec!["admin".to_owned()]));
    assert_eq!(answer.scopes, ["read", "pay"]);

    let elsewhere = claims.clone().with("realm", r#"{"user":"u1"}"#);
    assert_denied(world.sidecar.verify(&world.token(elsewhere)).await, "MISSING_CLAIM", "NONE");
    for wrong in [
        claims.clone().with("realm", r#"{"user":{"id":7}}"#),
        claims.clone().with("session_state", "7"),
        claims.clone().with("realm", r#"{"user":{"id":"u1"},"login":"yesterday"}"#),
        claims.clone().with("realm", r#"{"user":{"id":"u1"},"access/roles":{"admin":true}}"#),
    ] {
        assert_denied(world.sidecar.verify(&world.token(wrong)).await, "INVALID_CLAIM", "NONE");
    }
}

#[tokio::test]
async fn a_claim_named_with_dots_and_slashes_is_found_by_its_whole_name() {
    let world = World::start_with("claims: {roles: \"https://example.com/roles\", subject: user.id}\n").await;
    let claims = Claims::good()
        .with("https://example.com/roles", "\"admin\"")
        .with("user.id", "\"u1\"")
        .with("user", r#"{"id":"u2"}"#);
    let answer = world.sidecar.verify(&world.token(claims)).await.unwrap();
    assert_eq!((answer.subject.as_str(), answer.roles), ("u1", vec!["admin".to_owned()]));
}

#[tokio::test]
async fn a_claim_the_issuer_s_tokens_must_have_is_required() {
    let world = World::start_with("require: [jti, tenant]\n").await;
    let claims = Claims::good().with("tenant", "5");
    assert!(world.sidecar.verify(&world.token(claims.clone())).await.is_ok());
    for missing in ["jti", "tenant"] {
        let token = world.token(claims.clone().without(missing));
        assert_denied(world.sidecar.verify(&token).await, "MISSING_CLAIM", "NONE");
    }
}

#[tokio::test]
async fn leeway_is_the_issuer_s_own() {
    let strict = World::start_with("leeway: 0s\n").await;
    let patient = World::start_with("leeway: 60s\n").await;
    for (world, leeway) in [(&strict, 0), (&patient, 60)] {
        let just = |name| world.token(Claims::good().at(name, leeway));
        let beyond = |name| world.token(Claims::good().at(name, leeway + 1));
        for name in ["nbf", "iat"] {
            assert!(world.sidecar.verify(&just(name)).await.is_ok());
            assert_denied(world.sidecar.verify(&beyond(name)).await, "NOT_YET_VALID", "NONE");
        }
        let token = world.token(Claims::good());
        let last = Duration::from_millis((900 + leeway as u64) * 1000 - 1);
        world.sidecar.pass(&world.hands, last).await;
        assert!(world.sidecar.verify(&token).await.is_ok());
        world.sidecar.pass(&world.hands, Duration::from_millis(1)).await;
        assert_denied(world.sidecar.verify(&token).await, "EXPIRED", "REFRESH");
    }
}

#[tokio::test]
async fn a_token_without_typ_is_accepted_where_its_issuer_sets_none() {
    let world = World::start_with("allow_missing_type: true\n").await;
    let token = world.key.token_of(r#"{"alg":"EdDSA","kid":"k"}"#, Claims::good().text());
    assert!(world.sidecar.verify(&token).await.is_ok());
    let id_token = world.key.token_of(r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#, Claims::good().text());
    assert_denied(world.sidecar.verify(&id_token).await, "UNSUPPORTED_TYPE", "NONE");
}

#[tokio::test]
async fn sub_of_a_wrong_type_is_refused_even_where_another_claim_is_the_subject() {
    let world = World::start_with("claims: {subject: uid}\n").await;
    let claims = Claims::good().with("uid", "\"u1\"");
    assert_eq!(world.sidecar.verify(&world.token(claims.clone())).await.unwrap().subject, "u1");
    assert!(world.sidecar.verify(&world.token(claims.clone().without("sub"))).await.is_ok());
    for sub in ["1", "{}", "[\"u1\"]", "null"] {
        let token = world.token(claims.clone().with("sub", sub));
        assert_denied(world.sidecar.verify(&token).await, "INVALID_CLAIM", "NONE");
    }
}
