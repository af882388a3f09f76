//! Servers that stop, fill up or lose replicas: calls fail in time, clearly, and go on afterwards.

use super::healing::{connected, replica_of};
use super::*;
use std::time::Instant;

#[tokio::test]
async fn a_server_that_stands_still_fails_calls_in_time_and_is_used_again_after() {
    let server = Redis::start();
    let access = Access { answer_within: Duration::from_millis(400), ..settings() };
    let store = open(&server, &access);
    store.append(token_draft(1)).await.unwrap();
    server.process().signal("STOP");
    for n in 2..5 {
        let began = Instant::now();
        assert!(matches!(store.append(token_draft(n)).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.read_after(None, 1).await, Err(StoreError::Unavailable(_))));
        let most = access.answer_within * 2 + Duration::from_millis(400);
        assert!(began.elapsed() < most, "{:?}", began.elapsed());
    }
    server.process().signal("CONT");
    until("answers again", async || store.append(token_draft(9)).await.is_ok()).await;
    assert!(whole_log(&store).await.contains(&token(9)));
}

#[tokio::test]
async fn many_calls_to_a_server_that_is_gone_fail_at_once_and_connect_seldom() {
    let mut server = Redis::start();
    let store = open(&server, &settings());
    store.append(token_draft(1)).await.unwrap();
    server.kill();
    let began = Instant::now();
    let calls = (0..2000).map(|n| store.append(token_draft(n)));
    let refused = futures_util::future::join_all(calls).await;
    assert!(refused.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
    assert!(began.elapsed() < SOON / 4, "{:?}", began.elapsed());
    server.restart();
    until("answers again", async || store.append(token_draft(9)).await.is_ok()).await;
    assert_eq!(whole_log(&store).await, [token(1), token(9)]);
}

#[tokio::test]
async fn a_full_server_fails_writes_clearly_and_reads_go_on() {
    let server = Redis::start();
    let store = open(&server, &settings());
    store.append(token_draft(1)).await.unwrap();
    assert_eq!(server.command("CONFIG SET maxmemory 1"), "+OK");
    let entries = (0..600).map(|n| token(n + 100)).collect();
    assert!(matches!(store.restore(entries).await, Err(StoreError::NotWritable(_))));
    assert!(matches!(store.create(login("alice", NOON)).await, Err(StoreError::NotWritable(_))));
    assert_eq!(whole_log(&store).await, [token(1)]);
    assert_eq!(store.purge(NOON.after(SOON * 1000), 10).await.unwrap(), 1, "which makes room");
    assert_eq!(server.command("CONFIG SET maxmemory 0"), "+OK");
    store.append(token_draft(2)).await.unwrap();
}

#[tokio::test]
async fn a_new_incarnation_that_takes_no_writes_yet_is_read_under_one_new_epoch() {
    for (refuse, accept) in
        [("maxmemory 1", "maxmemory 0"), ("min-replicas-to-write 1", "min-replicas-to-write 0")]
    {
        let server = Redis::start();
        let access = settings();
        let (store, other) = (open(&server, &access), open(&server, &access));
        let durable = open(&server, &Access { durability: Durability::Replicated(1), ..access });
        let before = store.append(token_draft(1)).await.unwrap().revision;
        meddle(&store, "return redis.call('HSET', K .. 'head', 'run', 'another')").await;
        assert_eq!(server.command(&format!("CONFIG SET {refuse}")), "+OK");
        let mut epochs = Vec::new();
        for reader in [&store, &other, &durable, &store] {
            let page = reader.read_after(Some(before), 10).await.unwrap();
            assert_eq!((page.restarted, page.entries), (true, vec![token(1)]), "{refuse}");
            assert!(page.epoch_age < SOON);
            epochs.push(page.head.epoch);
        }
        assert!(!epochs.contains(&before.epoch), "{refuse}");
        assert_eq!(server.command(&format!("CONFIG SET {accept}")), "+OK");
        epochs.push(store.append(token_draft(2)).await.unwrap().revision.epoch);
        epochs.push(other.read_after(None, 10).await.unwrap().head.epoch);
        epochs.dedup();
        assert_eq!(epochs.len(), 1, "{refuse}: it stays the same, written down or not");
    }
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Redis::start();
    let store = open(&server, &settings());
    store.append(token_draft(1)).await.unwrap();
    assert_eq!(server.command("SCRIPT FLUSH"), "+OK");
    store.append(token_draft(2)).await.unwrap();
    assert_eq!(whole_log(&store).await, [token(1), token(2)]);
}

#[tokio::test]
async fn a_write_that_too_few_replicas_have_is_not_acknowledged() {
    let primary = Redis::start();
    let replica = Redis::with(replica_of(&primary));
    connected(&primary, &replica).await;
    let within = Duration::from_secs(2);
    let access = Access { durability: Durability::Replicated(1), answer_within: within, ..settings() };
    let store = open(&primary, &access);
    // A replica that has just begun may still be busy with its own files.
    until("replicated", async || store.append(token_draft(1)).await.is_ok()).await;
    assert_eq!(primary.command("SCRIPT FLUSH"), "+OK");
    until("replicated", async || store.create(login("alice", NOON)).await.is_ok()).await;
    replica.process().signal("STOP");
    for _ in 0..2 {
        // The second time it is there already, and not on the replica any more than before.
        let Err(StoreError::Unavailable(why)) = store.append(token_draft(2)).await else {
            panic!("a refusal")
        };
        assert!(why.to_string().contains("0 replicas of the 1"), "{why}");
    }
    assert_eq!(whole_log(&store).await.len(), 2, "reads are not held up");
    replica.process().signal("CONT");
    until("replicated", async || store.append(token_draft(2)).await.is_ok()).await;
}

#[tokio::test]
async fn calls_come_from_other_runtimes_than_the_connections_live_on() {
    let store = open(&SERVER, &settings());
    let calls = (0..4).map(|n| {
        let store = store.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { store.append(token_draft(n)).await.map(drop) })
        })
    });
    for called in futures_util::future::join_all(calls).await {
        called.unwrap().unwrap();
    }
    assert_eq!(whole_log(&store).await.len(), 4, "and a runtime that ended took no connection with it");
}
