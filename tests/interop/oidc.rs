//! `oidc-provider`, a certified OpenID provider, as a live issuer: discovery, key rotation under load, introspection,
//! revocation at its own endpoint.

use crate::peer::{Peer, node};
use crate::support::{Home, Sidecar, assert_denied, assert_refused, eventually, verify_request};
use countersign::clock::{Clock, ManualClock};
use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Consistency, CredentialKind, RefreshRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tonic::Code;

const SECRET: &str = "shop's secret/+";

struct World {
    provider: Peer,
    issuer: String,
    sidecar: Sidecar,
    hands: ManualClock,
    config: String,
    home: Home,
}

impl World {
    async fn start(client: &str, secret: &str) -> Option<Self> {
        let mut provider = Peer::node(&node()?, "provider.mjs");
        let issuer = provider.ask(&json!({"ask": "issuer"})).unwrap().as_str().unwrap().to_owned();
        let home = Home::new();
        std::fs::write(home.path("client.secret"), secret).unwrap();
        let config = home.config(&format!(
            "issuers:\n  - preset: oidc\n    issuer: {issuer}\n    audiences: [https://orders.example.com]\n    \
             staleness_bound: 5m\n    client: {{{client}, secret_file: {}}}\n    introspection: {{}}\n    revocation: {{}}\n    \
             refresh: {{}}\n",
            home.path("client.secret").display()
        ));
        let (clock, hands) = Clock::manual(Clock::system().now().judged);
        let sidecar = Sidecar::start(&config, clock, &home.path("")).await;
        Some(Self { provider, issuer, sidecar, hands, config, home })
    }

    async fn usual() -> Option<Self> {
        Self::start("id: shop", SECRET).await
    }

    fn token(&mut self, format: &str) -> String {
        let ask =
            json!({"ask": "token", "subject": "alice", "scope": "openid orders:read", "format": format});
        self.provider.ask(&ask).unwrap().as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn its_jwts_verify_by_discovery() {
    let Some(mut world) = World::usual().await else { return };
    let token = world.token("jwt");
    let answer = world.sidecar.verify(&token).await.unwrap();
    assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), (world.issuer.as_str(), "alice"));
    assert_eq!((answer.client_id.as_str(), answer.kind()), ("shop", CredentialKind::Jwt));
    assert_eq!(answer.scopes, ["openid", "orders:read"]);
}

/// Eight callers verify fresh tokens all the while; the issuer changes its key five times, signing with the new one at
/// once, and drops the oldest. Nobody's token is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_keys_rotate_under_load_and_no_good_token_is_refused() {
    let Some(mut world) = World::usual().await else { return };
    let first = world.token("jwt");
    world.sidecar.verify(&first).await.unwrap();
    let current = Arc::new(Mutex::new(first.clone()));
    let (stop, verified) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (current, stop, verified) = (Arc::clone(&current), Arc::clone(&stop), Arc::clone(&verified));
            let mut tokens = world.sidecar.tokens();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let token = current.lock().await.clone();
                    tokens.verify(verify_request(&token)).await.expect("a good token");
                    verified.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..5 {
        // Past the cool-down with its jitter: within it an unknown key is refused without another fetch. That is past the
        // usual bound of staleness, too, so this issuer's is longer.
        world.sidecar.pass(&world.hands, Duration::from_secs(38)).await;
        world.provider.ask(&json!({"ask": "rotate", "kid": format!("k{round}"), "keep": true})).unwrap();
        *current.lock().await = world.token("jwt");
        let before = verified.load(Ordering::Relaxed);
        eventually("the callers go on", || async { verified.load(Ordering::Relaxed) > before + 200 }).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    world.sidecar.verify(&first).await.expect("its key is still published");
    // Now the keys before are withdrawn; the next unknown key brings that to light.
    world.sidecar.pass(&world.hands, Duration::from_secs(38)).await;
    world.provider.ask(&json!({"ask": "rotate", "kid": "last", "keep": false})).unwrap();
    let last = world.token("jwt");
    world.sidecar.verify(&last).await.unwrap();
    assert_denied(world.sidecar.verify(&first).await, "UNKNOWN_KEY", "NONE");
}

