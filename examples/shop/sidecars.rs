//! The sidecars, each a process of its own: in a deployment the container beside the service's.
//!
//! There is no second program to build first: the example starts itself with `countersign` as its first argument, and
//! then is nothing but countersign's command line.

use crate::Failure;
use crate::services::connect;
use crate::store::{Kind, Store};
use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The first argument that makes this program countersign's command line.
pub(crate) const COUNTERSIGN: &str = "countersign";

const USER: &str = include_str!("config/user.yaml");
const ORDER: &str = include_str!("config/order.yaml");
const PAYMENT: &str = include_str!("config/payment.yaml");

/// From start to ready, and from SIGTERM to exit: the configuration's drain deadline is two seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The three sidecars and the directory they live in.
#[derive(Debug)]
pub(crate) struct Sidecars {
    running: Vec<Sidecar>,
    store: Store,
    home: TempDir,
}

/// Where the services find their sidecars.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// The user service's.
    pub(crate) user: String,
    /// The order service's.
    pub(crate) order: String,
    /// The payment service's.
    pub(crate) payment: String,
    /// What the user service's sidecar knows its service by.
    pub(crate) secret: String,
}

#[derive(Debug)]
struct Sidecar {
    name: &'static str,
    child: Child,
    api: String,
    ops: String,
}

impl Sidecars {
    /// Makes the directory, readable by its owner alone, and starts the store's server if it is one. Both are gone when
    /// this is dropped.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn new(kind: Kind) -> Result<Self, Failure> {
        let private = Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().prefix("shop-").permissions(private).tempdir()?;
        let store = Store::open(kind, home.path());
        Ok(Self { running: Vec::new(), store, home })
    }

    /// Makes keys and a secret, and starts the sidecars: the user service's first, since the other two learn its
    /// public keys. Those that stand when one does not start are still to be stopped.
    ///
    /// # Errors
    /// With what the sidecar said last.
    pub(crate) async fn start(&mut self) -> Result<Addresses, Failure> {
        self.make_keys("signing.json", "signing").await?;
        self.make_keys("handles.json", "handles").await?;
        let secret = self.make_secret()?;
        self.migrate().await?;
        let user = self.start_one("user", USER, &[]).await?;
        let (user, ops) = (user.api.clone(), user.ops.clone());
        let keys = [format!("own.keys.jwks_url=http://{ops}/.well-known/jwks.json")];
        let order = self.start_one("order", ORDER, &keys).await?.api.clone();
        let payment = self.start_one("payment", PAYMENT, &keys).await?.api.clone();
        Ok(Addresses { user, order, payment, secret })
    }

    /// Ends one, as an orchestrator would: SIGTERM, and after a while SIGKILL.
    ///
    /// # Errors
    /// When it did not end well by itself.
    pub(crate) async fn stop(&mut self, name: &str) -> Result<(), Failure> {
        match self.running.iter().position(|sidecar| sidecar.name == name) {
            Some(place) => self.running.remove(place).stop().await,
            None => Ok(()),
        }
    }

    /// Ends all that run.
    ///
    /// # Errors
    /// The first that did not end well by itself; the others are ended nevertheless.
    pub(crate) async fn stop_all(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for sidecar in self.running.drain(..).rev() {
            result = result.and(sidecar.stop().await);
        }
        result
    }

    /// `countersign keys new FILE --purpose …`
    async fn make_keys(&self, file: &str, purpose: &str) -> Result<(), Failure> {
        let mut command = countersign()?;
        command.args(["keys", "new"]).arg(self.path(file)).args(["--purpose", purpose]);
        let made = timeout(PATIENCE, command.output()).await??;
        if made.status.success() {
            return Ok(());
        }
        Err(format!("no {purpose} keys: {}", String::from_utf8_lossy(&made.stderr)).into())
    }

    /// `countersign migrate --config FILE`: once for all, before the first of them starts.
    async fn migrate(&self) -> Result<(), Failure> {
        let file = self.path("user.yaml");
        tokio::fs::write(&file, USER).await?;
        let mut command = countersign()?;
        command.args(["migrate", "--config"]).arg(file).args(self.store.settings());
        let migrated = timeout(PATIENCE, command.output()).await??;
        if migrated.status.success() {
            return Ok(());
        }
        Err(format!("no store: {}", String::from_utf8_lossy(&migrated.stderr)).into())
    }

    /// What the user service proves itself with to its sidecar. A mounted secret, in a deployment.
    fn make_secret(&self) -> Result<String, Failure> {
        let random = countersign::token::random_bytes::<32>()?;
        let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = self.path("user-service.secret");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        file.write_all(secret.as_bytes())?;
        Ok(secret)
    }

    /// `countersign serve --config FILE --set KEY=VALUE …`, and waits until it is ready.
    async fn start_one(
        &mut self,
        name: &'static str,
        config: &str,
        settings: &[String],
    ) -> Result<&Sidecar, Failure> {
        let file = self.path(&format!("{name}.yaml"));
        tokio::fs::write(&file, config).await?;
        let mut command = countersign()?;
        command.args(["serve", "--config"]).arg(file).args(self.store.settings());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take().ok_or("the sidecar's log is not to be had")?;
        let mut log = BufReader::new(log).lines();
        // Among those running from here on, so that it is stopped whatever happens.
        self.running.push(Sidecar { name, child, api: String::new(), ops: String::new() });
        let sidecar = self.running.last_mut().ok_or("it was pushed")?;
        timeout(PATIENCE, sidecar.listening(&mut log)).await??;
        // Whoever writes a log must be read from; a deployment's collector keeps it.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        timeout(PATIENCE, sidecar.ready()).await??;
        Ok(sidecar)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }
}

