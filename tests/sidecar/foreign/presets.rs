//! Tokens as Clerk, Auth0 and OpenID providers write them, each configured by its preset.

use crate::mint::{Claims, Key, encode, jwks};
use crate::support::{Home, Sidecar, assert_denied, assert_refused};
use countersign::clock::ManualClock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{SubjectRevocation, VerifyResponse};
use std::time::Duration;
use tonic::Status;

struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    key: Key,
    issuer: &'static str,
    _home: Home,
}

impl World {
    /// One line of configuration beside the key.
    async fn start(preset: &str, issuer: &'static str, more: &str) -> Self {
        let home = Home::new();
        let key = Key::rsa("k");
        std::fs::write(home.path("keys.json"), jwks([&key])).unwrap();
        let keys = home.path("keys.json");
        let issuers = format!(
            "issuers:\n  - {{preset: {preset}, issuer: {issuer:?}, keys: {{jwks_file: {}}}, {more}}}\n",
            keys.display()
        );
        let (sidecar, hands) = home.start_at(&issuers).await;
        Self { sidecar, hands, key, issuer, _home: home }
    }

    async fn clerk() -> Self {
        Self::start("clerk", "https://clerk.shop.example", "authorized_parties: [https://shop.example]").await
    }

    fn token(&self, header: &str, claims: &Claims) -> String {
        self.key.token_of(header, claims.clone().with("iss", format!("\"{}\"", self.issuer)).text())
    }

    async fn verify(&self, header: &str, claims: &Claims) -> Result<VerifyResponse, Status> {
        self.sidecar.verify(&self.token(header, claims)).await
    }
}

const JWT: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#;
const BARE: &str = r#"{"alg":"RS256","kid":"k"}"#;

fn clerk_claims() -> Claims {
    Claims::good()
        .without("aud")
        .without("scope")
        .with("azp", "\"https://shop.example\"")
        .with("v", 2)
        .with("sts", "\"active\"")
        .at("exp", 60)
        .at("nbf", -10)
        .with("fva", "[3,-1]")
        .with("fea", "\"u:wishlist,o:orders,o:reports\"")
        .with("o", r#"{"id":"org_1","slg":"shop","rol":"admin","per":"manage,read","fpm":"3,2"}"#)
}

#[tokio::test]
async fn a_clerk_token_of_version_2_brings_role_and_permissions() {
    let world = World::clerk().await;
    let answer = world.verify(JWT, &clerk_claims()).await.unwrap();
    assert_eq!(answer.roles, ["org:admin"]);
    assert_eq!(answer.scopes, ["org:orders:manage", "org:orders:read", "org:reports:read"]);
    assert_eq!((answer.session_id.as_str(), answer.client_id.as_str()), ("s1", "https://shop.example"));
    assert_eq!(answer.audiences, ["https://clerk.shop.example"]);
    let demanding = crate::support::verify_request(&world.token(JWT, &clerk_claims()));
    let demanding = |scope: &str| countersign::grpc::v1::VerifyRequest {
        scopes: vec![scope.to_owned()],
        ..demanding.clone()
    };
    world.sidecar.verify_demanding(demanding("org:reports:read")).await.unwrap();
    let refused = world.sidecar.verify_demanding(demanding("org:reports:manage")).await;
    assert_refused(refused, tonic::Code::PermissionDenied, "INSUFFICIENT_SCOPE", "NONE");
}

#[tokio::test]
async fn a_clerk_token_of_version_1_brings_them_too() {
    let world = World::clerk().await;
    let claims = clerk_claims()
        .without("v")
        .without("o")
        .with("org_role", "\"org:member\"")
        .with("org_permissions", r#"["org:orders:read"]"#);
    let answer = world.verify(JWT, &claims).await.unwrap();
    assert_eq!((answer.roles, answer.scopes), (vec!["org:member".into()], vec!["org:orders:read".into()]));
}

#[tokio::test]
async fn a_clerk_token_of_another_site_a_pending_one_and_one_of_another_type_are_refused() {
    let world = World::clerk().await;
    let other = clerk_claims().with("azp", "\"https://evil.shop.example\"");
    assert_denied(world.verify(JWT, &other).await, "WRONG_AUDIENCE", "NONE");
    assert_denied(world.verify(JWT, &clerk_claims().without("azp")).await, "MISSING_CLAIM", "NONE");
    assert_denied(world.verify(JWT, &clerk_claims().with("azp", "[]")).await, "INVALID_CLAIM", "NONE");
    assert_denied(
        world.verify(JWT, &clerk_claims().with("sts", "\"pending\"")).await,
        "INVALID_CLAIM",
        "NONE",
    );
    assert_denied(world.verify(BARE, &clerk_claims()).await, "UNSUPPORTED_TYPE", "NONE");
    // With an audience it must be one that is accepted.
    assert_denied(world.verify(JWT, &clerk_claims().with("aud", "\"x\"")).await, "WRONG_AUDIENCE", "NONE");
    // Five seconds apart, as Clerk's own library.
    world.sidecar.pass(&world.hands, Duration::from_secs(64)).await;
    world.verify(JWT, &clerk_claims()).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_secs(1)).await;
    assert_denied(world.verify(JWT, &clerk_claims()).await, "EXPIRED", "REFRESH");
}

#[tokio::test]
async fn a_cut_off_hits_clerk_s_logins_although_their_tokens_are_renewed_each_minute() {
    let world = World::clerk().await;
    world.sidecar.pass(&world.hands, Duration::from_secs(600)).await;
    let target = SubjectRevocation {
        subject: "alice".into(),
        issuer: Some("https://clerk.shop.example".into()),
        ..SubjectRevocation::default()
    };
    world.sidecar.revoke(Target::Subject(target)).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_secs(300)).await;
    let renewed = |age: i64| {
        let id = format!("\"{age}\"");
        clerk_claims()
            .at("iat", 900)
            .at("nbf", 900)
            .at("exp", 960)
            .with("fva", format!("[{age},-1]"))
            .with("jti", id)
    };
    for age in [15, 6, 5] {
        assert_denied(world.verify(JWT, &renewed(age)).await, "REVOKED", "REAUTHENTICATE");
    }
    world.verify(JWT, &renewed(3)).await.unwrap();
}

