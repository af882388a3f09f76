//! A store that went back in time, and the sidecars that give back what it lost.

use super::*;

struct Sidecar {
    store: RedisStore,
    denylist: Arc<Denylist>,
    feed: Arc<Feed>,
    cancel: CancellationToken,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Sidecar {
    fn start(server: &Redis, access: &Access) -> Self {
        let store = open(server, access);
        let denylist = Arc::new(Denylist::new(denylist::Settings::default()));
        let settings = FeedSettings {
            confirm_every: Duration::from_millis(20),
            settle: Duration::ZERO,
            resync_jitter: Duration::ZERO,
            resync_gap: Duration::ZERO,
            ..FeedSettings::default()
        };
        let (clock, _) = Clock::manual(NOON);
        let feed = Arc::new(Feed::new(Arc::new(store.clone()), Arc::clone(&denylist), clock, settings));
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&feed).run(cancel.clone()));
        tokio::spawn({
            let (store, cancel) = (store.clone(), cancel.clone());
            async move { store.listen(cancel).await }
        });
        Self { store, denylist, feed, cancel }
    }

    async fn revoke(&self, draft: Draft) -> Revision {
        let revoker = Revoker::new(Arc::new(self.store.clone()), Arc::clone(&self.denylist));
        revoker.revoke(draft).await.unwrap()
    }

    /// Until the log holds all of these again.
    async fn healed(&self, entries: &[Entry]) {
        until("healed", async || {
            let page = self.store.read_after(None, 100).await;
            page.is_ok_and(|page| entries.iter().all(|entry| page.entries.contains(entry)))
        })
        .await;
    }
}

async fn session_entry(sidecar: &Sidecar, key: DenialKey) -> Entry {
    let entries = whole_log(&sidecar.store).await;
    *entries.iter().find(|entry| entry.key == key).expect("the session's entry")
}

/// A session that was opened before the copy was made, and revoked after.
async fn revoked_session(sidecar: &Sidecar, copy: impl AsyncFnOnce()) -> (SessionId, Entry) {
    sidecar.revoke(token_draft(1)).await;
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&sidecar.store, new).await;
    copy().await;
    sidecar.revoke(token_draft(2)).await;
    let last = sidecar.revoke(Draft::Session { key, expires_at: NOON }).await;
    assert_eq!(sidecar.feed.catch_up(last, SOON).await, Ok(()));
    (id, session_entry(sidecar, key).await)
}

#[tokio::test]
async fn a_revocation_reaches_the_other_sidecar() {
    let access = settings();
    let (one, two) = (Sidecar::start(&SERVER, &access), Sidecar::start(&SERVER, &access));
    let revision = one.revoke(token_draft(1)).await;
    assert!(one.denylist.holds(&token(1)), "at once here");
    assert_eq!(two.feed.catch_up(revision, SOON).await, Ok(()));
    assert!(two.denylist.holds(&token(1)));
}

#[tokio::test]
async fn a_flushed_server_gets_everything_back() {
    let server = Redis::start();
    let access = settings();
    let (one, two) = (Sidecar::start(&server, &access), Sidecar::start(&server, &access));
    let last = one.revoke(token_draft(1)).await;
    assert_eq!(two.feed.catch_up(last, SOON).await, Ok(()));
    assert_eq!(server.command("FLUSHALL"), "+OK");
    one.healed(&[token(1)]).await;
    until("two resynced", async || two.feed.resyncs(ResyncCause::LogRestarted) >= 1).await;
    let page = two.store.read_after(None, 10).await.unwrap();
    assert_ne!(page.head.epoch, last.epoch);
    assert!(page.epoch_age < SOON, "young, so that nobody confirms too soon");
}

#[tokio::test]
async fn a_flushed_namespace_that_nobody_may_create_is_still_given_back() {
    let server = Redis::start();
    let access = Access { migrate: false, ..settings() };
    assert_eq!(open(&server, &access).migrate().await.unwrap(), Migration { from: 0, to: 1 });
    let sidecar = Sidecar::start(&server, &access);
    sidecar.revoke(token_draft(1)).await;
    assert_eq!(server.command("FLUSHALL"), "+OK");
    sidecar.healed(&[token(1)]).await;
}

