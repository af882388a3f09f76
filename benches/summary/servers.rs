//! The servers measured: processes of their own, one worker each, pinned to core 0.

use crate::load::Address;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::clock::Timestamp;
use countersign::grpc::v1::VerifyRequest;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::revocation::{DenialKey, Entry, EntryKind, RevocationLog};
use countersign::store::sqlite::{Settings, SqliteStore};
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory with keys, configuration and a store.
pub struct World {
    directory: TempDir,
    pub key: rsa::KeyPair,
}

impl World {
    pub fn new() -> Self {
        Self::serving("verify")
    }

    /// Whose sidecars answer these calls.
    pub fn serving(calls: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        std::fs::write(directory.path().join("issuer.pem"), pem).unwrap();
        let folder = directory.path().display();
        let config = format!(
            "api:\n  tcp: 127.0.0.1:0\n  unix: {folder}/run/api.sock\n  workers: 1\n  serve: [{calls}]\n\
             ops:\n  address: 127.0.0.1:0\nstore: sqlite:{folder}/store.db\n\
             cache:\n  max_entries: 120000\ndenylist:\n  max_entries: 1200000\n\
             issuers:\n  - issuer: https://issuer.example.com\n    keys: {{pem_file: {folder}/issuer.pem}}\n    \
             algorithms: [RS256]\n    audiences: [orders]\n    types: [at+jwt]\nlog: {{format: json, level: info}}\n"
        );
        std::fs::write(directory.path().join("countersign.yaml"), config).unwrap();
        Self { directory, key }
    }

    /// The same sidecar without a cache, with a store and a socket of its own in this directory.
    pub fn without_cache(&self, home: &TempDir) -> Server {
        let text = std::fs::read_to_string(self.directory.path().join("countersign.yaml")).unwrap();
        let text = text.replace("cache:\n  max_entries: 120000\n", "cache:\n  max_entries: 0\n");
        let (from, to) = (self.directory.path().join("store.db"), home.path().join("store.db"));
        let text = text.replace(from.to_str().unwrap(), to.to_str().unwrap());
        let file = home.path().join("countersign.yaml");
        std::fs::write(&file, text).unwrap();
        Server::serving(&file, home.path().join("run/api.sock"), "0")
    }

    /// Brings the store to this many denials.
    pub fn deny(&self, count: u32) {
        let store = SqliteStore::open(
            &self.directory.path().join("store.db"),
            Settings { answer_within: Duration::from_secs(60), ..Settings::default() },
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let expires_at = Timestamp::from_secs(4_000_000_000);
        for from in (0..count).step_by(20_000) {
            let entries = (from..count.min(from + 20_000)).map(|number| {
                let key = DenialKey::session("https://issuer.example.com", &format!("denied-{number}"));
                Entry { kind: EntryKind::Session, key, expires_at }
            });
            runtime.block_on(store.restore(entries.collect())).unwrap();
        }
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub tcp: Address,
    pub unix: Option<Address>,
    pub ready_after: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pinned(program: &Path) -> Command {
    on_cores("0", program)
}

fn on_cores(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

impl Server {
    pub fn countersign(world: &World) -> Self {
        Self::serving(
            &world.directory.path().join("countersign.yaml"),
            world.directory.path().join("run/api.sock"),
            "0",
        )
    }

    /// A sidecar with this configuration, on this Unix socket and a free port, on these cores.
    pub fn serving(config: &Path, socket: PathBuf, cores: &str) -> Self {
        let begun = Instant::now();
        let mut child = on_cores(cores, env!("CARGO_BIN_EXE_countersign").as_ref())
            .args(["serve", "--config"])
            .arg(config)
            .args(["--set", &format!("api.unix={}", socket.display())])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut tcp, mut ops) = (None, None);
        while tcp.is_none() || ops.is_none() {
            let line = lines.next().expect("it listens").unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            let address = event["address"].as_str().unwrap_or_default().to_owned();
            match event["listener"].as_str() {
                Some("api") if !address.starts_with("unix:") => tcp = Some(address),
                Some("ops") => ops = Some(address),
                _ => {}
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        let ops = ops.unwrap();
        while !is_ready(&ops) {
            assert!(begun.elapsed() < Duration::from_secs(120), "it gets ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            child,
            tcp: Address::Tcp(tcp.unwrap().parse().unwrap()),
            unix: Some(Address::Unix(socket)),
            ready_after: begun.elapsed(),
        }
    }

    pub fn noop_tuned() -> Self {
        Self::listening(pinned(&tuned()).arg("noop"))
    }

    pub fn noop_stock() -> Self {
        Self::listening(pinned(&std::env::current_exe().unwrap()).arg("stock"))
    }

    fn listening(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening ").expect("it listens").parse().unwrap();
        Self { child, tcp: Address::Tcp(address), unix: None, ready_after: Duration::ZERO }
    }

    /// Resident memory now.
    pub fn resident_mib(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as f64 / 1024.0 / 1024.0
    }

    /// Seconds of processor time so far.
    pub fn processor_time(&self) -> f64 {
        processor_time(self.child.id().cast_signed())
    }

    /// A real client's call is accepted.
    pub fn check(&self, body: &[u8]) {
        let Address::Tcp(address) = &self.tcp else { return };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = TokenServiceClient::connect(format!("http://{address}")).await.unwrap();
            let answer = client.verify(VerifyRequest::decode(body).unwrap()).await.unwrap().into_inner();
            println!("a token of {} bytes is answered with {}", body.len(), answer.encoded_len());
        });
    }
}

fn is_ready(ops: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(ops) else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {ops}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// The other bench, built beside this one; the newest if there are several.
fn tuned() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let built = std::fs::read_dir(this.parent().unwrap()).unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_it = name.starts_with("tuned-") && !name.contains('.');
        Some((is_it.then(|| std::fs::metadata(&path).ok()?.modified().ok()).flatten()?, path))
    });
    built.max().expect("`make bench` builds the bench `tuned` first").1
}

/// What the bench under the product's allocator prints.
pub fn tuned_says(word: &str) -> String {
    let output = pinned(&tuned()).arg(word).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Seconds of processor time of a process and its children.
pub fn processor_time(pid: i32) -> f64 {
    let of = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        fields.get(11..13).map_or(0.0, |times| times.iter().sum::<f64>())
    };
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    (of(pid) + children.map(of).sum::<f64>()) / 100.0
}

/// The load client stays on the other core.
pub fn pin_to_core(core: usize) {
    pin_to_cores(&[core]);
}

/// This thread, and what it starts from now on.
pub fn pin_to_cores(these: &[usize]) {
    let mut cores = rustix::thread::CpuSet::new();
    these.iter().for_each(|core| cores.set(*core));
    rustix::thread::sched_setaffinity(None, &cores).unwrap();
}
