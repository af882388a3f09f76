//! Where the server is, as libpq writes it: `postgres://user@host:5432,other/database?sslmode=verify-full`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

const USUAL_PORT: u16 = 5432;
/// What libpq knows and nobody may set here, because it is set by us or would be ignored.
const NOT_HERE: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// A Postgres URL: user, hosts in the order they are tried, database, and how connections are protected.
///
/// By default TLS with the certificate's chain and name verified (`verify-full`), and none to this machine: a loopback
/// host or a socket's directory. There is no TLS that verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    user: String,
    database: String,
    hosts: Vec<Host>,
    protection: Option<Protection>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Host {
    Tcp { name: String, port: u16 },
    Socket { directory: PathBuf, port: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Disable,
    Require,
    VerifyFull,
}

/// The text is no address. Never repeats it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Some other scheme.
    #[error("expected `postgres://` or `postgresql://`")]
    Scheme,
    /// A password, where anyone who reads the configuration sees it.
    #[error("holds a password; put it into a file, and name that as `store.password_file`")]
    Password,
    /// Nobody to log in as.
    #[error("names no user: expected `postgres://user@host/database`")]
    NoUser,
    /// A host that is none.
    #[error("a host is not understood")]
    Host,
    /// A port that is none.
    #[error("a port is not understood")]
    Port,
    /// Bad percent-encoding.
    #[error("is not percent-encoded properly")]
    Encoding,
    /// An option of libpq that can't be used.
    #[error("`{0}` can't be set here")]
    Option(&'static str),
    /// An option that nobody knows.
    #[error("has an option that is not known; `host`, `port`, `user`, `dbname` and `sslmode` are")]
    UnknownOption,
    /// `prefer` or `allow`.
    #[error(
        "`sslmode` must be `verify-full`, `require` (which verifies, too) or `disable`: `prefer` and `allow` can be \
         talked out of TLS, and `verify-ca` does not look at the host's name"
    )]
    SslMode,
    /// TLS over a socket.
    #[error("`sslmode` asks for TLS, which Postgres does not speak over a Unix socket")]
    SocketTls,
}

