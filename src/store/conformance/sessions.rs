//! Sessions, and what revocations do to them.

use super::*;
use futures_util::future::join_all;

pub(crate) async fn sixty_four_refreshes_at_once_have_one_successor(engine: &dyn Engine) {
    let id = open_session(engine, login("alice", NOON)).await.record.id;
    let decisions = join_all((0..64).map(|_| rotate(engine, id, 1, after(60)))).await;
    let rotated = decisions.iter().filter(|decision| **decision == Decision::Rotate { to: 2 }).count();
    let repeated = decisions.iter().filter(|decision| **decision == Decision::Repeat { current: 2 }).count();
    assert_eq!((rotated, repeated), (1, 63));
    let record = engine.find(id).await.unwrap().0.unwrap();
    assert_eq!((record.generation, record.last_active_at), (2, after(60)));
}

pub(crate) async fn a_used_generation_ends_the_session_in_the_same_write(engine: &dyn Engine) {
    let record = open_session(engine, login("alice", NOON)).await.record;
    let id = record.id;
    assert_eq!(rotate(engine, id, 1, after(60)).await, Decision::Rotate { to: 2 });
    let reused = engine.rotate(id, session_key(id), 1, RULES, after(90)).await.unwrap();
    assert_eq!((reused.decision, reused.record), (Decision::Reused, None));
    let denied = reused.denied.unwrap();
    assert_eq!((denied.kind, denied.key), (EntryKind::Session, session_key(id)));
    assert!(denied.expires_at >= record.absolute_end);
    assert_eq!(whole_log(engine).await, [denied]);
    assert_eq!(rotate(engine, id, 2, after(91)).await, Decision::Missing);
}

pub(crate) async fn no_refresh_survives_a_revocation_beside_it(engine: &dyn Engine) {
    for round in 0..8 {
        let id = open_session(engine, login("alice", NOON)).await.record.id;
        let draft = Draft::Session { key: session_key(id), expires_at: NOON };
        let refreshes = join_all((0..16).map(|_| engine.rotate(id, session_key(id), 1, RULES, after(60))));
        let (refreshed, revoked) = tokio::join!(refreshes, engine.append(draft));
        let revoked = revoked.unwrap().revision;
        for refreshed in refreshed.into_iter().map(Result::unwrap) {
            let before = !refreshed.revision.covers(&revoked);
            assert_eq!(before, refreshed.record.is_some(), "round {round}: {:?}", refreshed.decision);
        }
        assert_eq!(rotate(engine, id, 2, after(61)).await, Decision::Missing);
    }
}

pub(crate) async fn a_fast_forward_is_written(engine: &dyn Engine) {
    let id = open_session(engine, login("alice", NOON)).await.record.id;
    assert_eq!(rotate(engine, id, 9, after(60)).await, Decision::FastForward { to: 9 });
    assert_eq!(engine.find(id).await.unwrap().0.unwrap().generation, 9);
    assert_eq!(rotate(engine, id, 8, after(61)).await, Decision::Repeat { current: 9 });
    assert_eq!(rotate(engine, id, 7, after(61)).await, Decision::Reused);
}

fn revoke_subject(except: Option<DenialKey>, now: Timestamp) -> Draft {
    Draft::Subject { key: subject_key("alice"), except, before: None, now, longest: HOUR * 4 }
}

pub(crate) async fn a_cut_off_hits_every_login_before_and_none_after(engine: &dyn Engine) {
    // This login's sidecar is a minute ahead of the one that revokes, and of the one that logs in afterwards.
    let before = open_session(engine, login("alice", after(60))).await.record;
    let entry = engine.append(revoke_subject(None, NOON)).await.unwrap().entry;
    let EntryKind::SubjectBefore { cutoff, .. } = entry.kind else { panic!("a cut-off") };
    assert!(before.created_at <= cutoff);
    assert_eq!(entry.expires_at, cutoff.after(HOUR * 4));
    assert!(!alive(engine, before.id).await);
    let later = open_session(engine, login("alice", NOON)).await.record;
    assert!(later.created_at > cutoff);
    assert!(alive(engine, later.id).await);
    let past = Draft::Subject {
        key: subject_key("alice"),
        except: None,
        before: Some(after(1)),
        now: after(2),
        longest: HOUR * 4,
    };
    engine.append(past).await.unwrap();
    assert!(alive(engine, later.id).await);
}

