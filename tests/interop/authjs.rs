//! Session cookies of the real `@auth/core` and `next-auth`, both ways.

use crate::peer::{Peer, node};
use crate::support::{Home, Sidecar, assert_denied, verify_request};
use countersign::grpc::v1::{RefreshRequest, RefreshResponse, VerifyRequest, VerifyResponse};
use serde_json::{Value, json};
use tonic::Status;

const SECRET: &str = "kZ1Y9cJ3PpJ0l6h0Yd0s0hL1l3gk0JqTg9q9l0mU3jE=";
const OLD: &str = "the secret before that one";

/// A library, one of its cookies' names, and a sidecar that knows the application's secrets.
struct World {
    peer: Peer,
    sidecar: Sidecar,
    version: u8,
    name: &'static str,
    _home: Home,
}

impl World {
    async fn start(version: u8, name: &'static str) -> Option<Self> {
        let peer = Peer::node(&node()?, "peer.mjs");
        let home = Home::new();
        std::fs::write(home.path("auth.secret"), SECRET).unwrap();
        std::fs::write(home.path("old.secret"), OLD).unwrap();
        let old =
            if version == 5 { format!(", {}", home.path("old.secret").display()) } else { String::new() };
        let sidecar = home
            .start(&format!(
                "issuers:\n  - issuer: shop-web\n    audiences: [orders]\n    \
                 authjs: {{version: {version}, cookies: {name}, secret_files: [{}{old}]}}\n",
                home.path("auth.secret").display()
            ))
            .await;
        Some(Self { peer, sidecar, version, name, _home: home })
    }

    fn encode(&mut self, secret: &str, claims: &Value, max_age: i64) -> String {
        let ask = json!({
            "ask": "encode", "version": self.version, "token": claims, "secret": secret, "name": self.name,
            "maxAge": max_age,
        });
        self.peer.ask(&ask).unwrap().as_str().unwrap().to_owned()
    }

    fn decode(&mut self, value: &str) -> Result<Value, String> {
        let secret = if self.version == 5 { json!([SECRET, OLD]) } else { json!(SECRET) };
        let ask = json!({
            "ask": "decode", "version": self.version, "token": value, "secret": secret, "name": self.name,
        });
        self.peer.ask(&ask)
    }

    async fn verify(&self, value: &str, name: &str) -> Result<VerifyResponse, Status> {
        let request = VerifyRequest { credential_name: name.to_owned(), ..verify_request(value) };
        self.sidecar.verify_demanding(request).await
    }

    async fn renew(&self, value: &str) -> Result<RefreshResponse, Status> {
        let request = RefreshRequest {
            refresh_token: Some(value.to_owned()),
            credential_name: self.name.to_owned(),
            issuer: None,
        };
        Ok(self.sidecar.tokens().refresh(request).await?.into_inner())
    }
}

const LIBRARIES: [(u8, &str); 4] = [
    (5, "authjs.session-token"),
    (5, "__Secure-authjs.session-token"),
    (4, "next-auth.session-token"),
    (4, "__Secure-next-auth.session-token"),
];

