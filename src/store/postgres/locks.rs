//! Advisory locks: they order logins and cut-offs, which is what makes their stamps right, without a row that every login
//! would have to write. Always taken in this order: issuers, subjects, session rows, the head's row.

use crate::revocation::DenialKey;
use crate::store::Namespace;
use crate::token::TokenDigest;

/// The namespace's own, for migrations, and what its other locks are mixed with: advisory locks are the whole database's.
pub(super) fn of_namespace(namespace: &Namespace) -> i64 {
    let digest = TokenDigest::of(format!("countersign namespace {namespace}").as_bytes());
    first_eight(digest.as_bytes())
}

/// A subject's or issuer's. Two that share one by chance wait for each other, and nothing worse.
pub(super) fn of_key(namespace: i64, key: DenialKey) -> i64 {
    namespace ^ first_eight(&key.to_bytes())
}

fn first_eight(bytes: &[u8]) -> i64 {
    bytes.first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}
