//! Connects: files, TLS, user and password, and whether what answers may be written to.

use super::address::Address;
use super::fault;
use super::script::SCHEMA;
use crate::store::shared::{Access, Durability, ServerFault};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// A connection to a primary.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    pub(super) server: Arc<Server>,
    /// Tells connections apart.
    pub(super) number: u64,
}

/// What answered, as it said when the connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) product: String,
    pub(super) version: (u32, u32, u32),
    /// Drawn anew at each start.
    pub(super) run_id: String,
    pub(super) replicas: u32,
}

/// Connects to one server, as often as need be, on one runtime.
pub(super) struct Dialler {
    pub(super) address: Address,
    pub(super) access: Access,
    handle: Handle,
    /// Without credentials.
    info: ConnectionInfo,
    last: AtomicU64,
    /// Of the last attempt, so that a lasting fault is told once.
    told: Mutex<Option<String>>,
}

impl Dialler {
    /// Reads the TLS files. Has to be called inside a runtime: connections live on it.
    pub(super) fn new(address: Address, access: Access) -> Result<Self, ServerFault> {
        let handle = Handle::try_current().map_err(|error| ServerFault::Odd(error.into()))?;
        let info = connection_info(&address, &access)?;
        Ok(Self { address, access, handle, info, last: AtomicU64::new(0), told: Mutex::new(None) })
    }

    /// A new connection, within the time that a call may take.
    pub(super) async fn dial(self: &Arc<Self>) -> Result<Link, ServerFault> {
        let dialler = Arc::clone(self);
        let within = self.access.answer_within.mul_f64(0.75);
        // On our runtime: the caller's may end before the connection does.
        let dialled = self.handle.spawn(async move {
            let late = |_| dialler.unreachable("no answer in time".into());
            tokio::time::timeout(within, dialler.connect()).await.map_err(late)?
        });
        let linked = dialled.await.unwrap_or_else(|error| Err(self.unreachable(error.into())));
        self.tell(linked.as_ref().err());
        linked
    }

    async fn connect(&self) -> Result<Link, ServerFault> {
        let mut credentials =
            RedisConnectionInfo::default().set_db(i64::from(self.address.database)).set_skip_set_lib_name();
        if let Some(user) = &self.address.user {
            // A user without a password is logged in by any.
            credentials = credentials.set_username(user).set_password("");
        }
        if let Some(path) = &self.access.password_file {
            credentials = credentials.set_password(read_password(path).await?.as_str());
        }
        let told = |error| self.fault(error);
        let client = Client::open(self.info().await.set_redis_settings(credentials)).map_err(told)?;
        // Calls and this attempt have bounds of their own.
        let bounds = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = client.get_multiplexed_async_connection_with_config(&bounds).await;
        let mut connection = connected.map_err(|error| {
            let said = error.code().is_some() || fault::meaning(&error) == fault::Meaning::Refused;
            if said { told(error) } else { self.unreachable(error.into()) }
        })?;
        let server = self.greet(&mut connection).await?;
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        Ok(Link { connection, server: Arc::new(server), number })
    }