#[tokio::test]
async fn their_cookies_are_accepted_here() {
    for (version, name) in LIBRARIES {
        let Some(mut world) = World::start(version, name).await else { return };
        let claims = json!({"name": "Алиса 🛒", "email": null, "picture": "p", "sub": "alice", "n": 9_007_199_254_740_991_u64});
        let value = world.encode(SECRET, &claims, 2_592_000);
        for name in [name, ""] {
            let answer = world.verify(&value, name).await.unwrap();
            assert_eq!((answer.subject.as_str(), answer.issuer.as_str()), ("alice", "shop-web"));
            let theirs = world.decode(&value).unwrap();
            let ours: Value = serde_json::from_slice(&answer.claims_json).unwrap();
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

#[tokio::test]
async fn a_cookie_that_we_renew_is_accepted_there_and_here() {
    for (version, name) in LIBRARIES {
        let Some(mut world) = World::start(version, name).await else { return };
        let value = world.encode(SECRET, &json!({"sub": "alice", "cart": [1, {"é": "\n"}]}), 600);
        let before = world.decode(&value).unwrap();
        let renewed = world.renew(&value).await.unwrap();
        let tokens = renewed.tokens.unwrap();
        let after = world.decode(&tokens.access_token).unwrap();
        assert_eq!((&after["sub"], &after["cart"]), (&before["sub"], &before["cart"]));
        assert_eq!(after["jti"], before["jti"]);
        assert_eq!(after["exp"].as_i64().unwrap() - after["iat"].as_i64().unwrap(), 600, "as long as it was");
        assert_eq!(after["exp"].as_i64().unwrap(), tokens.access_token_expires_at.unwrap().seconds);
        assert!(after["exp"].as_i64().unwrap() >= before["exp"].as_i64().unwrap());
        world.verify(&tokens.access_token, name).await.unwrap();
        let header = format!("theme=dark; {name}={}", tokens.access_token);
        let ask =
            json!({"ask": "getToken", "version": version, "header": header, "secret": SECRET, "name": name});
        assert_eq!(world.peer.ask(&ask).unwrap(), after, "as an application asks for it");
    }
}

#[tokio::test]
async fn a_secret_is_rotated_as_there() {
    let Some(mut world) = World::start(5, "authjs.session-token").await else { return };
    let value = world.encode(OLD, &json!({"sub": "alice"}), 600);
    world.verify(&value, world.name).await.unwrap();
    let renewed = world.renew(&value).await.unwrap().tokens.unwrap().access_token;
    let ask = json!({"ask": "decode", "version": 5, "token": renewed, "secret": SECRET, "name": world.name});
    world.peer.ask(&ask).expect("renewed under the newer secret");
    let strange = world.encode("another application's", &json!({"sub": "alice"}), 600);
    assert_denied(world.verify(&strange, world.name).await, "UNKNOWN_KEY", "NONE");
    world.decode(&strange).unwrap_err();
}

#[tokio::test]
async fn a_cookie_under_another_name_is_refused_here_and_there() {
    let Some(mut world) = World::start(5, "authjs.session-token").await else { return };
    let value = world.encode(SECRET, &json!({"sub": "alice"}), 600);
    let other = "__Secure-authjs.session-token";
    assert_denied(world.verify(&value, other).await, "UNKNOWN_KEY", "NONE");
    let ask = json!({"ask": "decode", "version": 5, "token": value, "secret": SECRET, "name": other});
    world.peer.ask(&ask).unwrap_err();
}

#[tokio::test]
async fn long_values_are_cut_as_there_and_joined_on_both_sides() {
    for (version, name) in LIBRARIES {
        let Some(mut world) = World::start(version, name).await else { return };
        let value = world.encode(SECRET, &json!({"sub": "alice", "picture": "x".repeat(9000)}), 600);
        let ask = json!({"ask": "chunk", "version": version, "value": value, "name": name});
        let theirs: Vec<(String, String)> = serde_json::from_value(world.peer.ask(&ask).unwrap()).unwrap();
        assert!(theirs.len() > 2);
        let header = |cookies: &[(String, String)]| {
            cookies.iter().rev().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
        };
        let request = VerifyRequest { cookie_header: Some(header(&theirs)), ..VerifyRequest::default() };
        assert_eq!(world.sidecar.verify_demanding(request).await.unwrap().subject, "alice");

        let renewed = world.renew(&value).await.unwrap();
        let whole = renewed.tokens.unwrap().access_token;
        let ours: Vec<_> = renewed.cookies.into_iter().map(|cookie| (cookie.name, cookie.value)).collect();
        let ask = json!({"ask": "chunk", "version": version, "value": whole, "name": name});
        assert_eq!(
            ours,
            serde_json::from_value::<Vec<(String, String)>>(world.peer.ask(&ask).unwrap()).unwrap()
        );
        let ask = json!({
            "ask": "getToken", "version": version, "header": header(&ours), "secret": SECRET, "name": name,
        });
        assert_eq!(world.peer.ask(&ask).unwrap()["sub"], "alice");
    }
}
