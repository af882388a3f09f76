//! How an issuer's keys are come by, as configured.

use crate::keys::Algorithm;
use crate::keys::signing::SigningKeys;
use crate::keys::url::FetchUrl;
use crate::token::Issuer;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where an issuer's keys come from.
#[derive(Clone)]
pub enum Source {
    /// A JWK set on disk, followed. May hold secrets.
    JwksFile(PathBuf),
    /// Public keys or certificates on disk, followed.
    PemFile(PathBuf),
    /// A raw HMAC secret on disk, followed; every byte counts.
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Its one algorithm, which must be an allowed one.
        algorithm: Algorithm,
    },
    /// A JWK set behind a URL, fetched from time to time.
    JwksUrl(FetchUrl),
    /// The same, with the URL taken from the issuer's OpenID configuration.
    Discovery,
    /// We are the issuer; the keys have the algorithms of their file.
    Own(Arc<SigningKeys>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JwksFile(path) => write!(f, "JwksFile({})", path.display()),
            Self::PemFile(path) => write!(f, "PemFile({})", path.display()),
            Self::SecretFile { path, algorithm } => write!(f, "SecretFile({}, {algorithm})", path.display()),
            Self::JwksUrl(url) => write!(f, "JwksUrl({url})"),
            Self::Discovery => f.write_str("Discovery"),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

impl Source {
    /// Whether keys come over the network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::JwksUrl(_) | Self::Discovery => true,
            Self::JwksFile(_) | Self::PemFile(_) | Self::SecretFile { .. } | Self::Own(_) => false,
        }
    }
}

/// One issuer's key ring.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer, to the letter.
    pub issuer: Issuer,
    /// Where its keys come from.
    pub source: Source,
    /// The algorithms its tokens may have. Not empty; no HMAC from a remote source.
    pub algorithms: Vec<Algorithm>,
    /// How often a remote set is fetched.
    pub refresh_every: Duration,
    /// For how long after a fetch an unknown `kid` starts no other. Configuration keeps it at
    /// [`Self::SHORTEST_COOL_DOWN`] or more.
    pub cool_down: Duration,
    /// For how long a remote set is used without a good fetch.
    pub max_age: Duration,
    /// The most time one fetch takes, discovery included.
    pub fetch_timeout: Duration,
    /// Certificates to trust instead of the machine's, for an issuer behind a private CA.
    pub ca_file: Option<PathBuf>,
    /// Whether readiness waits for the first good fetch. The ring itself does not look at it.
    pub required: bool,
}

impl Settings {
    /// The least configuration may set as [`Self::cool_down`].
    pub const SHORTEST_COOL_DOWN: Duration = Duration::from_secs(30);

    /// The usual periods: fetched every 5 minutes, used for at most 24 hours, 5 seconds per fetch.
    #[must_use]
    pub fn new(issuer: Issuer, source: Source, algorithms: Vec<Algorithm>) -> Self {
        Self {
            issuer,
            source,
            algorithms,
            refresh_every: Duration::from_secs(300),
            cool_down: Self::SHORTEST_COOL_DOWN,
            max_age: Duration::from_secs(86_400),
            fetch_timeout: Duration::from_secs(5),
            ca_file: None,
            required: false,
        }
    }
}
