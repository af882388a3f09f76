use super::*;
use crate::clock::Clock;
use crate::revocation::feed::{ResyncCause, Settings as FeedSettings};
use crate::revocation::{Denylist, EntryKind, Feed, Revoker, denylist};
use crate::store::conformance::{
    NOON, conformance, login, open_session, races, token, token_draft, whole_log,
};
use crate::store::engines::{Redis, RedisOptions, fresh_namespace};
use crate::store::shared::Namespace;
use std::sync::LazyLock;

mod access;
mod alike;
mod healing;
mod trouble;

const SOON: Duration = Duration::from_secs(20);

/// One server for the tests that need none to themselves.
static SERVER: LazyLock<Redis> = LazyLock::new(Redis::start);

conformance!(fresh());

fn fresh() -> (RedisStore, ()) {
    let store = open(&SERVER, &settings());
    // Until the test's runtime ends.
    tokio::spawn({
        let store = store.clone();
        async move { store.listen(CancellationToken::new()).await }
    });
    (store, ())
}

#[test]
fn whatever_happens_at_once_a_generation_has_one_successor() {
    races(async || {
        let settings = settings();
        ([(); 3].map(|()| open(&SERVER, &settings)), ())
    });
}

/// A namespace of its own, judged by the caller's clock.
fn settings() -> Access {
    Access {
        namespace: fresh_namespace().parse::<Namespace>().unwrap(),
        migrate: true,
        judge_by: JudgeBy::Caller,
        ..Access::default()
    }
}

fn open(server: &Redis, access: &Access) -> RedisStore {
    RedisStore::new(server.url().parse().unwrap(), access.clone()).unwrap()
}

/// A script beside the engine's, as somebody at the server's console would run it; `K` is the namespace's prefix.
async fn meddle(store: &RedisStore, code: &str) -> Value {
    let code = format!("local K = KEYS[1]\n{code}");
    let mut link = store.0.dialler.dial().await.unwrap();
    let mut command = Cmd::new();
    command.arg("EVAL").arg(code).arg(1).arg(&store.0.key);
    link.connection.send_packed_command(&command).await.unwrap().extract_error().unwrap()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Everything that an error and its causes say.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(&format!(": {error} {error:?}"));
        cause = error.source();
    }
    said
}

#[tokio::test]
async fn sixty_four_refreshes_over_three_sidecars_have_one_successor() {
    let access = settings();
    let stores: Vec<_> = (0..3).map(|_| open(&SERVER, &access)).collect();
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&stores[0], new).await;
    let rules = Rules { grace: Duration::from_secs(10) };
    let now = NOON.after(Duration::from_secs(60));
    let refreshes = (0..64).map(|n| stores[n % 3].rotate(id, key, 1, rules, now));
    let rotated: Vec<_> =
        futures_util::future::join_all(refreshes).await.into_iter().map(Result::unwrap).collect();
    assert!(rotated.iter().all(|one| one.record.as_ref().unwrap().generation == 2));
    let first = rotated.iter().filter(|one| one.decision == Decision::Rotate { to: 2 }).count();
    assert_eq!(first, 1);
}

#[tokio::test]
async fn expiries_at_the_end_of_time_survive() {
    let (store, ()) = fresh();
    let key = token(1).key;
    let entry = store.append(Draft::Token { key, expires_at: Timestamp::MAX }).await.unwrap().entry;
    assert_eq!(entry.expires_at, Timestamp::MAX);
    assert_eq!(whole_log(&store).await, [entry]);
    store.restore(vec![entry]).await.unwrap();
    assert_eq!(store.purge(NOON.after(Duration::from_secs(1 << 40)), 100).await.unwrap(), 0);
    assert_eq!(whole_log(&store).await, [entry]);
    let new = NewSession { idle: Duration::MAX, absolute: Duration::MAX, ..login("alice", NOON) };
    let (id, key) = (new.id, new.session_key);
    open_session(&store, new).await;
    assert_eq!(store.find(id).await.unwrap().0.unwrap().absolute_end, Timestamp::MAX);
    let rules = Rules { grace: Duration::from_secs(10) };
    let rotated = store.rotate(id, key, u64::MAX, rules, NOON).await.unwrap();
    assert_eq!(rotated.decision, Decision::FastForward { to: u64::MAX });
    assert_eq!(store.find(id).await.unwrap().0.unwrap().generation, u64::MAX);
    let reused = store.rotate(id, key, 1, rules, NOON).await.unwrap();
    assert_eq!(reused.denied.unwrap().expires_at, Timestamp::MAX);
}

#[tokio::test]
async fn sessions_are_judged_by_the_store_s_clock() {
    let store = open(&SERVER, &Access { judge_by: JudgeBy::Store, ..settings() });
    let real = Clock::system().now().judged;
    let new = login("alice", NOON);
    let (id, key, subject) = (new.id, new.session_key, new.subject_key);
    let record = open_session(&store, new).await.record;
    assert!(record.created_at.since(real) < SOON && record.created_at >= real.before(SOON), "{record:?}");
    assert_eq!(
        store.list(subject, None, 10, NOON.after(Duration::from_secs(1 << 30))).await.unwrap().len(),
        1
    );
    let rules = Rules { grace: Duration::from_secs(600) };
    let rotated = store.rotate(id, key, 1, rules, NOON.after(Duration::from_secs(1 << 30))).await.unwrap();
    assert_eq!(rotated.decision, Decision::Repeat { current: 1 });
    let far = NOON.after(Duration::from_secs(1 << 30));
    assert_eq!(store.purge(far, 10).await.unwrap(), 0, "the earlier of two clocks");
    let before = Draft::Subject { key: subject, except: None, before: None, now: far, longest: SOON };
    let entry = store.append(before).await.unwrap().entry;
    let EntryKind::SubjectBefore { cutoff, .. } = entry.kind else { panic!("a cut-off") };
    assert!(cutoff >= record.created_at && cutoff < far);
}

#[tokio::test]
async fn an_issuer_s_cut_off_reaches_what_has_no_row_touched() {
    let (store, ()) = fresh();
    let new = login("alice", NOON);
    let (id, key, issuer, subject) = (new.id, new.session_key, new.issuer_key, new.subject_key);
    open_session(&store, new).await;
    let longest = Duration::from_secs(1 << 20);
    store.append(Draft::Issuer { key: issuer, before: None, now: NOON, longest }).await.unwrap();
    let rules = Rules { grace: Duration::from_secs(10) };
    assert_eq!(store.rotate(id, key, 1, rules, NOON).await.unwrap().decision, Decision::Missing);
    assert!(store.list(subject, None, 10, NOON).await.unwrap().is_empty());
    assert!(store.update(id, key, Attributes::default(), SOON, NOON).await.unwrap().is_none());
    let limit = Some(crate::session::store::Limit { sessions: 1, evict_oldest: false });
    let again = NewSession { limit, ..login("alice", NOON) };
    assert!(matches!(store.create(again).await.unwrap(), CreateOutcome::Created(_)));
    let gone = store.purge(NOON.after(Duration::from_secs(1 << 14)), 100).await.unwrap();
    assert!(gone >= 2, "the dead row and the living, once they are over");
    let rows = meddle(&store, "return #redis.call('KEYS', K:gsub('[{}]', '?') .. 's:*')").await;
    assert_eq!(rows, Value::Int(0));
}
