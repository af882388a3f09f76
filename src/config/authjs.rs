//! `issuers[].authjs`: an issuer whose credentials are encrypted session cookies of Auth.js or NextAuth.

use super::reader::{Content, Section};
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// How far clocks may stand apart where nothing is said: what Auth.js itself allows.
pub(super) const LEEWAY: Duration = Duration::from_secs(15);

/// An application's encrypted session cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthJs {
    /// Which library writes them.
    pub version: AuthJsVersion,
    /// The application's secrets, each in a file: the first encrypts, all decrypt; at least one.
    pub secret_files: Vec<PathBuf>,
    /// The cookies' exact names; empty for the library's own.
    pub cookies: Vec<String>,
    /// How long a cookie lives.
    pub max_age: Duration,
    /// After how long it should be renewed; less than `max_age`.
    pub update_age: Duration,
    /// Members that are never shown nor kept.
    pub withhold: Vec<String>,
}

/// Which library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthJsVersion {
    /// Auth.js, `@auth/core`, next-auth 5.
    V5,
    /// NextAuth 4.
    V4,
}

/// Settings of the issuer around it that say nothing about cookies.
const OF_JWTS: [&str; 11] = [
    "preset",
    "authorized_parties",
    "client",
    "introspection",
    "revocation",
    "refresh",
    "keys",
    "algorithms",
    "types",
    "allow_missing_type",
    "max_lifetime",
];

/// Beside a section that says that the credentials are no JWTs.
pub(super) fn refuse_settings_of_jwts(issuer: &Section<'_>, beside: &str) {
    for setting in OF_JWTS {
        if issuer.has(setting) {
            issuer.fault(setting, format!("has no meaning beside `{beside}`: it is about JWTs"));
        }
    }
}

/// Reads `authjs` in an issuer's section.
pub(super) fn read_authjs(issuer: &Section<'_>, section: &Section<'_>) -> AuthJs {
    refuse_settings_of_jwts(issuer, "authjs");
    let version = section.choice("version", |word| match word {
        "5" => Some(AuthJsVersion::V5),
        "4" => Some(AuthJsVersion::V4),
        _ => None,
    });
    let version = version.unwrap_or(AuthJsVersion::V5);
    let secret_files = section.files("secret_files", Content::Secret).unwrap_or_default();
    if section.has("secret_files") && secret_files.is_empty() {
        section.fault("secret_files", "names no file: no cookie could be opened");
    }
    if version == AuthJsVersion::V4 && secret_files.len() > 1 {
        section.fault("secret_files", "NextAuth 4 knows one secret");
    }
    let cookies = section.texts("cookies").unwrap_or_default();
    if section.has("cookies") && cookies.is_empty() {
        section.fault("cookies", "names no cookie: leave it out for the library's own names");
    }
    let max_age = section.duration("max_age", MINUTE..=400 * DAY).unwrap_or_default();
    let update_age = section.duration("update_age", SECOND..=400 * DAY).unwrap_or_default();
    if update_age >= max_age {
        section.fault("update_age", "must be less than `max_age`: a cookie would end before it is renewed");
    }
    let withhold = section.texts("withhold").unwrap_or_default();
    AuthJs { version, secret_files, cookies, max_age, update_age, withhold }
}
