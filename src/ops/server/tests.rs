//! The bound listener, over real sockets.

use super::*;
use crate::ops::health::{Gate, Readiness};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Far longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(60);
const NEVER: Duration = Duration::from_secs(3600);
/// A preface and empty settings: an HTTP/2 client that then falls silent.
const HTTP2_HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A listener in the background.
struct Bound {
    at: SocketAddr,
    readiness: Readiness,
    gate: Gate,
    cancel: CancellationToken,
    serving: JoinHandle<()>,
}

/// No limit of time is reached, except by the test that is about it.
fn patient() -> Limits {
    Limits { connections: 16, request_timeout: NEVER, idle_timeout: NEVER, drain: NEVER }
}

async fn bind(limits: Limits) -> Bound {
    bind_with(limits, CancellationToken::new(), None).await
}

/// `watches_end` is what the health service ends its watches on.
async fn bind_with(limits: Limits, watches_end: CancellationToken, jwks: Option<&'static str>) -> Bound {
    let readiness = Readiness::new();
    let gate = readiness.gate("denylist");
    let state = OpsState {
        health: Health::new(readiness.clone(), ["countersign.v1.TokenService"], watches_end),
        metrics: Arc::new(Metrics::new()),
        jwks: Arc::new(move || jwks.map(Arc::from)),
        before_render: Arc::new(|metrics| metrics.set_revision(4711)),
        limits,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, state, cancel.clone()));
    Bound { at, readiness, gate, cancel, serving }
}

impl Bound {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.expect("a connection")
    }

    async fn health(&self) -> HealthClient<tonic::transport::Channel> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.at));
        HealthClient::new(endpoint.expect("an address").connect().await.expect("a channel"))
    }

    async fn call(&self, http2: bool, method: Method, path: &str) -> Response<String> {
        let client =
            Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Empty<bytes::Bytes>>();
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.at));
        let answer = client.request(request.body(Empty::new()).expect("a request")).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Response::from_parts(parts, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }

    async fn get(&self, path: &str) -> Response<String> {
        self.call(false, Method::GET, path).await
    }

    async fn ends(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("an end").expect("no panic");
    }
}

fn header<'r>(answer: &'r Response<String>, name: &str) -> &'r str {
    answer.headers().get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

/// Everything the peer sends until it closes or cuts the connection.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _closed_or_reset = read.expect("the peer should have closed");
    bytes
}

#[tokio::test]
async fn livez_answers_before_anything_is_ready() {
    let bound = bind(patient()).await;
    for http2 in [false, true] {
        let answer = bound.call(http2, Method::GET, "/livez").await;
        assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, "alive\n"));
    }
}

