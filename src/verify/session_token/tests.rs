//! Session tokens over a reader that answers as told. Time is moved by hand.

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::keys::{HandleKeys, KeyFile, NewKey};
use crate::ops::Metrics;
use crate::revocation::{
    Appended, Denylist, Draft, Entry, EntryKind, Feed, Page, RevocationLog, denylist, feed,
};
use crate::verify::minting::{FRESHNESS, ISSUER, NOON, policy};
use crate::verify::{CacheSettings, Consistency, Demands, Encode, IssuerSettings, Parts, Source, Verdict};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

const HEAD: Revision = Revision { epoch: 1, seq: 0 };
const MINUTE: Duration = Duration::from_secs(60);
const ID: SessionId = SessionId::from_bytes([7; 16]);

/// A log in which nothing happens.
struct QuietLog;

#[tonic::async_trait]
impl RevocationLog for QuietLog {
    async fn append(&self, _: Draft) -> Result<Appended, StoreError> {
        Err(StoreError::Unavailable("read only".into()))
    }

    async fn read_after(&self, _: Option<Revision>, _: usize) -> Result<Page, StoreError> {
        let epoch_age = Duration::MAX;
        Ok(Page { entries: Vec::new(), cursor: HEAD, head: HEAD, epoch_age, restarted: false })
    }

    async fn restore(&self, _: Vec<Entry>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn changed(&self, _: Revision, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }
}

/// Says of every session what it was told to, and takes this long for it.
struct Told {
    state: Mutex<Option<SessionState>>,
    takes: Mutex<Duration>,
    hands: ManualClock,
    reads: AtomicUsize,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

#[tonic::async_trait]
impl SessionReader for Told {
    async fn read(&self, _: SessionId, _: bool) -> Result<Reading, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.hands.advance(*self.takes.lock());
        let state = self.state.lock().clone();
        state.map(|state| Reading { state, head: HEAD }).ok_or(StoreError::Unavailable("down".into()))
    }
}

struct World {
    verifier: Verifier,
    denylist: Arc<Denylist>,
    reader: Arc<Told>,
    handles: Arc<HandleKeys>,
    hands: ManualClock,
    _feeding: tokio_util::sync::DropGuard,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let handles = handles(&directory, "handles.json");
        let (clock, hands) = Clock::manual(NOON);
        let denylist = Arc::new(Denylist::new(denylist::Settings::default()));
        let feed =
            Feed::new(Arc::new(QuietLog), Arc::clone(&denylist), clock.clone(), feed::Settings::default());
        let (feed, cancel) = (Arc::new(feed), CancellationToken::new());
        tokio::spawn(Arc::clone(&feed).run(cancel.clone()));
        feed.reach_head(MINUTE).await.unwrap();
        let reader = Arc::new(Told {
            state: Mutex::new(Some(SessionState::Live(Box::new(session())))),
            takes: Mutex::default(),
            hands: hands.clone(),
            reads: AtomicUsize::new(0),
        });
        let verifier = Verifier::new(Parts {
            issuers: vec![IssuerSettings {
                cookies: None,
                table: None,
                opaque: None,
                relay: None,
                policy: policy(),
                ring: None,
                freshness: Arc::new(FRESHNESS),
                by_policy: HashMap::new(),
                longest_life: MINUTE,
            }],
            session_tokens: Some(SessionTokenSettings {
                handles: Arc::clone(&handles),
                reader: Arc::clone(&reader) as _,
                issuer: ISSUER.into(),
            }),
            sessions: None,
            denylist: Arc::clone(&denylist),
            feed,
            clock,
            metrics: Arc::new(Metrics::new()),
            encode: Encode { answer: |accepted| accepted.subject().as_bytes().to_vec(), for_proxies: None },
            cache: CacheSettings::default(),
            max_token_bytes: 1024,
        });
        let _feeding = cancel.drop_guard();
        Self { verifier, denylist, reader, handles, hands, _feeding, _directory: directory }
    }

    fn token(&self) -> String {
        self.handles.mint(HandleKind::Session, ID, 0, NOON)
    }

    async fn verify(&self, token: &str) -> Result<Verdict, Refusal> {
        let consistency = Consistency::MinimizeLatency;
        let demands =
            Demands { audiences: &[], scopes: &[], consistency, deadline: MINUTE, credential_name: "" };
        self.verifier.verify(token, &demands).await
    }

    async fn denied(&self, token: &str) -> (Reason, Action) {
        match self.verify(token).await {
            Err(Refusal::Denied { reason, action, .. }) => (reason, action),
            other => panic!("{other:?}"),
        }
    }

    fn reads(&self) -> usize {
        self.reader.reads.load(Ordering::SeqCst)
    }

    fn deny(&self, kind: EntryKind, key: DenialKey) {
        self.denylist.insert(&Entry { kind, key, expires_at: NOON.after(60 * MINUTE) }).unwrap();
    }
}

fn handles(directory: &tempfile::TempDir, name: &str) -> Arc<HandleKeys> {
    let path = directory.path().join(name);
    KeyFile::generate(NewKey::Handles, NOON).unwrap().create(&path).unwrap();
    Arc::new(HandleKeys::load(path).unwrap())
}

