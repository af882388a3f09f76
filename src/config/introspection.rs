//! `issuers[].client`, `introspection`, `revocation` and `refresh`: who this sidecar is at an issuer, and which of its endpoints it
//! calls.

use super::reader::{Content, Section};
use super::scalar;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Who we are at an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthClient {
    /// Our id there.
    pub id: String,
    /// Our secret there.
    pub secret_file: PathBuf,
    /// How we prove ourselves.
    pub auth: ClientAuth,
    /// The deadline of one exchange.
    pub timeout: Duration,
    /// Authorities beside none: the system's hold without it.
    pub ca_file: Option<PathBuf>,
}

/// How a client proves itself to an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// How opaque tokens are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Where the endpoint is; discovered below the issuer without it.
    pub url: Option<String>,
    /// What opaque tokens begin with; empty: whatever is no other kind of credential.
    pub token_prefix: String,
    /// How long an answer is used at most.
    pub max_cache: Duration,
}

/// That the issuer is told, too, what is taken back here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Where the endpoint is; discovered below the issuer without it.
    pub url: Option<String>,
}

/// That its sessions are refreshed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedRefresh {
    /// Where the token endpoint is; discovered below the issuer without it.
    pub url: Option<String>,
    /// How long one attempt holds off others, and its result is given to latecomers; longer than `client.timeout`.
    pub grace: Duration,
}

/// Reads `client`.
pub(super) fn read_client(section: &Section<'_>) -> OAuthClient {
    let auth = section.choice("auth", |word| match word {
        "basic" => Some(ClientAuth::Basic),
        "post" => Some(ClientAuth::Post),
        _ => None,
    });
    OAuthClient {
        id: section.text("id").unwrap_or_default(),
        secret_file: section.file("secret_file", Content::Secret).unwrap_or_default(),
        auth: auth.unwrap_or(ClientAuth::Basic),
        timeout: section.duration("timeout", SECOND / 10..=MINUTE).unwrap_or_default(),
        ca_file: section.file("ca_file", Content::Public),
    }
}

/// Reads `introspection`.
pub(super) fn read_introspection(issuer_section: &Section<'_>, issuer: &str) -> Option<Introspection> {
    let section = issuer_section.section("introspection")?;
    Some(Introspection {
        url: read_endpoint(issuer_section, &section, "introspection", issuer),
        token_prefix: section.text("token_prefix").unwrap_or_default(),
        max_cache: section.duration("max_cache", Duration::ZERO..=HOUR).unwrap_or_default(),
    })
}

/// Reads `revocation`.
pub(super) fn read_revocation(issuer_section: &Section<'_>, issuer: &str) -> Option<Revocation> {
    let section = issuer_section.section("revocation")?;
    Some(Revocation { url: read_endpoint(issuer_section, &section, "revocation", issuer) })
}

/// Reads `refresh`.
pub(super) fn read_refresh(
    issuer_section: &Section<'_>,
    client: Option<&OAuthClient>,
    issuer: &str,
) -> Option<RelayedRefresh> {
    let section = issuer_section.section("refresh")?;
    let grace = section.duration("grace", SECOND..=5 * MINUTE).unwrap_or_default();
    if let Some(client) = client
        && client.timeout >= grace
    {
        section.fault_hinting(
            "grace",
            "must be more than `client.timeout`: a second attempt would begin while the first is under way",
            format!("write more than {:?}", client.timeout),
        );
    }
    Some(RelayedRefresh { url: read_endpoint(issuer_section, &section, "refresh", issuer), grace })
}

/// An endpoint has a URL, or an issuer below which it is discovered; and somebody who may call it.
fn read_endpoint(
    issuer_section: &Section<'_>,
    section: &Section<'_>,
    name: &str,
    issuer: &str,
) -> Option<String> {
    if !issuer_section.has("client") {
        issuer_section.fault_hinting(
            name,
            "needs a `client`: who this sidecar is at the issuer",
            "add `client: {id: …, secret_file: …}` beside it",
        );
    }
    let url = section.parsed("url", scalar::key_url);
    if !section.has("url")
        && !issuer.is_empty()
        && let Err(why) = scalar::key_url(issuer)
    {
        section.fault_hinting(
            "",
            format!("the endpoint can't be discovered below the issuer: {why}"),
            "name its `url`",
        );
    }
    url
}