#[tokio::test]
async fn readyz_names_what_it_waits_for() {
    let bound = bind(patient()).await;
    let answer = bound.get("/readyz").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body(), "not ready: denylist\n");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    bound.gate.open();
    let answer = bound.get("/readyz").await;
    assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, "ready\n"));
    bound.readiness.drain();
    let answer = bound.get("/readyz").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body(), "not ready: draining\n");
    assert_eq!(bound.get("/livez").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_sampled_and_rendered_as_open_metrics() {
    let bound = bind(patient()).await;
    let answer = bound.get("/metrics?name=ignored").await;
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(header(&answer, "content-type"), media_type);
    assert!(answer.body().contains("\ncountersign_revision 4711\n"), "{}", answer.body());
    assert!(answer.body().ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_key_set_may_be_kept_for_minutes() {
    let bound = bind_with(patient(), CancellationToken::new(), Some(r#"{"keys":[]}"#)).await;
    let answer = bound.get("/.well-known/jwks.json").await;
    assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, r#"{"keys":[]}"#));
    assert_eq!(header(&answer, "content-type"), "application/jwk-set+json");
    assert_eq!(header(&answer, "cache-control"), "public, max-age=300");
}

#[tokio::test]
async fn without_keys_of_its_own_there_is_no_key_set() {
    let bound = bind(patient()).await;
    assert_eq!(bound.get("/.well-known/jwks.json").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(bound.get("/").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn head_says_what_get_would_without_the_body() {
    let bound = bind(patient()).await;
    for http2 in [false, true] {
        let answer = bound.call(http2, Method::HEAD, "/livez").await;
        assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, ""));
        assert_eq!(header(&answer, "content-length"), "6");
    }
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let bound = bind(patient()).await;
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = bound.call(false, method, "/metrics").await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(header(&answer, "allow"), "GET, HEAD");
    }
}

#[tokio::test]
async fn grpc_health_is_answered_on_the_same_port() {
    let bound = bind(patient()).await;
    let mut health = bound.health().await;
    let mut check = async |service: &str| {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
        answer.map(|answer| answer.get_ref().status()).map_err(|status| status.code())
    };
    assert_eq!(check("liveness").await, Ok(ServingStatus::Serving));
    assert_eq!(check("").await, Ok(ServingStatus::NotServing));
    bound.gate.open();
    assert_eq!(check("").await, Ok(ServingStatus::Serving));
    assert_eq!(check("countersign.v1.TokenService").await, Ok(ServingStatus::Serving));
    assert_eq!(check("countersign.v1.Nothing").await, Err(Code::NotFound));
    assert_eq!(check(&"x".repeat(2_000)).await, Err(Code::OutOfRange), "a request out of all proportion");
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_says_so_and_stays_open() {
    let bound = bind(patient()).await;
    let request = HealthCheckRequest { service: "countersign.v1.Nothing".to_owned() };
    let mut answers = bound.health().await.watch(request).await.expect("a stream").into_inner();
    let first = answers.message().await.expect("no error").expect("a message");
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    assert!(tokio::time::timeout(SHORT, answers.message()).await.is_err(), "nothing more, and no end");
}

#[tokio::test]
async fn another_grpc_method_is_unimplemented() {
    let bound = bind(patient()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<bytes::Bytes>>();
    let request = Request::post(format!("http://{}/countersign.v1.TokenService/Verify", bound.at))
        .header("content-type", "application/grpc+proto")
        .body(Empty::new())
        .expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.headers().get("grpc-status").map(|s| s.as_bytes()), Some(b"12".as_slice()));
}

#[tokio::test]
async fn grpc_over_http_1_is_refused() {
    let bound = bind(patient()).await;
    for (media_type, refusal) in [("application/grpc", 505), ("application/grpc-web", 404)] {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
        let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", bound.at))
            .header("content-type", media_type)
            .body(Full::from("\0\0\0\0\0"))
            .expect("a request");
        assert_eq!(client.request(request).await.expect("an answer").status(), refusal, "{media_type}");
    }
}

#[tokio::test]
async fn a_drain_ends_watches_and_returns() {
    let watches_end = CancellationToken::new();
    let bound = bind_with(patient(), watches_end.clone(), None).await;
    bound.gate.open();
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let mut answers = bound.health().await.watch(request).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("one").expect("one").status(), ServingStatus::Serving);
    bound.readiness.drain();
    assert_eq!(answers.message().await.expect("one").expect("one").status(), ServingStatus::NotServing);
    bound.cancel.cancel();
    watches_end.cancel();
    assert_eq!(answers.message().await.map_err(|status| status.code()), Err(Code::Unavailable));
    bound.ends().await;
}

#[tokio::test]
async fn a_watch_that_will_not_end_is_cut_at_the_deadline() {
    let bound = bind(Limits { drain: SHORT, ..patient() }).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut answers = bound.health().await.watch(request).await.expect("a stream").into_inner();
    answers.message().await.expect("the first answer");
    bound.cancel.cancel();
    bound.ends().await;
    assert!(answers.message().await.is_err(), "the stream was cut");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_silent_connections_beyond_the_deadline() {
    let bound = bind(Limits { drain: SHORT, ..patient() }).await;
    let (mut silent, mut half) = (bound.connect().await, bound.connect().await);
    half.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.expect("a write");
    assert_eq!(bound.get("/livez").await.status(), StatusCode::OK);
    bound.cancel.cancel();
    bound.ends().await;
    assert!(until_closed(&mut silent).await.is_empty());
    until_closed(&mut half).await;
}

#[tokio::test]
async fn dropping_the_server_cuts_its_connections() {
    let bound = bind(patient()).await;
    let mut stream = bound.connect().await;
    assert_eq!(bound.get("/livez").await.status(), StatusCode::OK);
    bound.serving.abort();
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_dribbles_its_header_is_cut() {
    let bound = bind(Limits { request_timeout: SHORT, ..patient() }).await;
    let mut stream = bound.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nx-slow:").await.expect("a write");
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut() {
    let bound = bind(Limits { request_timeout: SHORT, ..patient() }).await;
    assert!(until_closed(&mut bound.connect().await).await.is_empty());
}

#[tokio::test]
async fn a_client_that_stops_within_the_http_2_preface_is_cut() {
    let bound = bind(Limits { request_timeout: SHORT, ..patient() }).await;
    let mut stream = bound.connect().await;
    stream.write_all(b"PRI * HT").await.expect("a write");
    assert!(until_closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn a_client_that_falls_silent_after_the_http_2_preface_is_cut() {
    let bound = bind(Limits { request_timeout: SHORT, ..patient() }).await;
    let mut stream = bound.connect().await;
    stream.write_all(HTTP2_HELLO).await.expect("a write");
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_grpc_message_that_never_comes_is_not_waited_for() {
    let bound = bind(Limits { request_timeout: SHORT, ..patient() }).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let endless = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<Frame<bytes::Bytes>, Infallible>,
    >());
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", bound.at))
        .header("content-type", "application/grpc")
        .body(endless)
        .expect("a request");
    let answer =
        tokio::time::timeout(PATIENCE, client.request(request)).await.expect("in time").expect("an answer");
    assert_eq!(answer.headers().get("grpc-status").map(|s| s.as_bytes()), Some(b"4".as_slice()));
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_and_a_watch_is_not_idle() {
    let bound = bind(Limits { idle_timeout: SHORT, request_timeout: SHORT, ..patient() }).await;
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let mut answers = bound.health().await.watch(request).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("one").expect("one").status(), ServingStatus::NotServing);
    let mut stream = bound.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a write");
    assert!(until_closed(&mut stream).await.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(tokio::time::timeout(SHORT * 5, answers.message()).await.is_err(), "still open");
    bound.gate.open();
    assert_eq!(answers.message().await.expect("one").expect("one").status(), ServingStatus::Serving);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_at_once() {
    let bound = bind(Limits { connections: 2, ..patient() }).await;
    let mut seated = Vec::new();
    for _ in 0..2 {
        let mut stream = bound.connect().await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("a write");
        stream.read_exact(&mut [0; 8]).await.expect("an answer");
        seated.push(stream);
    }
    assert!(until_closed(&mut bound.connect().await).await.is_empty());
    drop(seated.pop());
    let answered = async {
        loop {
            let mut stream = bound.connect().await;
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            if !until_closed(&mut stream).await.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("the freed seat is given out again");
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let bound = bind(patient()).await;
    let mut stream = bound.connect().await;
    let mut request = b"GET /livez HTTP/1.1\r\nhost: a\r\n".to_vec();
    for n in 0..2_000 {
        request.extend_from_slice(format!("x-{n}: {}\r\n", "v".repeat(40)).as_bytes());
    }
    let _cut_while_writing = stream.write_all(&request).await;
    let answer = until_closed(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_request_body_nobody_asked_for_is_not_read() {
    let bound = bind(patient()).await;
    let mut stream = bound.connect().await;
    let head = b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000000\r\n\r\nxx";
    stream.write_all(head).await.expect("a write");
    assert!(until_closed(&mut stream).await.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
