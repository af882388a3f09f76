//! Clerk-shaped tokens, judged here and by `@clerk/backend`, its own fixture among them.

use crate::mint::{Key, encode, jwks};
use crate::peer::{Peer, node};
use crate::support::{Home, Sidecar, assert_denied};
use countersign::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

const SITE: &str = "https://shop.example.com";
const ISSUER: &str = "https://clerk.shop.example.com";

async fn sidecar(home: &Home, key: &Key) -> Sidecar {
    std::fs::write(home.path("keys.json"), jwks([key])).unwrap();
    let keys = home.path("keys.json");
    home.start(&format!(
        "issuers:\n  - {{preset: clerk, issuer: {ISSUER}, authorized_parties: [{SITE}], keys: {{jwks_file: {}}}}}\n",
        keys.display()
    ))
    .await
}

/// Permissions told in every way that Clerk's reader knows, and in ways that it doesn't.
fn organisations() -> Vec<Value> {
    let mut all =
        vec![json!({}), json!({"org_role": "org:admin", "org_permissions": ["org:a:x"], "org_id": "o"})];
    let features = ["o:a", "o:a,o:b", "u:c,o:a,ou:b,o:d", "uo:a, o:b"];
    for fea in features {
        for per in ["x", "x,y", "manage, read,delete"] {
            for fpm in [
                "0", "1", "2", "3,1", "7,5,6,1", "255", " 1 , 2", "-1", "+1", "0x3", "1.5", "", "1,,2", "x,1",
            ] {
                all.push(json!({"v": 2, "fea": fea, "o": {"id": "o", "slg": "s", "rol": "member", "per": per, "fpm": fpm}}));
            }
        }
    }
    all.push(json!({"v": 2, "o": {"id": "o", "rol": "member"}}));
    all.push(json!({"v": 2, "fea": "o:a"}));
    all
}

#[tokio::test]
async fn role_and_permissions_are_read_as_clerk_reads_them() {
    let Some(place) = node() else { return };
    let mut peer = Peer::node(&place, "peer.mjs");
    let (home, key) = (Home::new(), Key::rsa("k"));
    let sidecar = sidecar(&home, &key).await;
    let now = Clock::system().now().judged.as_secs();
    let (mut compared, mut narrower) = (0, 0);
    for organisation in organisations() {
        let mut claims = json!({
            "iss": ISSUER, "sub": "user_1", "sid": "sess_1", "azp": SITE, "iat": now, "nbf": now - 10,
            "exp": now + 60, "fva": [1, -1], "sts": "active",
        });
        claims.as_object_mut().unwrap().extend(organisation.as_object().unwrap().clone());
        let token = key.token_of(r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#, claims.to_string());
        let ask = json!({"ask": "clerk", "token": token, "jwk": key.jwk(), "site": SITE});
        let theirs = peer.ask(&ask).unwrap();
        let ours = sidecar.verify(&token).await.unwrap();
        let role: Vec<String> = theirs["role"].as_str().map(str::to_owned).into_iter().collect();
        assert_eq!(ours.roles, role, "{organisation}");
        let permissions: Vec<String> =
            serde_json::from_value(theirs["permissions"].clone()).unwrap_or_default();
        if ours.scopes != permissions {
            // Ours is stricter: one malformed mask and none of them counts.
            assert!(ours.scopes.is_empty() && has_bad_mask(&organisation), "{organisation}: {permissions:?}");
            narrower += 1;
        }
        compared += 1;
    }
    println!("{compared} organisations compared, {narrower} with a malformed mask, for which we grant less");
}

fn has_bad_mask(organisation: &Value) -> bool {
    let masks = organisation["o"]["fpm"].as_str().unwrap_or_default();
    masks
        .split(',')
        .any(|mask| mask.trim().is_empty() || !mask.trim().bytes().all(|byte| byte.is_ascii_digit()))
}

#[tokio::test]
async fn another_site_s_token_is_refused_here_and_there() {
    let Some(place) = node() else { return };
    let mut peer = Peer::node(&place, "peer.mjs");
    let (home, key) = (Home::new(), Key::rsa("k"));
    let sidecar = sidecar(&home, &key).await;
    let now = Clock::system().now().judged.as_secs();
    for (azp, reason) in
        [(json!("https://evil.example.com"), "WRONG_AUDIENCE"), (Value::Null, "INVALID_CLAIM")]
    {
        let claims = json!({"iss": ISSUER, "sub": "u", "azp": azp, "iat": now, "nbf": now, "exp": now + 60});
        let token = key.token_of(r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#, claims.to_string());
        peer.ask(&json!({"ask": "clerk", "token": token, "jwk": key.jwk(), "site": SITE})).unwrap_err();
        assert_denied(sidecar.verify(&token).await, reason, "NONE");
    }
}

/// The fixture's key and token are in the package's declarations.
#[tokio::test]
async fn the_fixture_of_clerk_s_own_tests_is_accepted_in_its_time() {
    let Some(place) = node() else { return };
    let text =
        std::fs::read_to_string(place.join("node_modules/@clerk/backend/dist/fixtures/index.d.ts")).unwrap();
    let named = |name: &str| {
        let (_, rest) = text.split_once(&format!("export declare const {name} = \"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let home = Home::new();
    std::fs::write(home.path("clerk.pem"), named("pemEncodedPublicKey").replace("\\n", "\n")).unwrap();
    let site = "https://accounts.inspired.puma-74.lcl.dev";
    let config = home.config(&format!(
        "issuers:\n  - {{preset: clerk, issuer: https://clerk.inspired.puma-74.lcl.dev, authorized_parties: [{site}], \
         keys: {{pem_file: {}}}}}\n",
        home.path("clerk.pem").display()
    ));
    let (clock, hands) = Clock::manual(Timestamp::from_secs(1_666_648_250));
    let sidecar = Sidecar::start(&config, clock, &home.path("")).await;
    let answer = sidecar.verify(&named("mockJwt")).await.unwrap();
    assert_eq!(answer.subject, "user_2GIpXOEpVyJw51rkZn9Kmnc6Sxr");
    assert_eq!(
        (answer.session_id.as_str(), answer.client_id.as_str()),
        ("sess_2GbDB4enNdCa5vS1zpC3Xzg9tK9", site)
    );
    assert_denied(sidecar.verify(&named("mockInvalidSignatureJwt")).await, "BAD_SIGNATURE", "NONE");
    assert_denied(sidecar.verify(&encode(named("mockJwt"))).await, "MALFORMED", "NONE");
    sidecar.pass(&hands, Duration::from_secs(66)).await;
    assert_denied(sidecar.verify(&named("mockJwt")).await, "EXPIRED", "REFRESH");
}