/// Alive for ten minutes; its use is to be written after five.
fn session() -> LiveSession {
    LiveSession {
        id: ID,
        subject: "alice".into(),
        policy: "quick".into(),
        client_id: "web".into(),
        audiences: vec!["shop".into()],
        scopes: Vec::new(),
        roles: Vec::new(),
        claims_json: b"{}".to_vec(),
        created_at: NOON,
        expires_at: NOON.after(10 * MINUTE),
        touch_at: NOON.after(5 * MINUTE),
        claims_version: 1,
    }
}

#[tokio::test]
async fn what_is_no_session_token_of_ours_never_reaches_the_store() {
    let world = World::new().await;
    let token = world.token();
    let refresh = world.handles.mint(HandleKind::Refresh, ID, 1, NOON);
    let other = handles(&world._directory, "other.json").mint(HandleKind::Session, ID, 0, NOON);
    let tampered = format!("{}{}", &token[..60], if token.ends_with('A') { "B" } else { "A" }.repeat(24));
    for (token, reason) in [
        (refresh.as_str(), Reason::UnsupportedType),
        (&refresh.replacen("csr_", "css_", 1), Reason::BadSignature),
        (&tampered, Reason::BadSignature),
        (&other, Reason::UnknownKey),
        ("css_", Reason::Malformed),
        (&format!("{token}="), Reason::Malformed),
        (&token[..token.len() - 1], Reason::Malformed),
    ] {
        assert_eq!(world.denied(token).await, (reason, Action::None), "{token}");
    }
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn a_reading_answers_until_its_bound_its_next_writing_or_its_end() {
    let world = World::new().await;
    let token = world.token();
    let sources = async |passes: u64, reads: usize, source: Source| {
        world.hands.advance(Duration::from_secs(passes));
        world.verifier.feed.reach_head(MINUTE).await.unwrap();
        assert_eq!(world.verify(&token).await.unwrap().source, source, "after {passes} s more");
        assert_eq!(world.reads(), reads);
    };
    sources(0, 1, Source::Store).await;
    sources(30, 1, Source::Cache).await;
    sources(1, 2, Source::Store).await;
    sources(30, 2, Source::Cache).await;
    sources(238, 3, Source::Store).await;
    sources(1, 4, Source::Store).await;
    sources(0, 5, Source::Store).await;
}

#[tokio::test]
async fn a_session_that_is_over_says_how_it_ended_and_never_that_it_expired() {
    let world = World::new().await;
    let token = world.token();
    for (state, reason) in
        [(SessionState::Ended, Reason::SessionEnded), (SessionState::Idle, Reason::SessionIdle)]
    {
        *world.reader.state.lock() = Some(state);
        assert_eq!(world.denied(&token).await, (reason, Action::Reauthenticate));
    }
    *world.reader.state.lock() = Some(SessionState::Ended);
    world.deny(EntryKind::Session, DenialKey::session(ISSUER, &ID.to_string()));
    assert_eq!(world.denied(&token).await, (Reason::Revoked, Action::Reauthenticate));
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_read_is_over_and_not_expired() {
    let world = World::new().await;
    *world.reader.takes.lock() = 11 * MINUTE;
    let over = (Reason::SessionEnded, Action::Reauthenticate);
    assert_eq!(world.denied(&world.token()).await, over);
}

#[tokio::test]
async fn a_store_that_fails_says_nothing_about_the_session() {
    let world = World::new().await;
    let token = world.token();
    world.verify(&token).await.unwrap();
    *world.reader.state.lock() = None;
    assert_eq!(world.verify(&token).await.unwrap().source, Source::Cache);
    world.hands.advance(MINUTE);
    for token in [token, world.handles.mint(HandleKind::Session, SessionId::from_bytes([8; 16]), 0, NOON)] {
        match world.verify(&token).await {
            Err(Refusal::Undecided { reason, retry_after, .. }) => {
                assert_eq!(reason, Reason::StoreUnavailable);
                assert!(retry_after > Duration::ZERO);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn changed_attributes_are_read_once_and_a_revoked_session_is_not_read_at_all() {
    let world = World::new().await;
    let (token, key) = (world.token(), DenialKey::session(ISSUER, &ID.to_string()));
    world.verify(&token).await.unwrap();
    let changed = LiveSession { subject: "alice's other name".into(), claims_version: 2, ..session() };
    *world.reader.state.lock() = Some(SessionState::Live(Box::new(changed)));
    world.deny(EntryKind::ClaimsBefore { version: 2 }, key);
    for _ in 0..3 {
        let verdict = world.verify(&token).await.unwrap();
        assert_eq!(verdict.acceptance.answer(), b"alice's other name");
    }
    assert_eq!(world.reads(), 2);
    world.deny(EntryKind::Session, key);
    assert_eq!(world.denied(&token).await, (Reason::Revoked, Action::Reauthenticate));
    assert_eq!(world.reads(), 2);
}

#[test]
fn a_session_is_matched_by_its_session_and_its_login_and_by_no_token() {
    let marks = accepted(session(), &ISSUER.into()).marks(&policy());
    assert_eq!(marks.token, None);
    assert_eq!(marks.session, Some(DenialKey::session(ISSUER, &ID.to_string())));
    assert_eq!(marks.subject, DenialKey::subject(ISSUER, "alice"));
    assert_eq!((marks.logged_in_at, marks.claims_version), (Some(NOON), Some(1)));
}
