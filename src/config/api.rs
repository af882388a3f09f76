//! `api`, `ops`, `drain`: the listeners, and how they end.

use super::reader::{Content, Section};
use super::scalar;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// What `sockaddr_un` holds, less its final zero.
const SOCKET_PATH: usize = 107;

/// Where callers reach this sidecar, and how much of it they get. At least one listener is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The TCP listener; on loopback, behind mutual TLS, or in danger.
    pub tcp: Option<SocketAddr>,
    /// The Unix socket.
    pub unix: Option<UnixSocket>,
    /// TLS on the TCP listener.
    pub tls: Option<Tls>,
    /// The operator lets the TCP listener lie beyond loopback without client certificates.
    pub danger_plaintext_beyond_loopback: bool,
    /// Threads that serve calls.
    pub workers: usize,
    /// Open connections at most.
    pub max_connections: usize,
    /// Concurrent calls on one connection at most.
    pub max_streams_per_connection: u32,
    /// Concurrent calls at most.
    pub max_in_flight: usize,
    /// The longest token looked at.
    pub max_token_bytes: usize,
    /// The deadline of a call that names none.
    pub default_deadline: Duration,
    /// When a connection is asked to end, before jitter.
    pub max_connection_age: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// The rpcs that are served.
    pub serve: BTreeSet<Rpc>,
}

/// A Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its path, at most 107 bytes. Not checked: that its directory is there.
    pub path: PathBuf,
    /// Its group, where it is not the process's own.
    pub group: Option<Group>,
}

/// A group of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// By number.
    Id(u32),
    /// By name. Not checked: that there is one of this name.
    Name(String),
}

/// TLS files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whose client certificates are required; none asked for without it.
    pub client_ca: Option<PathBuf>,
}

/// A family of rpcs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rpc {
    /// `Verify` and `VerifyStream`.
    Verify,
    /// `Refresh`.
    Refresh,
    /// `Revoke`.
    Revoke,
    /// All of `SessionService`.
    Sessions,
    /// `GetJwks`.
    Jwks,
    /// Envoy's `Authorization/Check`.
    Check,
}

/// The second listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ops {
    /// Where it listens.
    pub address: SocketAddr,
}

/// From SIGTERM to exit. `grace` is less than `deadline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long calls are still accepted after readiness dropped.
    pub grace: Duration,
    /// When the process exits, counted from SIGTERM.
    pub deadline: Duration,
}

/// Reads `api`. `also` is what is served beyond the usual where nothing is said.
pub(super) fn read_api(section: &Section<'_>, also: &[Rpc]) -> Api {
    let tcp = if section.is_null("tcp") { None } else { section.parsed("tcp", scalar::address) };
    let api = Api {
        tcp,
        unix: read_unix(section),
        tls: section.section("tls").map(|tls| read_tls(&tls)),
        danger_plaintext_beyond_loopback: section
            .switch("danger_plaintext_beyond_loopback")
            .unwrap_or_default(),
        workers: section.count("workers", 1..=256).unwrap_or_else(usual_workers),
        max_connections: section.count("max_connections", 1..=65_536).unwrap_or_default(),
        max_streams_per_connection: section
            .count("max_streams_per_connection", 1..=65_536)
            .unwrap_or_default(),
        max_in_flight: section.count("max_in_flight", 1..=1_000_000).unwrap_or_default(),
        max_token_bytes: section.count("max_token_bytes", 512..=65_536).unwrap_or_default(),
        default_deadline: section
            .duration("default_deadline", 10 * MILLISECOND..=5 * MINUTE)
            .unwrap_or_default(),
        max_connection_age: section.duration("max_connection_age", MINUTE..=7 * DAY).unwrap_or_default(),
        reflection: section.switch("reflection").unwrap_or_default(),
        serve: read_serve(section, also),
    };
    judge_listeners(section, &api);
    api
}

fn usual_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4)
}

fn read_unix(section: &Section<'_>) -> Option<UnixSocket> {
    let group = section.text("unix_group").map(|text| match text.parse() {
        Ok(id) => Group::Id(id),
        Err(_) => Group::Name(text),
    });
    let Some(path) = section.path("unix") else {
        if group.is_some() && !section.has("unix") {
            section.fault("unix_group", "has no meaning without `unix`");
        }
        return None;
    };
    if path.as_os_str().len() > SOCKET_PATH {
        section.fault("unix", format!("a socket's path is at most {SOCKET_PATH} bytes"));
    }
    Some(UnixSocket { path, group })
}

fn read_tls(section: &Section<'_>) -> Tls {
    Tls {
        certificate: section.file("certificate", Content::Public).unwrap_or_default(),
        key: section.file("key", Content::Public).unwrap_or_default(),
        client_ca: section.file("client_ca", Content::Public),
    }
}

fn read_serve(section: &Section<'_>, also: &[Rpc]) -> BTreeSet<Rpc> {
    let served = section.choices("serve", |word| match word {
        "verify" => Some(Rpc::Verify),
        "refresh" => Some(Rpc::Refresh),
        "revoke" => Some(Rpc::Revoke),
        "sessions" => Some(Rpc::Sessions),
        "jwks" => Some(Rpc::Jwks),
        "check" => Some(Rpc::Check),
        _ => None,
    });
    match served {
        Some(served) => {
            if served.is_empty() {
                section.fault("serve", "names no rpc: nothing would be served");
            }
            served.into_iter().collect()
        }
        None => {
            let usual = [Rpc::Verify, Rpc::Revoke, Rpc::Jwks];
            usual.into_iter().chain(also.iter().copied()).collect()
        }
    }
}

fn judge_listeners(section: &Section<'_>, api: &Api) {
    if section.is_null("tcp") && !section.has("unix") {
        section.fault("tcp", "`null` without `unix`: nobody could reach this sidecar");
    }
    if api.tcp.is_none() && api.tls.is_some() {
        section.fault("tls", "has no meaning without `tcp`");
    }
    let Some(tcp) = api.tcp else { return };
    let mutual = api.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !tcp.ip().is_loopback() && !mutual && !api.danger_plaintext_beyond_loopback {
        section.fault_hinting(
            "tcp",
            "beyond loopback without client certificates: anyone in reach could use and read it",
            "set `tls` with `client_ca`, or say `danger_plaintext_beyond_loopback: true`",
        );
    }
}

/// Reads `ops`.
pub(super) fn read_ops(section: &Section<'_>, api: Option<SocketAddr>) -> Ops {
    let address = section.parsed("address", scalar::address);
    let address = address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 9090)));
    let meets = |api: SocketAddr| {
        let anyone = api.ip().is_unspecified() || address.ip().is_unspecified();
        address.port() != 0 && api.port() == address.port() && (anyone || api.ip() == address.ip())
    };
    if api.is_some_and(meets) {
        section.fault("address", "is the port of `api.tcp`: only one of them could listen");
    }
    Ops { address }
}

/// Reads `drain`.
pub(super) fn read_drain(section: &Section<'_>) -> Drain {
    let grace = section.duration("grace", Duration::ZERO..=5 * MINUTE).unwrap_or_default();
    let deadline = section.duration("deadline", SECOND..=60 * MINUTE).unwrap_or_default();
    if grace >= deadline {
        section.fault("grace", "must be less than `deadline`: no time would be left for calls to end");
    }
    Drain { grace, deadline }
}