    /// Where to, with the TLS files as they are now; as they were, where that can't be read.
    async fn info(&self) -> ConnectionInfo {
        if !self.address.tls {
            return self.info.clone();
        }
        let (address, access) = (self.address.clone(), self.access.clone());
        match tokio::task::spawn_blocking(move || connection_info(&address, &access)).await {
            Ok(Ok(info)) => info,
            Ok(Err(fault)) => {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "the store's TLS files can't be used"
                );
                self.info.clone()
            }
            Err(_) => self.info.clone(),
        }
    }

    async fn greet(&self, connection: &mut MultiplexedConnection) -> Result<Server, ServerFault> {
        let mut texts = Vec::new();
        for section in ["server", "replication", "persistence"] {
            let text = Cmd::new().arg("INFO").arg(section).query_async::<String>(connection).await;
            texts.push(text.map_err(|error| self.fault(error))?);
        }
        let info = texts.concat();
        let says = |name: &str| line(&info, name);
        if says("role") != Some("master") {
            return Err(ServerFault::NotPrimary { server: self.address.server() });
        }
        if says("loading") == Some("1") {
            // It answers this, and nothing that would be asked of it.
            return Err(self.unreachable("it is still loading its data".into()));
        }
        // Valkey tells the version of Redis that it stands for as well, and stopped at 7.2.4.
        let product = if says("valkey_version").is_some() { "Valkey" } else { "Redis" };
        let text = says("valkey_version").or(says("redis_version")).unwrap_or_default();
        let server = Server {
            product: format!("{product} {text}"),
            version: version(text),
            run_id: says("run_id").unwrap_or_default().to_owned(),
            replicas: says("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0),
        };
        let (least, needed) = match self.access.durability {
            Durability::Fsynced => ((7, 2, 0), "Redis 7.2 or Valkey is needed for `durability: fsynced`"),
            Durability::Acknowledged | Durability::Replicated(_) => {
                ((6, 2, 0), "Redis 6.2 or Valkey is needed")
            }
        };
        if server.version < least {
            return Err(ServerFault::TooOld { found: server.product, needed });
        }
        Ok(server)
    }

    pub(super) fn fault(&self, error: RedisError) -> ServerFault {
        fault::fault(error, &self.address, &self.access.namespace, SCHEMA)
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ServerFault {
        ServerFault::Unreachable { server: self.address.server(), source }
    }

    fn tell(&self, fault: Option<&ServerFault>) {
        let now = fault.map(ToString::to_string);
        let mut told = self.told.lock();
        match fault {
            Some(fault) if *told != now => {
                tracing::warn!(error = fault as &dyn std::error::Error, "the store can't be used");
            }
            None if told.is_some() => {
                tracing::info!(server = self.address.server(), "the store answers again")
            }
            Some(_) | None => {}
        }
        *told = now;
    }
}

/// One line of what INFO says.
pub(super) fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

async fn read_password(path: &Path) -> Result<Zeroizing<String>, ServerFault> {
    let bad = |why: String| ServerFault::File { path: path.to_owned(), why };
    let text = tokio::fs::read_to_string(path).await.map_err(|error| bad(error.to_string()))?;
    let text = Zeroizing::new(text);
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(bad("it holds no password".to_owned()));
    }
    Ok(Zeroizing::new(password.to_owned()))
}

fn connection_info(address: &Address, access: &Access) -> Result<ConnectionInfo, ServerFault> {
    let plain = |error: RedisError| ServerFault::Odd(error.into());
    let (host, port) = (address.host.clone(), address.port);
    let info = if address.tls {
        let target = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        let certificates = certificates(access)?;
        let client = Client::build_with_tls(target.into_connection_info().map_err(plain)?, certificates);
        client.map_err(plain)?.get_connection_info().clone()
    } else {
        if let Some(path) = access.ca_file.as_ref().or(access.identity.as_ref().map(|(chain, _)| chain)) {
            let why = "certificates are for `rediss://` addresses".to_owned();
            return Err(ServerFault::File { path: path.clone(), why });
        }
        ConnectionAddr::Tcp(host, port).into_connection_info().map_err(plain)?
    };
    // A peer that is gone without a word is noticed also where nothing is being sent.
    let idle = access.answer_within.max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle).with_retries(3);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
        .set_user_timeout(access.answer_within.saturating_mul(2));
    Ok(info.set_tcp_settings(settings))
}

/// Checked here, where it can be said which file is bad.
fn certificates(access: &Access) -> Result<TlsCertificates, ServerFault> {
    let root_cert = access.ca_file.as_ref().map(|path| read_chain(path)).transpose()?;
    let client_tls = match &access.identity {
        None => None,
        Some((chain, key)) => {
            let client_cert = read_chain(chain)?;
            let client_key = read(key)?;
            if PrivateKeyDer::from_pem_slice(&client_key).is_err() {
                return Err(ServerFault::File {
                    path: key.clone(),
                    why: "it holds no private key in PEM".to_owned(),
                });
            }
            Some(ClientTlsConfig { client_cert, client_key })
        }
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

fn read_chain(path: &Path) -> Result<Vec<u8>, ServerFault> {
    let pem = read(path)?;
    let count = CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
    if count == 0 || CertificateDer::pem_slice_iter(&pem).any(|section| section.is_err()) {
        return Err(ServerFault::File {
            path: path.to_owned(),
            why: "it holds no certificates in PEM".to_owned(),
        });
    }
    Ok(pem)
}

fn read(path: &Path) -> Result<Vec<u8>, ServerFault> {
    std::fs::read(path).map_err(|error| ServerFault::File { path: path.to_owned(), why: error.to_string() })
}
