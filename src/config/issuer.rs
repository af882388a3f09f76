//! `issuers`: whose tokens are accepted beside our own, and where their keys come from.

use super::authjs::{self, AuthJs, read_authjs};
use super::freshness::{Freshness, read_freshness};
use super::introspection::{
    Introspection, OAuthClient, RelayedRefresh, Revocation, read_client, read_introspection, read_refresh,
    read_revocation,
};
use super::reader::{Content, Section};
use super::scalar;
use super::session_table::{SessionTable, read_session_table};
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
    /// How it writes its tokens.
    pub preset: Option<IssuerPreset>,
    /// Accepted `aud`, any of; at least one.
    pub audiences: Vec<String>,
    /// Accepted `azp`, any of; none: not looked at.
    pub authorized_parties: Vec<String>,
    /// Accepted algorithms; symmetric ones with a secret file alone, and then one.
    pub algorithms: Vec<Algorithm>,
    /// What its credentials are.
    pub credentials: Credentials,
    /// Who we are there, where its endpoints are called.
    pub client: Option<OAuthClient>,
    /// How its opaque tokens are judged, where it has any; never without `client`.
    pub introspection: Option<Introspection>,
    /// That it is told what is taken back here; never without `client`.
    pub revocation: Option<Revocation>,
    /// That its sessions are refreshed here; never without `client`.
    pub refresh: Option<RelayedRefresh>,
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

/// Whose way of writing tokens it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerPreset {
    /// Any OpenID provider's.
    Oidc,
    /// Auth0's.
    Auth0,
    /// Clerk's.
    Clerk,
}

impl IssuerPreset {
    fn named(name: &str) -> Option<Self> {
        match name {
            "oidc" => Some(Self::Oidc),
            "auth0" => Some(Self::Auth0),
            "clerk" => Some(Self::Clerk),
            _ => None,
        }
    }

    /// How far the issuer's own library lets clocks stand apart, where it says so.
    fn leeway(self) -> Duration {
        match self {
            Self::Clerk => 5 * SECOND,
            Self::Oidc | Self::Auth0 => 30 * SECOND,
        }
    }
}

/// What an issuer's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Signed JWTs, and where the keys come from that verify them.
    Jwts(Keys),
    /// Encrypted session cookies.
    Cookies(AuthJs),
    /// Sessions in an application's table.
    Table(Box<SessionTable>),
}

/// Where an issuer puts what we need: top-level names, or JSON Pointers (RFC 6901) where they begin with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths {
    /// Whom the token is about.
    pub subject: String,
    /// The login session's id.
    pub session: String,
    /// The OAuth client, at the first of these that is there.
    pub client: Vec<String>,
    /// Roles, of all of these.
    pub roles: Vec<String>,
    /// Scopes, of all of these.
    pub scopes: Vec<String>,
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
    let preset = section.choice("preset", IssuerPreset::named);
    let authjs = section.section("authjs").map(|cookies| read_authjs(section, &cookies));
    let table = section.section("session_table").map(|table| read_session_table(section, &table));
    let (credentials, usual_leeway) = match (authjs, table) {
        (_, Some(table)) => (Credentials::Table(Box::new(table)), Duration::ZERO),
        (Some(cookies), None) => (Credentials::Cookies(cookies), authjs::LEEWAY),
        (None, None) => (
            Credentials::Jwts(read_keys(&section.section_or_empty("keys"), &issuer)),
            preset.map_or(30 * SECOND, IssuerPreset::leeway),
        ),
    };
    let types = section.texts("types");
    if types.as_ref().is_some_and(Vec::is_empty) {
        section.fault("types", "names no type: no token would be accepted");
    }
    let usual_types = || match preset {
        Some(IssuerPreset::Clerk) => vec!["JWT".to_owned()],
        Some(IssuerPreset::Oidc | IssuerPreset::Auth0) | None => vec!["at+jwt".to_owned(), "JWT".to_owned()],
    };
    let client = section.section("client").map(|client| read_client(&client));
    let is_oidc = preset == Some(IssuerPreset::Oidc);
    ForeignIssuer {
        algorithms: read_algorithms(section, &credentials, preset),
        preset,
        audiences: read_audiences(section, &issuer, preset),
        authorized_parties: read_parties(section, &issuer, preset),
        refresh: read_refresh(section, client.as_ref(), &issuer),
        client,
        introspection: read_introspection(section, &issuer),
        revocation: read_revocation(section, &issuer),
        issuer: issuer.into(),
        credentials,
        types: types.unwrap_or_else(usual_types),
        allow_missing_type: section.switch("allow_missing_type").unwrap_or(is_oidc),
        leeway: section.duration("leeway", Duration::ZERO..=LEEWAY).unwrap_or(usual_leeway),
        max_lifetime: section.duration("max_lifetime", MINUTE..=400 * DAY).unwrap_or_default(),
        require: section.texts("require").unwrap_or_default(),
        claims: read_claims(&section.section_or_empty("claims"), preset),
        freshness: read_freshness(section),
        renew_before: section.duration("renew_before", Duration::ZERO..=DAY).unwrap_or_default(),
    }
}

