//! Envoy's external authorization, asked directly: what a proxy is answered to each request. tests/interop has a real Envoy.

use crate::support::{Home, Sidecar};
use countersign::grpc::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use countersign::grpc::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use countersign::grpc::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use countersign::grpc::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Attributes, RevokeRequest};
use prost_types::value::Kind;
use tonic::Code;

struct World {
    sidecar: Sidecar,
    _home: Home,
}

/// A request as a proxy tells of it.
#[derive(Clone, Default)]
struct Asked {
    lines: Vec<(&'static str, String)>,
    demands: Vec<(&'static str, &'static str)>,
    joined: bool,
}

impl Asked {
    fn bearing(token: &str) -> Self {
        Self::default().line("authorization", format!("Bearer {token}"))
    }

    fn line(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.lines.push((name, value.into()));
        self
    }

    fn demanding(mut self, key: &'static str, value: &'static str) -> Self {
        self.demands.push((key, value));
        self
    }

    fn message(&self) -> CheckRequest {
        let line = |(name, value): &(&str, String)| HeaderValue {
            key: (*name).to_owned(),
            value: String::new(),
            raw_value: value.clone().into_bytes(),
        };
        let mut http =
            HttpRequest { method: "GET".to_owned(), path: "/orders".to_owned(), ..HttpRequest::default() };
        if self.joined {
            http.headers =
                self.lines.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        } else {
            http.header_map = Some(HeaderMap { headers: self.lines.iter().map(line).collect() });
        }
        let demands = self.demands.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(Request { http: Some(http) }),
                context_extensions: demands.collect(),
                ..AttributeContext::default()
            }),
        }
    }
}

impl World {
    async fn start(more: &str) -> Self {
        let home = Home::new();
        let own = home.own("    medium: {preset: medium, audience: [orders, shop]}\n");
        let sections = format!(
            "api: {{tcp: 127.0.0.1:0, serve: [verify, refresh, revoke, sessions, check]}}\n{own}ext_authz: {{{more}}}\n"
        );
        Self { sidecar: home.start(&sections).await, _home: home }
    }

    async fn login(&self) -> String {
        let attributes = Attributes {
            roles: vec!["customer".to_owned()],
            scopes: vec!["orders.read".to_owned()],
            ..Attributes::default()
        };
        self.sidecar.try_login("alice", "medium", attributes).await.unwrap().tokens.unwrap().access_token
    }

    async fn check(&self, asked: Asked) -> CheckResponse {
        let mut proxy = AuthorizationClient::new(self.sidecar.channel.clone());
        proxy.check(asked.message()).await.unwrap().into_inner()
    }

    async fn allowed(&self, asked: Asked) -> OkHttpResponse {
        let response = self.check(asked).await;
        assert_eq!(response.status.unwrap().code, 0);
        response.ok_response.unwrap()
    }

    /// The refusal's gRPC code, HTTP status and reason.
    async fn refused(&self, asked: Asked) -> (i32, i32, String) {
        let response = self.check(asked).await;
        assert!(response.ok_response.is_none());
        let denied = response.denied_response.unwrap();
        (response.status.unwrap().code, denied.status.as_ref().unwrap().code, reason(&denied))
    }
}

fn header(headers: &[HeaderValueOption], name: &str) -> Option<String> {
    let found = headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == name);
    found.map(|header| header.value.clone())
}

fn reason(denied: &DeniedHttpResponse) -> String {
    header(&denied.headers, "x-countersign-reason").unwrap()
}

fn told(code: Code, http: i32, reason: &str) -> (i32, i32, String) {
    (code.into(), http, reason.to_owned())
}

#[tokio::test]
async fn a_good_token_goes_on_with_its_identity() {
    let world = World::start("").await;
    let token = world.login().await;
    for joined in [false, true] {
        let asked = Asked { joined, ..Asked::bearing(&token).line("x-countersign-subject", "mallory") };
        let on =
            world.allowed(asked.demanding("audiences", "orders").demanding("scopes", "orders.read")).await;
        assert_eq!(header(&on.headers, "x-countersign-subject").as_deref(), Some("alice"));
        assert_eq!(header(&on.headers, "x-countersign-roles").as_deref(), Some("customer"));
        assert_eq!(header(&on.headers, "x-countersign-audience").as_deref(), Some("orders shop"));
        assert!(on.headers_to_remove.contains(&"x-countersign-claims".to_owned()));
        for alike in ["x_countersign_subject", "x-countersign_subject", "x_countersign-subject"] {
            assert!(on.headers_to_remove.contains(&alike.to_owned()), "{alike}");
        }
    }
    let response = world.check(Asked::bearing(&token)).await;
    let metadata = response.dynamic_metadata.unwrap();
    assert_eq!(metadata.fields["subject"].kind, Some(Kind::StringValue("alice".to_owned())));
    for scheme in ["bearer", "BEARER"] {
        world.allowed(Asked::default().line("authorization", format!("{scheme} {token}"))).await;
    }
}