#[tokio::test]
async fn its_opaque_tokens_are_introspected_and_refused_once_revoked_there() {
    for (client, secret) in [("id: shop", SECRET), ("id: poster, auth: post", "posted")] {
        let Some(mut world) = World::start(client, secret).await else { return };
        let token = world.token("opaque");
        let answer = world.sidecar.verify(&token).await.unwrap();
        assert_eq!((answer.subject.as_str(), answer.kind()), ("alice", CredentialKind::OpaqueToken));
        assert_eq!(answer.scopes, ["openid", "orders:read"]);
        world.provider.ask(&json!({"ask": "revoke", "token": token})).unwrap();
        world.sidecar.verify(&token).await.expect("within max_cache");
        let mut now = verify_request(&token);
        now.consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
        assert_denied(world.sidecar.verify_demanding(now).await, "INACTIVE", "REFRESH");
        world.sidecar.pass(&world.hands, Duration::from_secs(11)).await;
        assert_denied(world.sidecar.verify(&token).await, "INACTIVE", "REFRESH");
        assert_denied(
            world.sidecar.verify("p6jaKkV08Msp_sKsPO7esPMulWaMT3uzqhxoTMdKl4e").await,
            "INACTIVE",
            "REFRESH",
        );
    }
}

/// Told by us, the issuer itself calls the token inactive from then on.
#[tokio::test]
async fn a_token_taken_back_here_is_revoked_there() {
    let Some(mut world) = World::usual().await else { return };
    let token = world.token("opaque");
    world.sidecar.verify(&token).await.unwrap();
    let is_active = json!({"ask": "introspect", "token": token});
    assert_eq!(world.provider.ask(&is_active).unwrap(), true);
    world.sidecar.revoke(Target::Token(token.clone())).await.unwrap();
    assert_denied(world.sidecar.verify(&token).await, "REVOKED", "REFRESH");
    assert_eq!(world.provider.ask(&is_active).unwrap(), false);
    // A JWT it can't revoke, and says so; it is denied here.
    let token = world.token("jwt");
    world.sidecar.revoke(Target::Token(token.clone())).await.unwrap();
    assert_denied(world.sidecar.verify(&token).await, "REVOKED", "REFRESH");
}

/// Thirty-two callers, spread over two sidecars that share a store, refresh one session at the same moment; five times over.
/// The provider ends a session whose refresh token it sees twice, so a single second exchange would log all of them out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_refresh_at_once_and_none_is_logged_out() {
    let Some(mut world) = World::usual().await else { return };
    let config = world.config.replace("api.sock", "other.sock");
    let (clock, _hands) = Clock::manual(Clock::system().now().judged);
    let other = Sidecar::start(&config, clock, &world.home.path("")).await;
    let mut refresh_token = world
        .provider
        .ask(&json!({"ask": "refreshToken", "subject": "alice"}))
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    for round in 1..=5 {
        let callers: Vec<_> = (0..32)
            .map(|caller| {
                let mut tokens = if caller % 2 == 0 { world.sidecar.tokens() } else { other.tokens() };
                let request = RefreshRequest {
                    refresh_token: Some(refresh_token.clone()),
                    ..RefreshRequest::default()
                };
                tokio::spawn(async move {
                    tokens.refresh(request).await.expect("a session that lives").into_inner()
                })
            })
            .collect();
        let mut got = Vec::new();
        for caller in callers {
            got.push(caller.await.unwrap().tokens.unwrap());
        }
        let first = got.first().unwrap().clone();
        assert!(got.iter().all(|tokens| tokens.refresh_token == first.refresh_token), "one successor");
        assert_ne!(first.refresh_token, refresh_token, "rotated");
        assert_eq!(world.sidecar.verify(&first.access_token).await.unwrap().subject, "alice");
        let requests: Value = world.provider.ask(&json!({"ask": "requests"})).unwrap();
        assert_eq!(requests["/token"], round, "one exchange a round: {requests}");
        refresh_token = first.refresh_token;
    }
    // And what is no good is the provider's own no.
    let junk = RefreshRequest { refresh_token: Some("junk".to_owned()), ..RefreshRequest::default() };
    assert_denied(world.sidecar.tokens().refresh(junk).await, "INACTIVE", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_wrong_secret_of_ours_is_undecided_and_logs_nobody_out() {
    let Some(mut world) = World::start("id: shop", "wrong").await else { return };
    let token = world.token("opaque");
    assert_refused(world.sidecar.verify(&token).await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
}

#[tokio::test]
async fn fifty_callers_of_one_token_are_one_request_there() {
    let Some(mut world) = World::usual().await else { return };
    let token = world.token("opaque");
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (mut tokens, token) = (world.sidecar.tokens(), token.clone());
            tokio::spawn(async move { tokens.verify(verify_request(&token)).await.unwrap() })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let requests: Value = world.provider.ask(&json!({"ask": "requests"})).unwrap();
    assert_eq!(requests["/token/introspection"], 1, "{requests}");
}
