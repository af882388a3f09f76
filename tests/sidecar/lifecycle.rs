//! Start, health, metrics and drain.

use crate::support::{Home, connect, eventually};
use countersign::grpc::v1::VerifyStreamRequest;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// One HTTP/1.1 GET: status and body.
pub(crate) async fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_ops_listener_answers_probes_metrics_keys_and_grpc_health() {
    let home = Home::new();
    let sidecar = home.start("").await;
    assert_eq!(get(&sidecar.ops, "/livez").await.0, 200);
    assert_eq!(get(&sidecar.ops, "/readyz").await.0, 200);
    let (status, jwks) = get(&sidecar.ops, "/.well-known/jwks.json").await;
    assert_eq!(status, 200);
    assert!(jwks.contains("\"OKP\"") && !jwks.contains("\"d\""), "{jwks}");
    for address in [&sidecar.ops, &sidecar.api] {
        let mut health = HealthClient::new(connect(address).await);
        for service in ["", "readiness", "liveness", "countersign.v1.TokenService"] {
            let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{address} {service}");
        }
    }
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let tokens = sidecar.login("alice", "medium").await.tokens.unwrap();
    sidecar.verify(&tokens.access_token).await.unwrap();
    sidecar.verify(&tokens.access_token).await.unwrap();
    sidecar.verify("junk").await.unwrap_err();
    sidecar.refresh(&tokens.refresh_token).await.unwrap();
    let (_, metrics) = get(&sidecar.ops, "/metrics").await;
    let value = |start: &str, has: &[&str]| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(start) && has.iter().all(|part| line.contains(part)));
        line.unwrap_or_else(|| panic!("{start} {has:?} in\n{metrics}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(value("countersign_verify_total", &["result=\"ok\"", "source=\"signature\""]), 1.0);
    assert_eq!(value("countersign_verify_total", &["result=\"ok\"", "source=\"cache\""]), 1.0);
    assert_eq!(value("countersign_verify_total", &["result=\"denied\"", "reason=\"MALFORMED\""]), 1.0);
    assert_eq!(value("countersign_refresh_total", &["result=\"ok\""]), 1.0);
    assert_eq!(value("countersign_cache_hits_total", &[]), 1.0);
    assert!(value("countersign_staleness_seconds", &[]) < 5.0);
    assert_eq!(value("countersign_denylist_entries", &[]), 0.0);
    assert!(metrics.contains("countersign_build_info"));
    assert!(!metrics.contains("alice"), "no subject in metrics");
}

#[tokio::test]
async fn it_drains_within_the_deadline_with_a_watch_and_a_stream_open() {
    let home = Home::new();
    let sidecar = home.start("drain:\n  grace: 300ms\n  deadline: 2s\n").await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let mut watch = HealthClient::new(connect(&sidecar.ops).await)
        .watch(HealthCheckRequest { service: "readiness".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let (_items_open, items) = tokio::sync::mpsc::channel::<VerifyStreamRequest>(1);
    let mut stream = sidecar
        .tokens()
        .verify_stream(tokio_stream::wrappers::ReceiverStream::new(items))
        .await
        .unwrap()
        .into_inner();
    let begun = Instant::now();
    sidecar.tell_to_stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // Not ready, yet still serving while others learn of it.
    eventually("readiness drops", || async { get(&sidecar.ops, "/readyz").await.0 == 503 }).await;
    assert_eq!(get(&sidecar.ops, "/livez").await.0, 200);
    assert!(sidecar.verify(&token).await.is_ok(), "calls are served during the grace");
    let told = stream.message().await;
    let told = told.unwrap_err();
    assert_eq!(told.code(), tonic::Code::Unavailable, "the open stream is told to go away: {told:?}");
    assert!(told.message().contains("going away"), "{told:?}");
    assert!(begun.elapsed() < Duration::from_millis(1500), "and not at the deadline: {:?}", begun.elapsed());
    tokio::task::spawn_blocking(move || sidecar.stop()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_says_nothing_or_something_else_is_let_go() {
    let home = Home::new();
    let sidecar = home.start("").await;
    let mut http1 = tokio::net::TcpStream::connect(&sidecar.api).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(&sidecar.api).await.unwrap();
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(Duration::from_secs(3), http1.read(&mut buffer)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    let ended = tokio::time::timeout(Duration::from_secs(8), silent.read(&mut buffer)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert!(sidecar.login("alice", "medium").await.tokens.is_some());
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_the_others_served() {
    let home = Home::new();
    let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, sessions]\n  max_connections: 2\n";
    let sidecar = home.start(api).await;
    let token = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
    let _second = tokio::net::TcpStream::connect(&sidecar.api).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = tokio::net::TcpStream::connect(&sidecar.api).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(3), third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert!(sidecar.verify(&token).await.is_ok());
}
