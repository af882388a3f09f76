//! The sidecars under test: processes of the real binary, on one store.

use crate::engines::Guarded;
use crate::store::Store;
use countersign::app::Assembly;
use countersign::clock::{Clock, ManualClock, Timestamp};
use countersign::config;
use countersign::keys::{HandleKeys, KeyFile, NewKey, SigningAlgorithm};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const ISSUER: &str = "https://auth.example.com";
pub(crate) const SECRET: &str = "a secret of the chaos tests";
/// Of the test's policies: short, so that histories are.
pub(crate) const BOUND: Duration = Duration::from_secs(1);
/// Longer than a call of the store may take, as with real settings, and short enough that a round sees several rotations.
pub(crate) const GRACE: Duration = Duration::from_millis(1300);

/// Sidecars that share keys and a store.
pub(crate) struct Fleet {
    directory: TempDir,
    members: Vec<Mutex<Member>>,
}

struct Member {
    config: PathBuf,
    log: PathBuf,
    runs: Runs,
}

enum Runs {
    Not,
    Process(Guarded),
    Here { stop: CancellationToken, ended: Option<std::thread::JoinHandle<()>> },
}

impl Fleet {
    /// Writes keys and configurations for so many sidecars; none runs yet.
    pub(crate) fn new(store: &Store, sidecars: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let now = Clock::system().now().judged;
        let signing = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), now).unwrap();
        signing.create(&path("signing.json")).unwrap();
        KeyFile::generate(NewKey::Handles, now).unwrap().create(&path("handles.json")).unwrap();
        std::fs::write(path("caller.secret"), SECRET).unwrap();
        let members = (0..sidecars).map(|number| {
            let config = path(&format!("{number}.yaml"));
            std::fs::write(&config, configuration(directory.path(), store, number)).unwrap();
            Mutex::new(Member { config, log: path(&format!("{number}.log")), runs: Runs::Not })
        });
        let members = members.collect();
        Self { members, directory }
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn socket(&self, sidecar: usize) -> PathBuf {
        self.directory.path().join(format!("run{sidecar}/api.sock"))
    }

    pub(crate) fn handles(&self) -> HandleKeys {
        HandleKeys::load(self.directory.path().join("handles.json")).unwrap()
    }

    /// Starts it as a process, and does not wait until it is ready.
    pub(crate) fn start(&self, sidecar: usize) {
        let mut member = self.members[sidecar].lock().unwrap();
        if matches!(member.runs, Runs::Not) {
            let arguments = ["serve", "--config", &member.config.display().to_string()].map(str::to_owned);
            let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
            member.runs = Runs::Process(Guarded::start(binary, &arguments, &member.log));
        }
    }

    /// Starts it in this process, on a clock that the test moves.
    pub(crate) fn start_here(&self, sidecar: usize, from: Timestamp) -> ManualClock {
        let (clock, hands) = Clock::manual(from);
        let mut member = self.members[sidecar].lock().unwrap();
        let config = config::load(Some(&member.config), &config::Overlay::default())
            .unwrap_or_else(|faults| panic!("the configuration is good:\n{faults}"));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let app = Assembly::new(config, clock).unwrap_or_else(|error| panic!("built: {error:?}"));
                app.bind().await.unwrap().run(stopped).await.unwrap();
            });
        });
        member.runs = Runs::Here { stop, ended: Some(ended) };
        hands
    }

    /// kill -9.
    pub(crate) fn kill(&self, sidecar: usize) {
        let mut member = self.members[sidecar].lock().unwrap();
        if let Runs::Process(mut process) = std::mem::replace(&mut member.runs, Runs::Not) {
            process.kill();
        }
    }

    /// Stops it (`STOP`) or lets it go on (`CONT`).
    pub(crate) fn signal(&self, sidecar: usize, name: &str) {
        if let Runs::Process(process) = &self.members[sidecar].lock().unwrap().runs
            && process.runs()
        {
            process.signal(name);
        }
    }

    /// The sidecars that ended though nobody killed them, with what they logged last.
    pub(crate) fn dead(&self) -> Vec<String> {
        let dead = |(number, member): (usize, &Mutex<Member>)| {
            let member = member.lock().unwrap();
            let ended = match &member.runs {
                Runs::Not => false,
                Runs::Process(process) => !process.runs(),
                Runs::Here { ended, .. } => ended.as_ref().is_none_or(std::thread::JoinHandle::is_finished),
            };
            ended.then(|| format!("sidecar {number} ended by itself:\n{}", tail(&member.log)))
        };
        self.members.iter().enumerate().filter_map(dead).collect()
    }

    pub(crate) fn logs(&self) -> String {
        let logs = self.members.iter().map(|member| tail(&member.lock().unwrap().log));
        logs.enumerate().map(|(number, log)| format!("--- sidecar {number}\n{log}\n")).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &self.members {
            if let Runs::Here { stop, ended } = &mut member.lock().unwrap().runs {
                stop.cancel();
                let _ = ended.take().map(std::thread::JoinHandle::join);
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

fn configuration(directory: &Path, store: &Store, sidecar: usize) -> String {
    let at = directory.display();
    let store = store.section(sidecar);
    let (bound, grace) = (BOUND.as_millis(), GRACE.as_millis());
    format!(
        "api:
  tcp: null
  unix: {at}/run{sidecar}/api.sock
  workers: 1
  serve: [verify, refresh, revoke, sessions, jwks]
ops:
  address: 127.0.0.1:0
drain:
  grace: 0s
  deadline: 1s
own:
  issuer: {ISSUER}
  signing_keys: {at}/signing.json
  handle_keys: {at}/handles.json
  default_policy: shop
  policies:
    shop: {{preset: medium, staleness_bound: {bound}ms, grace: {grace}ms}}
    bank: {{preset: high, staleness_bound: {bound}ms}}
callers:
  - name: chaos
    secret_file: {at}/caller.secret
    may: [sessions.create, sessions.read, sessions.update, revoke.session, revoke.subject, revoke.issuer]
{store}"
    )
}

/// Lets the clocks run with real time until told to stop.
pub(crate) fn run_clocks(
    hands: Arc<Vec<ManualClock>>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut last = std::time::Instant::now();
        while !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(3)).await;
            let passed = Duration::from_millis(u64::try_from(last.elapsed().as_millis()).unwrap());
            last += passed;
            for hand in hands.iter() {
                hand.advance(passed);
            }
        }
    })
}