pub(crate) async fn a_password_change_spares_the_session_that_did_it(engine: &dyn Engine) {
    let kept = open_session(engine, login("alice", NOON)).await.record.id;
    let other = open_session(engine, login("alice", NOON)).await.record.id;
    let stranger = open_session(engine, login("bob", NOON)).await.record.id;
    engine.append(revoke_subject(Some(session_key(kept)), after(1))).await.unwrap();
    assert!(alive(engine, kept).await && alive(engine, stranger).await);
    assert!(!alive(engine, other).await);
}

pub(crate) async fn an_issuer_s_cut_off_ends_its_sessions(engine: &dyn Engine) {
    let alice = open_session(engine, login("alice", NOON)).await.record.id;
    let bob = open_session(engine, login("bob", NOON)).await.record.id;
    let key = DenialKey::issuer(ISSUER);
    engine.append(Draft::Issuer { key, before: None, now: NOON, longest: HOUR }).await.unwrap();
    assert!(!alive(engine, alice).await && !alive(engine, bob).await);
    let later = open_session(engine, login("alice", NOON)).await.record;
    assert!(later.created_at > NOON && alive(engine, later.id).await);
}

pub(crate) async fn a_session_s_entry_lives_to_its_absolute_end(engine: &dyn Engine) {
    let record = open_session(engine, login("alice", NOON)).await.record;
    let key = session_key(record.id);
    let entry = engine.append(Draft::Session { key, expires_at: NOON }).await.unwrap().entry;
    assert!(entry.expires_at >= record.absolute_end);
    assert!(!alive(engine, record.id).await);
    let unknown = DenialKey::session("https://elsewhere.example", "sid");
    let entry = engine.append(Draft::Session { key: unknown, expires_at: after(5) }).await.unwrap().entry;
    assert_eq!(entry.expires_at, after(5));
}

fn limited(sessions: u32, evict_oldest: bool, now: Timestamp) -> NewSession {
    NewSession { limit: Some(Limit { sessions, evict_oldest }), ..login("alice", now) }
}

pub(crate) async fn the_limit_holds_under_concurrency_by_evicting(engine: &dyn Engine) {
    let logins = (0..20).map(|n| engine.create(limited(3, true, after(n))));
    let outcomes = join_all(logins).await;
    assert!(outcomes.into_iter().all(|outcome| matches!(outcome, Ok(CreateOutcome::Created(_)))));
    let live = engine.list(subject_key("alice"), None, 100, after(30)).await.unwrap();
    assert_eq!(live.len(), 3);
    let denied = whole_log(engine).await;
    assert_eq!(denied.len(), 17);
    assert!(denied.iter().all(|entry| live.iter().all(|record| session_key(record.id) != entry.key)));
}

pub(crate) async fn the_limit_holds_under_concurrency_by_refusing(engine: &dyn Engine) {
    let outcomes = join_all((0..20).map(|n| engine.create(limited(3, false, after(n))))).await;
    let opened = outcomes.iter().filter(|outcome| matches!(outcome, Ok(CreateOutcome::Created(_)))).count();
    assert_eq!(opened, 3);
    assert_eq!(engine.list(subject_key("alice"), None, 100, after(30)).await.unwrap().len(), 3);
    assert!(whole_log(engine).await.is_empty());
}

pub(crate) async fn the_limit_counts_one_policy_and_the_living(engine: &dyn Engine) {
    open_session(engine, NewSession { policy: "high".to_owned(), ..login("alice", NOON) }).await;
    open_session(engine, login("bob", NOON)).await;
    open_session(engine, limited(1, false, NOON)).await;
    assert!(matches!(engine.create(limited(1, false, after(1))).await, Ok(CreateOutcome::LimitReached)));
    open_session(engine, limited(1, false, after(3600))).await;
}