impl Sidecar {
    /// Reads from the log where it listens: the ports are whichever were free.
    async fn listening(&mut self, log: &mut Lines<BufReader<ChildStderr>>) -> Result<(), Failure> {
        let mut said = String::new();
        while self.api.is_empty() || self.ops.is_empty() {
            let Some(line) = log.next_line().await? else {
                return Err(format!("{}'s sidecar did not start:\n{said}", self.name).into());
            };
            if let Some((listener, address)) = listener_in(&line) {
                *(if listener == "ops" { &mut self.ops } else { &mut self.api }) = address;
            }
            said = said + &line + "\n";
        }
        Ok(())
    }

    /// Asks as the kubelet does: gRPC health on the ops listener.
    async fn ready(&self) -> Result<(), Failure> {
        let mut health = HealthClient::new(connect(&self.ops).await?);
        let request = HealthCheckRequest { service: "readiness".to_owned() };
        while health.check(request.clone()).await?.into_inner().status() != ServingStatus::Serving {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn stop(mut self) -> Result<(), Failure> {
        let Some(id) = self.child.id() else {
            return Err(format!("{}'s sidecar had ended", self.name).into());
        };
        let pid = rustix::process::Pid::from_raw(i32::try_from(id)?).ok_or("no process has the id zero")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let Ok(ended) = timeout(PATIENCE, self.child.wait()).await else {
            self.child.kill().await?;
            return Err(format!("{}'s sidecar did not end within {PATIENCE:?}", self.name).into());
        };
        match ended? {
            status if status.success() => Ok(()),
            status => Err(format!("{}'s sidecar ended with {status}", self.name).into()),
        }
    }
}

/// The listener and its address, from a log line that tells them.
fn listener_in(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name)?.as_str().map(str::to_owned);
    (field("message")? == "listening").then_some((field("listener")?, field("address")?))
}

/// This program as countersign's command line. Not with our environment: countersign reads settings from it.
fn countersign() -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COUNTERSIGN).env_clear().kill_on_drop(true);
    Ok(command)
}

/// Runs countersign's command line. A sidecar ends when whoever started it is gone, however that came about: it then
/// finds its standard input closed.
pub(crate) fn be_countersign(arguments: Vec<OsString>) -> ExitCode {
    if arguments.first().is_some_and(|command| command == "serve") {
        std::thread::spawn(|| {
            // Nothing is ever written to it: this returns when it is closed.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        });
    }
    countersign::cli::run(std::iter::once(OsString::from(COUNTERSIGN)).chain(arguments))
}
