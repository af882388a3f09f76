//! What a proxy's question costs beside Verify; and Envoy's own verification (jwt_authn) beside ours: one worker each on core
//! 0, the same RS256 token, the same client (h2load) on core 1.

use crate::load;
use crate::report::Report;
use crate::servers::{Server, World, pin_to_core, processor_time};
use crate::{CALLS, FULL, TURNS, VERIFY, median, tokens};
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::grpc::envoy::config::core::v3::{HeaderMap, HeaderValue};
use countersign::grpc::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use countersign::grpc::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use countersign::grpc::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use countersign::grpc::v1::VerifyRequest;
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Tokens in turn, all of them cached.
const COUNT: usize = 20_000;
/// Requests in one turn of h2load.
const REQUESTS: usize = 60_000;

pub fn measure(report: &mut Report) {
    let world = World::serving("verify, check");
    let bodies = tokens::verify_bodies(&world, COUNT);
    pin_to_core(1);
    let token = VerifyRequest::decode(bodies[0].as_slice()).unwrap().token.unwrap();
    let countersign = Server::countersign(&world);
    asked(&countersign, &bodies, report);
    match std::env::var_os("BENCH_ENVOY") {
        Some(program) => beside_envoy(&world, &countersign, Path::new(&program), &token, report),
        None => println!("NOT MEASURED: Envoy; `make bench` installs it and names its place in BENCH_ENVOY"),
    }
}

/// The same tokens by Check and by Verify, in turns.
fn asked(countersign: &Server, bodies: &[Vec<u8>], report: &mut Report) {
    let checks: Vec<Vec<u8>> = bodies.iter().map(|body| check_body(body)).collect();
    let all = load::Plan { calls: bodies.len(), ..FULL };
    allows(countersign, &checks[0]);
    load::run(&countersign.tcp, VERIFY, bodies, all);
    load::run(&countersign.tcp, CHECK, &checks, all);
    let (mut ratios, mut rates, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let check = load::run(&countersign.tcp, CHECK, &checks, FULL).per_second;
        let verify = load::run(&countersign.tcp, VERIFY, bodies, FULL).per_second;
        ratios.push(check / verify);
        rates.push(check);
        others.push(verify);
    }
    let about = format!(
        "goal 0.8; {:.0} checks/s, audience and scope demanded, to {:.0} verifications",
        median(rates),
        median(others)
    );
    report.value("ext_authz_vs_verify", median(ratios), "ratio", CALLS * TURNS, &about);
}

