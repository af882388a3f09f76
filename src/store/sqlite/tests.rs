use super::*;
use crate::clock::Clock;
use crate::revocation::feed::{ResyncCause, Settings as FeedSettings};
use crate::revocation::{Denylist, EntryKind, Feed, Revoker, denylist};
use crate::store::conformance::{
    NOON, conformance, login, open_session, races, token, token_draft, whole_log,
};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

conformance!(fresh());

fn fresh() -> (SqliteStore, TempDir) {
    let dir = TempDir::new().unwrap();
    (open(&dir), dir)
}

#[test]
fn whatever_happens_at_once_a_generation_has_one_successor() {
    races(async || {
        let dir = TempDir::new().unwrap();
        ([(); 3].map(|()| open(&dir)), dir)
    });
}

fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(&dir.path().join("store.db"), Settings::default()).unwrap()
}

fn refusal(path: &Path) -> OpenError {
    SqliteStore::open(path, Settings::default()).err().expect("it is refused")
}

/// Takes the file and what belongs to it away, and puts the copy in its place.
fn put_in_place(copy: &Path, path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    std::fs::copy(copy, path).unwrap();
}

fn copy_of(dir: &TempDir) -> std::path::PathBuf {
    let copy = dir.path().join("older.db");
    let file = Connection::open(dir.path().join("store.db")).unwrap();
    file.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    copy
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let (_store, dir) = fresh();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_missing_directory_is_not_created() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("nowhere/store.db");
    assert!(matches!(refusal(&path), OpenError::NoDirectory(_)));
}

#[test]
fn another_program_s_database_is_refused_and_left_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(refusal(&path), OpenError::NotOurs(_)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notes.txt");
    std::fs::write(&path, "a".repeat(5000)).unwrap();
    assert!(matches!(refusal(&path), OpenError::NotOurs(_)));
}

#[test]
fn a_newer_release_s_schema_is_refused() {
    let (store, dir) = fresh();
    drop(store);
    let path = dir.path().join("store.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(refusal(&path), OpenError::Newer { found: 99, .. }));
}

#[test]
fn many_may_create_the_file_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    std::thread::scope(|scope| {
        let openers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| SqliteStore::open(&path, Settings::default()))).collect();
        for opener in openers {
            opener.join().unwrap().unwrap();
        }
    });
}

#[test]
fn whoever_comes_while_another_creates_the_file_finds_it_ours() {
    for _ in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let start = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            let open = || {
                start.wait();
                SqliteStore::open(&path, Settings::default()).map(drop)
            };
            let openers = [scope.spawn(open), scope.spawn(open), scope.spawn(open)];
            for opener in openers {
                opener.join().unwrap().unwrap();
            }
        });
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let (store, dir) = fresh();
    let revision = store.append(token_draft(1)).await.unwrap().revision;
    let id = open_session(&store, login("alice", NOON)).await.record.id;
    drop(store);
    let store = open(&dir);
    let page = store.read_after(None, 10).await.unwrap();
    assert_eq!((page.entries, page.head), (vec![token(1)], revision));
    assert!(store.find(id).await.unwrap().0.is_some());
}

#[tokio::test]
async fn two_sidecars_share_a_file_and_wake_each_other() {
    let (one, dir) = fresh();
    let two = open(&dir);
    let cursor = two.read_after(None, 1).await.unwrap().cursor;
    let woken = tokio::time::timeout(SOON, two.changed(cursor, SOON * 2));
    let (woken, appended) = tokio::join!(woken, one.append(token_draft(1)));
    woken.unwrap();
    let page = two.read_after(Some(cursor), 10).await.unwrap();
    assert_eq!((page.entries, page.head), (vec![token(1)], appended.unwrap().revision));
}

#[tokio::test]
async fn sixty_four_refreshes_over_two_sidecars_have_one_successor() {
    let (one, dir) = fresh();
    let two = open(&dir);
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&one, new).await;
    let rules = Rules { grace: Duration::from_secs(10) };
    let now = NOON.after(Duration::from_secs(60));
    let refreshes = (0..64).map(|n| {
        let store = if n % 2 == 0 { &one } else { &two };
        store.rotate(id, key, 1, rules, now)
    });
    let generations = futures_util::future::join_all(refreshes).await;
    assert!(generations.iter().all(|one| one.as_ref().unwrap().record.as_ref().unwrap().generation == 2));
}

#[tokio::test]
async fn a_call_that_fails_takes_none_of_its_batch_with_it() {
    let (store, _dir) = fresh();
    let failing = store.writer.ask(|file| -> Result<(), StoreError> {
        log::append_draft(file, &token_draft(1))?;
        Err(StoreError::Corrupt("a test"))
    });
    let (failed, kept) = tokio::join!(failing, store.append(token_draft(2)));
    assert!(matches!(failed, Err(StoreError::Corrupt("a test"))));
    assert_eq!(kept.unwrap().revision.seq, 1, "and leaves no gap");
    assert_eq!(whole_log(&store).await, [token(2)]);
}

#[tokio::test]
async fn a_full_disk_fails_writes_clearly_and_reads_go_on() {
    let (store, _dir) = fresh();
    store.append(token_draft(1)).await.unwrap();
    store.writer.ask(|file| Ok(file.pragma_update(None, "max_page_count", 1)?)).await.unwrap();
    let entries = (0..5000).map(|n| token(n + 100)).collect();
    assert!(matches!(store.restore(entries).await, Err(StoreError::NotWritable(_))));
    assert_eq!(whole_log(&store).await, [token(1)]);
}

