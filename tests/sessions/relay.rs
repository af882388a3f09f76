//! Relayed refreshes, over a real store.

use countersign::clock::{Clock, ManualClock, Timestamp};
use countersign::session::{Granting, Issued, LeaseStore, Relay, RelayError, RelaySettings, TokenEndpoint};
use countersign::store::sqlite::{self, SqliteStore};
use countersign::token::TokenDigest;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const NOON: Timestamp = Timestamp::from_secs(1_900_000_000);
const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);

/// An issuer that rotates, and that ends a session whose refresh token it sees twice.
#[derive(Debug, Default)]
struct Issuer {
    current: Mutex<u64>,
    sent: AtomicUsize,
    /// What befalls the next requests; then all goes well.
    fates: Mutex<VecDeque<Fate>>,
    gate: Option<Semaphore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It never gets there.
    NotSent,
    /// It is carried out, and the answer is lost.
    AnswerLost,
}

#[tonic::async_trait]
impl TokenEndpoint for Issuer {
    fn longest(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn refresh(&self, token: &str) -> Granting {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let fate = self.fates.lock().pop_front();
        if fate == Some(Fate::NotSent) {
            return Granting::NotTaken;
        }
        self.sent.fetch_add(1, Ordering::SeqCst);
        let mut current = self.current.lock();
        if token != format!("refresh-{current}") {
            *current = u64::MAX;
            return Granting::Refused;
        }
        *current += 1;
        if fate == Some(Fate::AnswerLost) {
            return Granting::Unknown;
        }
        Granting::Issued(Issued {
            access_token: format!("access-{current}"),
            expires_at: None,
            refresh_token: format!("refresh-{current}"),
            id_token: None,
        })
    }
}

struct World {
    issuer: Arc<Issuer>,
    relays: Vec<Arc<Relay>>,
    hands: ManualClock,
    store: Arc<SqliteStore>,
    cancel: CancellationToken,
    directory: TempDir,
}

impl World {
    /// So many sidecars on one store.
    fn start(sidecars: usize, issuer: Issuer) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store =
            Arc::new(SqliteStore::open(&directory.path().join("s.db"), sqlite::Settings::default()).unwrap());
        let (clock, hands) = Clock::manual(NOON);
        let (issuer, cancel) = (Arc::new(issuer), CancellationToken::new());
        let relay = |_| {
            let relay = Arc::new(Relay::new(RelaySettings {
                issuer: "https://id.example.com".into(),
                client_id: "shop".to_owned(),
                endpoint: Arc::clone(&issuer) as _,
                leases: Arc::clone(&store) as _,
                grace: GRACE,
                clock: clock.clone(),
            }));
            tokio::spawn(Arc::clone(&relay).run(cancel.clone()));
            relay
        };
        let relays = (0..sidecars).map(relay).collect();
        Self { issuer, relays, hands, store, cancel, directory }
    }

    async fn refresh(&self, sidecar: usize, token: &str) -> Result<String, RelayError> {
        let issued = self.relays[sidecar].refresh(token, PATIENCE).await?;
        assert_eq!(issued.access_token.replace("access", "refresh"), issued.refresh_token, "a pair");
        Ok(issued.refresh_token.clone())
    }

