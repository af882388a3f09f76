//! Opaque tokens, judged by an introspection endpoint: an HTTP server of the tests that notes what it is asked.

use crate::issuer::serve_http;
use crate::support::{
    Home, START, Sidecar, as_caller, assert_denied, assert_refused, eventually, verify_request,
};
use bytes::Bytes;
use countersign::clock::ManualClock;
use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Consistency, CredentialKind, RevokeRequest, VerifyResponse};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

/// What the endpoint knows and what it was asked.
struct Endpoint {
    answers: Mutex<HashMap<String, (StatusCode, String)>>,
    asked: Mutex<Vec<(String, Option<String>)>>,
    revoking: Mutex<(StatusCode, String)>,
    /// Answers go out while there are permits.
    let_through: Semaphore,
}

impl Endpoint {
    fn says(&self, token: &str, claims: &Value) {
        self.answers.lock().insert(token.to_owned(), (StatusCode::OK, claims.to_string()));
    }

    fn fails(&self, token: &str, status: StatusCode, body: &str) {
        self.answers.lock().insert(token.to_owned(), (status, body.to_owned()));
    }

    /// How its revocation endpoint answers.
    fn revoking(&self, status: StatusCode, body: &str) {
        *self.revoking.lock() = (status, body.to_owned());
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn answer(request: Request<Incoming>, endpoint: Arc<Endpoint>) -> Response<Full<Bytes>> {
    let authorization =
        request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/x-www-form-urlencoded");
    let revokes = request.uri().path() == "/r";
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let form = String::from_utf8(body.to_vec()).unwrap();
    let token = form.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap().to_owned();
    endpoint.asked.lock().push((form, authorization));
    endpoint.let_through.acquire().await.unwrap().forget();
    endpoint.let_through.add_permits(1);
    if revokes {
        let (status, body) = endpoint.revoking.lock().clone();
        return Response::builder().status(status).body(Full::from(body)).unwrap();
    }
    let (status, body) = endpoint
        .answers
        .lock()
        .get(&token)
        .cloned()
        .unwrap_or((StatusCode::OK, r#"{"active":false}"#.to_owned()));
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    endpoint: Arc<Endpoint>,
    home: Home,
}

const ISSUER: &str = "https://id.example";

impl World {
    async fn start(more: &str) -> Self {
        Self::start_as("", more).await
    }

    /// With further settings of the client.
    async fn start_as(auth: &str, more: &str) -> Self {
        let endpoint = Arc::new(Endpoint {
            answers: Mutex::default(),
            asked: Mutex::default(),
            revoking: Mutex::new((StatusCode::OK, String::new())),
            let_through: Semaphore::new(1),
        });
        let address = serve_http(Arc::clone(&endpoint), answer).await;
        let more = more.replace("ADDRESS", &address.to_string());
        let home = Home::new();
        std::fs::write(home.path("client.secret"), "s3cret:/+\n").unwrap();
        let issuers = format!(
            "issuers:\n  - issuer: {ISSUER}\n    audiences: [shop]\n    \
             client: {{id: counter sign, secret_file: {}{auth}}}\n    introspection:\n      url: http://{address}/i\n{more}",
            home.path("client.secret").display()
        );
        let (sidecar, hands) = home.start_at(&issuers).await;
        Self { sidecar, hands, endpoint, home }
    }

    async fn verify(&self, token: &str) -> Result<VerifyResponse, Status> {
        self.sidecar.verify(token).await
    }
}

fn active() -> Value {
    json!({
        "active": true, "sub": "alice", "scope": "read write", "client_id": "web", "aud": "shop",
        "exp": START.as_secs() + 3600, "iat": START.as_secs(), "jti": "o1",
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = active();
    claims[name] = value.into();
    claims
}

const TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

#[tokio::test]
async fn an_active_token_is_accepted_and_asked_for_once_within_the_bound() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &active());
    for _ in 0..3 {
        let answer = world.verify(TOKEN).await.unwrap();
        assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), (ISSUER, "alice"));
        assert_eq!(
            (answer.scopes.len(), answer.client_id.as_str(), answer.token_id.as_str()),
            (2, "web", "o1")
        );
        assert_eq!(answer.kind(), CredentialKind::OpaqueToken);
        assert_eq!(answer.claims_json, active().to_string().into_bytes());
    }
    let asked = world.endpoint.asked.lock().clone();
    let [(form, authorization)] = asked.as_slice() else { panic!("once: {asked:?}") };
    assert_eq!(form, &format!("token={TOKEN}&token_type_hint=access_token"));
    // RFC 6749 §2.3.1: both are form-encoded before they are joined.
    assert_eq!(authorization.as_deref(), Some("Basic Y291bnRlcitzaWduOnMzY3JldCUzQSUyRiUyQg=="));
}

#[tokio::test]
async fn an_answer_is_as_stale_as_it_is_old_and_asked_again_past_its_bound() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_secs(10)).await;
    let answer = world.verify(TOKEN).await.unwrap();
    assert!(answer.staleness.unwrap().seconds >= 10, "{:?}", answer.staleness);
    assert_eq!(world.endpoint.times_asked(), 1);
    world.sidecar.pass(&world.hands, Duration::from_secs(1)).await;
    let answer = world.verify(TOKEN).await.unwrap();
    assert!(answer.staleness.unwrap().seconds < 10);
    assert_eq!(world.endpoint.times_asked(), 2);
    let mut now = verify_request(TOKEN);
    now.consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
    world.sidecar.verify_demanding(now).await.unwrap();
    assert_eq!(world.endpoint.times_asked(), 3, "fully consistent asks now");
}