/// As Envoy asks under the sample's configuration.
fn check_body(verify: &[u8]) -> Vec<u8> {
    let token = VerifyRequest::decode(verify).unwrap().token.unwrap();
    let line = |(key, value): (&str, String)| HeaderValue {
        key: key.to_owned(),
        value: String::new(),
        raw_value: value.into_bytes(),
    };
    let lines = [
        ("authorization", format!("Bearer {token}")),
        ("cookie", "theme=dark; consent=1700000000".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    let http = HttpRequest {
        id: "1234567890123456789".to_owned(),
        method: "GET".to_owned(),
        header_map: Some(HeaderMap { headers: lines.into_iter().map(line).collect() }),
        path: "/orders/1234?expand=items".to_owned(),
        host: "shop.example.com".to_owned(),
        scheme: "https".to_owned(),
        ..HttpRequest::default()
    };
    let demands = [("audiences", "orders"), ("scopes", "orders:read")];
    let attributes = AttributeContext {
        request: Some(Request { http: Some(http) }),
        context_extensions: demands.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn allows(server: &Server, body: &[u8]) {
    let load::Address::Tcp(address) = &server.tcp else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut proxy = AuthorizationClient::connect(format!("http://{address}")).await.unwrap();
        let answer = proxy.check(CheckRequest::decode(body).unwrap()).await.unwrap().into_inner();
        assert_eq!(answer.status.as_ref().unwrap().code, 0, "it is allowed");
        println!("a check of {} bytes is answered with {}", body.len(), answer.encoded_len());
    });
}

fn beside_envoy(world: &World, countersign: &Server, program: &Path, token: &str, report: &mut Report) {
    let home = tempfile::tempdir().unwrap();
    let Some(load::Address::Unix(socket)) = &countersign.unix else { panic!("it has a socket") };
    let envoy = Envoy::start(program, &home, world, socket);
    let uncached = world.without_cache(&home);
    let load::Address::Tcp(warm) = countersign.tcp.clone() else { panic!("it listens") };
    let load::Address::Tcp(cold) = uncached.tcp.clone() else { panic!("it listens") };
    let verify = VerifyRequest { token: Some(token.to_owned()), ..VerifyRequest::default() }.encode_to_vec();
    let message = home.path().join("verify.bin");
    let framed = [&[0][..], &u32::try_from(verify.len()).unwrap().to_be_bytes(), &verify].concat();
    std::fs::write(&message, framed).unwrap();
    let ours = |address: std::net::SocketAddr, requests| {
        let data = message.to_str().unwrap();
        h2load(
            &format!("http://{address}{VERIFY}"),
            requests,
            &["-d", data, "-H", "content-type: application/grpc", "-H", "te: trailers"],
        )
    };
    let bearer = format!("authorization: Bearer {token}");
    let theirs =
        |port: u16, requests| h2load(&format!("http://127.0.0.1:{port}/orders"), requests, &["-H", &bearer]);
    let few = REQUESTS / 3;
    for _ in 0..2 {
        ours(warm, few);
        theirs(envoy.cached, few);
    }
    let (mut ratios, mut rates) =
        ([Vec::new(), Vec::new(), Vec::new()], [Vec::new(), Vec::new(), Vec::new()]);
    let (mut ours_of_both, mut theirs_of_both) = (0.0, 0.0);
    for _ in 0..TURNS {
        let (warm, cached) = (ours(warm, REQUESTS), theirs(envoy.cached, REQUESTS));
        let (cold, uncached) = (ours(cold, few), theirs(envoy.uncached, few));
        let before = (countersign.processor_time(), envoy.processor_time());
        let both = theirs(envoy.asking, few);
        ours_of_both += countersign.processor_time() - before.0;
        theirs_of_both += envoy.processor_time() - before.1;
        for (place, (one, other)) in
            [(warm, cached), (cold, uncached), (both, cached)].into_iter().enumerate()
        {
            ratios[place].push(one / other);
            rates[place].push(other);
        }
    }
    let share = 100.0 * ours_of_both / (ours_of_both + theirs_of_both);
    let both =
        format!("Envoy asks a sidecar, which takes {share:.0} % of their core, against Envoy by itself");
    let told = [
        ("verify_warm_vs_envoy_jwt_authn", "goal 1.8; Envoy with its token cache", REQUESTS),
        ("verify_cold_vs_envoy_jwt_authn", "goal 1.5; neither with a cache", few),
        ("envoy_with_countersign_vs_envoy_jwt_authn", &both, few),
    ];
    for ((ratios, rates), (name, about, requests)) in ratios.into_iter().zip(rates).zip(told) {
        let about = format!("{about}, {:.0} requests/s", median(rates));
        report.value(name, median(ratios), "ratio", requests * TURNS, &about);
    }
}

/// Requests a second, all of them answered 200.
fn h2load(url: &str, requests: usize, more: &[&str]) -> f64 {
    let done = Command::new("taskset")
        .args(["-c", "1", "h2load", "-t", "1", "-c", "4", "-m", "64", "-n", &requests.to_string()])
        .args(more)
        .arg(url)
        .output()
        .expect("h2load is there; `make bench` installs it");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains(&format!("status codes: {requests} 2xx")), "{text}");
    let line = text.lines().find(|line| line.starts_with("finished in")).unwrap_or_else(|| panic!("{text}"));
    line.split(", ").nth(1).unwrap().trim_end_matches(" req/s").parse().unwrap()
}

/// One worker on core 0, with three listeners that answer by themselves; killed when dropped.
struct Envoy {
    child: Child,
    cached: u16,
    uncached: u16,
    asking: u16,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn processor_time(&self) -> f64 {
        processor_time(self.child.id().cast_signed())
    }

    fn start(program: &Path, home: &TempDir, world: &World, socket: &Path) -> Self {
        let key = world.key.public_key();
        let number = |big: &[u8]| URL_SAFE_NO_PAD.encode(big);
        let jwks = format!(
            r#"{{"keys":[{{"kty":"RSA","alg":"RS256","n":"{}","e":"{}"}}]}}"#,
            number(key.modulus().big_endian_without_leading_zero()),
            number(key.exponent().big_endian_without_leading_zero()),
        );
        let keys = home.path().join("jwks.json");
        std::fs::write(&keys, jwks).unwrap();
        let [cached, uncached, asking] = [(); 3].map(|()| crate::engines::free_port());
        let by_itself = |cache: &str| {
            format!(
                r#"{{name: envoy.filters.http.jwt_authn, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication, providers: {{shop: {{issuer: "https://issuer.example.com", audiences: [orders], forward: true, local_jwks: {{filename: "{}"}}{cache}}}}}, rules: [{{match: {{prefix: /}}, requires: {{provider_name: shop}}}}]}}}}"#,
                keys.display()
            )
        };
        let asks = r#"{name: envoy.filters.http.ext_authz, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, transport_api_version: V3, failure_mode_allow: false, encode_raw_headers: true, allowed_headers: {patterns: [{exact: authorization}, {exact: cookie}]}, grpc_service: {timeout: 1s, envoy_grpc: {cluster_name: countersign, authority: countersign}}}}"#;
        let listener = |port: u16, filter: &str| {
            format!(
                r#"  - {{name: "l{port}", address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, filter_chains: [{{filters: [{{name: envoy.filters.network.http_connection_manager, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: "l{port}", codec_type: AUTO, generate_request_id: false, route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}, http_filters: [{filter}, {{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}
"#
            )
        };
        let cache = ", jwt_cache_config: {jwt_cache_size: 100000, jwt_max_token_size: 8192}";
        let config = format!(
            "static_resources:\n  listeners:\n{}{}{}  clusters:\n  - {{name: countersign, type: STATIC, connect_timeout: 1s, \
             typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
             {{http2_protocol_options: {{}}}}}}}}, load_assignment: {{cluster_name: countersign, endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: {{pipe: {{path: \"{}\"}}}}}}}}]}}]}}}}\n",
            listener(cached, &by_itself(cache)),
            listener(uncached, &by_itself("")),
            listener(asking, asks),
            socket.display()
        );
        let file: PathBuf = home.path().join("envoy.yaml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let envoy = Self { child, cached, uncached, asking };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", asking)).is_err() {
            assert!(Instant::now() < until, "Envoy starts");
            std::thread::sleep(Duration::from_millis(20));
        }
        envoy
    }
}