#[tokio::test]
async fn each_refusal_has_its_code_and_status() {
    let world = World::start("").await;
    let token = world.login().await;
    let malformed = told(Code::Unauthenticated, 401, "MALFORMED");
    assert_eq!(world.refused(Asked::default()).await, malformed);
    assert_eq!(world.refused(Asked::bearing("x.y.z")).await, malformed);
    assert_eq!(world.refused(Asked::bearing("")).await, malformed);
    assert_eq!(world.refused(Asked::default().line("authorization", "Basic YTpi")).await, malformed);
    let asked = Asked::bearing(&token).demanding("audiences", "payments");
    assert_eq!(world.refused(asked).await, told(Code::Unauthenticated, 401, "WRONG_AUDIENCE"));
    let asked = Asked::bearing(&token).demanding("scopes", "orders.read orders.write");
    assert_eq!(world.refused(asked).await, told(Code::PermissionDenied, 403, "INSUFFICIENT_SCOPE"));
    world.allowed(Asked::bearing(&token)).await;
    let request = RevokeRequest { target: Some(Target::Token(token.clone())), reason: String::new() };
    world.sidecar.tokens().revoke(request).await.unwrap();
    assert_eq!(world.refused(Asked::bearing(&token)).await, told(Code::Unauthenticated, 401, "REVOKED"));
}

/// There is nothing to mend, and a challenge names no error (RFC 6750 §3).
#[tokio::test]
async fn who_shows_no_credential_is_asked_to_log_in_and_who_shows_a_bad_one_is_not() {
    let world = World::start("").await;
    let basic = Asked::default().line("authorization", "Basic YTpi");
    for (asked, action, error) in [
        (Asked::default(), "REAUTHENTICATE", false),
        (basic, "REAUTHENTICATE", false),
        (Asked::bearing("bad"), "NONE", true),
    ] {
        let denied = world.check(asked).await.denied_response.unwrap();
        assert_eq!(reason(&denied), "MALFORMED");
        assert_eq!(header(&denied.headers, "x-countersign-action").as_deref(), Some(action));
        assert_eq!(header(&denied.headers, "www-authenticate").unwrap().contains("error"), error);
    }
}

/// Another reader might take the other one.
#[tokio::test]
async fn two_authorization_headers_are_refused_whatever_they_hold() {
    let world = World::start("authentication: optional").await;
    let token = world.login().await;
    let one = format!("Bearer {token}");
    for asked in [
        Asked::bearing(&token).line("authorization", one.clone()),
        Asked::bearing(&token).line("authorization", "Basic YTpi"),
        Asked::bearing(&token).line("Authorization", ""),
        Asked::default().line("authorization", format!("{one},{one}")),
        Asked { joined: true, ..Asked::default().line("authorization", format!("{one}, Basic YTpi")) },
    ] {
        assert_eq!(world.refused(asked).await, told(Code::Unauthenticated, 401, "MALFORMED"));
    }
}

#[tokio::test]
async fn where_it_is_optional_nobody_goes_on_as_nobody_and_a_bad_credential_does_not() {
    let world = World::start("").await;
    let token = world.login().await;
    let optional = |asked: Asked| asked.demanding("authentication", "optional");
    let nobody = world.allowed(optional(Asked::default().line("x-countersign-subject", "mallory"))).await;
    assert!(nobody.headers.is_empty());
    assert!(nobody.headers_to_remove.contains(&"x-countersign-subject".to_owned()));
    let known = world.allowed(optional(Asked::bearing(&token))).await;
    assert_eq!(header(&known.headers, "x-countersign-subject").as_deref(), Some("alice"));
    assert_eq!(
        world.refused(optional(Asked::bearing("bad"))).await,
        told(Code::Unauthenticated, 401, "MALFORMED")
    );
    for odd in ["Bearer", "Bearer\tbad", "bearer  ", "Bearer=bad"] {
        let asked = optional(Asked::default().line("authorization", odd));
        assert_eq!(world.refused(asked).await, told(Code::Unauthenticated, 401, "MALFORMED"), "{odd:?}");
    }
    let other = world.allowed(optional(Asked::default().line("authorization", "Bearerish x"))).await;
    assert!(other.headers.is_empty(), "another scheme");
}

