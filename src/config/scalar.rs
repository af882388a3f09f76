//! Single values: text in, typed value out, or why not in words for the operator.

use super::nearest::nearest;
use super::reference::Kind;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest value told back; a longer one might be anything, also a secret.
const TOLD: usize = 64;

/// The value in backticks, when it is short and plain enough to be told.
fn told(text: &str) -> String {
    if text.len() <= TOLD && !text.chars().any(char::is_control) {
        format!("`{text}`")
    } else {
        "this value".to_owned()
    }
}

/// "expected …, found …".
pub(super) fn mismatch(text: &str, kind: Kind) -> String {
    format!("expected {}, found {}", kind.expected(), told(text))
}

pub(super) fn text(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("holds a control character".to_owned())
    } else if text.trim() != text {
        Err("begins or ends with white space".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

pub(super) fn duration(
    text: &str,
    within: &RangeInclusive<Duration>,
    kind: Kind,
) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|why| format!("{}: {why}", mismatch(text, kind)))?;
    if within.contains(&duration) {
        return Ok(duration);
    }
    let show = |duration: &Duration| humantime::format_duration(*duration).to_string().replace(' ', "");
    Err(format!("must be from {} to {}", show(within.start()), show(within.end())))
}

pub(super) fn count(text: &str, within: &RangeInclusive<u64>, kind: Kind) -> Result<u64, String> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let count = if plain { digits.parse().ok() } else { None };
    match count {
        Some(count) if within.contains(&count) => Ok(count),
        None if !plain => Err(mismatch(text, kind)),
        Some(_) | None => Err(format!("must be from {} to {}", within.start(), within.end())),
    }
}

/// One of the words that `kind` lists.
pub(super) fn word<T>(word: &str, kind: Kind, meaning: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    if let Some(value) = meaning(word) {
        return Ok(value);
    }
    let words = kind.words();
    let meant = nearest(word, words.iter().copied());
    let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Err(format!("{}{hint}", mismatch(word, Kind::Choice(words))))
}

/// An IP address with a port. Names are not resolved: which address is listened on is not for DNS to say.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("; write `127.0.0.1:{port}`"),
            Some(("" | "*", port)) => format!("; write `0.0.0.0:{port}` for all interfaces"),
            Some(_) | None => String::new(),
        };
        format!("{}{hint}", mismatch(text, Kind::Address))
    })
}

/// A number from 0 to 1, in decimals.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = if plain { text.parse::<f64>().ok() } else { None };
    number.filter(|number| *number <= 1.0).ok_or_else(|| mismatch(text, Kind::Fraction))
}

/// Where spans go: http or https, and no path. Not told back: it might hold a password.
pub(super) fn collector_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err("not a URL: `http://HOST:4317` or `https://…` is expected".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("a URL with a user or password is refused: secrets come from `headers_file`".to_owned());
    }
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("spans are sent by gRPC, which has no path: name the host and port alone".to_owned());
    }
    Ok(text.to_owned())
}

/// An https URL, or http to this machine. Not told back: it might hold a password.
pub(super) fn key_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| "not a URL".to_owned())?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err("not a URL: `https://…` is expected".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("a URL with a user or password is refused: secrets come from files".to_owned());
    }
    match scheme {
        "https" => Ok(text.to_owned()),
        "http" if is_loopback(authority.host()) => Ok(text.to_owned()),
        "http" => {
            Err("http beyond loopback: whoever holds the network would choose the keys; use https".to_owned())
        }
        _ => Err("neither https nor http".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A claim's name, or a JSON Pointer (RFC 6901 §3).
pub(super) fn claim_path(path: &str) -> Result<String, String> {
    let path = text(path)?;
    let Some(pointer) = path.strip_prefix('/') else { return Ok(path) };
    if pointer.is_empty() {
        return Err("`/` points at a claim without a name".to_owned());
    }
    let mut characters = pointer.chars();
    while let Some(character) = characters.next() {
        if character == '~' && !matches!(characters.next(), Some('0' | '1')) {
            return Err("in a JSON Pointer `~` is written `~0` and `/` within a name `~1`".to_owned());
        }
    }
    Ok(path)
}

/// A name that can stand in logs, tokens and paths of settings.
pub(super) fn name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        Err("a name is 1 to 64 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn durations_have_units_and_bounds() {
        let read = |text| duration(text, &(SECOND..=60 * SECOND), Kind::Duration);
        assert_eq!(read("30s"), Ok(30 * SECOND));
        assert_eq!(read("1m"), Ok(60 * SECOND));
        assert_eq!(read("61s").unwrap_err(), "must be from 1s to 1m");
        for bad in ["30", "30x", "", "-1s", "1s,"] {
            assert!(read(bad).unwrap_err().starts_with("expected a duration with its unit"), "{bad}");
        }
    }

    #[test]
    fn counts_are_whole_and_bounded() {
        let read = |text| count(text, &(1..=65_536), Kind::Count);
        assert_eq!(read("1_024"), Ok(1024));
        assert!(read("0").unwrap_err().contains("from 1 to 65536"));
        assert!(read("99999999999999999999999").unwrap_err().contains("from 1 to 65536"));
        for bad in ["-1", "1.5", "1e3", "0x10", "", "_", "+1"] {
            assert!(read(bad).unwrap_err().starts_with("expected a whole number"), "{bad}");
        }
    }

    #[test]
    fn addresses_are_not_resolved() {
        assert!(address("127.0.0.1:0").is_ok());
        assert!(address("[::1]:50051").is_ok());
        assert!(address("localhost:50051").unwrap_err().ends_with("write `127.0.0.1:50051`"));
        assert!(address(":9090").unwrap_err().contains("0.0.0.0:9090"));
        assert!(address("127.0.0.1").is_err());
    }

    #[test]
    fn keys_come_by_https_or_from_this_machine() {
        for good in
            ["https://a.example/jwks", "http://127.0.0.1:80/j", "http://[::1]/j", "http://localhost:1/j"]
        {
            assert_eq!(key_url(good).as_deref(), Ok(good));
        }
        for bad in
            ["http://a.example/j", "http://localhost.evil.example/", "file:///etc/x", "/x", "ftp://a/", ""]
        {
            assert!(key_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_told() {
        let why = key_url("https://user:hunter2@a.example/").unwrap_err();
        assert!(!why.contains("hunter2"), "{why}");
    }

    #[test]
    fn claim_paths_are_names_or_pointers() {
        for good in ["sub", "https://example.com/roles", "/realm_access/roles", "/a~1b/c~0d"] {
            assert_eq!(claim_path(good).as_deref(), Ok(good));
        }
        for bad in ["", "/", "/a~2", "/a~", " sub"] {
            assert!(claim_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_word_is_matched_to_the_letter_with_a_hint() {
        let read = |text| word(text, Kind::Choice(&["human", "json"]), |w| (w == "json").then_some(()));
        assert_eq!(read("json"), Ok(()));
        assert_eq!(
            read("jsno").unwrap_err(),
            "expected one of `human`, `json`, found `jsno`; did you mean `json`?"
        );
    }

    #[test]
    fn a_long_value_is_not_told_back() {
        let long = "s3cret".repeat(20);
        assert!(!mismatch(&long, Kind::Count).contains("s3cret"));
    }
}
