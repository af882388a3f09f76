//! Opening sessions.

use crate::world::{ISSUER, MINUTE, World, alice, claims_of, login, policy};
use countersign::keys::HandleKind;
use countersign::session::policy::{AtLimit, Overrides, Preset};
use countersign::session::{Attributes, Login, SessionError};
use countersign::token::{Action, Reason};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_medium_login_gets_a_jwt_a_refresh_token_and_a_record() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let opened = world.sessions.create(login("alice")).await.unwrap();
    let record = opened.record.unwrap();
    assert_eq!((record.generation, record.attributes_version), (1, 1));

    let claims = world.verified(&opened.tokens.access_token);
    let created = record.created_at;
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["aud"], ISSUER);
    assert_eq!(claims["client_id"], "shop-web");
    assert_eq!(claims["iat"], created.as_secs());
    assert_eq!(claims["exp"], created.as_secs() + 900);
    assert_eq!(claims["sid"], record.id.to_string());
    assert_eq!(claims["sct"], created.as_millis());
    assert_eq!(claims["auth_time"], created.as_secs());
    assert_eq!((&claims["pol"], &claims["sav"]), (&json!("shop"), &json!(1)));
    assert_eq!(claims["jti"].as_str().unwrap().len(), 22);

    let refresh = world.handles.open(opened.tokens.refresh_token.as_deref().unwrap()).unwrap();
    assert!(matches!(refresh.kind, HandleKind::Refresh));
    assert_eq!((refresh.session, refresh.generation), (record.id, 1));
    assert_eq!(opened.tokens.refresh_expires_at, Some(record.ends_at()));
    assert_eq!(opened.tokens.refresh_after, Some(opened.tokens.access_expires_at.before(2 * MINUTE)));
}

#[tokio::test]
async fn a_low_login_gets_one_long_jwt_and_leaves_no_record() {
    let world = World::with(vec![policy("blog", Preset::Low), policy("shop", Preset::Medium)]);
    let opened = world.sessions.create(login("alice")).await.unwrap();
    assert!(opened.record.is_none());
    assert!(opened.tokens.refresh_token.is_none() && opened.tokens.refresh_after.is_none());
    let claims = world.verified(&opened.tokens.access_token);
    assert!(claims.get("sid").is_none() && claims.get("sav").is_none());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 30 * 86_400);
    assert!(world.sessions.list("alice", 0, "").await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_high_login_gets_an_opaque_token_that_ends_with_the_session() {
    let world = World::with(vec![policy("bank", Preset::High)]);
    let opened = world.sessions.create(login("alice")).await.unwrap();
    let record = opened.record.unwrap();
    assert_eq!(record.generation, 0);
    let handle = world.handles.open(&opened.tokens.access_token).unwrap();
    assert!(matches!(handle.kind, HandleKind::Session));
    assert_eq!((handle.session, handle.generation), (record.id, 0));
    assert_eq!(opened.tokens.access_expires_at, record.created_at.after(30 * MINUTE));
    assert!(opened.tokens.refresh_token.is_none());
    assert_eq!(world.sessions.session_of(&opened.tokens.access_token), Some(record.id));
}

#[tokio::test]
async fn attributes_reach_the_token_and_no_number_is_rounded() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let attributes = Attributes {
        roles: vec!["buyer".to_owned(), "admin".to_owned()],
        scopes: vec!["orders:read".to_owned(), "orders:write".to_owned()],
        claims_json: r#"{"ledger":12345678901234567890123,"rate":1.10}"#.to_owned(),
    };
    let opened = world.sessions.create(Login { attributes, ..login("alice") }).await.unwrap();
    let claims = world.verified(&opened.tokens.access_token);
    assert_eq!(claims["roles"], json!(["buyer", "admin"]));
    assert_eq!(claims["scope"], "orders:read orders:write");
    let text = claims_of(&opened.tokens.access_token);
    assert!(text.ends_with(r#""ledger":12345678901234567890123,"rate":1.10}"#), "{text}");
}

#[tokio::test]
async fn a_policy_that_is_not_configured_is_refused() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let refused = world.sessions.create(Login { policy: Some("bank".to_owned()), ..login("alice") }).await;
    assert!(matches!(refused, Err(SessionError::Invalid { field: "policy", .. })));
}

#[tokio::test]
async fn a_login_with_an_invalid_field_is_refused_and_leaves_nothing() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let mut bad = login("alice");
    bad.attributes.claims_json = r#"{"iss":"https://evil.example"}"#.to_owned();
    let refused = world.sessions.create(bad).await;
    assert!(matches!(refused, Err(SessionError::Invalid { field: "attributes.claims_json", .. })));
    assert!(world.sessions.list("alice", 0, "").await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_token_too_large_is_refused_before_anything_is_recorded() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let mut large = login("alice");
    large.attributes.claims_json = format!("{{\"x\":\"{}\"}}", "y".repeat(3000));
    let refused = world.sessions.create(large.clone()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::TokenTooLarge, Action::None));
    assert!(world.sessions.list("alice", 0, "").await.unwrap().records.is_empty());

    let leave_out = Overrides { access_token_attributes: Some(vec![]), ..Overrides::default() };
    let world = World::with(vec![policy_with("shop", leave_out)]);
    assert!(world.sessions.create(large).await.is_ok(), "what does not go into the token does not count");
}

#[tokio::test]
async fn a_store_that_is_down_is_undecided() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    world.store.take_down();
    let refused = world.sessions.create(login("alice")).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
}

fn policy_with(name: &str, said: Overrides) -> countersign::session::Policy {
    countersign::session::Policy::new(name, Preset::Medium, said, ISSUER).unwrap()
}

#[tokio::test]
async fn at_the_limit_the_oldest_device_is_logged_out() {
    let said = Overrides { max_sessions: Some(2), ..Overrides::default() };
    let world = World::with(vec![policy_with("shop", said)]);
    let oldest = alice(&world).await;
    world.hands.advance(Duration::from_secs(20));
    let second = alice(&world).await;
    world.hands.advance(Duration::from_secs(20));
    let third = alice(&world).await;
    assert!(second.evicted.is_empty());
    assert_eq!(third.evicted, [oldest.record.unwrap().id]);

    let refused = world.sessions.refresh(&oldest.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::Revoked, Action::Reauthenticate));
    assert!(world.sessions.refresh(&second.tokens.refresh_token.unwrap()).await.is_ok());
    let bob = world.sessions.create(login("bob")).await.unwrap();
    assert!(bob.evicted.is_empty(), "a limit counts one subject's sessions");
}

#[tokio::test]
async fn at_the_limit_a_new_device_is_refused() {
    let said = Overrides { max_sessions: Some(1), at_limit: Some(AtLimit::Reject), ..Overrides::default() };
    let world = World::with(vec![policy_with("shop", said)]);
    let first = alice(&world).await;
    let refused = world.sessions.create(login("alice")).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionLimit, Action::None));
    world.hands.advance(Duration::from_secs(31 * 86_400));
    assert!(world.sessions.create(login("alice")).await.is_ok(), "a session that is over takes no place");
    drop(first);
}

#[tokio::test]
async fn nothing_that_is_printed_shows_a_token() {
    let world = World::with(vec![policy("shop", Preset::Medium)]);
    let opened = alice(&world).await;
    let printed = format!("{opened:?} {:?} {:?}", opened.tokens, world.sessions);
    let refresh_token = opened.tokens.refresh_token.unwrap();
    assert!(!printed.contains(&opened.tokens.access_token) && !printed.contains(&refresh_token));
    assert!(!printed.contains("csr_") && !printed.contains("eyJ"));
}
