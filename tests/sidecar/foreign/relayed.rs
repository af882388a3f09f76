//! Refreshes relayed to an issuer's token endpoint: an HTTP server of the tests that rotates, and that ends a session whose
//! refresh token it sees twice.

use crate::issuer::serve_http;
use crate::mint::{Claims, Key, LOGIN, jwks};
use crate::support::{Home, START, Sidecar, as_caller, assert_denied, assert_refused};
use bytes::Bytes;
use countersign::clock::ManualClock;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{RefreshRequest, RefreshResponse, RevokeRequest, SessionRevocation};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What the endpoint answers next; after that it rotates.
struct Endpoint {
    next: Mutex<VecDeque<(StatusCode, &'static str)>>,
    asked: Mutex<Vec<String>>,
    rotations: Mutex<u32>,
    key: Key,
}

impl Endpoint {
    fn answers(&self, status: StatusCode, body: &'static str) {
        self.next.lock().push_back((status, body));
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }

    fn rotate(&self, form: &str) -> (StatusCode, String) {
        let mut rotations = self.rotations.lock();
        if !form.contains(&format!("refresh_token=r{rotations}&"))
            && !form.ends_with(&format!("refresh_token=r{rotations}"))
        {
            *rotations = u32::MAX;
            return (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.to_owned());
        }
        *rotations += 1;
        let access = self.key.token(&Claims::good().with("jti", format!("\"j{rotations}\"")));
        let body = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 600,
            "refresh_token": format!("r{rotations}"), "id_token": "an.id.token",
        });
        (StatusCode::OK, body.to_string())
    }
}

async fn answer(request: Request<Incoming>, endpoint: Arc<Endpoint>) -> Response<Full<Bytes>> {
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/x-www-form-urlencoded");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let form = String::from_utf8(body.to_vec()).unwrap();
    endpoint.asked.lock().push(form.clone());
    let next = endpoint.next.lock().pop_front();
    let (status, body) = match next {
        Some((status, body)) => (status, body.to_owned()),
        None => endpoint.rotate(&form),
    };
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    endpoint: Arc<Endpoint>,
    home: Home,
    sections: String,
}

impl World {
    async fn start() -> Self {
        let key = Key::ed25519("k1");
        let home = Home::new();
        std::fs::write(home.path("jwks.json"), jwks([&key])).unwrap();
        std::fs::write(home.path("client.secret"), "s3cret").unwrap();
        let endpoint = Arc::new(Endpoint {
            next: Mutex::default(),
            asked: Mutex::default(),
            rotations: Mutex::default(),
            key,
        });
        let address = serve_http(Arc::clone(&endpoint), answer).await;
        let sections = format!(
            "issuers:\n  - issuer: {LOGIN}\n    audiences: [shop]\n    algorithms: [EdDSA]\n    \
             keys: {{jwks_file: {}}}\n    client: {{id: shop, secret_file: {}, timeout: 1s}}\n    \
             refresh: {{url: 'http://{address}/token'}}\n",
            home.path("jwks.json").display(),
            home.path("client.secret").display()
        );
        let (sidecar, hands) = home.start_at(&sections).await;
        Self { sidecar, hands, endpoint, home, sections }
    }

    async fn refresh(&self, token: &str) -> Result<RefreshResponse, Status> {
        self.sidecar.refresh(token).await
    }
}

#[tokio::test]
async fn a_foreign_session_is_refreshed_and_its_new_token_accepted() {
    let world = World::start().await;
    let renewed = world.refresh("r0").await.unwrap();
    let tokens = renewed.tokens.unwrap();
    assert_eq!((tokens.refresh_token.as_str(), tokens.id_token.as_str()), ("r1", "an.id.token"));
    assert_eq!(renewed.session_id, "s1");
    let ends = |at: Option<prost_types::Timestamp>| at.unwrap().seconds - START.as_secs().cast_signed();
    assert_eq!((ends(tokens.access_token_expires_at), ends(tokens.refresh_after)), (600, 480));
    assert_eq!(world.sidecar.verify(&tokens.access_token).await.unwrap().issuer, LOGIN);
    assert_eq!(world.endpoint.asked.lock().as_slice(), ["grant_type=refresh_token&refresh_token=r0"]);
    // Repeated, as after a lost reply.
    let again = world.refresh("r0").await.unwrap().tokens.unwrap();
    assert_eq!((again.access_token, again.refresh_token), (tokens.access_token, "r1".to_owned()));
    assert_eq!(world.endpoint.times_asked(), 1);
    world.sidecar.pass(&world.hands, Duration::from_secs(10)).await;
    assert_denied(world.refresh("r0").await, "INACTIVE", "REAUTHENTICATE");
    assert_eq!(world.endpoint.times_asked(), 2, "past the grace the issuer says what it thinks of it");
}

