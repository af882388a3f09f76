//! `ext_authz`: what a proxy that asks about its requests is told, and what its routes demand where they say nothing.

use super::freshness::Floor;
use super::reader::Section;
use crate::grpc::cookies::is_token_byte;
use crate::session::is_scope_token;

/// How proxies are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtAuthz {
    /// What the names of identity headers begin with; lower case, and ends in `-`.
    pub header_prefix: String,
    /// Whether all claims are told in a header, too.
    pub claims_header: bool,
    /// The realm of a challenge.
    pub realm: String,
    /// Whether a request without a credential goes on where its route says nothing.
    pub optional: bool,
    /// Demanded where a route says nothing; any of these.
    pub audiences: Vec<String>,
    /// Demanded where a route says nothing; all of these.
    pub scopes: Vec<String>,
    /// The least consistency where a route says nothing.
    pub consistency: Floor,
    /// The cookies that are looked into; empty for those that issuers have.
    pub cookies: Vec<String>,
}

/// Reads `ext_authz`.
pub(super) fn read_ext_authz(section: &Section<'_>) -> ExtAuthz {
    let consistency = section.choice("consistency", |word| match word {
        "minimize_latency" => Some(Floor::MinimizeLatency),
        "fully_consistent" => Some(Floor::FullyConsistent),
        _ => None,
    });
    let optional = section.choice("authentication", |word| match word {
        "required" => Some(false),
        "optional" => Some(true),
        _ => None,
    });
    ExtAuthz {
        header_prefix: section.parsed("header_prefix", prefix).unwrap_or_default(),
        claims_header: section.switch("claims_header").unwrap_or_default(),
        realm: section.parsed("realm", realm).unwrap_or_default(),
        optional: optional.unwrap_or(false),
        audiences: section.texts("audiences").unwrap_or_default(),
        scopes: fitting(
            section,
            "scopes",
            "a scope (RFC 6749 §3.3) has neither spaces nor quotes",
            is_scope_token,
        ),
        consistency: consistency.unwrap_or(Floor::MinimizeLatency),
        cookies: fitting(
            section,
            "cookies",
            "a cookie's name has neither spaces nor separators",
            is_cookie_name,
        ),
    }
}

/// A list of names that all have to fit, or nobody could ever meet the demand.
fn fitting(section: &Section<'_>, key: &str, why: &str, fits: fn(&str) -> bool) -> Vec<String> {
    let names = section.texts(key).unwrap_or_default();
    if !names.iter().all(|name| fits(name)) {
        section.fault(key, why);
    }
    names
}

/// RFC 6265 §4.1.1.
fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

fn prefix(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    // Each dash doubles the spellings that are taken out of requests.
    let dashes = text.bytes().filter(|byte| *byte == b'-').count();
    if (3..=64).contains(&text.len())
        && dashes <= 3
        && text.bytes().all(is_name)
        && text.ends_with('-')
        && !text.starts_with('-')
    {
        return Ok(text.to_owned());
    }
    Err("expected 3 to 64 lower-case letters, digits and at most three `-`, one at the end, such as `x-countersign-`"
        .to_owned())
}

fn realm(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected up to 128 characters of ASCII without quotes".to_owned())
    }
}
