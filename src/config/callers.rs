//! `callers`: who may do more than verify, refresh and revoke what they hold.

use super::reader::{Content, Section};
use super::scalar;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A caller known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name; no two callers share it.
    pub name: String,
    /// What it is known by; no two callers share it.
    pub identity: Identity,
    /// What it may do; at least one thing.
    pub may: BTreeSet<Right>,
}

/// What a caller is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The user id of its process, on the Unix socket.
    Uid(u32),
    /// A URI or DNS name in its client certificate.
    Certificate(String),
    /// A bearer secret, in this file.
    SecretFile(PathBuf),
}

/// What only named callers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// `CreateSession`.
    CreateSessions,
    /// `GetSession`, `ListSessions`.
    ReadSessions,
    /// `UpdateSession`.
    UpdateSessions,
    /// `Revoke` by a session's id.
    RevokeSession,
    /// `Revoke` by subject.
    RevokeSubject,
    /// `Revoke` of all of an issuer's tokens.
    RevokeIssuer,
}

impl Right {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateSessions => "sessions.create",
            Self::ReadSessions => "sessions.read",
            Self::UpdateSessions => "sessions.update",
            Self::RevokeSession => "revoke.session",
            Self::RevokeSubject => "revoke.subject",
            Self::RevokeIssuer => "revoke.issuer",
        }
    }

    /// Whether it is a right to some of `SessionService`.
    #[must_use]
    pub const fn is_of_sessions(self) -> bool {
        matches!(self, Self::CreateSessions | Self::ReadSessions | Self::UpdateSessions)
    }
}

const SESSIONS: [Right; 3] = [Right::CreateSessions, Right::ReadSessions, Right::UpdateSessions];
const REVOKE: [Right; 3] = [Right::RevokeSession, Right::RevokeSubject, Right::RevokeIssuer];

fn rights(word: &str) -> Option<Vec<Right>> {
    match word {
        "sessions" => Some(SESSIONS.to_vec()),
        "revoke" => Some(REVOKE.to_vec()),
        one => {
            let right = SESSIONS.into_iter().chain(REVOKE).find(|right| right.as_str() == one)?;
            Some(vec![right])
        }
    }
}

/// What listeners can know a caller by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listeners {
    /// A Unix socket, so user ids.
    pub(super) unix: bool,
    /// Mutual TLS, so certificates.
    pub(super) mutual_tls: bool,
}

/// Reads `callers`.
pub(super) fn read_callers(sections: &[Section<'_>], listeners: Listeners) -> Vec<Caller> {
    let mut callers: Vec<Caller> = Vec::new();
    for section in sections {
        let name = section.text("name").unwrap_or_default();
        if let Err(why) = scalar::name(&name)
            && !name.is_empty()
        {
            section.fault("name", why);
        }
        if !name.is_empty() && callers.iter().any(|other| other.name == name) {
            section.fault("name", "another caller has this name");
        }
        let may = section.choices("may", rights);
        if may.as_ref().is_some_and(Vec::is_empty) {
            section.fault("may", "grants nothing; without rights a caller needs no rule");
        }
        // What was wrong is told; rights in its place keep it from being told again as rights that are missing.
        let may = may.unwrap_or_else(|| vec![SESSIONS.to_vec(), REVOKE.to_vec()]);
        let may: BTreeSet<Right> = may.into_iter().flatten().collect();
        let identity = read_identity(section, listeners);
        if identity.is_some() && callers.iter().any(|other| Some(&other.identity) == identity.as_ref()) {
            section.fault("", "another caller is known by the same");
        }
        let identity = identity.unwrap_or(Identity::Certificate(String::new()));
        callers.push(Caller { name, identity, may });
    }
    callers
}

fn read_identity(section: &Section<'_>, listeners: Listeners) -> Option<Identity> {
    let known_by = ["uid", "certificate", "secret_file"];
    let given: Vec<&str> = known_by.into_iter().filter(|key| section.has(key)).collect();
    let uid = section.count("uid", 0..=u64::from(u32::MAX - 1)).map(Identity::Uid);
    let certificate = section.parsed("certificate", certificate_name).map(Identity::Certificate);
    let secret = section.file("secret_file", Content::Secret).map(Identity::SecretFile);
    match given.as_slice() {
        [] => section.fault("", "known by nothing: set one of `uid`, `certificate`, `secret_file`"),
        [_] => {}
        [_, second, ..] => section.fault(second, "a caller is known by one thing; make it two callers"),
    }
    if uid.is_some() && !listeners.unix {
        section.fault("uid", "user ids are known on `api.unix` only, which is not set");
    }
    if certificate.is_some() && !listeners.mutual_tls {
        section.fault(
            "certificate",
            "certificates are asked for with `api.tls.client_ca` only, which is not set",
        );
    }
    uid.or(certificate).or(secret)
}

/// A URI or a DNS name, as it stands in a certificate's subjectAltName; matched to the letter, without wildcards.
fn certificate_name(text: &str) -> Result<String, String> {
    let name = scalar::text(text)?;
    if name.contains('*') {
        return Err("matched to the letter: wildcards have no meaning".to_owned());
    }
    if name.contains('=') && !name.contains("://") {
        return Err("a URI or DNS name (subjectAltName) is expected, not a subject".to_owned());
    }
    Ok(name)
}