#[tokio::test]
async fn two_sidecars_on_one_store_make_one_exchange() {
    let world = World::start().await;
    let sections = format!("api: {{tcp: 127.0.0.1:0}}\n{}", world.sections);
    let (other, _hands) = world.home.start_at(&sections).await;
    let callers = (0..32).map(|n| if n % 2 == 0 { world.sidecar.refresh("r0") } else { other.refresh("r0") });
    for got in futures_util::future::join_all(callers).await {
        assert_eq!(got.unwrap().tokens.unwrap().refresh_token, "r1");
    }
    assert_eq!(world.endpoint.times_asked(), 1);
}

#[tokio::test]
async fn only_the_issuer_s_own_no_is_final() {
    let world = World::start().await;
    for (status, body) in [
        (StatusCode::UNAUTHORIZED, r#"{"error":"invalid_client"}"#),
        (StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#),
        (StatusCode::TOO_MANY_REQUESTS, "slow down"),
        (StatusCode::NOT_FOUND, ""),
        (StatusCode::FOUND, ""),
        (StatusCode::FORBIDDEN, "<html>a proxy</html>"),
    ] {
        world.endpoint.answers(status, body);
        assert_refused(world.refresh("r0").await, Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
    }
    assert_eq!(
        world.refresh("r0").await.unwrap().tokens.unwrap().refresh_token,
        "r1",
        "and nobody was logged out"
    );
    for (status, body) in [
        (StatusCode::FORBIDDEN, r#"{"error":"invalid_grant"}"#),
        (StatusCode::BAD_REQUEST, r#"{"error":"interaction_required"}"#),
    ] {
        world.endpoint.answers(status, body);
        let token = format!("dead{body}").replace(['{', '}', '"', ':'], "");
        assert_denied(world.refresh(&token).await, "INACTIVE", "REAUTHENTICATE");
    }
}

#[tokio::test]
async fn an_answer_in_doubt_is_waited_out_then_tried_once_and_counted() {
    let world = World::start().await;
    for (status, body) in
        [(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"invalid_grant"}"#), (StatusCode::OK, "not json")]
    {
        let sent = world.endpoint.times_asked();
        world.endpoint.answers(status, body);
        let refused = world.refresh("r0").await.unwrap_err();
        let retry = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(retry, Duration::from_secs(10), "when the grace ends");
        assert_refused(Err::<(), _>(refused), Code::Unavailable, "ISSUER_UNAVAILABLE", "NONE");
        assert_eq!(world.endpoint.times_asked(), sent + 1);
        world.hands.advance(Duration::from_secs(10));
    }
    assert_eq!(world.refresh("r0").await.unwrap().tokens.unwrap().refresh_token, "r1");
    let (_, metrics) = crate::lifecycle::get(&world.sidecar.ops, "/metrics").await;
    assert!(metrics.contains("countersign_refresh_ambiguous_total 2"), "{metrics}");
}

#[tokio::test]
async fn a_session_taken_back_here_is_given_no_new_tokens() {
    let world = World::start().await;
    let renewed = world.refresh("r0").await.unwrap();
    let session = SessionRevocation { issuer: Some(LOGIN.to_owned()), session_id: renewed.session_id };
    let request = RevokeRequest { target: Some(Target::Session(session)), reason: String::new() };
    world.sidecar.tokens().revoke(as_caller(request)).await.unwrap();
    for token in ["r0", "r1", "r1"] {
        assert_denied(world.refresh(token).await, "REVOKED", "REAUTHENTICATE");
    }
}

#[tokio::test]
async fn an_issuer_that_gives_no_new_refresh_token_leaves_the_old_one() {
    let world = World::start().await;
    world.endpoint.answers(StatusCode::OK, r#"{"access_token":"opaque","token_type":"Bearer"}"#);
    let tokens = world.refresh("r0").await.unwrap().tokens.unwrap();
    assert_eq!((tokens.access_token.as_str(), tokens.refresh_token.as_str()), ("opaque", "r0"));
    assert_eq!((tokens.access_token_expires_at, tokens.refresh_after), (None, None));
}

#[tokio::test]
async fn our_own_refresh_tokens_are_not_shown_to_an_issuer() {
    let world = World::start().await;
    let own = world.sidecar.login("carol", "medium").await.tokens.unwrap();
    world.refresh(&own.refresh_token).await.unwrap();
    let tampered = own.refresh_token.replace("csr_", "csr_A");
    assert!(world.refresh(&tampered).await.is_err());
    assert_denied(world.refresh("").await, "MALFORMED", "NONE");
    assert_eq!(world.endpoint.times_asked(), 0);
    let of_stranger = RefreshRequest {
        refresh_token: Some("r0".to_owned()),
        issuer: Some("https://stranger.example".to_owned()),
        ..RefreshRequest::default()
    };
    let refused = world.sidecar.tokens().refresh(of_stranger).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_the_store_nothing_is_sent() {
    let world = World::start().await;
    let store = world.home.path("store.db");
    let away = world.home.path("away.db");
    std::fs::rename(&store, &away).unwrap();
    assert_refused(world.refresh("r0").await, Code::Unavailable, "STORE_UNAVAILABLE", "NONE");
    assert_eq!(world.endpoint.times_asked(), 0);
    std::fs::rename(&away, &store).unwrap();
    assert_eq!(world.refresh("r0").await.unwrap().tokens.unwrap().refresh_token, "r1");
}
