//! `issuers[].introspection`: opaque tokens, judged by their issuer's introspection endpoint.

use super::reader::{Content, Section};
use super::scalar;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// An introspection endpoint, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Where it is; discovered below the issuer without it.
    pub url: Option<String>,
    /// Our id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret_file: PathBuf,
    /// How we prove ourselves.
    pub auth: ClientAuth,
    /// What opaque tokens begin with; empty: whatever is no other kind of credential.
    pub token_prefix: String,
    /// How long an answer is used at most.
    pub max_cache: Duration,
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

/// Reads `introspection`; `issuer` is where its endpoint is discovered.
pub(super) fn read_introspection(section: &Section<'_>, issuer: &str) -> Introspection {
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
    let auth = section.choice("auth", |word| match word {
        "basic" => Some(ClientAuth::Basic),
        "post" => Some(ClientAuth::Post),
        _ => None,
    });
    Introspection {
        url,
        client_id: section.text("client_id").unwrap_or_default(),
        client_secret_file: section.file("client_secret_file", Content::Secret).unwrap_or_default(),
        auth: auth.unwrap_or(ClientAuth::Basic),
        token_prefix: section.text("token_prefix").unwrap_or_default(),
        max_cache: section.duration("max_cache", Duration::ZERO..=HOUR).unwrap_or_default(),
        timeout: section.duration("timeout", SECOND / 10..=MINUTE).unwrap_or_default(),
        ca_file: section.file("ca_file", Content::Public),
    }
}
