//! The revocation log.

use super::*;

pub(crate) async fn identical_entries_keep_their_revision(engine: &dyn Engine) {
    let first = engine.append(token_draft(1)).await.unwrap();
    let other = engine.append(token_draft(2)).await.unwrap();
    assert_eq!((first.revision.seq, other.revision.seq), (1, 2));
    assert_eq!(engine.append(token_draft(1)).await.unwrap(), first);
    let Entry { key, .. } = token(1);
    let shorter = engine.append(Draft::Token { key, expires_at: NOON }).await.unwrap();
    assert_eq!(shorter, first, "the longer expiry wins");
    assert_eq!(whole_log(engine).await, [token(1), token(2)]);
}

pub(crate) async fn a_longer_expiry_is_told_again(engine: &dyn Engine) {
    engine.append(token_draft(1)).await.unwrap();
    let cursor = engine.read_after(None, 10).await.unwrap().cursor;
    let longer = Entry { expires_at: NOON.after(HOUR * 2), ..token(1) };
    let draft = Draft::Token { key: longer.key, expires_at: longer.expires_at };
    assert_eq!(engine.append(draft).await.unwrap().revision.seq, 2);
    assert_eq!(engine.read_after(Some(cursor), 10).await.unwrap().entries, [longer]);
}

pub(crate) async fn pages_follow_each_other_without_gaps(engine: &dyn Engine) {
    for n in 0..10 {
        engine.append(token_draft(n)).await.unwrap();
    }
    let first = engine.read_after(None, 4).await.unwrap();
    assert_eq!((first.cursor.seq, first.head.seq, first.restarted), (4, 10, false));
    let second = engine.read_after(Some(first.cursor), 6).await.unwrap();
    assert_eq!((second.cursor, second.restarted), (second.head, false));
    let all: Vec<_> = first.entries.into_iter().chain(second.entries).collect();
    assert_eq!(all, (0..10).map(token).collect::<Vec<_>>());
    let none = engine.read_after(Some(second.cursor), 6).await.unwrap();
    assert_eq!((none.entries.len(), none.cursor), (0, none.head));
}

pub(crate) async fn a_foreign_or_impossible_cursor_starts_over(engine: &dyn Engine) {
    let Revision { epoch, seq } = engine.append(token_draft(1)).await.unwrap().revision;
    for cursor in [Revision { epoch: epoch ^ 1, seq }, Revision { epoch, seq: seq + 1 }] {
        let page = engine.read_after(Some(cursor), 10).await.unwrap();
        assert!(page.restarted);
        assert_eq!(page.entries, [token(1)]);
        assert_eq!(page.cursor, Revision { epoch, seq });
    }
}

pub(crate) async fn purged_entries_leave_no_reader_behind_the_head(engine: &dyn Engine) {
    for n in 0..5 {
        engine.append(token_draft(n)).await.unwrap();
    }
    let early = engine.read_after(None, 2).await.unwrap().cursor;
    assert_eq!(engine.purge(NOON.after(HOUR), 100).await.unwrap(), 0, "kept for the slack");
    assert_eq!(engine.purge(NOON.after(HOUR * 2), 100).await.unwrap(), 5);
    for cursor in [None, Some(early)] {
        let page = engine.read_after(cursor, 10).await.unwrap();
        assert_eq!((page.entries.len(), page.cursor.seq, page.head.seq, page.restarted), (0, 5, 5, false));
    }
    assert_eq!(engine.append(token_draft(9)).await.unwrap().revision.seq, 6, "numbers are never used again");
}

pub(crate) async fn what_is_given_back_is_there_once_and_takes_effect(engine: &dyn Engine) {
    let one = open_session(engine, login("alice", NOON)).await.record;
    let two = open_session(engine, login("bob", NOON)).await.record;
    let three = open_session(engine, login("carol", NOON)).await.record;
    let expires_at = NOON.after(HOUR * 9);
    let cutoff = after(60);
    let entries = vec![
        token(1),
        Entry { kind: EntryKind::Session, key: session_key(one.id), expires_at },
        Entry {
            kind: EntryKind::SubjectBefore { cutoff, except: None },
            key: subject_key("bob"),
            expires_at,
        },
        Entry { kind: EntryKind::ClaimsBefore { version: 7 }, key: session_key(three.id), expires_at },
    ];
    engine.restore(entries.clone()).await.unwrap();
    engine.restore(entries.clone()).await.unwrap();
    assert_eq!(whole_log(engine).await, entries);
    assert!(!alive(engine, one.id).await && !alive(engine, two.id).await);
    assert_eq!(engine.find(three.id).await.unwrap().0.unwrap().attributes_version, 7);
    let again = open_session(engine, login("bob", NOON)).await.record;
    assert!(again.created_at > cutoff, "a login after the cut-off, whatever this sidecar's clock says");
}

pub(crate) async fn a_change_wakes_whoever_waits(engine: &dyn Engine) {
    let cursor = engine.read_after(None, 1).await.unwrap().cursor;
    let waited = tokio::time::timeout(HOUR, engine.changed(cursor, HOUR * 2));
    let (woken, appended) = tokio::join!(waited, engine.append(token_draft(1)));
    woken.expect("woken long before the hour is over");
    appended.unwrap();
    engine.changed(cursor, HOUR).await;
}