    fn sent(&self) -> usize {
        self.issuer.sent.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn thirty_two_at_once_over_three_sidecars_are_one_exchange_and_none_is_logged_out() {
    let world = World::start(3, Issuer::default());
    let mut token = "refresh-0".to_owned();
    for round in 1..=5 {
        let callers = (0..32).map(|n| world.refresh(n % 3, &token));
        let got: Vec<_> =
            futures_util::future::join_all(callers).await.into_iter().map(Result::unwrap).collect();
        token = format!("refresh-{round}");
        assert!(got.iter().all(|got| *got == token), "{got:?}");
        assert_eq!(world.sent(), round);
    }
}

#[tokio::test]
async fn who_comes_late_is_given_the_same_within_grace_and_the_issuer_s_word_after() {
    let world = World::start(2, Issuer::default());
    assert_eq!(world.refresh(0, "refresh-0").await.unwrap(), "refresh-1");
    world.hands.advance(GRACE - Duration::from_millis(1));
    assert_eq!(world.refresh(1, "refresh-0").await.unwrap(), "refresh-1");
    assert_eq!(world.sent(), 1);
    world.hands.advance(Duration::from_millis(1));
    assert_eq!(world.refresh(1, "refresh-0").await, Err(RelayError::Refused));
    assert_eq!(world.relays[1].ambiguous(), 0, "nothing is in doubt");
}

#[tokio::test]
async fn a_refusal_is_final_and_told_to_all_who_ask_without_asking_again() {
    let world = World::start(2, Issuer::default());
    for sidecar in [0, 1, 0] {
        assert_eq!(world.refresh(sidecar, "nonsense").await, Err(RelayError::Refused));
    }
    assert_eq!(world.sent(), 1);
}

#[tokio::test]
async fn what_never_got_there_is_tried_again_at_once_and_is_not_in_doubt() {
    let world = World::start(2, Issuer::default());
    world.issuer.fates.lock().push_back(Fate::NotSent);
    assert!(matches!(world.refresh(0, "refresh-0").await, Err(RelayError::Unavailable { .. })));
    assert_eq!(world.refresh(1, "refresh-0").await.unwrap(), "refresh-1");
    assert_eq!(world.relays[0].ambiguous() + world.relays[1].ambiguous(), 0);
}

#[tokio::test]
async fn a_lost_answer_is_waited_out_and_then_tried_once_and_counted() {
    let world = World::start(2, Issuer::default());
    world.issuer.fates.lock().push_back(Fate::AnswerLost);
    let lost = world.refresh(0, "refresh-0").await;
    assert_eq!(lost, Err(RelayError::Unavailable { retry_after: GRACE }));
    for sidecar in [0, 1] {
        let told = world.refresh(sidecar, "refresh-0").await;
        assert_eq!(told, Err(RelayError::Unavailable { retry_after: GRACE }), "at once");
    }
    assert_eq!(world.sent(), 1, "whoever may have sent it is not overtaken");
    world.hands.advance(GRACE);
    // This issuer has no mercy; others have a leeway in which it would do.
    assert_eq!(world.refresh(1, "refresh-0").await, Err(RelayError::Refused));
    assert_eq!((world.sent(), world.relays[1].ambiguous()), (2, 1));
}

#[tokio::test]
async fn an_answer_that_comes_after_all_waited_is_given_to_those_who_ask_again() {
    let world = World::start(2, Issuer { gate: Some(Semaphore::new(0)), ..Issuer::default() });
    let hasty = world.relays[0].refresh("refresh-0", Duration::from_millis(20)).await;
    assert!(matches!(hasty, Err(RelayError::Unavailable { .. })), "it gave up");
    let waiting = world.refresh(1, "refresh-0");
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.issuer.gate.as_ref().unwrap().add_permits(1);
    };
    let (got, ()) = tokio::join!(waiting, release);
    assert_eq!(got.unwrap(), "refresh-1");
    assert_eq!(world.refresh(0, "refresh-0").await.unwrap(), "refresh-1");
    assert_eq!(world.sent(), 1);
}

#[tokio::test]
async fn a_late_answer_counts_before_the_refusal_that_it_caused() {
    // The first sidecar's exchange hangs past its lease; the second sends the same token again.
    let world = World::start(2, Issuer { gate: Some(Semaphore::new(0)), ..Issuer::default() });
    let gate = world.issuer.gate.as_ref().unwrap();
    let first = tokio::spawn({
        let relay = Arc::clone(&world.relays[0]);
        async move { relay.refresh("refresh-0", PATIENCE).await.map(|issued| issued.refresh_token.clone()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.hands.advance(GRACE);
    let second = tokio::spawn({
        let relay = Arc::clone(&world.relays[1]);
        async move { relay.refresh("refresh-0", PATIENCE).await.map(|issued| issued.refresh_token.clone()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Served in turn: the first is given tokens.
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), "refresh-1");
    gate.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap(), "refresh-1", "not the refusal");
}

#[tokio::test]
async fn what_was_sent_is_answered_before_it_ends() {
    let world = World::start(1, Issuer { gate: Some(Semaphore::new(0)), ..Issuer::default() });
    let waiting = tokio::spawn({
        let relay = Arc::clone(&world.relays[0]);
        async move { relay.refresh("refresh-0", PATIENCE).await.map(|issued| issued.refresh_token.clone()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.cancel.cancel();
    assert!(matches!(
        world.relays[0].refresh("refresh-9", Duration::from_millis(50)).await,
        Err(RelayError::Unavailable { .. })
    ));
    world.issuer.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "refresh-1");
}

#[tokio::test]
async fn the_store_holds_nothing_that_a_token_is_in_and_nothing_after_grace() {
    let world = World::start(1, Issuer::default());
    assert_eq!(world.refresh(0, "refresh-0").await.unwrap(), "refresh-1");
    let digest = TokenDigest::of_named("https://id.example.com\0shop", b"refresh-0");
    let (register, _) = world.store.lease(digest, NOON).await.unwrap();
    let register = String::from_utf8(register.unwrap()).unwrap();
    for secret in ["refresh-0", "refresh-1", "access-1"] {
        assert!(!register.contains(secret), "{register}");
    }
    world.store.purge_leases(NOON.after(GRACE), 10).await.unwrap();
    drop(world.relays);
    world.cancel.cancel();
    let file = rusqlite::Connection::open(world.directory.path().join("s.db")).unwrap();
    let left: i64 = file.query_row("SELECT count(*) FROM lease", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}
