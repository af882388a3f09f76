//! Where keys come from: files, URLs, discovery; how they rotate, and what happens without them.

use crate::issuer::{PUBLIC, Site, entry};
use crate::mint::{Claims, Key, LOGIN, jwks};
use crate::support::{Home, Sidecar, assert_denied, assert_refused, eventually, told};
use countersign::clock::{Clock, ManualClock};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

const MINUTE: Duration = Duration::from_secs(60);

/// A sidecar that fetches [`LOGIN`]'s keys from a site.
async fn fetching(home: &Home, site: &Site) -> (Sidecar, ManualClock) {
    let keys = format!("{{jwks_url: \"{}\"}}", site.url("/jwks.json"));
    home.start_at(&format!("issuers:\n{}", entry(LOGIN, &keys, ""))).await
}

async fn accepted_soon(sidecar: &Sidecar, token: &str) {
    eventually("it is accepted", || async { sidecar.verify(token).await.is_ok() }).await;
}

#[tokio::test]
async fn every_algorithm_is_accepted_end_to_end() {
    let home = Home::new();
    let (rsa, p256) = (Key::rsa("r"), Key::p256("p"));
    let (p384, ed25519) = (Key::p384("q"), Key::ed25519("e"));
    std::fs::write(home.path("keys.json"), jwks([&rsa, &p256, &p384, &ed25519])).unwrap();
    let mut issuers = entry(LOGIN, &format!("{{jwks_file: {}}}", home.path("keys.json").display()), PUBLIC);
    let mut cases = Vec::new();
    for name in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        cases.push((name, rsa.token_for(name, &Claims::good())));
    }
    cases.push(("ES256", p256.token(&Claims::good())));
    cases.push(("ES384", p384.token(&Claims::good())));
    cases.push(("EdDSA", ed25519.token(&Claims::good())));
    for (name, length) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        let issuer = format!("https://{}.example.net", name.to_lowercase());
        let secret = vec![length; usize::from(length)];
        std::fs::write(home.path(name), &secret).unwrap();
        let keys = format!("{{secret_file: {}}}", home.path(name).display());
        issuers += &entry(&issuer, &keys, &format!("algorithms: [{name}]"));
        cases.push((name, Key::secret(secret).token_for(name, &Claims::of(&issuer))));
    }
    let (sidecar, _) = home.start_at(&format!("issuers:\n{issuers}")).await;
    assert_eq!(cases.len(), 12);
    for (name, token) in cases {
        let answer = sidecar.verify(&token).await;
        assert!(answer.is_ok_and(|answer| answer.subject == "alice"), "{name}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_by_the_first_token_that_names_it() {
    let (home, site) = (Home::new(), Site::open().await);
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    site.publish("/jwks.json", jwks([&old]));
    let (sidecar, hands) = fetching(&home, &site).await;
    accepted_soon(&sidecar, &old.token(&Claims::good())).await;
    site.publish("/jwks.json", jwks([&old, &new]));
    sidecar.pass(&hands, MINUTE).await;
    assert_eq!(site.requests(), 1, "long before the next fetch is due");
    assert!(sidecar.verify(&new.token(&Claims::good())).await.is_ok());
    assert_eq!(site.requests(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_cached_tokens_with_it_and_no_others() {
    let (home, site) = (Home::new(), Site::open().await);
    let (leaked, good) = (Key::ed25519("leaked"), Key::ed25519("good"));
    site.publish("/jwks.json", jwks([&leaked, &good]));
    let (sidecar, hands) = fetching(&home, &site).await;
    let (stolen, honest) = (leaked.token(&Claims::good()), good.token(&Claims::good()));
    for token in [&stolen, &honest] {
        accepted_soon(&sidecar, token).await;
        assert!(sidecar.verify(token).await.is_ok(), "out of the cache");
    }
    site.publish("/jwks.json", jwks([&good]));
    sidecar.pass(&hands, 5 * MINUTE).await;
    eventually("the key is withdrawn", || async { sidecar.verify(&stolen).await.is_err() }).await;
    assert_denied(sidecar.verify(&stolen).await, "UNKNOWN_KEY", "NONE");
    assert!(sidecar.verify(&honest).await.is_ok());
}

#[tokio::test]
async fn an_endpoint_that_is_down_from_the_start_leaves_its_tokens_undecided() {
    let (home, site) = (Home::new(), Site::open().await);
    let key = Key::ed25519("k");
    let (sidecar, hands) = fetching(&home, &site).await;
    let token = key.token(&Claims::good());
    for _ in 0..2 {
        let status = sidecar.verify(&token).await.unwrap_err();
        assert_eq!(told(&status), (Code::Unavailable, "KEYS_UNAVAILABLE".into(), "NONE".into()));
        assert!(status.get_error_details().retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    }
    let own = sidecar.login("alice", "medium").await.tokens.unwrap();
    assert!(sidecar.verify(&own.access_token).await.is_ok(), "other issuers don't suffer");
    site.publish("/jwks.json", jwks([&key]));
    sidecar.pass(&hands, MINUTE).await;
    accepted_soon(&sidecar, &token).await;
}

#[tokio::test]
async fn required_keys_hold_readiness_until_they_are_there() {
    let (home, site) = (Home::new(), Site::open().await);
    let key = Key::ed25519("k");
    let go = site.hold("/jwks.json", jwks([&key]));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = format!("{{jwks_url: \"{}\", required: true}}", site.url("/jwks.json"));
    let sections = format!("ops:\n  address: {port}\nissuers:\n{}", entry(LOGIN, &keys, ""));
    let ops = port.to_string();
    let not_ready = async {
        eventually("the keys are asked for", || async { site.requests() > 0 }).await;
        eventually("it lives", || async { tokio::net::TcpStream::connect(&ops).await.is_ok() }).await;
        assert_eq!(crate::lifecycle::get(&ops, "/livez").await.0, 200);
        assert_eq!(crate::lifecycle::get(&ops, "/readyz").await.0, 503);
        go.notify_one();
    };
    let (sidecar, ()) = tokio::join!(home.start(&sections), not_ready);
    assert_eq!(crate::lifecycle::get(&ops, "/readyz").await.0, 200);
    let now = Clock::system().now().judged.as_secs();
    let claims = Claims::good().with("iat", now).with("exp", now + 900);
    assert!(sidecar.verify(&key.token(&claims)).await.is_ok());
}

#[tokio::test]
async fn keys_are_discovered_below_the_issuer() {
    let (home, site) = (Home::new(), Site::open().await);
    let (issuer, key) = (site.url("/tenant"), Key::p256("k"));
    let document = json!({"issuer": issuer, "jwks_uri": site.url("/keys")});
    site.publish("/tenant/.well-known/openid-configuration", document.to_string());
    site.publish("/keys", jwks([&key]));
    let sections = format!("issuers:\n{}", entry(&issuer, "{discovery: true}", ""));
    let (sidecar, _) = home.start_at(&sections).await;
    accepted_soon(&sidecar, &key.token(&Claims::of(&issuer))).await;
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_gives_no_keys() {
    let site = Site::open().await;
    let (issuer, key) = (site.url("/tenant"), Key::p256("k"));
    site.publish("/keys", jwks([&key]));
    let sections = format!("issuers:\n{}", entry(&issuer, "{discovery: true}", ""));
    for other in [site.url("/tenant/"), site.url("/TENANT"), site.url("/other"), String::new()] {
        let home = Home::new();
        let document = json!({"issuer": other, "jwks_uri": site.url("/keys")});
        site.publish("/tenant/.well-known/openid-configuration", document.to_string());
        let (sidecar, _) = home.start_at(&sections).await;
        for name in [&issuer, &other] {
            let refused = sidecar.verify(&key.token(&Claims::of(name))).await;
            if *name == issuer {
                assert_refused(refused, Code::Unavailable, "KEYS_UNAVAILABLE", "NONE");
            } else {
                assert_denied(refused, "UNKNOWN_ISSUER", "NONE");
            }
        }
    }
}

#[tokio::test]
async fn keys_from_a_pem_file_need_no_names() {
    let home = Home::new();
    let (rsa, p384) = (Key::rsa("any"), Key::p384("name"));
    std::fs::write(home.path("keys.pem"), rsa.pem() + &p384.pem()).unwrap();
    let keys = format!("{{pem_file: {}}}", home.path("keys.pem").display());
    let (sidecar, _) = home.start_at(&format!("issuers:\n{}", entry(LOGIN, &keys, PUBLIC))).await;
    for token in [rsa.token(&Claims::good()), p384.token(&Claims::good())] {
        assert!(sidecar.verify(&token).await.is_ok());
    }
    let other = Key::p384("name").token(&Claims::good());
    assert_denied(sidecar.verify(&other).await, "BAD_SIGNATURE", "NONE");
}

#[tokio::test]
async fn a_mounted_key_file_is_reloaded_when_its_directory_link_is_swapped() {
    let home = Home::new();
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    // As a kubelet mounts a ConfigMap.
    for (version, key) in [("v1", &old), ("v2", &new)] {
        std::fs::create_dir(home.path(version)).unwrap();
        std::fs::write(home.path(version).join("keys.json"), jwks([key])).unwrap();
    }
    symlink("v1", home.path("..data")).unwrap();
    symlink("..data/keys.json", home.path("keys.json")).unwrap();
    let keys = format!("{{jwks_file: {}}}", home.path("keys.json").display());
    let (sidecar, _) = home.start_at(&format!("issuers:\n{}", entry(LOGIN, &keys, ""))).await;
    let (early, late) = (old.token(&Claims::good()), new.token(&Claims::good()));
    assert!(sidecar.verify(&early).await.is_ok());
    assert_denied(sidecar.verify(&late).await, "UNKNOWN_KEY", "NONE");
    symlink("v2", home.path("..data_tmp")).unwrap();
    std::fs::rename(home.path("..data_tmp"), home.path("..data")).unwrap();
    accepted_soon(&sidecar, &late).await;
    assert_denied(sidecar.verify(&early).await, "UNKNOWN_KEY", "NONE");
}