#[tokio::test]
async fn auth0_s_permissions_and_scope_are_scopes() {
    let world = World::start("auth0", "https://shop.eu.auth0.example/", "audiences: [orders]").await;
    let claims = Claims::good()
        .with("aud", r#"["orders","https://shop.eu.auth0.example/userinfo"]"#)
        .with("azp", "\"client\"")
        .with("scope", "\"openid orders:read\"")
        .with("permissions", r#"["orders:read","orders:write"]"#);
    for header in [JWT, r#"{"alg":"RS256","kid":"k","typ":"at+jwt"}"#] {
        let answer = world.verify(header, &claims).await.unwrap();
        assert_eq!(answer.scopes, ["openid", "orders:read", "orders:write"]);
        assert_eq!((answer.client_id.as_str(), answer.issuer.as_str()), ("client", world.issuer));
    }
    assert_denied(world.verify(JWT, &claims.clone().with("permissions", "7")).await, "INVALID_CLAIM", "NONE");
    let ec = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;
    assert_denied(world.verify(ec, &claims).await, "UNSUPPORTED_ALGORITHM", "NONE");
    let without = world.token(JWT, &claims).replace(&encode(JWT), &encode(BARE));
    assert_denied(world.sidecar.verify(&without).await, "UNSUPPORTED_TYPE", "NONE");
}

/// What an access token of each provider holds, beside what all have; then the scopes, roles and client read.
#[tokio::test]
async fn one_preset_reads_keycloak_entra_okta_and_google() {
    let world = World::start("oidc", "https://id.example", "audiences: [orders]").await;
    let base = || Claims::good().with("aud", "\"orders\"").without("scope");
    let keycloak = base()
        .with("typ", "\"Bearer\"")
        .with("azp", "\"web\"")
        .with("scope", "\"profile email\"")
        .with("realm_access", r#"{"roles":["buyer","offline_access"]}"#)
        .with("groups", r#"["buyer","/staff"]"#);
    let entra = base()
        .with("azp", "\"6a7b\"")
        .with("scp", "\"orders.read orders.write\"")
        .with("roles", r#"["Orders.Admin"]"#)
        .with("ver", "\"2.0\"");
    let okta = base()
        .with("cid", "\"0oa1\"")
        .with("scp", r#"["openid","orders"]"#)
        .with("groups", r#"["Everyone"]"#);
    let google =
        base().without("sid").without("jti").with("azp", "\"orders\"").with("email_verified", "true");
    for (header, claims, scopes, roles, client) in [
        (JWT, keycloak, &["profile", "email"][..], &["buyer", "offline_access"][..], "web"),
        (JWT, entra, &["orders.read", "orders.write"][..], &["Orders.Admin"][..], "6a7b"),
        (BARE, okta, &["openid", "orders"][..], &[][..], "0oa1"),
        (JWT, google, &[][..], &[][..], "orders"),
    ] {
        let answer = world.verify(header, &claims).await.unwrap();
        assert_eq!((answer.scopes, answer.roles), (owned(scopes), owned(roles)), "{client}");
        assert_eq!(answer.client_id, client);
    }
    let logout = r#"{"alg":"RS256","kid":"k","typ":"logout+jwt"}"#;
    assert_denied(world.verify(logout, &base()).await, "UNSUPPORTED_TYPE", "NONE");
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
