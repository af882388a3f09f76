//! Sidecars beside each other over a server that crashes, goes back in time or fails over.

use super::*;
use crate::clock::Clock;
use crate::revocation::feed::{ResyncCause, Settings as FeedSettings};
use crate::revocation::{Denylist, EntryKind, Feed, Revoker, denylist};
use crate::store::conformance::{NOON, login, open_session, token, token_draft, whole_log};
use std::collections::HashSet;

const SOON: Duration = Duration::from_secs(60);

struct Sidecar {
    store: Arc<PostgresStore>,
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
    fn start(server: &Postgres, namespace: &str, confirm_every: Duration) -> Self {
        Self::over(open(server, access(server, namespace)), confirm_every)
    }

    fn over(store: PostgresStore, confirm_every: Duration) -> Self {
        let store = Arc::new(store);
        let denylist = Arc::new(Denylist::new(denylist::Settings::default()));
        let settings = FeedSettings {
            confirm_every,
            settle: Duration::ZERO,
            resync_jitter: Duration::ZERO,
            resync_gap: Duration::ZERO,
            longest_pause: Duration::from_millis(100),
            ..FeedSettings::default()
        };
        let (clock, _) = Clock::manual(NOON);
        let feed = Arc::new(Feed::new(store.clone(), Arc::clone(&denylist), clock, settings));
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&feed).run(cancel.clone()));
        let (listening, until) = (Arc::clone(&store), cancel.clone());
        tokio::spawn(async move { listening.listen(until).await });
        Self { store, denylist, feed, cancel }
    }

    async fn revoke(&self, draft: Draft) -> Revision {
        Revoker::new(self.store.clone(), Arc::clone(&self.denylist)).revoke(draft).await.unwrap()
    }

    async fn revoke_in_the_end(&self, draft: Draft) {
        let revoker = Revoker::new(self.store.clone(), Arc::clone(&self.denylist));
        until("revoked", async || revoker.revoke(draft.clone()).await.is_ok()).await;
    }

    /// Not by a read of the log, which the feed alone does.
    async fn head(&self) -> Revision {
        self.store.find(SessionId::from_bytes([0; 16])).await.unwrap().1
    }

    async fn holds_in_the_log(&self, wanted: &[Entry]) -> bool {
        match self.store.read_after(None, 1000).await {
            Ok(page) => wanted.iter().all(|entry| page.entries.contains(entry)),
            Err(_) => false,
        }
    }
}

const OFTEN: Duration = Duration::from_millis(20);

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_revocation_reaches_the_other_sidecar_by_notification() {
    let namespace = fresh_namespace();
    let hour = Duration::from_secs(3600);
    let one = Sidecar::start(&SERVER, &namespace, hour);
    let two = Sidecar::start(&SERVER, &namespace, hour);
    for sidecar in [&one, &two] {
        let head = sidecar.head().await;
        assert_eq!(sidecar.feed.catch_up(head, SOON).await, Ok(()));
    }
    // Until both listen, what is missed is only read an hour later.
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM head' AND query NOT LIKE '%pg_%' \
         AND application_name = 'countersign'";
    until("listening", async || SERVER.sql(listening).parse::<u32>().unwrap() >= 2).await;
    for n in 1..4 {
        one.revoke(token_draft(n)).await;
        assert!(one.denylist.holds(&token(n)), "at once here");
        until("told", async || two.denylist.holds(&token(n))).await;
    }
}

#[tokio::test]
async fn a_server_that_crashes_loses_nothing_and_is_used_again() {
    let mut server = Postgres::start();
    let sidecar = Sidecar::start(&server, "crash", OFTEN);
    let id = open_session(&*sidecar.store, login("alice", NOON)).await.record.id;
    for n in 0..20 {
        sidecar.revoke(token_draft(n)).await;
    }
    let head = sidecar.store.read_after(None, 1).await.unwrap().head;
    server.kill();
    assert!(sidecar.store.append(token_draft(99)).await.is_err());
    server.restart();
    until("back", async || sidecar.store.find(id).await.is_ok_and(|(found, _)| found.is_some())).await;
    assert_eq!(sidecar.store.read_after(None, 1).await.unwrap().head, head);
    assert_eq!(whole_log(&*sidecar.store).await.len(), 20);
    assert_eq!(sidecar.feed.resyncs(ResyncCause::LogRestarted), 0, "a crash is no other incarnation");
}

#[tokio::test]
async fn an_older_copy_put_in_place_gets_back_what_it_lacks_and_revives_no_session() {
    let mut server = Postgres::start();
    let sidecar = Sidecar::start(&server, "older", OFTEN);
    sidecar.revoke(token_draft(1)).await;
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&*sidecar.store, new).await;
    server.stop();
    server.save("older");
    server.restart();
    sidecar.revoke_in_the_end(token_draft(2)).await;
    let last = sidecar.revoke(Draft::Session { key, expires_at: NOON }).await;
    assert_eq!(sidecar.feed.catch_up(last, SOON).await, Ok(()));
    server.stop();
    server.put_back("older");
    server.restart();
    until("healed", async || match sidecar.store.read_after(None, 100).await {
        Ok(page) => {
            let ended = page.entries.iter().any(|entry| entry.kind == EntryKind::Session);
            page.entries.contains(&token(2)) && ended
        }
        Err(_) => false,
    })
    .await;
    assert!(sidecar.feed.resyncs(ResyncCause::LogRestarted) >= 1);
    assert!(sidecar.store.find(id).await.unwrap().0.is_none(), "a revoked session came back with the copy");
    let page = sidecar.store.read_after(None, 100).await.unwrap();
    assert!(page.epoch_age < SOON * 2, "a young epoch: {:?}", page.epoch_age);
}

