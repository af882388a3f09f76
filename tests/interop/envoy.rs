//! A real Envoy in front of a service, asking a sidecar, with the configuration that README's readers copy
//! (examples/envoy/envoy.yaml); only its addresses are the tests' own.

use crate::engines::{Guarded, free_port};
use crate::peer::{Peer, node};
use crate::support::{Home, Sidecar};
use bytes::Bytes;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Attributes, RevokeRequest};
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const COOKIE: &str = "__Secure-authjs.session-token";
const SECRET: &str = "kZ1Y9cJ3PpJ0l6h0Yd0s0hL1l3gk0JqTg9q9l0mU3jE=";

/// The program that `make interop` installed.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("TEST_ENVOY");
    if program.is_none() {
        eprintln!("NOT RUN: Envoy; `make interop` installs it and runs this");
    }
    program.map(PathBuf::from)
}

struct Mesh {
    sidecar: Sidecar,
    port: u16,
    log: PathBuf,
    _envoy: Guarded,
    _home: Home,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// What the service saw, where it was reached.
    seen: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// Answers HTTP with the headers it saw, and gRPC with an empty message.
async fn service(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let mut seen = serde_json::Map::new();
    for (name, value) in request.headers() {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let lines = seen.entry(name.as_str()).or_insert_with(|| json!([]));
        lines.as_array_mut().unwrap().push(text.into());
    }
    let is_grpc =
        request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/grpc");
    if !is_grpc {
        return Ok(Response::new(Full::from(Value::from(seen).to_string()).boxed()));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let subject =
        seen.get("x-countersign-subject").and_then(|lines| lines[0].as_str()).unwrap_or_default().to_owned();
    trailers.insert("x-seen-subject", subject.parse().unwrap());
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body.boxed()).unwrap())
}