/// `scope` for `scopes` would open a route to all who have any token.
#[tokio::test]
async fn a_route_that_is_not_understood_is_open_to_nobody() {
    let world = World::start("").await;
    let token = world.login().await;
    for (key, value) in [
        ("scope", "orders.write"),
        ("Scopes", "orders.write"),
        ("consistency", "fully"),
        ("authentication", "none"),
        ("scopes", " "),
        ("audiences", ","),
        ("", ""),
    ] {
        let response = world.check(Asked::bearing(&token).demanding(key, value)).await;
        assert_eq!(response.status.unwrap().code, i32::from(Code::Unavailable), "{key}");
        assert_eq!(reason(&response.error_response.unwrap()), "BAD_CALL");
    }
    world
        .allowed(Asked::bearing(&token).demanding("scopes", "").demanding("consistency", "fully_consistent"))
        .await;
}

#[tokio::test]
async fn what_routes_don_t_say_is_configured_and_they_can_say_otherwise() {
    let world = World::start(
        "header_prefix: x-shop-, claims_header: true, realm: the shop, scopes: [orders.write], audiences: [shop]",
    )
    .await;
    let token = world.login().await;
    let response = world.check(Asked::bearing(&token)).await;
    let challenge = header(&response.denied_response.unwrap().headers, "www-authenticate").unwrap();
    assert_eq!(challenge, r#"Bearer realm="the shop", error="insufficient_scope", scope="orders.write""#);
    let on = world.allowed(Asked::bearing(&token).demanding("scopes", "orders.read")).await;
    assert_eq!(header(&on.headers, "x-shop-subject").as_deref(), Some("alice"));
    assert!(header(&on.headers, "x-shop-claims").unwrap().starts_with("eyJ"));
}

#[tokio::test]
async fn a_session_token_in_a_named_cookie_is_looked_for_where_there_is_no_bearer_token() {
    let home = Home::new();
    let own = home.own("    high: {preset: high, audience: [orders]}\n");
    let sections = format!(
        "api: {{tcp: 127.0.0.1:0, serve: [verify, sessions, revoke, check]}}\n{own}ext_authz: {{cookies: [sid]}}\n"
    );
    let world = World { sidecar: home.start(&sections).await, _home: home };
    let token = world.sidecar.login("alice", "high").await.tokens.unwrap().access_token;
    let cookie = |text: String| Asked::default().line("cookie", "a=b").line("cookie", text);
    let on = world.allowed(cookie(format!("sid={token}"))).await;
    assert_eq!(header(&on.headers, "x-countersign-kind").as_deref(), Some("SESSION_TOKEN"));
    assert!(world.refused(cookie(format!("SID={token}"))).await.0 == i32::from(Code::Unauthenticated));
    let other = cookie(format!("SID={token}")).demanding("cookies", "other SID");
    world.allowed(other).await;
}

#[tokio::test]
async fn undecided_is_an_error_and_never_a_denial() {
    let world = World::start("").await;
    let issuers = "issuers:\n  - {issuer: 'http://127.0.0.1:9', audiences: [orders]}\n";
    let home = Home::new();
    let sections = format!("api: {{tcp: 127.0.0.1:0, serve: [verify, check]}}\n{issuers}ext_authz: {{}}\n");
    let away = World { sidecar: home.start(&sections).await, _home: home };
    // Signed by nobody it knows, for an issuer whose keys are out of reach.
    let token =
        "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwOi8vMTI3LjAuMC4xOjkifQ.AAAA";
    let response = away.check(Asked::bearing(token)).await;
    assert_eq!(response.status.unwrap().code, i32::from(Code::Unavailable));
    let (denied, error) = (response.denied_response.unwrap(), response.error_response.unwrap());
    assert_eq!(reason(&error), "KEYS_UNAVAILABLE");
    assert_eq!((denied.status.unwrap().code, error.status.unwrap().code), (503, 503));
    assert_eq!(header(&error.headers, "retry-after").as_deref(), Some("1"));
    drop(world);
}

#[tokio::test]
async fn it_is_served_where_it_is_asked_for_alone() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let mut proxy = AuthorizationClient::new(sidecar.channel.clone());
    let refused = proxy.check(Asked::default().message()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
