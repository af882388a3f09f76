//! What survives a kill: the real binary, the real signal, the real file.

use crate::support::{Home, SECRET, assert_denied, connect, verify_request};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{CreateSessionRequest, RefreshRequest, RevokeRequest, SessionRevocation, Tokens};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::Request;
use tonic::transport::Channel;

/// The binary as a process of its own; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) api: String,
    pub(crate) ops: String,
    written: Arc<Mutex<String>>,
    log: std::thread::JoinHandle<()>,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(home: &Home, sections: &str) -> Self {
        let file = home.path("process.yaml");
        std::fs::write(&file, home.config(&format!("{sections}log:\n  format: json\n  level: trace\n")))
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let (mut api, mut ops) = (None, None);
        while api.is_none() || ops.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("it listens:\n{seen}")).unwrap();
            let event: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("JSON logs, not {line}"));
            if event["message"] == "listening" {
                let address = event["address"].as_str().unwrap().to_owned();
                match event["listener"].as_str().unwrap() {
                    "ops" => ops = Some(address),
                    "api" if !address.starts_with("unix:") => api = Some(address),
                    _ => {}
                }
            }
            seen += &line;
            seen.push('\n');
        }
        let written = Arc::new(Mutex::new(seen));
        let page = Arc::clone(&written);
        let log = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *page.lock().unwrap() += &(line + "\n"));
        });
        let process = Self { child, api: api.unwrap(), ops: ops.unwrap(), written, log };
        let deadline = Instant::now() + Duration::from_secs(10);
        while crate::lifecycle::get(&process.ops, "/readyz").await.0 != 200 {
            assert!(Instant::now() < deadline, "it gets ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.api).await
    }

    /// Everything it logged so far.
    pub(crate) fn logged(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// kill -9, and wait.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and wait: exit code and everything it logged.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        std::mem::replace(&mut self.log, std::thread::spawn(|| ())).join().unwrap();
        (code, self.logged())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn as_caller<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    request
}

pub(crate) async fn login(channel: &Channel) -> (String, Tokens) {
    let request = CreateSessionRequest { subject: "alice".into(), ..Default::default() };
    let opened = SessionServiceClient::new(channel.clone()).create_session(as_caller(request)).await.unwrap();
    let opened = opened.into_inner();
    (opened.session.unwrap().session_id, opened.tokens.unwrap())
}

#[tokio::test]
async fn killed_right_after_ok_a_revocation_still_holds() {
    let home = Home::new();
    for _ in 0..3 {
        let process = Process::start(&home, "").await;
        let channel = process.channel().await;
        let (session, tokens) = login(&channel).await;
        let (_, spared) = login(&channel).await;
        let mut client = TokenServiceClient::new(channel);
        assert!(client.verify(verify_request(&tokens.access_token)).await.is_ok());
        let target = Some(Target::Session(SessionRevocation { session_id: session, issuer: None }));
        client.revoke(as_caller(RevokeRequest { target, reason: String::new() })).await.unwrap();
        process.kill();

        let again = Process::start(&home, "").await;
        let mut client = TokenServiceClient::new(again.channel().await);
        assert_denied(client.verify(verify_request(&tokens.access_token)).await, "REVOKED", "REAUTHENTICATE");
        let refresh =
            RefreshRequest { refresh_token: Some(tokens.refresh_token), ..RefreshRequest::default() };
        assert_denied(client.refresh(refresh).await, "REVOKED", "REAUTHENTICATE");
        assert!(client.verify(verify_request(&spared.access_token)).await.is_ok(), "nothing else was lost");
        let refresh =
            RefreshRequest { refresh_token: Some(spared.refresh_token), ..RefreshRequest::default() };
        assert!(client.refresh(refresh).await.is_ok());
    }
}

#[tokio::test]
async fn sigterm_ends_it_with_zero_within_the_deadline() {
    let home = Home::new();
    let process = Process::start(&home, "").await;
    let channel = process.channel().await;
    login(&channel).await;
    let begun = Instant::now();
    let (code, log) = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
}
