//! Attacks on key sets: storms of unknown names, endpoints that are down or empty, names that are not unique.

use super::Attacked;
use crate::issuer::{Site, entry};
use crate::mint::{Claims, Key, jwks};
use crate::support::{assert_denied, assert_refused, eventually, told};
use futures_util::future::join_all;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

const FEED: &str = "https://feed.example.net";
const MINUTE: Duration = Duration::from_secs(60);

async fn fed(site: &Site, options: &str) -> Attacked {
    let keys = format!("{{jwks_url: \"{}\"{options}}}", site.url("/jwks.json"));
    Attacked::start_with(&entry(FEED, &keys, "algorithms: [EdDSA]\n")).await
}

#[tokio::test]
async fn a_storm_of_unknown_kids_makes_one_fetch_and_then_none_for_the_cool_down() {
    let site = Site::open().await;
    let known = Key::ed25519("known");
    site.publish("/jwks.json", jwks([&known]));
    let attacked = fed(&site, "").await;
    let good = known.token(&Claims::of(FEED));
    eventually("the keys are there", || async { attacked.verify(&good).await.is_ok() }).await;
    assert_eq!(site.requests(), 1);
    attacked.sidecar.pass(&attacked.hands, MINUTE).await;

    let storm: Vec<_> =
        (0..100).map(|number| Key::ed25519(&format!("storm-{number}")).token(&Claims::of(FEED))).collect();
    for round in 0..2 {
        for result in join_all(storm.iter().map(|token| attacked.verify(token))).await {
            assert_denied(result, "UNKNOWN_KEY", "NONE");
        }
        assert_eq!(site.requests(), 2, "round {round}");
    }
    assert!(attacked.verify(&good).await.is_ok());
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(29)).await;
    assert_denied(attacked.verify(&storm[0]).await, "UNKNOWN_KEY", "NONE");
    assert_eq!(site.requests(), 2, "the cool-down is thirty seconds and some jitter");
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(10)).await;
    assert_denied(attacked.verify(&storm[1]).await, "UNKNOWN_KEY", "NONE");
    assert_eq!(site.requests(), 3);
}

#[tokio::test]
async fn an_unknown_kid_while_the_endpoint_fails_is_undecided_and_known_ones_go_on() {
    let site = Site::open().await;
    let known = Key::ed25519("known");
    site.publish("/jwks.json", jwks([&known]));
    let attacked = fed(&site, "").await;
    let good = known.token(&Claims::of(FEED));
    eventually("the keys are there", || async { attacked.verify(&good).await.is_ok() }).await;
    site.take_down("/jwks.json");
    attacked.sidecar.pass(&attacked.hands, MINUTE).await;
    let unknown = Key::ed25519("unknown").token(&Claims::of(FEED));
    for _ in 0..3 {
        let result = attacked.verify(&unknown).await;
        assert!(result.as_ref().unwrap_err().get_error_details().retry_info().is_some());
        assert_refused(result, Code::Unavailable, "KEYS_UNAVAILABLE", "NONE");
    }
    assert!(attacked.verify(&good).await.is_ok());
    assert!(attacked.verify(&known.token(&Claims::of(FEED).with("jti", "\"t2\""))).await.is_ok());
}

#[tokio::test]
async fn an_endpoint_that_stays_down_leaves_the_last_good_set_to_its_hard_age_and_no_longer() {
    let site = Site::open().await;
    let key = Key::ed25519("k");
    site.publish("/jwks.json", jwks([&key]));
    let attacked = fed(&site, ", refresh_every: 60s, max_age: 10m").await;
    let token = || key.token(&Claims::of(FEED).at("exp", 3600));
    let cached = token();
    eventually("the keys are there", || async { attacked.verify(&cached).await.is_ok() }).await;
    // An empty set is no set: it replaces nothing.
    for (number, broken) in ["{\"keys\":[]}", "<html>", ""].into_iter().enumerate() {
        site.publish("/jwks.json", broken);
        attacked.sidecar.pass(&attacked.hands, 2 * MINUTE).await;
        // To its end: the clock must not move beside a fetch, which would then be due again only after it has moved on.
        let failed = format!("countersign_jwks_fetch_total{{issuer=\"{FEED}\",result=\"failed\"}} ");
        eventually("it was fetched again", || async {
            let (_, metrics) = crate::lifecycle::get(&attacked.sidecar.ops, "/metrics").await;
            let count = metrics.lines().find_map(|line| line.strip_prefix(&failed)?.parse::<usize>().ok());
            count.is_some_and(|count| count > number)
        })
        .await;
        assert!(attacked.verify(&cached).await.is_ok());
        assert!(attacked.verify(&token()).await.is_ok());
    }
    site.take_down("/jwks.json");
    attacked.sidecar.pass(&attacked.hands, 5 * MINUTE).await;
    let undecided = || async {
        let refused = attacked.verify(&cached).await.err().map(|status| told(&status));
        refused == Some((Code::Unavailable, "KEYS_UNAVAILABLE".into(), "NONE".into()))
    };
    eventually("the old keys are out of force, and what they signed with them", undecided).await;
    site.publish("/jwks.json", jwks([&key]));
    attacked.sidecar.pass(&attacked.hands, MINUTE).await;
    eventually("the keys are back", || async {
        // Also where a fetch that failed ends only now.
        attacked.sidecar.pass(&attacked.hands, MINUTE / 60).await;
        attacked.verify(&cached).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn different_keys_of_one_name_are_not_guessed_between() {
    let site = Site::open().await;
    let (one, other, alone) = (Key::ed25519("twin"), Key::ed25519("twin"), Key::ed25519("alone"));
    site.publish("/jwks.json", jwks([&one, &other, &alone]));
    let attacked = fed(&site, "").await;
    eventually("the keys are there", || async {
        attacked.verify(&alone.token(&Claims::of(FEED))).await.is_ok()
    })
    .await;
    let tokens = [&one, &other].map(|key| ("a twin", key.token(&Claims::of(FEED))));
    attacked.denies_each("UNKNOWN_KEY", tokens).await;
    // Nor where a token names none and several fit.
    let header = r#"{"alg":"EdDSA","typ":"at+jwt"}"#;
    let nameless = alone.token_of(header, Claims::of(FEED).text());
    attacked.denies_each("UNKNOWN_KEY", [("no kid", nameless)]).await;
    assert_eq!(site.requests(), 1, "no fetch could make it clearer");
}

#[tokio::test]
async fn a_secret_published_among_remote_keys_verifies_nothing() {
    let site = Site::open().await;
    let (key, secret) = (Key::ed25519("k"), Key::secret([9; 32]).called("s"));
    site.publish("/jwks.json", jwks([&key, &secret]));
    let attacked = fed(&site, "").await;
    eventually("the keys are there", || async {
        attacked.verify(&key.token(&Claims::of(FEED))).await.is_ok()
    })
    .await;
    let token = secret.token(&Claims::of(FEED));
    attacked.denies_each("UNSUPPORTED_ALGORITHM", [("signed by it", token)]).await;
}
