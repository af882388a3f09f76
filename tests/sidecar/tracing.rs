//! Traces, as a receiver of OpenTelemetry's own messages gets them, and one in another language.

use crate::durability::{Process, as_caller, login};
use crate::lifecycle::get;
use crate::support::{Home, SECRET, eventually, verify_request};
use countersign::grpc::envoy::service::auth::v3::CheckRequest;
use countersign::grpc::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{Consistency, CreateSessionRequest, RefreshRequest, RevokeRequest};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector: keeps what comes.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    api_key: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
        self.api_key.lock().unwrap().extend(key);
        self.got.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, String) {
        let (receiver, address) = Self::serve(tonic::transport::Server::builder()).await;
        (receiver, format!("http://{address}"))
    }

    async fn serve(mut server: tonic::transport::Server) -> (Self, std::net::SocketAddr) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(receiver.clone());
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        (receiver, address)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        got.iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|of| &of.scope_spans)
            .flat_map(|of| of.spans.clone())
            .collect()
    }

    async fn has(&self, what: &str, count: usize) {
        eventually(what, || async { self.spans().len() >= count }).await;
    }
}

fn text(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As a caller in a trace sends it.
fn traced<T>(mut request: Request<T>, sampled: bool) -> Request<T> {
    let flags = if sampled { "01" } else { "00" };
    let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
    request
}

fn tracing(endpoint: &str, more: &str) -> String {
    format!("tracing: {{endpoint: \"{endpoint}\", send_every: 100ms, timeout: 500ms{more}}}\n")
}

#[tokio::test]
async fn a_caller_s_trace_is_continued_and_only_where_it_is_sampled() {
    let (receiver, address) = Receiver::start().await;
    let home = Home::new();
    std::fs::write(home.path("otel.headers"), "x-api-key: canary-key\n").unwrap();
    let headers = format!(", headers_file: {}", home.path("otel.headers").display());
    let sidecar = home.start(&tracing(&address, &headers)).await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let mut tokens = sidecar.tokens();

    sidecar.verify(&token).await.unwrap();
    tokens.verify(traced(Request::new(verify_request(&token)), false)).await.unwrap();
    tokens.verify(traced(Request::new(verify_request(&token)), true)).await.unwrap();
    tokens.verify(traced(Request::new(verify_request("junk")), true)).await.unwrap_err();
    let mut consistent = verify_request(&token);
    consistent.consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
    tokens.verify(traced(Request::new(consistent), true)).await.unwrap();
    let mut raw = tonic::client::Grpc::new(sidecar.channel.clone());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static("/eyJhbGciOiJ/canary");
    raw.unary(traced(Request::new(()), true), path, codec).await.unwrap_err();
    receiver.has("four calls and one read", 5).await;

    let spans = receiver.spans();
    assert_eq!(spans.len(), 5, "what isn't sampled isn't sent: {spans:?}");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "vendor=1");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    }
    let [warm, denied, asked, read, unknown] = spans.as_slice() else { unreachable!() };
    for server in [warm, denied, asked, unknown] {
        assert_eq!((hex(&server.parent_span_id).as_str(), server.kind()), (PARENT, SpanKind::Server));
        assert_eq!(server.flags, 0x301, "sampled, and the parent is elsewhere");
        assert_eq!(text(server, "rpc.system.name").as_deref(), Some("grpc"));
    }
    assert_eq!(warm.name, "countersign.v1.TokenService/Verify");
    assert_eq!(text(warm, "rpc.method").as_deref(), Some("countersign.v1.TokenService/Verify"));
    assert_eq!(text(warm, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(text(warm, "countersign.source").as_deref(), Some("cache"));
    assert_eq!(text(warm, "countersign.issuer").as_deref(), Some(crate::support::ISSUER));
    assert_eq!(text(denied, "rpc.response.status_code").as_deref(), Some("UNAUTHENTICATED"));
    assert_eq!(text(denied, "countersign.reason").as_deref(), Some("MALFORMED"));
    assert!(denied.status.is_none(), "a denial is an answer, not an error");
    assert_eq!(text(asked, "countersign.source").as_deref(), Some("store"));
    assert_eq!((read.name.as_str(), read.kind()), ("store.read", SpanKind::Internal));
    assert_eq!(read.parent_span_id, asked.span_id);
    assert_eq!(unknown.name, "_OTHER");
    assert_eq!(text(unknown, "error.type").as_deref(), Some("UNIMPLEMENTED"));
    assert_eq!(unknown.status.as_ref().unwrap().code(), StatusCode::Error);

    let got = receiver.got.lock().unwrap().clone();
    let resource = got[0].resource_spans[0].resource.clone().unwrap();
    let service = resource.attributes.iter().find(|of| of.key == "service.name").unwrap();
    assert!(format!("{service:?}").contains("countersign"));
    assert!(!format!("{got:?}").contains("eyJ"), "nothing of a token or of a caller's path");
    assert_eq!(receiver.api_key.lock().unwrap()[0], "canary-key");
    eventually("they are counted once they are answered for", || async {
        let (_, metrics) = get(&sidecar.ops, "/metrics").await;
        metrics.contains("countersign_trace_spans_total{result=\"exported\"} 5\n")
    })
    .await;
}

#[tokio::test]
async fn what_a_proxy_is_refused_for_is_in_its_span() {
    let (receiver, address) = Receiver::start().await;
    let home = Home::new();
    let api = "api: {tcp: 127.0.0.1:0, serve: [verify, check]}\n";
    let sidecar = home.start(&format!("{api}{}{}", home.own(""), tracing(&address, ""))).await;
    let mut proxy = AuthorizationClient::new(sidecar.channel.clone());
    let answer = proxy.check(traced(Request::new(CheckRequest::default()), true)).await.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, i32::from(tonic::Code::Unauthenticated));
    receiver.has("a check", 1).await;

    let [span] = receiver.spans().try_into().unwrap();
    assert_eq!(span.name, "envoy.service.auth.v3.Authorization/Check");
    assert_eq!(text(&span, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_eq!(text(&span, "countersign.reason").as_deref(), Some("MALFORMED"));
}

#[tokio::test]
async fn a_collector_is_believed_by_its_authority_alone() {
    use rcgen::SanType;
    use tonic::transport::{Identity, Server, ServerTlsConfig};
    let ours = crate::mutual_tls::authority();
    let name = SanType::DnsName("localhost".try_into().unwrap());
    let (certificate, key) = crate::mutual_tls::issued(&ours, name);
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let (receiver, address) = Receiver::serve(Server::builder().tls_config(tls).unwrap()).await;
    let endpoint = format!("https://localhost:{}", address.port());
    let home = Home::new();
    std::fs::write(home.path("ca.pem"), ours.pem()).unwrap();
    let stranger = home.start(&tracing(&endpoint, ", ratio: 1")).await;
    stranger.verify("junk").await.unwrap_err();
    tokio::task::spawn_blocking(move || stranger.stop()).await.unwrap();
    assert!(receiver.spans().is_empty(), "nothing is told to a stranger");

    let trusted = format!(", ratio: 1, ca_file: {}", home.path("ca.pem").display());
    let sidecar = home.start(&tracing(&endpoint, &trusted)).await;
    sidecar.verify("junk").await.unwrap_err();
    receiver.has("over TLS", 1).await;
}

#[tokio::test]
async fn without_a_trace_the_ratio_decides_and_the_last_spans_are_sent_at_the_end() {
    let (receiver, address) = Receiver::start().await;
    let home = Home::new();
    let slow =
        format!("tracing: {{endpoint: \"{address}\", send_every: 60s, ratio: 1, service_name: orders}}\n");
    let sidecar = home.start(&slow).await;
    sidecar.verify("junk").await.unwrap_err();
    tokens_untraced(&sidecar).await;
    tokio::task::spawn_blocking(move || sidecar.stop()).await.unwrap();
    let spans = receiver.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert!(spans[0].parent_span_id.is_empty() && spans[0].trace_id.len() == 16);
    assert_eq!(spans[0].flags & 0x301, 0x101);
}

async fn tokens_untraced(sidecar: &crate::support::Sidecar) {
    let unsampled = traced(Request::new(verify_request("junk")), false);
    sidecar.tokens().verify(unsampled).await.unwrap_err();
}

#[tokio::test]
async fn without_a_collector_calls_are_answered_and_spans_dropped_and_counted() {
    let home = Home::new();
    let nobody = tracing("http://127.0.0.1:1", ", ratio: 1, queue: 16");
    let sidecar = home.start(&nobody).await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        sidecar.verify(&token).await.unwrap();
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    let (_, metrics) = get(&sidecar.ops, "/metrics").await;
    let dropped =
        metrics.lines().find(|line| line.contains("trace_spans_total{result=\"dropped\"}")).unwrap();
    assert!(dropped.rsplit(' ').next().unwrap().parse::<u32>().unwrap() > 100, "{dropped}");
    let begun = std::time::Instant::now();
    tokio::task::spawn_blocking(move || sidecar.stop()).await.unwrap();
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(4),
        "the end does not wait: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn no_token_secret_or_claim_is_in_any_span() {
    let (receiver, address) = Receiver::start().await;
    let home = Home::new();
    let process = Process::start(&home, &tracing(&address, ", ratio: 1")).await;
    let channel = process.channel().await;
    let mut tokens = TokenServiceClient::new(channel.clone());
    let (session, first) = login(&channel).await;
    let request = CreateSessionRequest { subject: "canary-subject".into(), ..Default::default() };
    SessionServiceClient::new(channel).create_session(as_caller(request)).await.unwrap();
    tokens.verify(verify_request(&first.access_token)).await.unwrap();
    tokens.verify(verify_request(&first.access_token[3..])).await.unwrap_err();
    let refresh =
        || RefreshRequest { refresh_token: Some(first.refresh_token.clone()), ..Default::default() };
    tokens.refresh(refresh()).await.unwrap();
    let target = || Some(Target::Token(first.refresh_token.clone()));
    tokens.revoke(RevokeRequest { target: target(), reason: "canary_reason".into() }).await.unwrap();
    tokens.refresh(refresh()).await.unwrap_err();
    receiver.has("every call", 8).await;
    let (_, log) = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    let got = receiver.got.lock().unwrap().clone();
    let bytes: Vec<u8> = got.iter().flat_map(prost::Message::encode_to_vec).collect();
    let output = format!("{}\n{got:?}", String::from_utf8_lossy(&bytes));
    assert!(output.contains("REVOKED") && output.contains("log.append"), "{output}");
    for secret in [SECRET, "canary", "alice", session.as_str()] {
        assert!(!output.contains(secret), "{secret} is in a span");
    }
    for token in [&first.access_token, &first.refresh_token] {
        for part in token.split(['.', '_']).filter(|part| part.len() > 16) {
            assert!(!output.contains(&part[..16]) && !log.contains(&part[..16]), "part of a token");
        }
    }
}

#[tokio::test]
async fn a_receiver_in_another_language_understands_it() {
    let Some(python) = std::env::var_os("TEST_PYTHON") else {
        eprintln!("NOT RUN: the OTLP receiver in Python; `make test` prepares an interpreter and runs it");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/otlp_receiver.py");
    let mut receiver = Command::new(python).arg(script).arg("2").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    let address = lines.next().expect("it listens").unwrap();
    let home = Home::new();
    let sidecar = home.start(&tracing(&address, "")).await;
    let mut tokens = sidecar.tokens();
    for bad in ["junk", ""] {
        tokens.verify(traced(Request::new(verify_request(bad)), true)).await.unwrap_err();
    }
    let spans = tokio::task::spawn_blocking(move || {
        let spans: Vec<serde_json::Value> =
            lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert!(receiver.wait().unwrap().success());
        spans
    });
    for span in spans.await.unwrap() {
        assert_eq!((span["trace"].as_str(), span["parent"].as_str()), (Some(TRACE), Some(PARENT)), "{span}");
        assert_eq!(span["name"], "countersign.v1.TokenService/Verify");
        assert_eq!(span["kind"], "SPAN_KIND_SERVER");
        assert_eq!(span["attributes"]["countersign.reason"], "MALFORMED");
        assert_eq!(span["service"], "countersign");
    }
}
