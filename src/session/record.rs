//! A session as the store keeps it.

use crate::clock::Timestamp;
use crate::token::{Issuer, SessionId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What a session says about its subject. Opaque to this room but for roles and scopes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Into access tokens as `roles`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Into access tokens as `scope`, joined by spaces (RFC 8693 §4.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Further claims: a JSON object without registered names, its members exactly as given. Empty means none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub claims_json: String,
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attributes(…)")
    }
}

/// Where a session was opened from, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Such as "Firefox on Linux".
    #[serde(default)]
    pub name: String,
    /// As the login saw it.
    #[serde(default)]
    pub ip_address: String,
    /// As the browser sent it.
    #[serde(default)]
    pub user_agent: String,
}

/// A live session. An ended one has no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Our issuer when it was opened.
    pub issuer: Issuer,
    /// Whose it is.
    pub subject: String,
    /// The policy it lives under, by name.
    pub policy: String,
    /// The OAuth client that opened it.
    pub client_id: String,
    /// Where it was opened from.
    pub device: Device,
    /// What it says about its subject now.
    pub attributes: Attributes,
    /// Counts attribute changes, from 1.
    pub attributes_version: u64,
    /// The login, as the store stamped it: later than every cut-off that came before it.
    pub created_at: Timestamp,
    /// Last activity written.
    pub last_active_at: Timestamp,
    /// How long it lives unused.
    pub idle: Duration,
    /// When it ends however much it is used.
    pub absolute_end: Timestamp,
    /// The refresh token's current generation; 0 where the session has none.
    pub generation: u64,
    /// When that generation began.
    pub generation_began_at: Timestamp,
}

impl SessionRecord {
    /// When it ends if it is not used before: the earlier of idle and absolute end.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.idle_end().min(self.absolute_end)
    }

    /// When it has been unused for too long.
    #[must_use]
    pub fn idle_end(&self) -> Timestamp {
        self.last_active_at.after(self.idle)
    }
}