#[tokio::test]
async fn an_answer_is_not_used_past_the_token_s_end_nor_where_caching_is_off() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &with("exp", START.as_secs() + 3));
    world.verify(TOKEN).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_secs(3)).await;
    world.endpoint.says(TOKEN, &json!({"active": false}));
    assert_denied(world.verify(TOKEN).await, "INACTIVE", "REFRESH");

    let world = World::start("      max_cache: 0s\n").await;
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    world.sidecar.pass(&world.hands, Duration::from_millis(1)).await;
    world.verify(TOKEN).await.unwrap();
    assert_eq!(world.endpoint.times_asked(), 2);
}

#[tokio::test]
async fn many_callers_of_one_token_are_one_exchange() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &active());
    world.endpoint.let_through.forget_permits(1);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let mut tokens = world.sidecar.tokens();
            tokio::spawn(async move { tokens.verify(verify_request(TOKEN)).await })
        })
        .collect();
    eventually("the endpoint is asked", || async { world.endpoint.times_asked() == 1 }).await;
    // Time enough for a second question, if there were one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    // One that goes away takes nobody's answer with it.
    callers[0].abort();
    world.endpoint.let_through.add_permits(1);
    for caller in callers.into_iter().skip(1) {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(world.endpoint.times_asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_can_t_answer_is_undecided_and_nothing_is_remembered() {
    let world = World::start("").await;
    for (status, body) in [
        (StatusCode::UNAUTHORIZED, r#"{"error":"invalid_client"}"#),
        (StatusCode::INTERNAL_SERVER_ERROR, ""),
        (StatusCode::FOUND, r#"{"active":true}"#),
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, r#"{"active":"true"}"#),
        (StatusCode::OK, r#"{"sub":"alice"}"#),
        (StatusCode::OK, r#"{"active":true,"active":true,"sub":"alice"}"#),
    ] {
        world.endpoint.fails(TOKEN, status, body);
        assert_refused(world.verify(TOKEN).await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    }
    world.endpoint.says(TOKEN, &with("iss", "https://other.example"));
    assert_refused(world.verify(TOKEN).await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
}

#[tokio::test]
async fn what_the_issuer_says_is_held_to_the_policy() {
    let world = World::start("").await;
    let mut undated = active();
    undated.as_object_mut().unwrap().retain(|name, _| ["active", "sub"].contains(&name.as_str()));
    world.endpoint.says("undated", &undated);
    let answer = world.verify("undated").await.unwrap();
    assert_eq!(answer.audiences, ["shop"], "the issuer answers for us");
    for (number, (claims, reason)) in [
        (with("aud", "bank"), "WRONG_AUDIENCE"),
        (with("sub", Value::Null), "INVALID_CLAIM"),
        (with("nbf", START.as_secs() + 60), "NOT_YET_VALID"),
        (with("token_use", "refresh_token"), "UNSUPPORTED_TYPE"),
        (with("typ", "Refresh"), "UNSUPPORTED_TYPE"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("bad{number}");
        world.endpoint.says(&token, &claims);
        assert_denied(world.verify(&token).await, reason, "NONE");
    }
    // Without iat, and for longer than the issuer's JWTs may live.
    let mut long = with("exp", START.as_secs() + 40 * 86_400);
    long.as_object_mut().unwrap().remove("iat");
    world.endpoint.says("long", &long);
    world.verify("long").await.unwrap();
    let expired = with("exp", START.as_secs() - 31);
    world.endpoint.says("expired", &expired);
    assert_denied(world.verify("expired").await, "EXPIRED", "REFRESH");
}

#[tokio::test]
async fn what_is_no_bearer_token_or_another_kind_is_shown_to_nobody() {
    let world = World::start("").await;
    for token in ["", "a b", "a&token=b", "ä", "{\"a\":1}"] {
        assert_denied(world.verify(token).await, "MALFORMED", "NONE");
    }
    assert_denied(world.verify("AAAA.AAAA.AAAA").await, "MALFORMED", "NONE");
    world.verify(&format!("css_{}", "A".repeat(80))).await.unwrap_err();
    let own = world.sidecar.login("bob", "medium").await.tokens.unwrap();
    world.verify(&own.access_token).await.unwrap();
    assert_denied(world.verify(&own.refresh_token).await, "UNSUPPORTED_TYPE", "NONE");
    assert_eq!(world.endpoint.times_asked(), 0);
}

#[tokio::test]
async fn a_prefix_says_whose_a_token_is_whatever_its_shape() {
    let world = World::start_as(", auth: post", "      token_prefix: ory_at_\n").await;
    assert_denied(world.verify(TOKEN).await, "MALFORMED", "NONE");
    assert_eq!(world.endpoint.times_asked(), 0);
    world.endpoint.says("ory_at_a.b.c", &active());
    world.verify("ory_at_a.b.c").await.unwrap();
    let asked = world.endpoint.asked.lock().clone();
    assert_eq!(
        asked,
        [(
            "token=ory_at_a.b.c&token_type_hint=access_token&client_id=counter+sign&client_secret=s3cret%3A%2F%2B".to_owned(),
            None
        )]
    );
}

#[tokio::test]
async fn a_token_is_taken_back_here_whatever_its_issuer_still_says() {
    let world = World::start("").await;
    let revoke = |token: &str| {
        let request = RevokeRequest { target: Some(Target::Token(token.into())), reason: "logout".into() };
        let mut tokens = world.sidecar.tokens();
        async move { tokens.revoke(request).await }
    };
    let mut undated = active();
    undated.as_object_mut().unwrap().remove("exp");
    undated["jti"] = json!("o2");
    world.endpoint.says(TOKEN, &active());
    world.endpoint.says("undated", &undated);
    for token in [TOKEN, "undated"] {
        world.verify(token).await.unwrap();
        revoke(token).await.unwrap();
        assert_denied(world.verify(token).await, "REVOKED", "REFRESH");
    }
    // Inactive: nothing to take back; not told: nothing is claimed.
    revoke("unknown").await.unwrap();
    world.endpoint.fails("down", StatusCode::BAD_GATEWAY, "");
    assert_refused(revoke("down").await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    // A subject's cut-off reaches them too.
    world.endpoint.says("third", &with("jti", "o3"));
    world.verify("third").await.unwrap();
    let target = countersign::grpc::v1::SubjectRevocation {
        subject: "alice".into(),
        issuer: Some(ISSUER.into()),
        ..Default::default()
    };
    let request = RevokeRequest { target: Some(Target::Subject(target)), reason: String::new() };
    world.sidecar.tokens().revoke(as_caller(request)).await.unwrap();
    assert_denied(world.verify("third").await, "REVOKED", "REAUTHENTICATE");
}

#[tokio::test]
async fn a_renewed_secret_is_used_at_the_next_exchange() {
    let world = World::start("      max_cache: 0s\n").await;
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    std::fs::write(world.home.path("client.secret"), "next").unwrap();
    world.sidecar.pass(&world.hands, Duration::from_millis(1)).await;
    world.verify(TOKEN).await.unwrap();
    let last = world.endpoint.asked.lock().last().unwrap().1.clone();
    assert_eq!(last.as_deref(), Some("Basic Y291bnRlcitzaWduOm5leHQ="));
}

#[tokio::test]
async fn a_fully_consistent_call_is_not_answered_by_what_was_asked_before_it() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &active());
    world.endpoint.let_through.forget_permits(1);
    let ask = |fully: bool| {
        let mut request = verify_request(TOKEN);
        request.consistency = Some(Consistency {
            requirement: Some(if fully {
                Requirement::FullyConsistent(true)
            } else {
                Requirement::MinimizeLatency(true)
            }),
        });
        let mut tokens = world.sidecar.tokens();
        tokio::spawn(async move { tokens.verify(request).await })
    };
    let early = ask(false);
    eventually("the endpoint is asked", || async { world.endpoint.times_asked() == 1 }).await;
    let late: Vec<_> = (0..20).map(|_| ask(true)).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.endpoint.times_asked(), 1, "no two exchanges of one token at once");
    world.endpoint.let_through.add_permits(1);
    early.await.unwrap().unwrap();
    for call in late {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.endpoint.times_asked(), 2, "one more for all that asked for the present");
}

#[tokio::test]
async fn the_issuer_is_told_what_is_taken_back_after_it_is_denied_here() {
    let world = World::start("    revocation: {url: \"http://ADDRESS/r\"}\n").await;
    let revoke = || {
        let request = RevokeRequest { target: Some(Target::Token(TOKEN.into())), reason: "logout".into() };
        let mut tokens = world.sidecar.tokens();
        async move { tokens.revoke(request).await }
    };
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    world.endpoint.revoking(StatusCode::SERVICE_UNAVAILABLE, "");
    assert_refused(revoke().await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    assert_denied(world.verify(TOKEN).await, "REVOKED", "REFRESH");
    for (status, body) in
        [(StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#), (StatusCode::UNAUTHORIZED, "")]
    {
        world.endpoint.revoking(status, body);
        assert_refused(revoke().await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    }
    // What it can't revoke is denied here all the same; what it knows nothing of is 200.
    world.endpoint.revoking(StatusCode::BAD_REQUEST, r#"{"error":"unsupported_token_type"}"#);
    revoke().await.unwrap();
    world.endpoint.revoking(StatusCode::OK, "");
    revoke().await.unwrap();
    let asked = world.endpoint.asked.lock().clone();
    assert!(asked.last().unwrap().0.starts_with(&format!("token={TOKEN}&")), "{asked:?}");
    // A subject's cut-off names no token: nobody is told.
    let before = world.endpoint.times_asked();
    let target = countersign::grpc::v1::SubjectRevocation {
        subject: "alice".into(),
        issuer: Some(ISSUER.into()),
        ..Default::default()
    };
    world.sidecar.revoke(Target::Subject(target)).await.unwrap();
    assert_eq!(world.endpoint.times_asked(), before);
}

#[tokio::test]
async fn once_the_issuer_says_no_nothing_it_said_before_counts() {
    let world = World::start("").await;
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    world.endpoint.says(TOKEN, &json!({"active": false}));
    world.verify(TOKEN).await.expect("within max_cache nobody has heard of it");
    let mut now = verify_request(TOKEN);
    now.consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
    assert_denied(world.sidecar.verify_demanding(now).await, "INACTIVE", "REFRESH");
    assert_denied(world.verify(TOKEN).await, "INACTIVE", "REFRESH");
}

#[tokio::test]
async fn a_token_without_an_end_is_not_told_expired_between_two_questions() {
    let world = World::start("      max_cache: 0s\n    leeway: 0s\n").await;
    let mut undated = active();
    undated.as_object_mut().unwrap().remove("exp");
    world.endpoint.says(TOKEN, &undated);
    let answer = world.verify(TOKEN).await.unwrap();
    assert_eq!(answer.refresh_after, None);
    world.sidecar.pass(&world.hands, Duration::from_secs(3600)).await;
    world.verify(TOKEN).await.unwrap();
}

#[tokio::test]
async fn questions_of_callers_who_gave_up_are_not_asked() {
    let world = World::start("").await;
    world.endpoint.let_through.forget_permits(1);
    let ask = |token: String| {
        let mut tokens = world.sidecar.tokens();
        tokio::spawn(async move { tokens.verify(verify_request(&token)).await })
    };
    // As many as are asked at once, and as many again that wait.
    let first: Vec<_> = (0..64).map(|number| ask(format!("first{number}"))).collect();
    eventually("all are asked", || async { world.endpoint.times_asked() == 64 }).await;
    let waiting: Vec<_> = (0..64).map(|number| ask(format!("waiting{number}"))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    // Time for the sidecar to hear of it, on a busy machine too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.endpoint.let_through.add_permits(1);
    for call in first {
        assert_denied(call.await.unwrap(), "INACTIVE", "REFRESH");
    }
    world.endpoint.says(TOKEN, &active());
    world.verify(TOKEN).await.unwrap();
    assert_eq!(world.endpoint.times_asked(), 65);
}

#[tokio::test]
async fn an_endpoint_is_looked_up_once_for_all_who_need_it() {
    let site = crate::issuer::Site::open().await;
    let issuer = site.url("");
    let home = Home::new();
    std::fs::write(home.path("client.secret"), "s3cret").unwrap();
    let key = crate::mint::Key::ed25519("k");
    std::fs::write(home.path("keys.json"), crate::mint::jwks([&key])).unwrap();
    let issuers = format!(
        "issuers:\n  - issuer: {issuer}\n    audiences: [shop]\n    keys: {{jwks_file: {}}}\n    \
         client: {{id: shop, secret_file: {}}}\n    introspection: {{}}\n",
        home.path("keys.json").display(),
        home.path("client.secret").display()
    );
    let (sidecar, _hands) = home.start_at(&issuers).await;
    let ask_all = |round: usize| {
        let calls = (0..20).map(|number| {
            let mut tokens = sidecar.tokens();
            tokio::spawn(async move { tokens.verify(verify_request(&format!("t{round}x{number}"))).await })
        });
        calls.collect::<Vec<_>>()
    };
    // Nothing there: one look tells all of them.
    for call in ask_all(0) {
        assert_refused(call.await.unwrap(), Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    }
    assert_eq!(site.requests(), 1);
    // There, after the pause: one more look, and a question for each token.
    let configuration = json!({"issuer": issuer, "introspection_endpoint": site.url("/i")});
    site.publish("/.well-known/openid-configuration", configuration.to_string());
    site.publish("/i", r#"{"active":false}"#);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for call in ask_all(1) {
        assert_denied(call.await.unwrap(), "INACTIVE", "REFRESH");
    }
    assert_eq!(site.requests(), 22);
}
