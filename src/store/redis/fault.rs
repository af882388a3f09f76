//! What a server's refusals and a broken connection mean, for a call and for whoever looks at the server.

use super::address::Address;
use crate::revocation::StoreError;
use crate::store::shared::{Namespace, ServerFault};
use redis::{ErrorKind, RedisError};

/// What an error of the server or the connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A replica, or a primary that lost its place.
    NotPrimary,
    /// Starting, or waiting for its primary.
    NotReady,
    /// No memory, disk or replicas to write with.
    NotWritable,
    /// Keys of ours that are none of ours.
    Foreign,
    NoNamespace,
    OlderSchema,
    NewerSchema,
    NoScript,
    /// User or password.
    Refused,
    Forbidden,
    /// The connection, or what came over it.
    Broken,
    Other,
}

impl Meaning {
    /// Whether another connection may fare better.
    pub(super) fn ends_connection(self) -> bool {
        match self {
            Self::NotPrimary | Self::NotReady | Self::Refused | Self::Broken => true,
            Self::NotWritable
            | Self::Foreign
            | Self::NoNamespace
            | Self::OlderSchema
            | Self::NewerSchema
            | Self::NoScript
            | Self::Forbidden
            | Self::Other => false,
        }
    }
}

pub(super) fn meaning(error: &RedisError) -> Meaning {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Meaning::Refused;
    }
    let Some(code) = error.code() else {
        return if error.is_io_error() || error.is_unrecoverable_error() || error.kind() == ErrorKind::Parse {
            Meaning::Broken
        } else {
            Meaning::Other
        };
    };
    let detail = error.detail().unwrap_or_default();
    // Before 7.0 what a script runs into is told in the middle of a sentence.
    let words = std::iter::once(code).chain(detail.split([' ', '-']));
    words.map(by_code).find(|meaning| *meaning != Meaning::Other).unwrap_or(Meaning::Other)
}

fn by_code(code: &str) -> Meaning {
    match code {
        "READONLY" | "NOTPRIMARY" => Meaning::NotPrimary,
        "LOADING" | "MASTERDOWN" | "BUSY" => Meaning::NotReady,
        "OOM" | "MISCONF" | "NOREPLICAS" => Meaning::NotWritable,
        "WRONGTYPE" | "FOREIGN" => Meaning::Foreign,
        "NONAMESPACE" => Meaning::NoNamespace,
        "OLDERSCHEMA" => Meaning::OlderSchema,
        "NEWERSCHEMA" => Meaning::NewerSchema,
        "NOSCRIPT" => Meaning::NoScript,
        "NOAUTH" | "WRONGPASS" | "DENIED" => Meaning::Refused,
        "NOPERM" => Meaning::Forbidden,
        _ => Meaning::Other,
    }
}

/// As whoever looks at the server is told.
pub(super) fn fault(error: RedisError, address: &Address, namespace: &Namespace, known: u32) -> ServerFault {
    let server = address.server();
    let found =
        || error.detail().and_then(|detail| detail.split(' ').next()?.parse().ok()).unwrap_or_default();
    match meaning(&error) {
        Meaning::NotPrimary => ServerFault::NotPrimary { server },
        Meaning::NoNamespace => ServerFault::NoNamespace(namespace.clone()),
        Meaning::Foreign => ServerFault::Foreign(namespace.clone()),
        Meaning::OlderSchema => {
            ServerFault::OlderSchema { namespace: namespace.clone(), found: found(), known }
        }
        Meaning::NewerSchema => {
            ServerFault::NewerSchema { namespace: namespace.clone(), found: found(), known }
        }
        Meaning::Refused => ServerFault::Refused { server, source: error.into() },
        Meaning::Forbidden => ServerFault::Forbidden { what: forbidden(&error), source: error.into() },
        Meaning::NotReady | Meaning::Broken => ServerFault::Unreachable { server, source: error.into() },
        Meaning::NotWritable | Meaning::NoScript | Meaning::Other => ServerFault::Odd(error.into()),
    }
}

/// As a call is told.
pub(super) fn failure(error: RedisError, address: &Address, namespace: &Namespace, known: u32) -> StoreError {
    match meaning(&error) {
        Meaning::NotWritable => StoreError::NotWritable(error.into()),
        Meaning::Foreign => StoreError::Corrupt("the namespace"),
        Meaning::Other | Meaning::NoScript | Meaning::NotReady | Meaning::Broken => {
            StoreError::Unavailable(error.into())
        }
        Meaning::NotPrimary
        | Meaning::NoNamespace
        | Meaning::OlderSchema
        | Meaning::NewerSchema
        | Meaning::Refused
        | Meaning::Forbidden => StoreError::Unavailable(fault(error, address, namespace, known).into()),
    }
}

/// Which command, from the server's sentence or from the probe's.
fn forbidden(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    let quoted = detail.split('\'').nth(1).map(str::to_ascii_uppercase);
    let probed = detail.split_once(':').map(|(command, _)| command.to_owned());
    match probed.filter(|command| command.bytes().all(|byte| byte.is_ascii_uppercase())).or(quoted) {
        Some(command) => {
            format!("run {command}; grant it with `ACL SETUSER <user> +{}`", command.to_ascii_lowercase())
        }
        None => "do what is needed; grant it the commands and the keys of the namespace".to_owned(),
    }
}
