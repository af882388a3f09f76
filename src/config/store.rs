//! `store`: which engine keeps revocations and sessions, by URL, and how it is reached.
//!
//! Where the section has nothing but its URL, the URL alone will do: `store: sqlite:/var/lib/countersign/store.db`.

use super::reader::{Content, Section};
use super::tree::{Member, Node, Value};
use crate::store::{Access, JudgeBy};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where revocations and sessions are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// The embedded engine, in this file. Not checked: that its directory is there.
    Sqlite(PathBuf),
    /// A server that sidecars of many machines share.
    Server {
        /// What kind.
        engine: Engine,
        /// Where; holds no password. Not checked: what comes after the scheme.
        url: String,
        /// How.
        access: Access,
    },
}

/// What kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Redis or Valkey.
    Redis,
    /// Postgres.
    Postgres,
}

/// Wraps a URL that stands in the section's place into the section it stands for.
pub(super) fn unfold(root: &mut Node) {
    let Value::Map(members) = &mut root.value else { return };
    let Some(store) = members.iter_mut().find(|member| member.key == "store") else { return };
    if matches!(store.node.value, Value::Scalar(_)) {
        let place = store.node.place.clone();
        let inside = Node { place: place.clone(), value: Value::Null };
        let url = std::mem::replace(&mut store.node, inside);
        store.node.value = Value::Map(vec![Member { key: "url".to_owned(), place, node: url }]);
    }
}

/// Settings that mean nothing to the embedded engine.
const OF_SERVERS: &[&str] = &[
    "password_file",
    "ca_file",
    "certificate",
    "key",
    "namespace",
    "durability",
    "migrate",
    "answer_within",
    "connections",
];

/// Reads `store`.
pub(super) fn read_store(section: &Section<'_>) -> Store {
    match section.parsed("url", parse_url) {
        Some(Url::Server(engine, url)) => Store::Server { engine, url, access: read_access(section) },
        Some(Url::Sqlite(path)) => {
            for key in OF_SERVERS.iter().filter(|key| section.has(key)) {
                section.fault(key, "has no meaning for the embedded engine, `sqlite:`");
            }
            Store::Sqlite(section.resolve(&path))
        }
        // Noted as a fault.
        None => Store::Sqlite(PathBuf::new()),
    }
}

fn read_access(section: &Section<'_>) -> Access {
    let usual = Access::default();
    let certificate = section.file("certificate", Content::Public);
    let key = section.file("key", Content::Secret);
    if certificate.is_some() != key.is_some() {
        section.fault(
            if certificate.is_some() { "certificate" } else { "key" },
            "`certificate` and `key` go together",
        );
    }
    let patience = Duration::from_millis(50)..=Duration::from_secs(60);
    Access {
        password_file: section.file("password_file", Content::Secret),
        ca_file: section.file("ca_file", Content::Public),
        identity: certificate.zip(key),
        namespace: section.parsed("namespace", told).unwrap_or(usual.namespace),
        durability: section.parsed("durability", told).unwrap_or(usual.durability),
        migrate: section.switch("migrate").unwrap_or(usual.migrate),
        answer_within: section.duration("answer_within", patience).unwrap_or(usual.answer_within),
        connections: section.count("connections", 1..=100).unwrap_or(usual.connections),
        judge_by: JudgeBy::Store,
    }
}

fn told<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why: T::Err| why.to_string())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Url {
    Sqlite(PathBuf),
    Server(Engine, String),
}

/// A URL is never told back: it might hold a password.
pub(super) fn parse_url(url: &str) -> Result<Url, String> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err("expected a URL such as `sqlite:/var/lib/countersign/store.db`".to_owned());
    };
    let engine = match scheme {
        "sqlite" => return sqlite_path(rest).map(Url::Sqlite),
        "redis" | "rediss" | "valkey" | "valkeys" => Engine::Redis,
        "postgres" | "postgresql" => Engine::Postgres,
        _ => {
            return Err(
                "no engine of this name; there are `sqlite:`, `redis:`, `rediss:` and `postgres:`".to_owned()
            );
        }
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(format!("expected `{scheme}://HOST`"));
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains("password=") {
        return Err("holds a password; put it in a file and name that as `password_file`".to_owned());
    }
    Ok(Url::Server(engine, url.to_owned()))
}

fn sqlite_path(rest: &str) -> Result<PathBuf, String> {
    let path = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => {
            return Err("a host has no meaning here: write `sqlite:/path` or `sqlite:///path`".to_owned());
        }
        None => rest,
    };
    if path == ":memory:" {
        return Err("a store in memory would forget revocations: name a file".to_owned());
    }
    if path.is_empty() || path.ends_with('/') {
        return Err("names no file".to_owned());
    }
    if path.contains(['?', '#', '%']) || path.chars().any(char::is_control) {
        return Err("a plain path is expected, without options or escapes".to_owned());
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_follows_the_scheme() {
        for (url, path) in
            [("sqlite:/a/b.db", "/a/b.db"), ("sqlite:///a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db")]
        {
            assert_eq!(parse_url(url), Ok(Url::Sqlite(path.into())), "{url}");
        }
    }

    #[test]
    fn what_names_no_durable_file_is_refused() {
        for url in
            ["", "x", "sqlite:", "sqlite::memory:", "sqlite://host/x", "sqlite:/a?mode=ro", "sqlite:/a/"]
        {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_server_is_known_by_its_scheme() {
        for (url, engine) in [
            ("redis://r:6379", Engine::Redis),
            ("rediss://app@r/1", Engine::Redis),
            ("valkey://[::1]:6379", Engine::Redis),
            ("postgres://app@p1,p2/db?sslmode=verify-full", Engine::Postgres),
            ("postgresql://p", Engine::Postgres),
        ] {
            assert_eq!(parse_url(url), Ok(Url::Server(engine, url.to_owned())), "{url}");
        }
        for url in ["redis:r", "mysql://m", "postgres:p"] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_told() {
        for url in
            ["redis://:hunter2@r:6379", "postgres://u:hunter2@p/db", "postgres://p/db?password=hunter2"]
        {
            let why = parse_url(url).unwrap_err();
            assert!(why.contains("`password_file`") && !why.contains("hunter2"), "{why}");
        }
    }
}
