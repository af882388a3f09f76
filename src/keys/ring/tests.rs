//! The ring over files, over a real HTTP server, and over our own keys. Time is moved by hand.

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::keys::issuer_double::{Answer, IssuerDouble};
use crate::keys::key_set::NoKey;
use crate::keys::{Algorithm, KeyFile, NewKey, Purpose, SigningAlgorithm};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn jwks(kids: &[&str]) -> String {
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| {
            let pair = Ed25519KeyPair::generate().unwrap();
            let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
        })
        .collect();
    json!({"keys": keys}).to_string()
}

fn has(ring: &KeyRing, kid: &str) -> bool {
    let snapshot = ring.snapshot();
    snapshot.as_ref().is_some_and(|published| published.set.find(Some(kid), Algorithm::EdDsa).is_ok())
}

fn settings(source: Source) -> Settings {
    Settings::new("https://issuer.example".into(), source, vec![Algorithm::EdDsa])
}

fn open(source: Source) -> Result<KeyRing, KeyRingError> {
    KeyRing::open(settings(source), Clock::manual(NOW).0)
}

async fn fetching() -> (IssuerDouble, Arc<KeyRing>, ManualClock) {
    let double = IssuerDouble::start().await;
    let (clock, hands) = Clock::manual(NOW);
    let source = Source::JwksUrl(double.url("/k").parse().unwrap());
    let ring = KeyRing::open(Settings { fetch_timeout: s(2), ..settings(source) }, clock).unwrap();
    (double, Arc::new(ring), hands)
}

async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(s(10), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn a_fetched_set_comes_into_force_and_stays_one_generation() {
    let (double, ring, hands) = fetching().await;
    assert!(ring.snapshot().is_none());
    assert_eq!(ring.generation(), 0);
    double.answer("/k", Answer::Body(jwks(&["a"])));
    ring.turn().await;
    assert!(has(&ring, "a"));
    let generation = ring.generation();
    assert_eq!(ring.snapshot().as_ref().unwrap().generation, generation);
    hands.advance(s(300));
    ring.turn().await;
    assert_eq!(double.requests(), 2);
    assert_eq!(ring.generation(), generation, "the same keys are the same generation");
    assert_eq!(ring.age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn a_rotation_withdraws_the_old_key_under_a_new_generation() {
    let (double, ring, hands) = fetching().await;
    double.answer("/k", Answer::Body(jwks(&["old"])));
    ring.turn().await;
    let generation = ring.generation();
    double.answer("/k", Answer::Body(jwks(&["new"])));
    hands.advance(s(300));
    ring.turn().await;
    assert!(has(&ring, "new") && !has(&ring, "old"));
    assert_ne!(ring.generation(), generation);
}

#[tokio::test]
async fn a_storm_of_unknown_kids_is_one_fetch() {
    let (double, ring, hands) = fetching().await;
    double.answer("/k", Answer::Body(jwks(&["old"])));
    ring.turn().await;
    hands.advance(s(40));
    let go_on = Arc::new(Notify::new());
    double.answer("/k", Answer::Held(Arc::clone(&go_on), jwks(&["new"])));
    let cancel = CancellationToken::new();
    let upkeep = tokio::spawn(Arc::clone(&ring).run(cancel.clone()));
    let seekers: Vec<_> = (0..100)
        .map(|_| {
            let ring = Arc::clone(&ring);
            tokio::spawn(async move { (ring.seek().await, has(&ring, "new")) })
        })
        .collect();
    until(|| double.requests() == 2).await;
    until(|| ring.ended.receiver_count() == 100).await;
    go_on.notify_one();
    for seeker in seekers {
        assert_eq!(seeker.await.unwrap(), (Sought::Fetched, true));
    }
    for _ in 0..100 {
        assert_eq!(ring.seek().await, Sought::FreshEnough);
    }
    assert_eq!(double.requests(), 2);
    assert_eq!(ring.counts().fetched, 2);
    cancel.cancel();
    upkeep.await.unwrap();
}

#[tokio::test]
async fn a_seeker_that_goes_away_takes_nobody_s_fetch_with_it() {
    let (double, ring, _hands) = fetching().await;
    let go_on = Arc::new(Notify::new());
    double.answer("/k", Answer::Held(Arc::clone(&go_on), jwks(&["a"])));
    let upkeep = tokio::spawn(Arc::clone(&ring).run(CancellationToken::new()));
    let seek = |ring: &Arc<KeyRing>| {
        let ring = Arc::clone(ring);
        tokio::spawn(async move { ring.seek().await })
    };
    let first = seek(&ring);
    until(|| ring.ended.receiver_count() == 1 && double.requests() == 1).await;
    let second = seek(&ring);
    until(|| ring.ended.receiver_count() == 2).await;
    first.abort();
    go_on.notify_one();
    assert_eq!(second.await.unwrap(), Sought::Fetched);
    upkeep.abort();
}

#[test]
fn seekers_on_other_runtimes_share_the_fetch() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let upkeep = runtime();
    let (double, ring, _hands) = upkeep.block_on(fetching());
    double.answer("/k", Answer::Body(jwks(&["a"])));
    let seekers: Vec<_> = (0..2)
        .map(|_| {
            let ring = Arc::clone(&ring);
            std::thread::spawn(move || runtime().block_on(ring.seek()))
        })
        .collect();
    upkeep.block_on(async {
        until(|| ring.ended.receiver_count() == 2).await;
        let cancel = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&ring).run(cancel.clone()));
        until(|| ring.generation() != 0).await;
        cancel.cancel();
        running.await.unwrap();
    });
    for seeker in seekers {
        assert_eq!(seeker.join().unwrap(), Sought::Fetched);
    }
    assert_eq!(double.requests(), 1);
}

