//! The URLs that keys are fetched from.

use http::Uri;
use http::uri::{Authority, Scheme};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Where keys may be fetched: an absolute https URL, or http to this machine; without user name or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchUrl(pub(super) Uri);

/// Why a URL is not one that keys are fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not an absolute http or https URL.
    #[error("not an absolute http or https URL")]
    Malformed,
    /// http to another machine: whoever sits between could replace the keys.
    #[error("http is for loopback addresses only; use https")]
    NotHttps,
    /// It holds a user name or password.
    #[error("a URL of keys holds no user name")]
    UserInfo,
    /// It has a fragment, or an issuer has a query (OIDC Discovery §3).
    #[error("a query or fragment has no place here")]
    Surplus,
}

impl FetchUrl {
    /// Where an issuer's OpenID configuration is: below it, after one trailing slash is taken off (OIDC Discovery §4).
    ///
    /// # Errors
    /// [`BadUrl`] when the issuer is not a URL that can be fetched from.
    pub fn discovery(issuer: &str) -> Result<Self, BadUrl> {
        if issuer.contains(['?', '#']) {
            return Err(BadUrl::Surplus);
        }
        format!("{}{DISCOVERY_PATH}", issuer.strip_suffix('/').unwrap_or(issuer)).parse()
    }
}

impl FetchUrl {
    /// The URL itself.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for FetchUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        if text.contains('#') {
            return Err(BadUrl::Surplus);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::Malformed)?;
        let authority = uri.authority().ok_or(BadUrl::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(BadUrl::Malformed);
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(Self(uri)),
            Some(scheme) if *scheme == Scheme::HTTP && is_loopback(authority) => Ok(Self(uri)),
            Some(scheme) if *scheme == Scheme::HTTP => Err(BadUrl::NotHttps),
            Some(_) | None => Err(BadUrl::Malformed),
        }
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<BadUrl> {
        text.parse::<FetchUrl>().err()
    }

    #[test]
    fn https_goes_anywhere() {
        assert_eq!(fault("https://issuer.example/keys?v=1"), None);
        assert_eq!(fault("https://issuer.example"), None);
        assert_eq!(fault("https://[2001:db8::1]:8443/keys"), None);
    }

    #[test]
    fn http_stays_on_this_machine() {
        for near in
            ["http://127.0.0.1:8080/k", "http://127.9.9.9/k", "http://[::1]:80/k", "http://LocalHost/k"]
        {
            assert_eq!(fault(near), None, "{near}");
        }
        for far in [
            "http://issuer.example/k",
            "http://10.0.0.1/k",
            "http://127.0.0.1.evil.example/k",
            "http://localhost.evil.example/k",
            "http://[::ffff:10.0.0.1]/k",
            "http://0.0.0.0/k",
        ] {
            assert_eq!(fault(far), Some(BadUrl::NotHttps), "{far}");
        }
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        for bad in
            ["", "/keys", "issuer.example/keys", "file:///etc/keys", "ftp://a/keys", "https://", "https:///k"]
        {
            assert_eq!(fault(bad), Some(BadUrl::Malformed), "{bad}");
        }
        assert_eq!(fault("https://user:pw@issuer.example/k"), Some(BadUrl::UserInfo));
        assert_eq!(fault("http://127.0.0.1@evil.example/k"), Some(BadUrl::UserInfo));
        assert_eq!(fault("https://issuer.example/k#f"), Some(BadUrl::Surplus));
    }

    #[test]
    fn discovery_takes_one_trailing_slash_off() {
        let url = |issuer: &str| FetchUrl::discovery(issuer).map(|url| url.to_string());
        let expected = "https://a.example/tenant/.well-known/openid-configuration";
        assert_eq!(url("https://a.example/tenant"), Ok(expected.into()));
        assert_eq!(url("https://a.example/tenant/"), Ok(expected.into()));
        assert_eq!(
            url("https://a.example/"),
            Ok("https://a.example/.well-known/openid-configuration".into())
        );
        assert_eq!(url("https://a.example?x=1"), Err(BadUrl::Surplus));
        assert_eq!(url("accounts.example"), Err(BadUrl::Malformed));
        assert_eq!(url("http://a.example"), Err(BadUrl::NotHttps));
    }
}