#[tokio::test]
async fn a_writer_that_never_lets_go_is_waited_for_within_bounds() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let settings = Settings { busy_timeout: Duration::from_millis(20), ..Settings::default() };
    let store = SqliteStore::open(&path, settings).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.append(token_draft(1)).await, Err(StoreError::Unavailable(_))));
    assert!(store.read_after(None, 1).await.is_ok(), "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    store.append(token_draft(1)).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_at_once() {
    let dir = TempDir::new().unwrap();
    let settings = Settings { queue: 1, busy_timeout: Duration::from_millis(200), ..Settings::default() };
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, settings).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls = (0..200).map(|n| store.append(token_draft(n)));
    let refused = futures_util::future::join_all(calls).await;
    assert!(refused.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
}

#[tokio::test]
async fn a_file_taken_away_is_not_written_into_the_void() {
    let (store, dir) = fresh();
    std::fs::remove_file(dir.path().join("store.db")).unwrap();
    assert!(matches!(store.append(token_draft(1)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.read_after(None, 1).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_new_file_beside_the_old_write_ahead_log_is_not_used() {
    let (store, dir) = fresh();
    let older = copy_of(&dir);
    store.append(token_draft(1)).await.unwrap();
    std::fs::rename(older, dir.path().join("store.db")).unwrap();
    assert!(matches!(store.append(token_draft(2)).await, Err(StoreError::Unavailable(_))));
}

struct Sidecar {
    store: Arc<SqliteStore>,
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
    fn start(dir: &TempDir) -> Self {
        let store = Arc::new(open(dir));
        let denylist = Arc::new(Denylist::new(denylist::Settings::default()));
        let settings = FeedSettings {
            confirm_every: Duration::from_millis(20),
            settle: Duration::ZERO,
            resync_jitter: Duration::ZERO,
            resync_gap: Duration::ZERO,
            ..FeedSettings::default()
        };
        let (clock, _) = Clock::manual(NOON);
        let feed = Arc::new(Feed::new(store.clone(), Arc::clone(&denylist), clock, settings));
        let cancel = CancellationToken::new();
        tokio::spawn(Arc::clone(&feed).run(cancel.clone()));
        Self { store, denylist, feed, cancel }
    }

    async fn revoke(&self, draft: Draft) -> Revision {
        Revoker::new(self.store.clone(), Arc::clone(&self.denylist)).revoke(draft).await.unwrap()
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_revocation_reaches_the_other_sidecar() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (Sidecar::start(&dir), Sidecar::start(&dir));
    let revision = one.revoke(token_draft(1)).await;
    assert!(one.denylist.holds(&token(1)), "at once here");
    assert_eq!(two.feed.catch_up(revision, SOON).await, Ok(()));
    assert!(two.denylist.holds(&token(1)));
}

#[tokio::test]
async fn an_older_copy_put_in_place_gets_back_what_it_lacks_and_revives_no_session() {
    let dir = TempDir::new().unwrap();
    let sidecar = Sidecar::start(&dir);
    sidecar.revoke(token_draft(1)).await;
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&*sidecar.store, new).await;
    let older = copy_of(&dir);
    sidecar.revoke(token_draft(2)).await;
    let last = sidecar.revoke(Draft::Session { key, expires_at: NOON }).await;
    assert_eq!(sidecar.feed.catch_up(last, SOON).await, Ok(()));

    put_in_place(&older, &dir.path().join("store.db"));
    until("healed", async || {
        let entries = match sidecar.store.read_after(None, 100).await {
            Ok(page) => page.entries,
            Err(_) => Vec::new(),
        };
        entries.contains(&token(2)) && entries.iter().any(|entry| entry.kind == EntryKind::Session)
    })
    .await;
    assert!(sidecar.feed.resyncs(ResyncCause::LogRestarted) >= 1);
    assert!(
        sidecar.store.find(id).await.unwrap().0.is_none(),
        "the revoked session came back with the old copy"
    );
    assert!(sidecar.denylist.holds(&token(2)));
    assert_eq!(whole_log(&*sidecar.store).await.len(), 3);
}

#[tokio::test]
async fn an_older_copy_found_at_start_gets_back_what_another_sidecar_holds() {
    let dir = TempDir::new().unwrap();
    let holder = Sidecar::start(&dir);
    holder.revoke(token_draft(1)).await;
    let older = copy_of(&dir);
    let last = holder.revoke(token_draft(2)).await;
    assert_eq!(holder.feed.catch_up(last, SOON).await, Ok(()));
    put_in_place(&older, &dir.path().join("store.db"));
    let newcomer = Sidecar::start(&dir);
    until("healed through the log", async || newcomer.denylist.holds(&token(2))).await;
    // A revision of the lost incarnation is still something to be asked for.
    assert_eq!(newcomer.feed.catch_up(last, SOON).await, Ok(()));
}

#[test]
fn dropping_the_store_ends_its_threads() {
    let (store, dir) = fresh();
    drop(store);
    assert!(!dir.path().join("store.db-wal").exists(), "the last connection to close takes the log in");
}