pub(crate) async fn an_unrecorded_login_is_stamped_and_not_kept(engine: &dyn Engine) {
    engine.append(revoke_subject(None, after(60))).await.unwrap();
    let record = open_session(engine, NewSession { recorded: false, ..login("alice", NOON) }).await.record;
    assert!(record.created_at > after(60));
    assert!(!alive(engine, record.id).await);
    let later = engine.append(revoke_subject(None, NOON)).await.unwrap().entry;
    let EntryKind::SubjectBefore { cutoff, .. } = later.kind else { panic!("a cut-off") };
    assert!(cutoff >= record.created_at, "a cut-off after an unrecorded login hits it");
}

pub(crate) async fn changed_attributes_come_with_an_entry(engine: &dyn Engine) {
    let id = open_session(engine, login("alice", NOON)).await.record.id;
    let attributes = Attributes { roles: vec!["admin".to_owned()], ..Attributes::default() };
    let changed =
        engine.update(id, session_key(id), attributes.clone(), HOUR, after(1)).await.unwrap().unwrap();
    assert_eq!((changed.record.attributes_version, &changed.record.attributes), (2, &attributes));
    assert_eq!(changed.entry.kind, EntryKind::ClaimsBefore { version: 2 });
    assert_eq!(changed.entry.expires_at, after(3601));
    let (found, head) = engine.find(id).await.unwrap();
    assert_eq!((found.unwrap(), head), (changed.record, changed.revision));
}

pub(crate) async fn no_attributes_change_on_a_session_that_is_over(engine: &dyn Engine) {
    let id = open_session(engine, login("alice", NOON)).await.record.id;
    let change = |now| engine.update(id, session_key(id), Attributes::default(), HOUR, now);
    assert!(change(after(3600)).await.unwrap().is_none(), "idle for too long");
    engine.append(revoke_subject(None, after(1))).await.unwrap();
    assert!(change(after(2)).await.unwrap().is_none(), "revoked");
}

pub(crate) async fn activity_is_written_at_most_every_update_age(engine: &dyn Engine) {
    let id = open_session(engine, login("alice", NOON)).await.record.id;
    let age = Duration::from_secs(600);
    for (now, written) in [(after(599), NOON), (after(600), after(600)), (after(60), after(600))] {
        engine.touch(id, age, now).await.unwrap();
        assert_eq!(engine.find(id).await.unwrap().0.unwrap().last_active_at, written);
    }
    engine.touch(id, age, after(600 + 3600)).await.unwrap();
    let record = engine.find(id).await.unwrap().0.unwrap();
    assert_eq!(record.last_active_at, after(600), "a session that is over is not revived");
}

pub(crate) async fn a_subject_s_sessions_are_listed_newest_first_in_pages(engine: &dyn Engine) {
    for n in 0..5 {
        // Two at one instant, which the id tells apart.
        open_session(engine, login("alice", after(n / 2))).await;
    }
    open_session(engine, login("bob", NOON)).await;
    let all = engine.list(subject_key("alice"), None, 100, after(9)).await.unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.is_sorted_by(|a, b| (a.created_at, a.id) > (b.created_at, b.id)));
    let mut paged = Vec::new();
    loop {
        let last = paged.last().map(|record: &crate::session::SessionRecord| (record.created_at, record.id));
        let page = engine.list(subject_key("alice"), last, 2, after(9)).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert!(engine.list(subject_key("alice"), None, 100, after(4000)).await.unwrap().is_empty());
}

pub(crate) async fn purging_takes_what_is_over_and_no_more_than_asked(engine: &dyn Engine) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(open_session(engine, login("alice", NOON)).await.record.id);
    }
    let kept = open_session(engine, login("alice", after(3600))).await.record.id;
    let over = after(3600 + 600);
    assert_eq!(engine.purge(over, 3).await.unwrap(), 3);
    assert_eq!(engine.purge(over, 3).await.unwrap(), 2);
    assert_eq!(engine.purge(over, 3).await.unwrap(), 0);
    assert!(alive(engine, kept).await);
    for id in ids {
        assert!(!alive(engine, id).await);
    }
}