impl Mesh {
    async fn start(over_unix: bool) -> Option<Self> {
        let program = program()?;
        let upstream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let upstream_port = upstream.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = upstream.accept().await {
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ended = builder.serve_connection(TokioIo::new(stream), service_fn(service)).await;
                });
            }
        });
        let home = Home::new();
        std::fs::write(home.path("auth.secret"), SECRET).unwrap();
        let own = home.own("    medium: {preset: medium, audience: [shop, orders, payments]}\n");
        let sidecar = home
            .start(&format!(
                "{own}issuers:\n  - issuer: shop-web\n    audiences: [shop, orders]\n    authjs: {{secret_files: {}}}\n    \
                 claims: {{scopes: /scopes}}\next_authz: {{}}\n{}",
                home.path("auth.secret").display(),
                format_args!(
                    "api:\n  tcp: 127.0.0.1:0\n  unix: {}/run/api.sock\n  serve: [verify, refresh, revoke, sessions, check]\n",
                    home.path("").display()
                )
            ))
            .await;
        let port = free_port();
        let sidecar_port = sidecar.api.rsplit(':').next().unwrap().to_owned();
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/envoy/envoy.yaml");
        let mut text = std::fs::read_to_string(sample).unwrap();
        let at_sidecar = "socket_address: { address: 127.0.0.1, port_value: 50051 }";
        if over_unix {
            let socket = sidecar.unix.as_deref().unwrap().trim_start_matches("unix:");
            text = change(&text, at_sidecar, "");
            text = change(
                &text,
                "# pipe: { path: /run/countersign/api.sock }",
                &format!("pipe: {{ path: {socket} }}"),
            );
        } else {
            text = change(&text, at_sidecar, &at_sidecar.replace("50051", &sidecar_port));
        }
        text = change(
            &text,
            "address: 127.0.0.1, port_value: 8080",
            &format!("address: 127.0.0.1, port_value: {port}"),
        );
        text = change(&text, "port_value: 9901", &format!("port_value: {}", free_port()));
        text = change(&text, "port_value: 8081", &format!("port_value: {upstream_port}"));
        text = change(&text, "port_value: 8082", &format!("port_value: {upstream_port}"));
        let file = home.path("envoy.yaml");
        std::fs::write(&file, text).unwrap();
        let log = home.path("envoy.log");
        let arguments =
            ["-c", file.to_str().unwrap(), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
        let envoy = Guarded::start(&program, &arguments.map(str::to_owned), &log);
        let mesh = Self { sidecar, port, log, _envoy: envoy, _home: home };
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(mesh);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Envoy does not start:\n{}", std::fs::read_to_string(&mesh.log).unwrap_or_default());
    }

    async fn login(&self, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let attributes = Attributes { scopes, roles: vec!["customer".to_owned()], ..Attributes::default() };
        self.sidecar.try_login("alice", "medium", attributes).await.unwrap().tokens.unwrap().access_token
    }

    /// Over HTTP/1.1, line by line as given.
    async fn one(&self, path: &str, lines: &[&str]) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: shop.example.com\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.unwrap();
        let text = String::from_utf8(raw).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        // Chunked or not, it is one line of JSON.
        let json = body.find('{').and_then(|at| body[at..].lines().next());
        Answer {
            status,
            headers,
            seen: json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        }
    }

    /// Over HTTP/2.
    async fn two(&self, path: &str, lines: &[&str]) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driving = tokio::spawn(connection);
        let mut request = Request::get(format!("http://shop.example.com{path}"));
        for (name, value) in lines.iter().map(|line| line.split_once(": ").unwrap()) {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        driving.abort();
        Answer { status, headers, seen: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// The same over both.
    async fn get(&self, path: &str, lines: &[&str]) -> Answer {
        let (one, two) = (self.one(path, lines).await, self.two(path, lines).await);
        assert_eq!(one.status, two.status, "{path} {one:?} {two:?}");
        for name in ["www-authenticate", "x-countersign-reason", "retry-after"] {
            assert_eq!(one.header(name), two.header(name), "{path}");
        }
        one
    }

    /// A gRPC call; the subject that the service saw.
    async fn call(&self, token: Option<&str>) -> Result<String, Status> {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(());
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let path = http::uri::PathAndQuery::from_static("/shop.v1.PaymentService/Pay");
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let response = grpc.unary(request, path, codec).await?;
        Ok(response.metadata().get("x-seen-subject").unwrap().to_str().unwrap().to_owned())
    }
}

#[track_caller]
fn change(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

async fn routes_are_judged(mesh: &Mesh) {
    let token = mesh.login(&["orders:read"]).await;
    let bearer = format!("authorization: Bearer {token}");
    let spoofed =
        ["x-countersign-subject: mallory", "x-countersign-roles: admin", "x-countersign-claims: e30"];

    let open = mesh.get("/healthz", &spoofed).await;
    assert_eq!(
        (open.status, &open.seen["x-countersign-subject"]),
        (200, &Value::Null),
        "stripped at the door"
    );

    let good = mesh.get("/orders/7", &[bearer.as_str(), spoofed[0], spoofed[1], spoofed[2]]).await;
    assert_eq!(good.status, 200);
    for (name, value) in [
        ("x-countersign-subject", json!(["alice"])),
        ("x-countersign-roles", json!(["customer"])),
        ("x-countersign-scopes", json!(["orders:read"])),
        ("x-countersign-kind", json!(["JWT"])),
        ("x-countersign-claims", Value::Null),
    ] {
        assert_eq!(good.seen[name], value, "{name} {:?}", good.seen);
    }

    let nobody = mesh.get("/orders", &[]).await;
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, r#"Bearer realm="countersign""#));
    let bad = mesh.get("/orders", &["authorization: Bearer nonsense"]).await;
    let challenge = r#"Bearer realm="countersign", error="invalid_token""#;
    assert_eq!((bad.status, bad.header("www-authenticate")), (401, challenge));
    assert_eq!(bad.header("x-countersign-reason"), "MALFORMED");
    let poor = mesh.get("/payments", &[bearer.as_str()]).await;
    let challenge = r#"Bearer realm="countersign", error="insufficient_scope", scope="payments:write""#;
    assert_eq!((poor.status, poor.header("www-authenticate")), (403, challenge));

    let twice = mesh.get("/orders", &[bearer.as_str(), bearer.as_str()]).await;
    assert_eq!((twice.status, twice.header("x-countersign-reason")), (401, "MALFORMED"), "two credentials");
    let twice = mesh.get("/public/x", &[bearer.as_str(), "authorization: Basic YTpi"]).await;
    assert_eq!(twice.status, 401, "also where none is needed");

    let anonymous = mesh.get("/public/x", &spoofed).await;
    assert_eq!((anonymous.status, &anonymous.seen["x-countersign-subject"]), (200, &Value::Null));
    let known = mesh.get("/public/x", &[bearer.as_str()]).await;
    assert_eq!((known.status, &known.seen["x-countersign-subject"]), (200, &json!(["alice"])));
    assert_eq!(mesh.get("/public/x", &["authorization: Bearer nonsense"]).await.status, 401);

    // Another path to the same place has the same demands, or is none.
    for path in ["/public/../orders", "/public/%2e%2e/orders", "//orders"] {
        assert_eq!(mesh.one(path, &[]).await.status, 401, "{path}");
    }
    assert_eq!(mesh.one("/public%2f..%2forders", &[]).await.status, 400);
    assert_eq!(mesh.one("/orders", &["x_countersign_subject: mallory"]).await.status, 400);

    let request = RevokeRequest { target: Some(Target::Token(token)), reason: String::new() };
    mesh.sidecar.tokens().revoke(request).await.unwrap();
    let revoked = mesh.get("/orders", &[bearer.as_str()]).await;
    assert_eq!((revoked.status, revoked.header("x-countersign-reason")), (401, "REVOKED"));
}

async fn grpc_is_judged(mesh: &Mesh) {
    let rich = mesh.login(&["payments:write"]).await;
    assert_eq!(mesh.call(Some(&rich)).await.unwrap(), "alice");
    let nobody = mesh.call(None).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    let poor = mesh.login(&["orders:read"]).await;
    let refused = mesh.call(Some(&poor)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "INSUFFICIENT_SCOPE", "the details pass through Envoy");
    assert!(refused.message().contains("scope"), "{}", refused.message());
}

#[tokio::test]
async fn routes_are_judged_over_tcp() {
    let Some(mesh) = Mesh::start(false).await else { return };
    routes_are_judged(&mesh).await;
    grpc_is_judged(&mesh).await;
}

#[tokio::test]
async fn routes_are_judged_over_a_unix_socket() {
    let Some(mesh) = Mesh::start(true).await else { return };
    routes_are_judged(&mesh).await;
    grpc_is_judged(&mesh).await;
}

/// A cookie of the real Auth.js, too long for one, in chunks that a browser sends in one line, in several, or over HTTP/2.
#[tokio::test]
async fn a_session_cookie_in_chunks_is_accepted() {
    let (Some(mesh), Some(place)) = (Mesh::start(false).await, node()) else { return };
    let mut application = Peer::node(&place, "peer.mjs");
    let claims = json!({"sub": "bob", "scopes": ["orders:read"], "padding": "x".repeat(5000)});
    let encode = json!({
        "ask": "encode", "version": 5, "token": claims, "secret": SECRET, "name": COOKIE, "maxAge": 3600,
    });
    let value = application.ask(&encode).unwrap().as_str().unwrap().to_owned();
    let chunk = json!({"ask": "chunk", "version": 5, "value": value, "name": COOKIE});
    let chunks: Vec<(String, String)> = serde_json::from_value(application.ask(&chunk).unwrap()).unwrap();
    assert!(chunks.len() > 1);
    let pairs: Vec<_> = chunks.iter().rev().map(|(name, value)| format!("{name}={value}")).collect();
    let (line, lines) =
        (format!("cookie: a=b; {}", pairs.join("; ")), pairs.iter().map(|pair| format!("cookie: {pair}")));
    let lines: Vec<_> = lines.collect();
    let several: Vec<_> = lines.iter().map(String::as_str).collect();
    for cookies in [vec![line.as_str()], several] {
        let known = mesh.get("/orders", &cookies).await;
        assert_eq!((known.status, &known.seen["x-countersign-subject"]), (200, &json!(["bob"])), "{known:?}");
        assert_eq!(known.seen["x-countersign-kind"], json!(["AUTHJS_COOKIE"]));
    }
    let torn = mesh.get("/orders", &[&format!("cookie: {}", pairs[0])]).await;
    assert_eq!(torn.status, 401);
}

#[tokio::test]
async fn what_a_sidecar_says_is_in_the_access_log_and_its_absence_is_no_denial() {
    let Some(mesh) = Mesh::start(false).await else { return };
    let token = mesh.login(&["orders:read"]).await;
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(mesh.one("/orders", &[bearer.as_str()]).await.status, 200);
    assert_eq!(mesh.one("/orders", &[]).await.status, 401);
    let Mesh { sidecar, port, log, _envoy, _home } = mesh;
    sidecar.stop();
    let gone = Mesh { sidecar: _home.start("").await, port, log, _envoy, _home };
    let undecided = gone.get("/orders", &[bearer.as_str()]).await;
    assert_eq!((undecided.status, undecided.header("www-authenticate")), (503, ""));
    assert_eq!(gone.call(Some(&token)).await.unwrap_err().code(), Code::Unavailable);
    let logged = || std::fs::read_to_string(&gone.log).unwrap();
    crate::support::eventually("it is logged", || async { logged().contains("ext_authz_error") }).await;
    let lines: Vec<Value> = logged().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |status: i64| lines.iter().find(|line| line["status"] == status).unwrap();
    assert_eq!(of(200)["countersign"]["subject"], "alice", "{lines:?}");
    assert_eq!(of(200)["countersign"]["claims"]["scope"], "orders:read");
    assert_eq!(of(401)["countersign"]["reason"], "MALFORMED");
    assert!(!logged().contains(&token), "no token is logged");
}