#[tokio::test]
async fn an_older_copy_that_was_appended_past_the_cursor_is_noticed() {
    let mut server = Postgres::start();
    let holder = Sidecar::start(&server, "past", OFTEN);
    holder.revoke(token_draft(1)).await;
    server.stop();
    server.save("older");
    server.restart();
    holder.revoke_in_the_end(token_draft(2)).await;
    let head = holder.head().await;
    assert_eq!((head.seq, holder.feed.catch_up(head, SOON).await), (2, Ok(())));
    server.stop();
    server.put_back("older");
    server.restart();
    // As a sidecar would that came first and holds nothing: without a moment in which the head is behind.
    let epoch = "UPDATE past.head SET seq = seq + 2";
    let add = |seq: u64, n: u64| {
        let Entry { key, .. } = token(n);
        let hex: String = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let expires = token(n).expiry_secs();
        format!("INSERT INTO past.log VALUES ({seq}, 1, '\\x{hex}', '', 0, {expires})")
    };
    let _ = server.sql(&format!("BEGIN; {epoch}; {}; {}; COMMIT", add(2, 7), add(3, 8)));
    until("healed", async || holder.holds_in_the_log(&[token(1), token(2), token(7), token(8)]).await).await;
    until("united", async || holder.denylist.holds(&token(7)) && holder.denylist.holds(&token(2))).await;
}

#[tokio::test]
async fn a_namespace_that_vanished_is_made_again_and_filled_by_its_holders() {
    let namespace = fresh_namespace();
    let holder = Sidecar::start(&SERVER, &namespace, OFTEN);
    let last = holder.revoke(token_draft(1)).await;
    assert_eq!(holder.feed.catch_up(last, SOON).await, Ok(()));
    let _ = SERVER.sql(&format!("DROP SCHEMA {namespace} CASCADE"));
    until("healed", async || holder.holds_in_the_log(&[token(1)]).await).await;
    assert!(holder.store.read_after(None, 1).await.unwrap().epoch_age < SOON * 2);
    let _ = SERVER.sql(&format!("TRUNCATE {namespace}.head, {namespace}.log"));
    until("healed again", async || holder.holds_in_the_log(&[token(1)]).await).await;
}

#[tokio::test]
async fn a_standby_that_is_promoted_gets_back_what_it_lacks() {
    let mut primary = Postgres::start();
    let standby = primary.standby();
    let url =
        format!("postgres://countersign@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
    let store = || PostgresStore::new(url.parse().unwrap(), access(&primary, "ha")).unwrap();
    let one = Sidecar::over(store(), OFTEN);
    one.revoke(token_draft(1)).await;
    let two = Sidecar::over(store(), OFTEN);
    let report = one.store.inspect().await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("asynchronously")), "{report:?}");
    until("the table", async || standby.sql("SELECT to_regclass('ha.log') IS NOT NULL") == "t").await;
    until("streamed", async || standby.sql("SELECT count(*) FROM ha.log") == "1").await;
    let _ = standby.sql("SELECT pg_wal_replay_pause()");
    // The standby has neither seen nor been sent this when the primary is gone.
    let pids = primary.sql("SELECT string_agg(pid::text, ' ') FROM pg_stat_replication");
    let receiver = standby
        .sql("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'walreceiver'");
    for pid in receiver.split(' ').chain(pids.split(' ')).filter(|pid| !pid.is_empty()) {
        signal(pid, "STOP");
    }
    let last = one.revoke(token_draft(2)).await;
    assert_eq!(two.feed.catch_up(last, SOON).await, Ok(()));
    primary.kill();
    for pid in pids.split(' ').filter(|pid| !pid.is_empty()) {
        signal(pid, "KILL");
    }
    signal(&receiver, "KILL");
    // Its receiver's death makes the standby start anew.
    until("back", async || {
        std::process::Command::new("pg_isready")
            .args(["-q", "-h", "127.0.0.1", "-p", &standby.port().to_string()])
            .status()
            .is_ok_and(|status| status.success())
    })
    .await;
    let _ = standby.sql("SELECT pg_promote()");
    until("healed", async || one.holds_in_the_log(&[token(1), token(2)]).await).await;
    let entries: HashSet<_> = whole_log(&*two.store).await.into_iter().collect();
    assert!(entries.contains(&token(2)));
    // Either may have been the one to give it back.
    until("both noticed", async || {
        [&one, &two].iter().all(|sidecar| sidecar.feed.resyncs(ResyncCause::LogRestarted) >= 1)
    })
    .await;
}

#[tokio::test]
async fn of_two_primaries_the_one_promoted_last_is_used() {
    let former = Postgres::start();
    let promoted = former.standby();
    let alone = open(&former, access(&former, "two"));
    alone.append(token_draft(1)).await.unwrap();
    until("the table", async || promoted.sql("SELECT to_regclass('two.log') IS NOT NULL") == "t").await;
    until("streamed", async || promoted.sql("SELECT count(*) FROM two.log") == "1").await;
    let _ = promoted.sql("SELECT pg_promote()");
    until("promoted", async || promoted.sql("SELECT pg_is_in_recovery()") == "f").await;
    // The former one was not told, and still takes writes.
    for [one, other] in [[&former, &promoted], [&promoted, &former]] {
        let url =
            format!("postgres://countersign@127.0.0.1:{},127.0.0.1:{}/postgres", one.port(), other.port());
        let store = PostgresStore::new(url.parse().unwrap(), access(&former, "two")).unwrap();
        store.append(token_draft(2)).await.unwrap();
        assert_eq!(former.sql("SELECT count(*) FROM two.log"), "1", "{}", one.port());
        assert_eq!(promoted.sql("SELECT count(*) FROM two.log"), "2");
    }
}