fn read_audiences(section: &Section<'_>, issuer: &str, preset: Option<IssuerPreset>) -> Vec<String> {
    let audiences = section.texts("audiences");
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        section.fault("audiences", "names no audience: tokens meant for anyone would be accepted");
    }
    match audiences {
        Some(audiences) => audiences,
        None if section.has("audiences") => Vec::new(),
        None if preset == Some(IssuerPreset::Clerk) => vec![issuer.to_owned()],
        None => {
            section.fault("audiences", "required, but not there");
            Vec::new()
        }
    }
}

/// Reads `authorized_parties`, and what else only a preset's issuer must say.
fn read_parties(section: &Section<'_>, issuer: &str, preset: Option<IssuerPreset>) -> Vec<String> {
    if preset == Some(IssuerPreset::Auth0) && !issuer.is_empty() && !issuer.ends_with('/') {
        section.fault_hinting("issuer", "Auth0's issuers end in `/`", format!("write `{issuer}/`"));
    }
    let parties = section.texts("authorized_parties").unwrap_or_default();
    if preset == Some(IssuerPreset::Clerk) && parties.is_empty() {
        section.fault_hinting(
            "authorized_parties",
            "required with `preset: clerk`: its tokens name no audience, so any site's would be accepted",
            "name your sites' origins, such as `[https://shop.example.com]`",
        );
    }
    parties
}

fn read_claims(section: &Section<'_>, preset: Option<IssuerPreset>) -> ClaimPaths {
    let paths = |key: &str, usual: &[&str]| {
        section.claims(key).unwrap_or_else(|| usual.iter().map(|path| (*path).to_owned()).collect())
    };
    let (client, roles, scopes): (&[&str], &[&str], &[&str]) = match preset {
        Some(IssuerPreset::Oidc) => {
            (&["client_id", "cid", "appid"], &["roles", "/realm_access/roles"], &["scope", "scp"])
        }
        Some(IssuerPreset::Auth0) => (&["client_id"], &["roles"], &["scope", "permissions"]),
        Some(IssuerPreset::Clerk) | None => (&["client_id"], &["roles"], &["scope"]),
    };
    ClaimPaths {
        subject: section.claim("subject"),
        session: section.claim("session"),
        client: paths("client", client),
        roles: paths("roles", roles),
        scopes: paths("scopes", scopes),
        login: section.claim("login"),
    }
}

/// An algorithm by its name in a JWS header.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    name.parse().ok()
}

fn read_algorithms(
    section: &Section<'_>,
    credentials: &Credentials,
    preset: Option<IssuerPreset>,
) -> Vec<Algorithm> {
    let given = section.choices("algorithms", algorithm);
    let is_secret = matches!(credentials, Credentials::Jwts(Keys { source: Source::SecretFile(_), .. }));
    match given {
        None if is_secret && !section.has("algorithms") => {
            section.fault("algorithms", "required with `secret_file`: one of `HS256`, `HS384`, `HS512`");
            Vec::new()
        }
        None if matches!(preset, Some(IssuerPreset::Auth0 | IssuerPreset::Clerk)) => vec![Algorithm::Rs256],
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
