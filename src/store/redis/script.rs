//! The scripts. Each is one linearization point: what it reads and writes, nobody else sees halfway.

use redis::Script;
use std::sync::LazyLock;

/// The schema that the scripts read and write.
pub(super) const SCHEMA: u32 = 1;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $($file:literal)+;)+) => {
        $(
            $(#[$doc])*
            pub(super) static $name: LazyLock<Source> =
                LazyLock::new(|| Source::new(concat!($(include_str!(concat!("scripts/", $file, ".lua")), "\n"),+)));
        )+
    };
}

scripts! {
    APPEND: "common" "sessions" "append";
    RESTORE: "common" "sessions" "restore";
    READ: "common" "read";
    CREATE: "common" "sessions" "create";
    LOOK: "common" "sessions" "look";
    TURN: "common" "sessions" "turn";
    UPDATE: "common" "sessions" "update";
    TOUCH: "common" "sessions" "touch";
    LIST: "common" "sessions" "list";
    LEASE: "common" "lease";
    PUT_LEASE: "common" "put_lease";
    PURGE_LEASES: "common" "purge_leases";
    PURGE: "common" "sessions" "purge";
    MIGRATE: "common" "migrate";
    PROBE: "probe";
}

/// A script's text and its digest, by which servers know it.
pub(super) struct Source {
    pub(super) code: &'static str,
    pub(super) digest: String,
}

impl Source {
    fn new(code: &'static str) -> Self {
        Self { code, digest: Script::new(code).get_hash().to_owned() }
    }
}
