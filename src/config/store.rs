//! `store`: which engine keeps revocations and sessions, by URL.

use super::reader::Section;
use std::path::{Path, PathBuf};

/// Where revocations and sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// The embedded engine, in this file. Not checked: that its directory is there.
    Sqlite(PathBuf),
}

/// Reads `store`.
pub(super) fn read_store(top: &Section<'_>) -> Store {
    let path = top.parsed("store", sqlite_path).unwrap_or_default();
    Store::Sqlite(top.resolve(&path))
}

/// The path in a `sqlite:` URL. A URL is never told back: it might hold a password.
fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err("expected a URL such as `sqlite:/var/lib/countersign/store.db`".to_owned());
    };
    match scheme {
        "sqlite" => {}
        "redis" | "rediss" | "valkey" | "postgres" | "postgresql" => {
            return Err("this build has the embedded engine only, `sqlite:PATH`".to_owned());
        }
        _ => return Err("no engine of this name; this build has `sqlite:PATH`".to_owned()),
    }
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
            assert_eq!(sqlite_path(url), Ok(PathBuf::from(path)), "{url}");
        }
    }

    #[test]
    fn what_names_no_durable_file_is_refused() {
        for url in
            ["", "x", "sqlite:", "sqlite::memory:", "sqlite://host/x", "sqlite:/a?mode=ro", "sqlite:/a/"]
        {
            assert!(sqlite_path(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_engine_this_build_lacks_is_told_without_its_password() {
        for url in ["redis://:hunter2@r:6379", "postgres://u:hunter2@p/db", "mysql://u:hunter2@m"] {
            let why = sqlite_path(url).unwrap_err();
            assert!(why.contains("this build has") && !why.contains("hunter2"), "{why}");
        }
    }
}