#[tokio::test]
async fn after_a_failed_fetch_a_seeker_can_t_be_told() {
    let (double, ring, _hands) = fetching().await;
    let upkeep = tokio::spawn(Arc::clone(&ring).run(CancellationToken::new()));
    assert_eq!(ring.seek().await, Sought::Failed);
    assert_eq!(ring.seek().await, Sought::Failed, "at once, within the cool-down");
    assert_eq!(double.requests(), 1);
    assert_eq!(ring.counts(), Counts { failed: 1, ..Counts::default() });
    upkeep.abort();
}

#[tokio::test]
async fn a_seek_without_upkeep_ends_by_itself() {
    let double = IssuerDouble::start().await;
    let source = Source::JwksUrl(double.url("/k").parse().unwrap());
    let settings = Settings { fetch_timeout: Duration::ZERO, ..settings(source) };
    let ring = KeyRing::open(settings, Clock::manual(NOW).0).unwrap();
    assert_eq!(ring.seek().await, Sought::Failed);
}

#[tokio::test]
async fn the_last_good_set_serves_to_the_hard_age_and_not_beyond() {
    let (double, ring, hands) = fetching().await;
    let good = jwks(&["a"]);
    double.answer("/k", Answer::Body(good.clone()));
    ring.turn().await;
    let generation = ring.generation();
    double.answer("/k", Answer::Status(http::StatusCode::BAD_GATEWAY, ""));
    hands.advance(s(86_400));
    ring.turn().await;
    assert!(has(&ring, "a"), "up to the hard age");
    assert_eq!(ring.age(), Some(s(86_400)));
    hands.advance(s(1));
    ring.turn().await;
    assert!(ring.snapshot().is_none());
    assert_eq!(ring.generation(), 0, "what was cached under it is undecided with it");
    double.answer("/k", Answer::Body(good));
    hands.advance(s(60));
    ring.turn().await;
    assert_eq!(ring.generation(), generation, "the same keys again");
}

#[tokio::test]
async fn an_empty_broken_or_oversized_set_replaces_no_good_one() {
    let (double, ring, hands) = fetching().await;
    double.answer("/k", Answer::Body(jwks(&["a"])));
    ring.turn().await;
    let many: Vec<_> = (0..10_000).map(|kid| kid.to_string()).collect();
    let ten_thousand = json!({"keys": many.iter().map(|kid| json!({"kid": kid})).collect::<Vec<_>>()});
    let bad = [r#"{"keys":[]}"#.to_owned(), "<html>".to_owned(), ten_thousand.to_string(), String::new()];
    for (count, body) in (1..).zip(bad) {
        double.answer("/k", Answer::Body(body));
        hands.advance(s(300));
        ring.turn().await;
        assert!(has(&ring, "a"));
        assert_eq!(ring.counts(), Counts { fetched: 1, failed: count, ambiguous: 0 });
    }
}

#[tokio::test]
async fn a_remote_set_s_secret_is_dropped_and_an_odd_key_skipped() {
    let (double, ring, _hands) = fetching().await;
    let mut set: serde_json::Value = serde_json::from_str(&jwks(&["a"])).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    keys.push(json!({"kty": "oct", "kid": "secret", "k": URL_SAFE_NO_PAD.encode([7; 32])}));
    keys.push(json!({"kty": "OKP", "kid": ["odd"]}));
    double.answer("/k", Answer::Body(set.to_string()));
    ring.turn().await;
    assert!(has(&ring, "a"));
    assert_eq!(ring.snapshot().as_ref().unwrap().set.rejected().len(), 2);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let url = || Source::JwksUrl("https://issuer.example/k".parse().unwrap());
    let opened = |settings| KeyRing::open(settings, Clock::manual(NOW).0).map(drop).unwrap_err();
    let none = Settings { algorithms: Vec::new(), ..settings(url()) };
    assert!(matches!(opened(none), KeyRingError::NoAlgorithms));
    let hmac = Settings { algorithms: vec![Algorithm::EdDsa, Algorithm::Hs256], ..settings(url()) };
    assert!(matches!(opened(hmac), KeyRingError::RemoteSecret));
    let secret = Source::SecretFile { path: "/nowhere".into(), algorithm: Algorithm::Hs256 };
    assert!(matches!(opened(settings(secret)), KeyRingError::SecretAlgorithm));
    let discovery = Settings { issuer: "accounts".into(), ..settings(Source::Discovery) };
    assert!(matches!(opened(discovery), KeyRingError::Issuer(BadUrl::Malformed)));
}

#[test]
fn a_bad_or_missing_file_is_a_start_up_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    assert!(matches!(open(Source::JwksFile(path.clone())), Err(KeyRingError::Read { .. })));
    std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
    assert!(matches!(open(Source::JwksFile(path.clone())), Err(KeyRingError::KeySet(_))));
    std::fs::write(&path, "too short").unwrap();
    let secret = Source::SecretFile { path: path.clone(), algorithm: Algorithm::Hs256 };
    let settings = Settings { algorithms: vec![Algorithm::Hs256], ..settings(secret) };
    assert!(KeyRing::open(settings, Clock::manual(NOW).0).is_err());
    assert!(open(Source::PemFile(path)).is_err());
}

