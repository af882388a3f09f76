//! Renewing tokens.

use crate::world::{DAY, ISSUER, MINUTE, World, alice, policy};
use countersign::keys::HandleKind;
use countersign::session::Policy;
use countersign::session::policy::{Overrides, Preset};
use countersign::token::{Action, Reason, SessionId};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const PAST_GRACE: Duration = Duration::from_secs(11);

fn shop() -> World {
    World::with(vec![policy("shop", Preset::Medium)])
}

#[tokio::test]
async fn a_refresh_after_grace_gives_a_successor_and_a_new_access_token() {
    let world = shop();
    let opened = alice(&world).await;
    world.hands.advance(5 * MINUTE);
    let renewed = world.sessions.refresh(opened.tokens.refresh_token.as_deref().unwrap()).await.unwrap();
    assert_eq!(renewed.session, opened.record.unwrap().id);
    assert_eq!(world.generation(&renewed.tokens), 2);
    assert_ne!(renewed.tokens.access_token, opened.tokens.access_token);
    assert_eq!(world.verified(&renewed.tokens.access_token)["sid"], renewed.session.to_string());
    let now = world.clock.now().judged;
    assert_eq!(renewed.tokens.refresh_expires_at, Some(now.after(30 * DAY)), "use extends the session");
}

#[tokio::test]
async fn a_second_tab_gets_the_same_successor() {
    let world = shop();
    let opened = alice(&world).await;
    let first = opened.tokens.refresh_token.unwrap();
    world.hands.advance(MINUTE);
    let one = world.sessions.refresh(&first).await.unwrap();
    world.hands.advance(Duration::from_secs(5));
    let two = world.sessions.refresh(&first).await.unwrap();
    assert_eq!((world.generation(&one.tokens), world.generation(&two.tokens)), (2, 2));
    assert_ne!(one.tokens.access_token, two.tokens.access_token);
}

#[tokio::test]
async fn a_fresh_refresh_token_is_answered_with_itself() {
    let world = shop();
    let opened = alice(&world).await;
    let renewed = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap();
    assert_eq!(world.generation(&renewed.tokens), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_refreshes_at_once_have_one_successor() {
    let world = shop();
    let opened = alice(&world).await;
    let token: Arc<str> = opened.tokens.refresh_token.unwrap().into();
    world.hands.advance(MINUTE);
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let (sessions, token) = (Arc::clone(&world.sessions), Arc::clone(&token));
            tokio::spawn(async move { sessions.refresh(&token).await.unwrap() })
        })
        .collect();
    let mut generations = HashSet::new();
    for call in calls {
        generations.insert(world.generation(&call.await.unwrap().tokens));
    }
    assert_eq!(generations, HashSet::from([2]));
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_session_for_thief_and_owner() {
    let world = shop();
    let opened = alice(&world).await;
    let stolen = opened.tokens.refresh_token.unwrap();
    world.hands.advance(MINUTE);
    let owner = world.sessions.refresh(&stolen).await.unwrap();
    world.hands.advance(PAST_GRACE);
    let thief = world.sessions.refresh(&stolen).await.unwrap_err();
    assert_eq!((thief.reason(), thief.action()), (Reason::RefreshReused, Action::Reauthenticate));

    assert!(world.denies(&owner.tokens.access_token), "its access tokens are denied at once, here");
    let owner = world.sessions.refresh(&owner.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((owner.reason(), owner.action()), (Reason::Revoked, Action::Reauthenticate));
    let again = world.sessions.refresh(&stolen).await.unwrap_err();
    assert_eq!(again.reason(), Reason::Revoked);
}

#[tokio::test]
async fn an_unused_session_is_idle() {
    let world = shop();
    let opened = alice(&world).await;
    world.hands.advance(30 * DAY);
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionIdle, Action::Reauthenticate));
}

#[tokio::test]
async fn a_session_ends_however_much_it_is_used_and_its_access_tokens_with_it() {
    let world = shop();
    let opened = alice(&world).await;
    let end = opened.record.unwrap().absolute_end;
    let mut token = opened.tokens.refresh_token.unwrap();
    for _ in 0..3 {
        world.hands.advance(29 * DAY);
        token = world.sessions.refresh(&token).await.unwrap().tokens.refresh_token.unwrap();
    }
    world.hands.advance(end.before(5 * MINUTE).since(world.clock.now().judged));
    let last = world.sessions.refresh(&token).await.unwrap().tokens;
    assert!(last.access_expires_at <= end && last.access_expires_at > end.before(MINUTE));
    assert_eq!(last.refresh_expires_at, Some(end));
    world.hands.advance(5 * MINUTE);
    let refused = world.sessions.refresh(&last.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionEnded, Action::Reauthenticate));
}

