//! `issuers`: whose tokens are accepted beside our own, and where their keys come from.

use super::authjs::{self, AuthJs, read_authjs};
use super::freshness::{Freshness, read_freshness};
use super::reader::{Content, Section};
use super::scalar;
use crate::keys::Algorithm;
use crate::token::Issuer;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The most that a clock may stand apart.
pub(super) const LEEWAY: Duration = MINUTE;

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignIssuer {
    /// `iss`; no two issuers share it.
    pub issuer: Issuer,
    /// Accepted `aud`, any of; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms; symmetric ones with a secret file alone, and then one.
    pub algorithms: Vec<Algorithm>,
    /// What its credentials are.
    pub credentials: Credentials,
    /// Accepted `typ`; at least one.
    pub types: Vec<String>,
    /// Whether a token without `typ` is accepted.
    pub allow_missing_type: bool,
    /// How far its clock may stand apart; at most a minute.
    pub leeway: Duration,
    /// The longest accepted time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// Claims that must be there beside `iss`, `aud` and `exp`.
    pub require: Vec<String>,
    /// Where it puts what we need.
    pub claims: ClaimPaths,
    /// How fresh a verification must be.
    pub freshness: Freshness,
    /// How long before its end a token should be renewed.
    pub renew_before: Duration,
}

/// What an issuer's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Signed JWTs, and where the keys come from that verify them.
    Jwts(Keys),
    /// Encrypted session cookies.
    Cookies(AuthJs),
}

/// Where an issuer puts what we need: top-level names, or JSON Pointers (RFC 6901) where they begin with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths {
    /// Whom the token is about.
    pub subject: String,
    /// The login session's id.
    pub session: String,
    /// The OAuth client.
    pub client: String,
    /// Roles.
    pub roles: String,
    /// Scopes.
    pub scopes: String,
    /// When the user logged in.
    pub login: String,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The one source.
    pub source: Source,
    /// How a URL is fetched; of no meaning for files.
    pub fetch: Fetch,
}

/// A source of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A JWK Set in a file.
    JwksFile(PathBuf),
    /// Public keys in PEM.
    PemFile(PathBuf),
    /// A shared secret's raw bytes. Not checked: that they are enough.
    SecretFile(PathBuf),
    /// A JWK Set by https, or by http on loopback.
    JwksUrl(String),
    /// OpenID discovery below the issuer, which is such a URL.
    Discovery,
}

/// How a URL is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Authorities beside none: the system's hold without it.
    pub ca_file: Option<PathBuf>,
    /// How often it is fetched again.
    pub refresh_every: Duration,
    /// The least time between two fetches that unknown keys cause.
    pub cool_down: Duration,
    /// How long the last good set serves while fetches fail; more than `refresh_every`.
    pub max_age: Duration,
    /// The deadline of one fetch in all.
    pub timeout: Duration,
    /// Whether readiness waits for the first fetch.
    pub required: bool,
}

/// Reads one of `issuers`.
pub(super) fn read_issuer(section: &Section<'_>) -> ForeignIssuer {
    let issuer = section.text("issuer").unwrap_or_default();
    let authjs = section.section("authjs").map(|cookies| read_authjs(section, &cookies));
    let (credentials, usual_leeway) = match authjs {
        Some(cookies) => (Credentials::Cookies(cookies), authjs::LEEWAY),
        None => (Credentials::Jwts(read_keys(&section.section_or_empty("keys"), &issuer)), 30 * SECOND),
    };
    let audiences = section.texts("audiences");
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        section.fault("audiences", "names no audience: tokens meant for anyone would be accepted");
    }
    let types = section.texts("types");
    if types.as_ref().is_some_and(Vec::is_empty) {
        section.fault("types", "names no type: no token would be accepted");
    }
    let claims = section.section_or_empty("claims");
    ForeignIssuer {
        algorithms: read_algorithms(section, &credentials),
        issuer: issuer.into(),
        audiences: audiences.unwrap_or_default(),
        credentials,
        types: types.unwrap_or_default(),
        allow_missing_type: section.switch("allow_missing_type").unwrap_or_default(),
        leeway: section.duration("leeway", Duration::ZERO..=LEEWAY).unwrap_or(usual_leeway),
        max_lifetime: section.duration("max_lifetime", MINUTE..=400 * DAY).unwrap_or_default(),
        require: section.texts("require").unwrap_or_default(),
        claims: ClaimPaths {
            subject: claims.claim("subject"),
            session: claims.claim("session"),
            client: claims.claim("client"),
            roles: claims.claim("roles"),
            scopes: claims.claim("scopes"),
            login: claims.claim("login"),
        },
        freshness: read_freshness(section),
        renew_before: section.duration("renew_before", Duration::ZERO..=DAY).unwrap_or_default(),
    }
}

