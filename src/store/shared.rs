//! What the engines that run as servers of their own have in common, as whoever assembles a sidecar sees it.

use crate::revocation::RevocationLog;
use crate::session::{LeaseStore, SessionStore};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A store on a server, shared by the sidecars of many machines.
///
/// Making one connects nowhere. Calls connect when they have to, again and again with growing pauses, and fail at once
/// while the pause lasts.
#[tonic::async_trait]
pub trait Shared: RevocationLog + SessionStore + LeaseStore {
    /// Connects anew, looks, and changes nothing.
    ///
    /// # Errors
    /// [`ServerFault`]: everything that would keep a sidecar from using it.
    async fn inspect(&self) -> Result<Report, ServerFault>;

    /// Creates the namespace, or brings it to this release's schema. Any number may do it at once.
    ///
    /// A namespace that was not there is taken for a new one: nobody holds revocations that it lost.
    ///
    /// # Errors
    /// [`ServerFault`]; then nothing was changed, or it can't be known.
    async fn migrate(&self) -> Result<Migration, ServerFault>;

    /// Listens for changes, so that [`RevocationLog::changed`] resolves at once, until cancelled. Without it the log is
    /// followed by polling alone.
    async fn listen(&self, cancel: CancellationToken);
}

/// What the operator says about the server beside its address.
#[derive(Clone, Debug)]
pub struct Access {
    /// Holds the password; read at each new connection, so that it can be changed while sidecars run.
    pub password_file: Option<PathBuf>,
    /// Authorities for the server's certificate, PEM; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain and key, PEM, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What of the server is ours.
    pub namespace: Namespace,
    /// When a write counts as done.
    pub durability: Durability,
    /// Whether a namespace that is absent or older is migrated by whoever connects.
    pub migrate: bool,
    /// A call is answered within this, or not at all.
    pub answer_within: Duration,
    /// Connections at most, those that follow the log not counted.
    pub connections: usize,
    /// Whose clock sessions and cut-offs are stamped and judged by.
    pub judge_by: JudgeBy,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            password_file: None,
            ca_file: None,
            identity: None,
            namespace: Namespace::default(),
            durability: Durability::Acknowledged,
            migrate: false,
            answer_within: Duration::from_secs(2),
            connections: 4,
            judge_by: JudgeBy::Store,
        }
    }
}

/// Whose clock sessions and cut-offs are stamped and judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgeBy {
    /// The store's own: sidecars' clocks differ, and a grace window must not depend on which of them is asked.
    Store,
    /// The instant that comes with the call, for tests that move time by hand.
    Caller,
}

/// What of a server is ours: a schema's name in Postgres, a hash tag in Redis. 1 to 32 lower-case letters, digits and
/// `_`, a letter first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("countersign".to_owned())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 32 lower-case letters, digits and `_`, a letter first, and not `pg_…`")]
pub struct BadNamespace;

impl FromStr for Namespace {
    type Err = BadNamespace;

    fn from_str(text: &str) -> Result<Self, BadNamespace> {
        let letters = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(letters)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            // Postgres keeps those for itself.
            && !text.starts_with("pg_");
        if fits { Ok(Self(text.to_owned())) } else { Err(BadNamespace) }
    }
}

/// When a write counts as done: what has to be lost before an acknowledged revocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server has said so. What it loses then, at a crash or a failover, is up to its own settings.
    Acknowledged,
    /// So many replicas have it, too.
    Replicated(u8),
    /// It is on the server's disk.
    Fsynced,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged => f.write_str("acknowledged"),
            Self::Replicated(replicas) => write!(f, "replicated:{replicas}"),
            Self::Fsynced => f.write_str("fsynced"),
        }
    }
}

/// The text is no durability class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `acknowledged`, `replicated:N` with N from 1 to 9, or `fsynced`")]
pub struct BadDurability;

impl FromStr for Durability {
    type Err = BadDurability;

    fn from_str(text: &str) -> Result<Self, BadDurability> {
        match text {
            "acknowledged" => Ok(Self::Acknowledged),
            "fsynced" => Ok(Self::Fsynced),
            _ => match text.strip_prefix("replicated:").map(str::as_bytes) {
                Some([digit @ b'1'..=b'9']) => Ok(Self::Replicated(digit - b'0')),
                Some(_) | None => Err(BadDurability),
            },
        }
    }
}

/// What was found on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Product and version, such as `Redis 7.0.15`.
    pub server: String,
    /// What the server's own settings keep less than the durability class promises, or would lose, each with what to
    /// do about it.
    pub warnings: Vec<String>,
}

/// What became of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its schema version before; 0 where there was none.
    pub from: u32,
    /// Its schema version now.
    pub to: u32,
}

/// The server can't be used as a store. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// Nobody answers there; trying again can help.
    #[error("can't reach {server}")]
    Unreachable {
        /// Host and port, or socket.
        server: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server refuses our user and password.
    #[error("{server} refuses the user or the password; see the URL's user and `store.password_file`")]
    Refused {
        /// Host and port, or socket.
        server: String,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server's user may not do what we have to.
    #[error("the user may not {what}")]
    Forbidden {
        /// What it may not, and which right is missing.
        what: String,
        /// What the server said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A replica: what it holds may be old, and it can't be written.
    #[error("{server} is a replica; name the primary, or all hosts")]
    NotPrimary {
        /// Host and port, or socket.
        server: String,
    },
    /// Too old a server.
    #[error("{found} is too old; {needed}")]
    TooOld {
        /// Product and version.
        found: String,
        /// What is needed at least, and for what.
        needed: &'static str,
    },
    /// The namespace was never created.
    #[error(
        "the namespace `{0}` does not exist there; create it with `countersign migrate`, or set `store.migrate: true`"
    )]
    NoNamespace(Namespace),
    /// An earlier release's.
    #[error(
        "the namespace `{namespace}` has schema version {found}, older than this release's {known}; run `countersign migrate`"
    )]
    OlderSchema {
        /// Which.
        namespace: Namespace,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A later release's.
    #[error(
        "the namespace `{namespace}` has schema version {found}, newer than the {known} this release knows"
    )]
    NewerSchema {
        /// Which.
        namespace: Namespace,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Something else's.
    #[error("`{0}` there is not countersign's; choose another `store.namespace`")]
    Foreign(Namespace),
    /// A file that `store` names, or what is in it.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server answered something that no server of its kind would.
    #[error("the server answered unexpectedly")]
    Odd(#[source] Box<dyn Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_fits_a_schema_name_and_a_hash_tag() {
        for good in ["a", "countersign", "shop_2", &"a".repeat(32)] {
            assert_eq!(good.parse::<Namespace>().unwrap().as_str(), good);
        }
        for bad in ["", "A", "2shop", "_a", "a-b", "a}b", "a\"b", "a:b", "pg_shop", &"a".repeat(33)] {
            assert_eq!(bad.parse::<Namespace>(), Err(BadNamespace), "{bad}");
        }
    }

    #[test]
    fn a_durability_class_has_one_spelling() {
        for good in ["acknowledged", "replicated:1", "replicated:9", "fsynced"] {
            assert_eq!(good.parse::<Durability>().unwrap().to_string(), good);
        }
        for bad in ["", "Acknowledged", "replicated", "replicated:", "replicated:0", "replicated:10", "fsync"]
        {
            assert_eq!(bad.parse::<Durability>(), Err(BadDurability), "{bad}");
        }
    }
}
