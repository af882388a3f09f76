//! Where the server is, as operators write it.

use std::fmt;
use std::str::FromStr;

const PORT: u16 = 6379;

/// `redis://[user@]host[:port][/database]`, `rediss://…` over TLS; `valkey://` and `valkeys://` mean the same. The
/// password is not part of it: it comes from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: u32,
}

/// The text is no address of a Redis server. What it says is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("expected redis://, rediss://, valkey:// or valkeys://")]
    Scheme,
    /// A password in the URL shows in process lists and logs.
    #[error(
        "a password does not belong into the URL: put it into a file and name that in `store.password_file`"
    )]
    Password,
    /// The user is empty or not readable.
    #[error("the user before `@` must be a name, with other characters than letters and digits as %XX")]
    User,
    /// The host is missing or not readable.
    #[error("expected a host name or address; an IPv6 address in brackets")]
    Host,
    /// The port is none.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// The path is no database.
    #[error("the path must be the number of a database, such as /0")]
    Database,
    /// There are no options.
    #[error("options after `?` or `#` are not known")]
    Option,
}

impl Address {
    /// Host and port, as errors name the server.
    pub(super) fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.server(), self.database)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(BadAddress::Scheme)?;
        let tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(BadAddress::Scheme),
        };
        // The last `@`: a password can hold one, and must not be taken for a host.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(read_user(user)?), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err(BadAddress::Option);
        }
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            digits => number(digits).ok_or(BadAddress::Database)?,
        };
        let (host, port) = read_place(place)?;
        Ok(Self { tls, user, host: host.to_owned(), port, database })
    }
}

fn read_user(text: &str) -> Result<String, BadAddress> {
    if text.contains(':') {
        return Err(BadAddress::Password);
    }
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
        match byte {
            b'%' => {
                let code = hex(rest.next()).zip(hex(rest.next())).ok_or(BadAddress::User)?;
                bytes.push(u8::try_from(code.0 * 16 + code.1).map_err(|_| BadAddress::User)?);
            }
            b'/' | b'?' | b'#' | b'@' => return Err(BadAddress::User),
            0x21..=0x7e => bytes.push(byte),
            _ => return Err(BadAddress::User),
        }
    }
    String::from_utf8(bytes).ok().filter(|user| !user.is_empty()).ok_or(BadAddress::User)
}

fn read_place(text: &str) -> Result<(&str, u16), BadAddress> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(BadAddress::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| BadAddress::Host)?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or(BadAddress::Port)?),
        };
        (host, port)
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(letters) {
            return Err(BadAddress::Host);
        }
        (host, port)
    };
    match port {
        None => Ok((host, PORT)),
        Some(port) => Ok((host, number(port).filter(|port| *port != 0).ok_or(BadAddress::Port)?)),
    }
}

/// Digits alone: `parse` takes a sign, too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_written() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("valkey://cache.example:7000/3", "redis://cache.example:7000/3"),
            ("rediss://sidecar@10.0.0.1", "rediss://10.0.0.1:6379/0"),
            ("valkeys://a%40b@[::1]:6390/", "rediss://[::1]:6390/0"),
            ("redis://[fe80::1]", "redis://[fe80::1]:6379/0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
        assert_eq!("valkeys://a%40b@h".parse::<Address>().unwrap().user.unwrap(), "a@b");
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in
            ["redis://:secret@h", "redis://user:secret@h:1/0", "rediss://u:se@cret@h", "redis://u:secret/@h"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error, BadAddress::Password, "{text}");
            let said = format!("{error} {error:?}");
            assert!(said.contains("store.password_file") && !said.contains("cret"), "{said}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, error) in [
            ("", BadAddress::Scheme),
            ("localhost", BadAddress::Scheme),
            ("http://h", BadAddress::Scheme),
            ("redis://", BadAddress::Host),
            ("redis://@h", BadAddress::User),
            ("redis://a%4@h", BadAddress::User),
            ("redis://::1", BadAddress::Host),
            ("redis://[::1", BadAddress::Host),
            ("redis://[h]", BadAddress::Host),
            ("redis://h h", BadAddress::Host),
            ("redis://h:", BadAddress::Port),
            ("redis://h:0", BadAddress::Port),
            ("redis://h:+1", BadAddress::Port),
            ("redis://h:65536", BadAddress::Port),
            ("redis://h/x", BadAddress::Database),
            ("redis://h/0/1", BadAddress::Database),
            ("redis://h?protocol=resp3", BadAddress::Option),
            ("redis://h/0#a", BadAddress::Option),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
