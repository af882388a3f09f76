//! Looking at sessions and changing them.

use crate::world::{DAY, MINUTE, World, alice, login, policy};
use countersign::session::policy::Preset;
use countersign::session::{Attributes, Found, SessionError};
use countersign::token::{Action, Reason, SessionId};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NOBODY: SessionId = SessionId::from_bytes([9; 16]);

fn shop() -> World {
    World::with(vec![policy("shop", Preset::Medium), policy("bank", Preset::High)])
}

fn admin() -> Attributes {
    Attributes { roles: vec!["admin".to_owned()], ..Attributes::default() }
}

#[tokio::test]
async fn changed_attributes_make_older_tokens_stale_and_come_with_the_next_refresh() {
    let world = shop();
    let opened = alice(&world).await;
    let id = opened.record.unwrap().id;
    let (record, _) = world.sessions.update(id, admin()).await.unwrap();
    assert_eq!((record.attributes_version, &record.attributes), (2, &admin()));
    let denial = world.denial_of(&opened.tokens.access_token).unwrap();
    assert_eq!((denial.reason(), denial.action()), (Reason::StaleClaims, Action::Refresh));

    let renewed = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap();
    let claims = world.verified(&renewed.tokens.access_token);
    assert_eq!((&claims["roles"], &claims["sav"]), (&json!(["admin"]), &json!(2)));
    assert!(!world.denies(&renewed.tokens.access_token));
}

#[tokio::test]
async fn attributes_are_replaced_whole() {
    let world = shop();
    let id = alice(&world).await.record.unwrap().id;
    world.sessions.update(id, admin()).await.unwrap();
    world.sessions.update(id, Attributes::default()).await.unwrap();
    let record = world.sessions.get(id).await.unwrap();
    assert_eq!((record.attributes_version, record.attributes), (3, Attributes::default()));
}

#[tokio::test]
async fn attributes_too_large_for_a_token_change_nothing() {
    let world = shop();
    let id = alice(&world).await.record.unwrap().id;
    let large = Attributes { roles: vec!["r".repeat(200); 20], ..Attributes::default() };
    let refused = world.sessions.update(id, large.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::TokenTooLarge);
    assert_eq!(world.sessions.get(id).await.unwrap().attributes_version, 1);

    let id = world.login_under("bank").await.record.unwrap().id;
    assert!(world.sessions.update(id, large).await.is_ok(), "an opaque token carries nothing");
}

#[tokio::test]
async fn invalid_attributes_are_refused() {
    let world = shop();
    let id = alice(&world).await.record.unwrap().id;
    let bad = Attributes { scopes: vec!["a b".to_owned()], ..Attributes::default() };
    let refused = world.sessions.update(id, bad).await;
    assert!(matches!(refused, Err(SessionError::Invalid { field: "attributes.scopes", .. })));
}

#[tokio::test]
async fn a_session_that_is_not_there_or_over_is_not_found() {
    let world = shop();
    assert_eq!(world.sessions.get(NOBODY).await.unwrap_err().reason(), Reason::NoSuchSession);
    let refused = world.sessions.update(NOBODY, admin()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::NoSuchSession);

    let id = alice(&world).await.record.unwrap().id;
    world.hands.advance(30 * DAY);
    assert_eq!(world.sessions.get(id).await.unwrap_err().reason(), Reason::NoSuchSession);
    let refused = world.sessions.update(id, admin()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::NoSuchSession);
}

#[tokio::test]
async fn sessions_are_listed_newest_first_page_by_page() {
    let world = shop();
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(alice(&world).await.record.unwrap().id);
        world.hands.advance(MINUTE);
    }
    world.sessions.create(login("bob")).await.unwrap();
    opened.reverse();

    let (mut listed, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let page = world.sessions.list("alice", 2, &token).await.unwrap();
        listed.extend(page.records.iter().map(|record| record.id));
        pages += 1;
        match page.next {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!((listed, pages), (opened, 3));
}

#[tokio::test]
async fn sessions_opened_in_the_same_millisecond_are_all_listed() {
    let world = shop();
    for _ in 0..4 {
        alice(&world).await;
    }
    let first = world.sessions.list("alice", 2, "").await.unwrap();
    let second = world.sessions.list("alice", 2, &first.next.unwrap()).await.unwrap();
    let mut ids: Vec<_> = first.records.iter().chain(&second.records).map(|record| record.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), second.next), (4, None));
}

#[tokio::test]
async fn a_list_asked_for_wrongly_is_refused() {
    let world = shop();
    for (subject, size, token, field) in
        [("", 0, "", "subject"), ("alice", 1001, "", "page_size"), ("alice", 0, "not a token", "page_token")]
    {
        match world.sessions.list(subject, size, token).await {
            Err(SessionError::Invalid { field: refused, .. }) => assert_eq!(refused, field),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn where_no_policy_keeps_records_there_is_nothing_to_look_at() {
    let world = World::with(vec![policy("blog", Preset::Low)]);
    for refused in [
        world.sessions.get(NOBODY).await.unwrap_err(),
        world.sessions.list("alice", 0, "").await.unwrap_err(),
        world.sessions.update(NOBODY, admin()).await.unwrap_err(),
    ] {
        assert_eq!((refused.reason(), refused.action()), (Reason::NoSessionsInPolicy, Action::None));
    }
}

#[tokio::test]
async fn what_is_over_is_purged_and_what_lives_is_not() {
    let world = shop();
    let bank = world.login_under("bank").await.record.unwrap().id;
    let shop = alice(&world).await.record.unwrap().id;
    world.hands.advance(Duration::from_secs(7200 + 300));
    world.purge().purge().await.unwrap();
    assert!(world.store.find_now(bank).await.is_none());
    assert!(world.store.find_now(shop).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_can_t_be_purged_is_asked_again_a_minute_later_until_cancelled() {
    let world = shop();
    world.store.take_down();
    let cancel = CancellationToken::new();
    let purging = tokio::spawn(world.purge().run(cancel.clone()));
    tokio::time::sleep(10 * MINUTE).await;
    assert!((8..=13).contains(&world.store.purges()), "{}", world.store.purges());
    cancel.cancel();
    purging.await.unwrap();
}

#[tokio::test]
async fn a_use_is_written_at_most_once_per_update_age_and_extends_the_session() {
    let world = shop();
    let reader = world.reader();
    let opened = world.login_under("bank").await.record.unwrap();
    world.hands.advance(MINUTE);
    assert!(matches!(reader.read(opened.id, true).await.unwrap().0, Found::Live(_)));
    assert_eq!(world.store.find_now(opened.id).await.unwrap().last_active_at, opened.last_active_at);

    world.hands.advance(5 * MINUTE);
    let Found::Live(live) = reader.read(opened.id, true).await.unwrap().0 else { panic!("not live") };
    let stored = world.store.find_now(opened.id).await.unwrap();
    assert_eq!((stored.last_active_at, live.record.last_active_at), (world.now(), world.now()));
    assert_eq!(live.touch_at, world.now().after(5 * MINUTE));
}

#[tokio::test]
async fn a_read_tells_idle_from_ended() {
    let world = shop();
    let reader = world.reader();
    let id = world.login_under("bank").await.record.unwrap().id;
    world.hands.advance(30 * MINUTE);
    assert!(matches!(reader.read(id, true).await.unwrap().0, Found::Idle));
    world.hands.advance(90 * MINUTE);
    assert!(matches!(reader.read(id, true).await.unwrap().0, Found::Ended));
    assert!(matches!(reader.read(NOBODY, true).await.unwrap().0, Found::Ended));
}