#[tokio::test]
async fn a_session_nobody_knows_is_ended() {
    let world = shop();
    let token = world.refresh_token(SessionId::from_bytes([9; 16]), 1);
    let refused = world.sessions.refresh(&token).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionEnded, Action::Reauthenticate));
}

#[tokio::test]
async fn a_store_that_went_back_in_time_catches_up_and_is_counted() {
    let world = shop();
    let id = alice(&world).await.record.unwrap().id;
    let ahead = world.refresh_token(id, 5);
    let renewed = world.sessions.refresh(&ahead).await.unwrap();
    assert_eq!(world.generation(&renewed.tokens), 5);
    assert_eq!(world.sessions.fast_forwards(), 1);
}

#[tokio::test]
async fn junk_never_reaches_the_store() {
    let world = shop();
    let opened = alice(&world).await;
    world.store.take_down();
    let refresh_token = opened.tokens.refresh_token.unwrap();
    let mut forged = refresh_token.clone();
    let last = if forged.pop() == Some('A') { 'E' } else { 'A' };
    forged.push(last);
    let other_keys = World::with(vec![policy("shop", Preset::Medium)]);
    let foreign = other_keys.refresh_token(SessionId::from_bytes([9; 16]), 1);
    let session = world.handles.mint(HandleKind::Session, SessionId::from_bytes([9; 16]), 0, world.now());
    for (token, reason) in [
        ("", Reason::Malformed),
        ("csr_", Reason::Malformed),
        (opened.tokens.access_token.as_str(), Reason::Malformed),
        (forged.as_str(), Reason::BadSignature),
        (foreign.as_str(), Reason::UnknownKey),
        (session.as_str(), Reason::UnsupportedType),
    ] {
        let refused = world.sessions.refresh(token).await.unwrap_err();
        assert_eq!((refused.reason(), refused.action()), (reason, Action::None));
        assert_eq!(world.sessions.session_of(token).is_some(), reason == Reason::UnsupportedType);
    }
}

#[tokio::test]
async fn a_store_that_is_down_says_nothing_about_the_token() {
    let world = shop();
    let opened = alice(&world).await;
    world.store.take_down();
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::StoreUnavailable, Action::None));
}

#[tokio::test]
async fn before_the_denylist_is_loaded_nothing_is_renewed() {
    let world = shop();
    let opened = alice(&world).await;
    let starting = world.with_an_empty_denylist();
    let refused = starting.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::NotLoaded, Action::None));
}

#[tokio::test]
async fn a_policy_taken_out_of_the_configuration_takes_its_sessions_with_it() {
    let world = shop();
    let opened = alice(&world).await;
    let without = world.on_the_same_store(vec![policy("market", Preset::Medium)]);
    let refused = without.refresh(opened.tokens.refresh_token.as_deref().unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionEnded, Action::Reauthenticate));
    let none = world.on_the_same_store(vec![policy("bank", Preset::High)]);
    let refused = none.refresh(opened.tokens.refresh_token.as_deref().unwrap()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::SessionEnded);
}

#[tokio::test]
async fn each_policy_has_its_own_grace() {
    let with_grace = |name: &str, seconds: u64| {
        let said = Overrides { grace: Some(Duration::from_secs(seconds)), ..Overrides::default() };
        Policy::new(name, Preset::Medium, said, ISSUER).unwrap()
    };
    let world = World::with(vec![with_grace("long", 60), with_grace("short", 1)]);
    for (name, repeats) in [("long", true), ("short", false)] {
        let opened = world.login_under(name).await;
        let token = opened.tokens.refresh_token.unwrap();
        world.hands.advance(2 * MINUTE);
        world.sessions.refresh(&token).await.unwrap();
        world.hands.advance(Duration::from_secs(30));
        assert_eq!(world.sessions.refresh(&token).await.is_ok(), repeats, "{name}");
    }
}
