//! Attacks on what is remembered: cached acceptances, cached denials, revocations beside a first verification.

use super::Attacked;
use crate::issuer::{Site, entry};
use crate::mint::{Claims, Key, encode, jwks, parts};
use crate::support::{Home, assert_denied, assert_refused, eventually};
use countersign::grpc::v1::SubjectRevocation;
use countersign::grpc::v1::revoke_request::Target;
use std::time::Duration;
use tonic::Code;

const FEED: &str = "https://feed.example.net";

/// A sidecar whose one further issuer publishes its keys at a site.
async fn fed(site: &Site, more: &str) -> Attacked {
    let keys = format!("{{jwks_url: \"{}\"}}", site.url("/jwks.json"));
    Attacked::start_with(&entry(FEED, &keys, &format!("algorithms: [EdDSA]\n{more}"))).await
}

fn alice() -> Target {
    let issuer = Some(FEED.to_owned());
    Target::Subject(SubjectRevocation { subject: "alice".into(), issuer, ..Default::default() })
}

#[tokio::test]
async fn one_cached_acceptance_is_no_answer_to_another_caller_s_demands() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good().with("aud", "[\"shop\",\"other\"]"));
    // Whoever asked before: the cache holds what the token says, not what was answered.
    for _ in 0..2 {
        assert!(attacked.demanding(&token, &["shop"], &["read"]).await.is_ok());
        assert_denied(attacked.demanding(&token, &["bank"], &[]).await, "WRONG_AUDIENCE", "NONE");
        let result = attacked.demanding(&token, &["shop"], &["admin"]).await;
        assert_refused(result, Code::PermissionDenied, "INSUFFICIENT_SCOPE", "NONE");
        assert!(attacked.demanding(&token, &["bank", "other"], &[]).await.is_ok());
        assert!(attacked.verify(&token).await.is_ok());
    }
    let refused_first = attacked.p256.token(&Claims::good());
    assert_denied(attacked.demanding(&refused_first, &["bank"], &[]).await, "WRONG_AUDIENCE", "NONE");
    assert!(attacked.demanding(&refused_first, &["shop"], &[]).await.is_ok());
}

#[tokio::test]
async fn a_demanded_audience_the_issuer_is_not_configured_for_opens_nothing() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good().with("aud", "\"elsewhere\""));
    assert_denied(attacked.demanding(&token, &["elsewhere"], &[]).await, "WRONG_AUDIENCE", "NONE");
}

#[tokio::test]
async fn a_token_that_differs_in_one_letter_is_not_found_in_the_cache() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    assert!(attacked.verify(&token).await.is_ok());
    let [header, claims, signature] = parts(&token);
    let other = encode(Claims::good().with("sub", "\"alicf\"").text());
    assert_ne!(claims, other);
    assert_denied(attacked.verify(&format!("{header}.{other}.{signature}")).await, "BAD_SIGNATURE", "NONE");
}

#[tokio::test]
async fn a_cached_token_that_was_revoked_is_refused_at_once() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    for _ in 0..3 {
        assert!(attacked.verify(&token).await.is_ok());
    }
    attacked.revoke(&token).await;
    assert_denied(attacked.verify(&token).await, "REVOKED", "REFRESH");
}