impl Address {
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(in crate::store) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Whether connections to this host are encrypted, and verified.
    pub(in crate::store) fn tls_to(&self, host: &Host) -> bool {
        match (host, self.protection) {
            (Host::Socket { .. }, _) | (_, Some(Protection::Disable)) => false,
            (_, Some(Protection::Require | Protection::VerifyFull)) => true,
            (Host::Tcp { name, .. }, None) => !is_loopback(name),
        }
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
            Self::Socket { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (place, host) in self.hosts.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        write!(f, "/{}", self.database)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(BadAddress::Scheme)?;
        // Wherever else a password's odd characters would end a part.
        if rest.rsplit_once('@').is_some_and(|(before, _)| before.contains(':')) {
            return Err(BadAddress::Password);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut parts = Parts { user: decode(user)?, database: decode(database)?, ..Parts::default() };
        if !hosts.is_empty() {
            for host in hosts.split(',') {
                parts.host_and_port(host)?;
            }
        }
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(BadAddress::UnknownOption)?;
            parts.option(&decode(name)?, &decode(value)?)?;
        }
        parts.finish()
    }
}

#[derive(Default)]
struct Parts {
    user: String,
    database: String,
    hosts: Vec<(String, Option<u16>)>,
    ports: Vec<u16>,
    protection: Option<Protection>,
}

impl Parts {
    fn host_and_port(&mut self, text: &str) -> Result<(), BadAddress> {
        let (host, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or(BadAddress::Host)?;
                host.parse::<IpAddr>().map_err(|_| BadAddress::Host)?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")).ok_or(BadAddress::Host)?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let port = if port.is_empty() { None } else { Some(read_port(port)?) };
        self.hosts.push((decode(host)?, port));
        Ok(())
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), BadAddress> {
        match name {
            "host" => {
                self.hosts.clear();
                self.hosts.extend(value.split(',').map(|host| (host.to_owned(), None)));
            }
            "port" => self.ports = value.split(',').map(read_port).collect::<Result<_, _>>()?,
            "user" => value.clone_into(&mut self.user),
            "dbname" => value.clone_into(&mut self.database),
            "password" => return Err(BadAddress::Password),
            "sslmode" => {
                self.protection = Some(match value {
                    "disable" => Protection::Disable,
                    "require" => Protection::Require,
                    "verify-full" => Protection::VerifyFull,
                    _ => return Err(BadAddress::SslMode),
                });
            }
            _ => {
                let known = NOT_HERE.iter().find(|known| **known == name);
                return Err(known.map_or(BadAddress::UnknownOption, |known| BadAddress::Option(known)));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Address, BadAddress> {
        if self.user.is_empty() {
            return Err(BadAddress::NoUser);
        }
        let hosts = if self.hosts.is_empty() { vec![("localhost".to_owned(), None)] } else { self.hosts };
        if self.ports.len() > 1 && self.ports.len() != hosts.len() {
            return Err(BadAddress::Port);
        }
        let mut found = Vec::new();
        for (place, (name, port)) in hosts.into_iter().enumerate() {
            let told = self.ports.get(place).or(self.ports.first()).copied();
            let port = port.or(told).unwrap_or(USUAL_PORT);
            found.push(if name.starts_with('/') {
                Host::Socket { directory: name.into(), port }
            } else if name.is_empty() || name.contains(|odd: char| odd.is_whitespace() || odd == '@') {
                return Err(BadAddress::Host);
            } else {
                Host::Tcp { name, port }
            });
        }
        let asked = matches!(self.protection, Some(Protection::Require | Protection::VerifyFull));
        if asked && found.iter().any(|host| matches!(host, Host::Socket { .. })) {
            return Err(BadAddress::SocketTls);
        }
        let database = if self.database.is_empty() { self.user.clone() } else { self.database };
        Ok(Address { user: self.user, database, hosts: found, protection: self.protection })
    }
}

fn read_port(text: &str) -> Result<u16, BadAddress> {
    text.parse().ok().filter(|port| *port != 0).ok_or(BadAddress::Port)
}

fn decode(text: &str) -> Result<String, BadAddress> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(BadAddress::Encoding) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| BadAddress::Encoding)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| BadAddress::Encoding)?;
    if text.contains('\0') { Err(BadAddress::Encoding) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_address_is_shown_as_it_is_used() {
        for (text, shown) in [
            ("postgres://me@db/shop", "postgres://me@db:5432/shop"),
            ("postgresql://me@one:1,two:2,[::1]:3/", "postgres://me@one:1,two:2,[::1]:3/me"),
            ("postgres://me@one,two/shop?port=7", "postgres://me@one:7,two:7/shop"),
            ("postgres:///shop?user=me&host=/run/pg", "postgres://me@/run/pg/.s.PGSQL.5432/shop"),
            ("postgres://me@%2Frun%2Fpg/shop", "postgres://me@/run/pg/.s.PGSQL.5432/shop"),
            ("postgres://m%40e@/", "postgres://m@e@localhost:5432/m@e"),
        ] {
            assert_eq!(read(text).to_string(), shown);
        }
    }

    #[test]
    fn tls_is_verified_unless_it_stays_on_this_machine() {
        for (text, tls) in [
            ("postgres://me@db/", true),
            ("postgres://me@10.0.0.1/", true),
            ("postgres://me@db/?sslmode=require", true),
            ("postgres://me@127.0.0.1/?sslmode=verify-full", true),
            ("postgres://me@db/?sslmode=disable", false),
            ("postgres://me@localhost/", false),
            ("postgres://me@[::1]/", false),
            ("postgres://me@/?host=/run/pg", false),
        ] {
            let address = read(text);
            assert_eq!(address.tls_to(&address.hosts[0]), tls, "{text}");
        }
    }

    #[test]
    fn what_can_t_be_meant_is_refused_by_name() {
        for (text, error) in [
            ("redis://me@db", BadAddress::Scheme),
            ("postgres://db/shop", BadAddress::NoUser),
            ("postgres://me@db:0/", BadAddress::Port),
            ("postgres://me@db:x/", BadAddress::Port),
            ("postgres://me@a,b,c/?port=1,2", BadAddress::Port),
            ("postgres://me@a,,b/", BadAddress::Host),
            ("postgres://me@[db]/", BadAddress::Host),
            ("postgres://me@db/%zz", BadAddress::Encoding),
            ("postgres://me@db/%00", BadAddress::Encoding),
            ("postgres://me@db/?sslmode=prefer", BadAddress::SslMode),
            ("postgres://me@db/?sslmode=verify-ca", BadAddress::SslMode),
            ("postgres://me@/?host=/run/pg&sslmode=require", BadAddress::SocketTls),
            ("postgres://me@db/?target_session_attrs=any", BadAddress::Option("target_session_attrs")),
            ("postgres://me@db/?sslrootcert=x", BadAddress::Option("sslrootcert")),
            ("postgres://me@db/?colour=red", BadAddress::UnknownOption),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_password_is_refused_wherever_it_stands_and_never_repeated() {
        for text in [
            "postgres://me:hunter2@db/shop",
            "postgres://me:hun/ter2@db/shop",
            "postgres://me:hun?ter2=x@db/shop",
            "postgres://me:hunt@er2@db/shop",
            "postgres://me@db/shop?password=hunter2",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error, BadAddress::Password, "{text}");
            assert!(!error.to_string().contains("hun"));
        }
    }
}