/// An algorithm by its name in a JWS header.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    name.parse().ok()
}

fn read_algorithms(section: &Section<'_>, credentials: &Credentials) -> Vec<Algorithm> {
    let given = section.choices("algorithms", algorithm);
    let is_secret = matches!(credentials, Credentials::Jwts(Keys { source: Source::SecretFile(_), .. }));
    match given {
        None if is_secret && !section.has("algorithms") => {
            section.fault("algorithms", "required with `secret_file`: one of `HS256`, `HS384`, `HS512`");
            Vec::new()
        }
        None => vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
        Some(given) => {
            let symmetric = given.iter().filter(|algorithm| algorithm.is_symmetric()).count();
            if given.is_empty() {
                section.fault("algorithms", "names no algorithm: no token would be accepted");
            } else if is_secret && (symmetric != 1 || given.len() != 1) {
                section.fault("algorithms", "with `secret_file` exactly one of `HS256`, `HS384`, `HS512`");
            } else if !is_secret && symmetric > 0 {
                section.fault(
                    "algorithms",
                    "HS algorithms need `secret_file`: with a public key anyone could sign",
                );
            }
            given
        }
    }
}

/// Reads a `keys` section; without a source it is discovery below `issuer`.
pub(super) fn read_keys(section: &Section<'_>, issuer: &str) -> Keys {
    let source = read_source(section, issuer);
    let fetched = matches!(source, Source::JwksUrl(_) | Source::Discovery);
    if !fetched {
        for option in ["ca_file", "refresh_every", "cool_down", "max_age", "timeout", "required"] {
            if section.has(option) {
                section.fault(option, "has no meaning for keys from a file");
            }
        }
    }
    let fetch = Fetch {
        ca_file: section.file("ca_file", Content::Public),
        refresh_every: section.duration("refresh_every", 30 * SECOND..=DAY).unwrap_or_default(),
        cool_down: section.duration("cool_down", 30 * SECOND..=HOUR).unwrap_or_default(),
        max_age: section.duration("max_age", MINUTE..=30 * DAY).unwrap_or_default(),
        timeout: section.duration("timeout", Duration::from_millis(100)..=MINUTE).unwrap_or_default(),
        required: section.switch("required").unwrap_or_default(),
    };
    if fetch.max_age <= fetch.refresh_every {
        section.fault("max_age", "must be more than `refresh_every`: keys would lapse between two fetches");
    }
    Keys { source, fetch }
}

fn read_source(section: &Section<'_>, issuer: &str) -> Source {
    let discovery = section.switch("discovery");
    let sources = ["jwks_file", "pem_file", "secret_file", "jwks_url"];
    let is_named = |source: &&str| section.knows(source) && section.has(source);
    let mut named: Vec<&str> = sources.into_iter().filter(is_named).collect();
    if discovery == Some(true) {
        named.push("discovery");
    }
    if let [_, second, ..] = named.as_slice() {
        let all = super::reference::listed(&named);
        section.fault(second, format!("keys come from one source, not from {all}"));
    }
    match named.first().copied() {
        Some("jwks_file") => Source::JwksFile(section.file("jwks_file", Content::Public).unwrap_or_default()),
        Some("pem_file") => Source::PemFile(section.file("pem_file", Content::Public).unwrap_or_default()),
        Some("secret_file") => {
            Source::SecretFile(section.file("secret_file", Content::Secret).unwrap_or_default())
        }
        Some("jwks_url") => Source::JwksUrl(section.parsed("jwks_url", scalar::key_url).unwrap_or_default()),
        _ => {
            judge_discovery(section, issuer, discovery);
            Source::Discovery
        }
    }
}

fn judge_discovery(section: &Section<'_>, issuer: &str, asked: Option<bool>) {
    const HINT: &str = "name a source: `jwks_url`, `jwks_file`, `pem_file` or `secret_file`";
    if asked == Some(false) {
        section.fault_hinting("discovery", "`false`, and no other source of keys", HINT);
    } else if issuer.is_empty() {
        // Told as the missing issuer already.
    } else if let Err(why) = scalar::key_url(issuer) {
        section.fault_hinting("", format!("keys can't be discovered below the issuer: {why}"), HINT);
    }
}
