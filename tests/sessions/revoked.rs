//! Sessions beside revocations.

use crate::world::{DAY, MINUTE, World, alice, login, policy};
use countersign::clock::Timestamp;
use countersign::revocation::{DenialKey, Draft, Entry, EntryKind};
use countersign::session::policy::Preset;
use countersign::token::{Action, Reason};

fn shop() -> World {
    World::with(vec![policy("shop", Preset::Medium)])
}

#[tokio::test]
async fn what_this_sidecar_knows_to_be_revoked_is_refused_without_the_store() {
    let world = shop();
    let opened = alice(&world).await;
    let id = opened.record.unwrap().id;
    let Draft::Session { key, expires_at } = world.sessions.ending(id) else {
        panic!("not a session's draft")
    };
    assert!(world.denylist.insert(&Entry { kind: EntryKind::Session, key, expires_at }).is_ok());
    world.store.take_down();
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::Revoked, Action::Reauthenticate));
}

#[tokio::test]
async fn a_blip_of_the_clock_forward_ends_no_denial() {
    let world = shop();
    let opened = alice(&world).await;
    let id = opened.record.unwrap().id;
    let key = DenialKey::session(crate::world::ISSUER, &id.to_string());
    let expires_at = world.now().after(5 * MINUTE);
    assert!(world.denylist.insert(&Entry { kind: EntryKind::Session, key, expires_at }).is_ok());
    world.hands.step_wall_to(world.now().after(60 * MINUTE));
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::Revoked, Action::Reauthenticate));
    assert_eq!(world.sessions.get(id).await.unwrap_err().reason(), Reason::NoSuchSession);
}

#[tokio::test]
async fn what_another_sidecar_revoked_is_ended_in_the_store() {
    let world = shop();
    let opened = alice(&world).await;
    let id = opened.record.unwrap().id;
    world.append(world.sessions.ending(id)).await;
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::SessionEnded, Action::Reauthenticate));
    assert_eq!(world.sessions.get(id).await.unwrap_err().reason(), Reason::NoSuchSession);
}

#[tokio::test]
async fn no_access_token_minted_beside_a_revocation_is_handed_out() {
    let world = shop();
    let opened = alice(&world).await;
    world.hands.advance(MINUTE);
    let denylist = std::sync::Arc::clone(&world.denylist);
    let cutoff = world.now();
    world.store.after_rotate(move || {
        let kind = EntryKind::SubjectBefore { cutoff, except: None };
        let key = DenialKey::subject(crate::world::ISSUER, "alice");
        assert!(denylist.insert(&Entry { kind, key, expires_at: cutoff.after(90 * DAY) }).is_ok());
    });
    let refused = world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!((refused.reason(), refused.action()), (Reason::Revoked, Action::Reauthenticate));
}

#[tokio::test]
async fn a_changed_password_ends_every_session_but_the_one_that_changed_it() {
    let world = shop();
    let phone = alice(&world).await;
    let laptop = alice(&world).await;
    let bob = world.sessions.create(login("bob")).await.unwrap();
    world.hands.advance(MINUTE);
    let spared = laptop.record.unwrap().id;
    world
        .append_and_hold(Draft::Subject {
            key: DenialKey::subject(crate::world::ISSUER, "alice"),
            except: Some(DenialKey::session(crate::world::ISSUER, &spared.to_string())),
            before: None,
            now: world.now(),
            longest: world.sessions.policies().longest_life(),
        })
        .await;

    assert!(world.denies(&phone.tokens.access_token));
    assert!(!world.denies(&laptop.tokens.access_token) && !world.denies(&bob.tokens.access_token));
    let refused = world.sessions.refresh(&phone.tokens.refresh_token.unwrap()).await.unwrap_err();
    assert_eq!(refused.action(), Action::Reauthenticate);
    let renewed = world.sessions.refresh(&laptop.tokens.refresh_token.unwrap()).await.unwrap();
    assert!(!world.denies(&renewed.tokens.access_token));
    assert!(world.sessions.refresh(&bob.tokens.refresh_token.unwrap()).await.is_ok());
    let left = world.sessions.list("alice", 0, "").await.unwrap().records;
    assert_eq!(left.iter().map(|record| record.id).collect::<Vec<_>>(), [spared]);
}

#[tokio::test]
async fn a_login_right_after_a_cut_off_is_not_hit_by_it() {
    let world = shop();
    world
        .append_and_hold(Draft::Subject {
            key: DenialKey::subject(crate::world::ISSUER, "alice"),
            except: None,
            before: None,
            now: world.now(),
            longest: 90 * DAY,
        })
        .await;
    let opened = alice(&world).await;
    assert!(!world.denies(&opened.tokens.access_token));
    assert!(world.sessions.refresh(&opened.tokens.refresh_token.unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_session_the_store_lost_the_end_of_is_not_shown() {
    let world = shop();
    let id = alice(&world).await.record.unwrap().id;
    let Draft::Session { key, .. } = world.sessions.ending(id) else { panic!("not a session's draft") };
    let entry = Entry { kind: EntryKind::Session, key, expires_at: Timestamp::MAX };
    assert!(world.denylist.insert(&entry).is_ok());
    assert_eq!(world.sessions.get(id).await.unwrap_err().reason(), Reason::NoSuchSession);
    assert!(world.sessions.list("alice", 0, "").await.unwrap().records.is_empty());
}