#[tokio::test]
async fn a_token_revoked_while_it_is_verified_for_the_first_time_is_refused() {
    let site = Site::open().await;
    let key = Key::ed25519("new");
    let go = site.hold("/jwks.json", jwks([&key]));
    let attacked = fed(&site, "").await;
    let token = key.token(&Claims::of(FEED));
    let verifying = {
        let mut tokens = attacked.sidecar.tokens();
        let request = crate::support::verify_request(&token);
        tokio::spawn(async move { tokens.verify(request).await })
    };
    eventually("its keys are being fetched", || async { site.requests() == 1 }).await;
    // Nothing of the token was checked or kept yet.
    attacked.sidecar.revoke(alice()).await.unwrap();
    go.notify_one();
    assert_denied(verifying.await.unwrap(), "REVOKED", "REAUTHENTICATE");
    assert_denied(attacked.verify(&token).await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verification_begun_after_a_revocation_s_ok_accepts() {
    let attacked = Attacked::start().await;
    for round in 0..20 {
        let name = format!("\"racer-{round}\"");
        let token = attacked.ed25519.token(&Claims::good().with("jti", name));
        let (revoked, _, _) =
            tokio::join!(attacked.revoke(&token), attacked.verify(&token), attacked.verify(&token));
        let () = revoked;
        assert_denied(attacked.verify(&token).await, "REVOKED", "REFRESH");
    }
}

#[tokio::test]
async fn a_bad_signature_is_not_remembered_past_the_key_set_it_was_bad_under() {
    let site = Site::open().await;
    let (old, new) = (Key::ed25519("k"), Key::ed25519("k"));
    site.publish("/jwks.json", jwks([&old]));
    let attacked = fed(&site, "").await;
    let early = new.token(&Claims::of(FEED));
    eventually("the keys are there", || async {
        attacked.verify(&old.token(&Claims::of(FEED))).await.is_ok()
    })
    .await;
    attacked.denies_each("BAD_SIGNATURE", [("a key not published yet", &early)]).await;
    site.publish("/jwks.json", jwks([&new]));
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(300)).await;
    eventually("the rotated keys are there", || async { attacked.verify(&early).await.is_ok() }).await;
    let late = old.token(&Claims::of(FEED));
    attacked.denies_each("BAD_SIGNATURE", [("a key withdrawn", &late)]).await;
}

#[tokio::test]
async fn an_unknown_kid_is_not_remembered_as_a_denial() {
    let site = Site::open().await;
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    site.publish("/jwks.json", jwks([&old]));
    let attacked = fed(&site, "").await;
    let token = new.token(&Claims::of(FEED));
    attacked.denies_each("UNKNOWN_KEY", [("not published yet", &token)]).await;
    site.publish("/jwks.json", jwks([&old, &new]));
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(60)).await;
    assert!(attacked.verify(&token).await.is_ok());
}

#[tokio::test]
async fn a_token_not_valid_yet_is_not_remembered_as_a_denial() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good().at("nbf", 60));
    attacked.denies_each("NOT_YET_VALID", [("a minute early", &token)]).await;
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(30)).await;
    assert!(attacked.verify(&token).await.is_ok());
}

#[tokio::test]
async fn an_undecided_answer_is_not_remembered_as_a_denial() {
    let site = Site::open().await;
    let attacked = fed(&site, "").await;
    let key = Key::ed25519("k");
    let token = key.token(&Claims::of(FEED));
    let result = attacked.verify(&token).await;
    assert_refused(result, Code::Unavailable, "KEYS_UNAVAILABLE", "NONE");
    site.publish("/jwks.json", jwks([&key]));
    attacked.sidecar.pass(&attacked.hands, Duration::from_secs(60)).await;
    eventually("the keys are there", || async { attacked.verify(&token).await.is_ok() }).await;
}

#[tokio::test]
async fn remembered_denials_crowd_out_no_acceptance() {
    let attacked = Attacked::start_with("cache:\n  max_entries: 8\n").await;
    let token = attacked.ed25519.token(&Claims::good());
    assert!(attacked.verify(&token).await.is_ok());
    for number in 0..200 {
        assert_denied(attacked.verify(&format!("junk-{number}")).await, "MALFORMED", "NONE");
    }
    let hits =
        || crate::verification::counted(&attacked.sidecar, "countersign_verify_total", &["source=\"cache\""]);
    let before = hits().await;
    assert!(attacked.verify(&token).await.is_ok());
    assert_eq!(hits().await, before + 1.0);
}

#[tokio::test]
async fn two_policies_of_two_sidecars_share_no_acceptance() {
    // One token, two sidecars that name other audiences for its issuer, one store.
    let home = Home::new();
    let key = Key::ed25519("k");
    std::fs::write(home.path("keys.json"), jwks([&key])).unwrap();
    let keys = format!("{{jwks_file: {}}}", home.path("keys.json").display());
    let issuers = |audience: &str| {
        let entry = entry(FEED, &keys, &format!("algorithms: [EdDSA]\naudiences: [{audience}]\n"));
        format!("api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify]\nissuers:\n{entry}")
    };
    let (shop, _) = home.start_at(&issuers("shop")).await;
    let (bank, _) = home.start_at(&issuers("bank")).await;
    let token = key.token(&Claims::of(FEED));
    for _ in 0..2 {
        assert!(shop.verify(&token).await.is_ok());
        assert_denied(bank.verify(&token).await, "WRONG_AUDIENCE", "NONE");
    }
}