#[tokio::test]
async fn an_older_copy_of_the_files_gets_back_what_it_lacks_and_revives_no_session() {
    let mut server = Redis::start();
    let access = settings();
    let sidecar = Sidecar::start(&server, &access);
    let older = server.directory().join("older");
    let files = server.append_only();
    let (id, entry) = revoked_session(&sidecar, async || copy(&files, &older)).await;
    server.kill();
    let gone = std::process::Command::new("rm").arg("-r").arg(&files).status().unwrap();
    assert!(gone.success());
    copy(&older, &files);
    server.restart();
    sidecar.healed(&[token(1), token(2), entry]).await;
    assert!(sidecar.store.find(id).await.unwrap().0.is_none(), "the revoked session came back with the copy");
    assert!(sidecar.feed.resyncs(ResyncCause::LogRestarted) >= 1);
    let newcomer = Sidecar::start(&server, &access);
    until("the newcomer has it", async || newcomer.denylist.holds(&token(2))).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[tokio::test]
async fn a_restart_is_a_new_epoch_for_everybody_alike() {
    let mut server = Redis::start();
    let access = settings();
    let (one, two) = (open(&server, &access), open(&server, &access));
    let before = one.append(token_draft(1)).await.unwrap().revision;
    server.kill();
    server.restart();
    let head = async |store: &RedisStore| loop {
        if let Ok(page) = store.read_after(Some(before), 10).await {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (here, there) = (head(&one).await, head(&two).await);
    assert!(here.restarted && there.restarted);
    assert_eq!(here.head, there.head);
    assert_ne!(here.head.epoch, before.epoch);
    assert_eq!(here.entries, [token(1)]);
}

#[tokio::test]
async fn a_promoted_replica_gets_back_what_never_reached_it() {
    let mut primary = Redis::start();
    let replica = Redis::with(replica_of(&primary));
    connected(&primary, &replica).await;
    let access = settings();
    let sidecar = Sidecar::start(&primary, &access);
    let (_, entry) = revoked_session(&sidecar, async || {
        until("replicated", async || replica.command("DBSIZE") == primary.command("DBSIZE")).await;
        replica.process().signal("STOP");
    })
    .await;
    primary.kill();
    replica.process().signal("CONT");
    assert_eq!(replica.command("REPLICAOF NO ONE"), "+OK");
    // The same name leads to the new primary from now on, as a failover's address does: here, by its port.
    let moved = Sidecar::start(&replica, &access);
    let holder = Feed::new(
        Arc::new(moved.store.clone()),
        Arc::clone(&sidecar.denylist),
        Clock::manual(NOON).0,
        FeedSettings {
            confirm_every: Duration::from_millis(20),
            settle: Duration::ZERO,
            ..FeedSettings::default()
        },
    );
    let head = moved.store.read_after(None, 10).await.unwrap().head;
    let foreign = Revision { epoch: head.epoch ^ 1, seq: 1 };
    let holder = Arc::new(holder);
    tokio::spawn(Arc::clone(&holder).run(moved.cancel.clone()));
    assert_eq!(holder.catch_up(foreign, SOON).await, Ok(()));
    moved.healed(&[token(1), token(2), entry]).await;
}

#[tokio::test]
async fn a_primary_that_became_one_again_has_a_new_epoch_over_the_same_connection() {
    let (server, other) = (Redis::start(), Redis::start());
    let access = settings();
    let store = open(&server, &access);
    let before = store.append(token_draft(1)).await.unwrap().revision;
    let _ = server.command(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
    until("a replica is not read", async || store.read_after(Some(before), 10).await.is_err()).await;
    assert!(store.append(token_draft(2)).await.is_err());
    let _ = server.command("REPLICAOF NO ONE");
    until("answers again", async || store.read_after(None, 10).await.is_ok()).await;
    assert_ne!(store.read_after(None, 10).await.unwrap().head.epoch, before.epoch);
}

#[tokio::test]
async fn an_older_copy_that_was_written_past_the_cursor_is_noticed() {
    let access = settings();
    let (store, other) = (open(&SERVER, &access), open(&SERVER, &access));
    store.append(token_draft(1)).await.unwrap();
    // Key by key into the same process: no incarnation tells.
    let dump = "for _, k in ipairs({'head','log','entry','expiry'}) do redis.call('SET', K..'copy:'..k, redis.call('DUMP', K..k)) end";
    meddle(&store, dump).await;
    store.append(token_draft(2)).await.unwrap();
    let cursor = store.read_after(None, 10).await.unwrap().cursor;
    let back = "for _, k in ipairs({'head','log','entry','expiry'}) do \
                redis.call('RESTORE', K..k, 0, redis.call('GET', K..'copy:'..k), 'REPLACE') end";
    meddle(&store, back).await;
    for n in 3..6 {
        other.append(token_draft(n)).await.unwrap();
    }
    let page = store.read_after(Some(cursor), 10).await.unwrap();
    assert!(page.restarted);
    assert_eq!(page.entries, [1, 3, 4, 5].map(token));
    assert_ne!(page.head.epoch, cursor.epoch, "and everybody is told");
    let next = store.read_after(Some(page.cursor), 10).await.unwrap();
    assert!(!next.restarted, "once");
}

#[tokio::test]
async fn what_was_taken_from_the_log_is_noticed_and_put_together_again() {
    let losses = [
        "redis.call('DEL', K..'head')",
        "redis.call('DEL', K..'log')",
        "redis.call('DEL', K..'entry')",
        "redis.call('DEL', K..'expiry')",
        "redis.call('DEL', K..'stamp')",
        "redis.call('DEL', K..'fading')",
        "redis.call('XTRIM', K..'log', 'MAXLEN', 1)",
        "redis.call('DEL', K..'log', K..'expiry', K..'head')",
        "redis.call('DEL', K..'entry', K..'expiry', K..'head', K..'stamp')",
    ];
    for loss in losses {
        let store = open(&SERVER, &settings());
        let new = login("alice", NOON);
        let subject = new.subject_key;
        open_session(&store, new).await;
        store.append(token_draft(1)).await.unwrap();
        let before =
            Draft::Subject { key: subject, except: None, before: None, now: NOON, longest: SOON * 1000 };
        let kept = store.append(before).await.unwrap().entry;
        store.append(token_draft(2)).await.unwrap();
        let cursor = store.read_after(None, 10).await.unwrap().cursor;
        meddle(&store, loss).await;
        let page = store.read_after(Some(cursor), 10).await.unwrap();
        assert!(page.restarted && page.head.epoch != cursor.epoch && page.epoch_age < SOON, "{loss}");
        assert_eq!(page.entries, [token(1), kept, token(2)], "{loss}");
        let again = open_session(&store, login("alice", NOON)).await.record;
        assert!(again.created_at > NOON, "{loss}: the cut-off still stamps");
        assert!(!store.read_after(Some(page.cursor), 10).await.unwrap().restarted, "{loss}: once");
    }
}

#[tokio::test]
async fn all_that_tells_of_entries_evicted_at_once_is_noticed() {
    let store = open(&SERVER, &settings());
    store.append(token_draft(1)).await.unwrap();
    let cursor = store.read_after(None, 10).await.unwrap().cursor;
    meddle(&store, "redis.call('DEL', K..'log', K..'entry', K..'expiry', K..'stamp', K..'fading')").await;
    let page = store.read_after(Some(cursor), 10).await.unwrap();
    assert!(page.restarted && page.entries.is_empty() && page.head.epoch != cursor.epoch);
}

#[tokio::test]
async fn a_session_whose_index_was_evicted_is_no_longer_alive() {
    for loss in ["K..'u:'..s", "K..'s:'..i"] {
        let (store, ()) = fresh();
        let new = login("alice", NOON);
        let (id, subject) = (new.id, new.subject_key);
        open_session(&store, new).await;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03}")).collect::<String>();
        let names = format!("local s, i = '{}', '{}'\n", hex(&subject.to_bytes()), hex(id.as_bytes()));
        assert_eq!(meddle(&store, &format!("{names} return redis.call('DEL', {loss})")).await, Value::Int(1));
        assert!(store.find(id).await.unwrap().0.is_none(), "{loss}");
        assert!(store.list(subject, None, 10, NOON).await.unwrap().is_empty(), "{loss}");
    }
    let (store, ()) = fresh();
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&store, new).await;
    meddle(&store, "for _, k in ipairs(redis.call('KEYS', '*')) do if k:sub(1, #K + 2) == K..'k:' then redis.call('DEL', k) end end").await;
    store.append(Draft::Session { key, expires_at: NOON.after(SOON) }).await.unwrap();
    assert!(store.find(id).await.unwrap().0.is_none(), "revoked without the way from its key to its id");
}

pub(super) fn replica_of(primary: &Redis) -> RedisOptions {
    let place = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.port().to_string()];
    RedisOptions { arguments: place.to_vec() }
}

pub(super) async fn connected(primary: &Redis, replica: &Redis) {
    until("the replica is connected", async || {
        let client = ::redis::Client::open(primary.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let info: String =
            Cmd::new().arg("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        info.contains(&format!("port={},state=online", replica.port()))
    })
    .await;
}
