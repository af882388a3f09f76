//! What an orchestrator does to a pod: it asks, kills and starts again, and swaps mounted secrets while calls come in.

use crate::durability::{Process, login};
use crate::support::{Home, ISSUER, SECRET, connect, eventually, verify_request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{CreateSessionRequest, RefreshRequest};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tonic::Request;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const NEXT_SECRET: &str = "the next secret of the tests";

fn countersign(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap()
}

/// By HTTP, by gRPC to an IP address with that as authority, and by a command in the container.
#[tokio::test]
async fn each_kind_of_probe_is_answered() {
    let home = Home::new();
    let process = Process::start(&home, "").await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(crate::lifecycle::get(&process.ops, path).await.0, 200, "{path}");
    }
    let mut health = HealthClient::new(connect(&process.ops).await);
    // A kubelet's probe without `service` asks for the empty one.
    for service in ["", "readiness", "liveness"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let socket = format!("unix:{}", home.path("run/api.sock").display());
    for address in [&process.ops, &process.api, &socket] {
        let probe = countersign(&["health", "--address", address]);
        assert!(probe.status.success(), "{address}: {probe:?}");
    }
    let ops = process.ops.clone();
    drop(process);
    let probe = countersign(&["health", "--address", &ops]);
    assert_eq!(probe.status.code(), Some(3), "nobody there, so nothing is known: {probe:?}");
}

#[tokio::test]
async fn a_killed_sidecar_s_socket_is_taken_over_by_the_next() {
    let home = Home::new();
    let socket = home.path("run/api.sock");
    let process = Process::start(&home, "").await;
    let (_, tokens) = login(&process.channel().await).await;
    process.kill();
    assert!(socket.exists(), "a kill leaves it");

    let _again = Process::start(&home, "").await;
    let channel = connect(&format!("unix:{}", socket.display())).await;
    TokenServiceClient::new(channel).verify(verify_request(&tokens.access_token)).await.unwrap();
}

/// Writes a mount as a kubelet does: files behind a link that is swapped as a whole.
fn mount(home: &Home, version: &str) {
    symlink(version, home.path("mount/..data_tmp")).unwrap();
    std::fs::rename(home.path("mount/..data_tmp"), home.path("mount/..data")).unwrap();
}

const FILES: [&str; 4] = ["signing.json", "handles.json", "caller.secret", "next.secret"];

fn key_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// A login, its token verified, its session refreshed, and what that brought verified.
async fn round(channel: &Channel, secret: &str) -> Result<String, tonic::Status> {
    let mut request = Request::new(CreateSessionRequest { subject: "alice".into(), ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let opened = SessionServiceClient::new(channel.clone()).create_session(request).await?.into_inner();
    let opened = opened.tokens.unwrap();
    let mut tokens = TokenServiceClient::new(channel.clone());
    tokens.verify(verify_request(&opened.access_token)).await?;
    let refresh = RefreshRequest { refresh_token: Some(opened.refresh_token), ..RefreshRequest::default() };
    let fresh = tokens.refresh(refresh).await?.into_inner().tokens.unwrap();
    tokens.verify(verify_request(&fresh.access_token)).await?;
    Ok(key_of(&fresh.access_token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounted_secrets_are_rotated_under_load_without_a_failed_call() {
    let home = Home::new();
    for version in ["..v1", "..v2"] {
        let folder = home.path("mount").join(version);
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["signing.json", "handles.json", "caller.secret"] {
            std::fs::copy(home.path(name), folder.join(name)).unwrap();
        }
        let next = if version == "..v1" { "not given to anybody" } else { NEXT_SECRET };
        std::fs::write(folder.join("next.secret"), next).unwrap();
    }
    for name in ["signing.json", "handles.json"] {
        let file = home.path("mount/..v2").join(name);
        let rotated = countersign(&["keys", "rotate", file.to_str().unwrap(), "--publish-ahead", "0s"]);
        assert!(rotated.status.success(), "{rotated:?}");
    }
    mount(&home, "..v1");
    for name in FILES {
        symlink(format!("..data/{name}"), home.path("mount").join(name)).unwrap();
    }
    let at = home.path("mount").display().to_string();
    let own = format!(
        "own:\n  issuer: {ISSUER}\n  signing_keys: {at}/signing.json\n  handle_keys: {at}/handles.json\n  \
         policies:\n    medium: {{preset: medium}}\n"
    );
    let callers = format!(
        "callers:\n  - {{name: tests, secret_file: {at}/caller.secret, may: [sessions.create]}}\n  \
         - {{name: tests-next, secret_file: {at}/next.secret, may: [sessions.create]}}\n"
    );
    let process = Process::start(&home, &(own + &callers)).await;
    let channel = process.channel().await;
    let first = round(&channel, SECRET).await.unwrap();
    round(&channel, NEXT_SECRET).await.unwrap_err();
    let (_, early) = login(&channel).await;

    let done = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(Mutex::new(Vec::new()));
    let under_load: Vec<_> = (0..4)
        .map(|_| {
            let (channel, done, early) = (channel.clone(), Arc::clone(&done), early.access_token.clone());
            let (calls, failed) = (Arc::clone(&calls), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut tokens = TokenServiceClient::new(channel.clone());
                while !done.load(Ordering::Relaxed) {
                    let held = tokens.verify(verify_request(&early)).await.map(drop);
                    let whole = round(&channel, SECRET).await.map(drop);
                    failed.lock().unwrap().extend([held, whole].into_iter().filter_map(Result::err));
                    calls.fetch_add(5, Ordering::Relaxed);
                }
            })
        })
        .collect();
    eventually("calls come in", || async { calls.load(Ordering::Relaxed) > 200 }).await;
    mount(&home, "..v2");
    eventually("the next key signs", || async { round(&channel, SECRET).await.unwrap() != first }).await;
    eventually("the next caller is known", || async { round(&channel, NEXT_SECRET).await.is_ok() }).await;
    let so_far = calls.load(Ordering::Relaxed);
    eventually("calls go on", || async { calls.load(Ordering::Relaxed) > so_far + 200 }).await;
    done.store(true, Ordering::Relaxed);
    for load in under_load {
        load.await.unwrap();
    }
    let failed = failed.lock().unwrap();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), calls.load(Ordering::Relaxed), failed.first());
}