#[tokio::test]
async fn a_file_is_followed_and_its_last_good_content_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, jwks(&["a"])).unwrap();
    let ring = open(Source::JwksFile(path.clone())).unwrap();
    let generation = ring.generation();
    assert!(has(&ring, "a"));
    ring.take(ring.parse_file(&path, read_whole(&path, LARGEST_SET)));
    assert_eq!(ring.generation(), generation);
    for bad in ["", "{", r#"{"keys":[]}"#] {
        ring.take(ring.parse_file(&path, Ok(Secret::new(bad.into()))));
    }
    ring.take(ring.parse_file(&path, Err(io::Error::from(io::ErrorKind::NotFound))));
    assert_eq!(ring.generation(), generation);
    ring.take(ring.parse_file(&path, Ok(Secret::new(jwks(&["b"]).into()))));
    assert!(has(&ring, "b") && !has(&ring, "a"));
    assert_eq!(ring.seek().await, Sought::NotFetchable);
    assert_eq!(ring.age(), None);
}

#[tokio::test]
async fn the_upkeep_of_a_file_sees_an_edit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, jwks(&["a"])).unwrap();
    let ring = Arc::new(open(Source::JwksFile(path.clone())).unwrap());
    std::fs::write(&path, jwks(&["b"])).unwrap();
    let cancel = CancellationToken::new();
    let upkeep = tokio::spawn(Arc::clone(&ring).run(cancel.clone()));
    until(|| has(&ring, "b")).await;
    cancel.cancel();
    upkeep.await.unwrap();
}

#[tokio::test]
async fn our_own_keys_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("signing.json");
    let file = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), NOW).unwrap();
    file.create(&path).unwrap();
    let first = file.keys()[0].kid.clone();
    let keys = Arc::new(SigningKeys::load(path.clone()).unwrap());
    let ring = Arc::new(open(Source::Own(Arc::clone(&keys))).unwrap());
    assert!(has(&ring, &first));
    let generation = ring.generation();
    let changed =
        KeyFile::change(&path, Purpose::Signing, |file| file.rotate(NOW, s(3600), s(3600))).unwrap();
    let cancel = CancellationToken::new();
    let upkeep = tokio::spawn(Arc::clone(&ring).run(cancel.clone()));
    let reloading = tokio::spawn(keys.run(cancel.clone()));
    until(|| has(&ring, &changed.keys()[1].kid)).await;
    assert!(has(&ring, &first));
    assert_ne!(ring.generation(), generation);
    cancel.cancel();
    upkeep.await.unwrap();
    reloading.await.unwrap();
}

#[test]
fn ambiguous_lookups_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    std::fs::write(&path, jwks(&["a", "a"])).unwrap();
    let ring = open(Source::JwksFile(path)).unwrap();
    let found = {
        let snapshot = ring.snapshot();
        snapshot.as_ref().unwrap().set.find(Some("a"), Algorithm::EdDsa).map(drop)
    };
    assert_eq!(found, Err(NoKey::Ambiguous));
    ring.count_ambiguous();
    assert_eq!(ring.counts().ambiguous, 1);
}
