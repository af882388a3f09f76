//! The keys an issuer signs with at one moment, and the lookup by `kid` and algorithm.

use crate::keys::Algorithm;
use crate::keys::fault::KeyFault;
use crate::keys::jwk::{self, Origin};
use crate::keys::pem::{self, PemFault};
use crate::keys::verifying::{RawKey, VerifyingKey, sha256};
use aws_lc_rs::digest;
use serde_json::Value;
use std::fmt;
use zeroize::Zeroize;

/// The most keys a set may have.
pub const MOST_KEYS: usize = 100;
/// The most bytes a set may have, however it comes.
pub const LARGEST_SET: usize = 512 * 1024;

/// Why a set was not taken. It never quotes the set, which may hold secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`LARGEST_SET`].
    #[error("the key set is larger than {LARGEST_SET} bytes")]
    TooLarge,
    /// More than [`MOST_KEYS`].
    #[error("the key set has more than {MOST_KEYS} keys")]
    TooManyKeys,
    /// Not JSON.
    #[error("not JSON at line {line}, column {column}")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but no object with a `keys` array (RFC 7517 §5).
    #[error("not a JWK set: an object with an array named keys")]
    NotAKeySet,
    /// No key in it can be used. An empty set replaces no good one.
    #[error("no usable key among {rejected}")]
    NoUsableKey {
        /// How many were looked at.
        rejected: usize,
    },
    /// A PEM file with a bad part.
    #[error("the PEM file can't be used")]
    Pem(#[source] PemFault),
    /// A raw secret that can't be used.
    #[error("the secret can't be used")]
    Secret(#[source] KeyFault),
}

/// A member of a set that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedKey {
    /// Its place in the set, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub why: KeyFault,
}

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// No such key. Newly fetched keys may have it.
    #[error("no such key")]
    Unknown,
    /// Different keys share the name and the algorithm, or a token names none and several fit.
    #[error("more than one such key")]
    Ambiguous,
    /// A key of that name, for another algorithm.
    #[error("the key is for another algorithm")]
    WrongAlgorithm,
}

/// Verified, parsed keys, sorted by name and algorithm. Never empty.
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    rejected: Vec<RejectedKey>,
    fingerprint: [u8; 32],
    /// The source gives no names (PEM, a raw secret), so a token's `kid` can't choose between its keys.
    nameless: bool,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 §5). A key that can't be used is skipped alone and told in [`Self::rejected`].
    ///
    /// Secrets are taken from [`Origin::Local`] only.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn from_jwks(bytes: &[u8], allowed: &[Algorithm], origin: Origin) -> Result<Self, KeySetError> {
        if bytes.len() > LARGEST_SET {
            return Err(KeySetError::TooLarge);
        }
        let mut set: Value = serde_json::from_slice(bytes)
            .map_err(|error| KeySetError::NotJson { line: error.line(), column: error.column() })?;
        let read = read_members(&set, allowed, origin);
        erase(&mut set);
        let (keys, rejected) = read?;
        Self::build(keys, rejected, false)
    }

    /// Reads public keys and certificates. They have no names: a token's `kid` is not compared, and the one key that
    /// fits the algorithm is used.
    ///
    /// # Errors
    /// [`KeySetError`], also when a single section is bad.
    pub fn from_pem(bytes: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        if bytes.len() > LARGEST_SET {
            return Err(KeySetError::TooLarge);
        }
        let keys = pem::read(bytes, allowed).map_err(KeySetError::Pem)?;
        Self::build(keys, Vec::new(), true)
    }

    /// Takes a raw HMAC secret, every byte of it counting (a trailing newline too). It has no name, as in
    /// [`Self::from_pem`].
    ///
    /// # Errors
    /// [`KeySetError::Secret`] when it is shorter than the hash or `algorithm` is no HMAC.
    pub fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, KeySetError> {
        let key = VerifyingKey::load(None, algorithm, RawKey::Secret(secret)).map_err(KeySetError::Secret)?;
        Self::build(vec![key], Vec::new(), true)
    }

    fn build(
        mut keys: Vec<VerifyingKey>,
        rejected: Vec<RejectedKey>,
        nameless: bool,
    ) -> Result<Self, KeySetError> {
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey { rejected: rejected.len() });
        }
        keys.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then(a.fingerprint().cmp(b.fingerprint())));
        keys.dedup_by(|a, b| a.fingerprint() == b.fingerprint());
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[u8::from(nameless)]);
        for key in &keys {
            context.update(key.fingerprint());
        }
        Ok(Self { keys, rejected, fingerprint: sha256(context), nameless })
    }

    /// The key that must have made a signature, by the token's `kid` and `alg`.
    ///
    /// A token without `kid` finds a key only when exactly one serves the algorithm. Nothing but these two is used to
    /// find a key: no `jku`, `x5u`, `jwk` or `x5c`.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&VerifyingKey, NoKey> {
        let Some(kid) = kid.filter(|_| !self.nameless) else {
            return only(self.keys.iter().filter(|key| key.algorithm() == algorithm));
        };
        let start = self.keys.partition_point(|key| key.kid() < Some(kid));
        let named = || self.keys.iter().skip(start).take_while(|key| key.kid() == Some(kid));
        match only(named().filter(|key| key.algorithm() == algorithm)) {
            Err(NoKey::Unknown) if named().next().is_some() => Err(NoKey::WrongAlgorithm),
            found => found,
        }
    }

    /// Every key, sorted by name and algorithm.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// What was skipped, in the source's order.
    #[must_use]
    pub fn rejected(&self) -> &[RejectedKey] {
        &self.rejected
    }

    /// How many pairs of neighbours share name and algorithm, so that a lookup of them is [`NoKey::Ambiguous`].
    #[must_use]
    pub fn ambiguities(&self) -> usize {
        self.keys.iter().zip(self.keys.iter().skip(1)).filter(|(a, b)| rank(a) == rank(b)).count()
    }

    /// Whether both hold the same keys under the same names; order and spelling of the source don't count.
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.keys)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

type Members = (Vec<VerifyingKey>, Vec<RejectedKey>);

fn read_members(set: &Value, allowed: &[Algorithm], origin: Origin) -> Result<Members, KeySetError> {
    let members = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
    if members.len() > MOST_KEYS {
        return Err(KeySetError::TooManyKeys);
    }
    let (mut keys, mut rejected) = (Vec::new(), Vec::new());
    for (index, member) in members.iter().enumerate() {
        match jwk::read(member, allowed, origin) {
            Ok(read) => keys.extend(read),
            Err(why) => rejected.push(RejectedKey { index, why }),
        }
    }
    Ok((keys, rejected))
}

/// A JWK set may hold secrets; they don't outlive the reading.
fn erase(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(members) => members.iter_mut().for_each(erase),
        Value::Object(members) => members.iter_mut().for_each(|(_, member)| erase(member)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn rank(key: &VerifyingKey) -> (Option<&str>, Algorithm) {
    (key.kid(), key.algorithm())
}

fn only<'a>(mut keys: impl Iterator<Item = &'a VerifyingKey>) -> Result<&'a VerifyingKey, NoKey> {
    let key = keys.next().ok_or(NoKey::Unknown)?;
    if keys.next().is_some() { Err(NoKey::Ambiguous) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn ed25519(kid: &str) -> Value {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
    }

    fn rsa(kid: &str) -> Value {
        json!({"kty": "RSA", "kid": kid, "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xff; 256])})
    }

    fn remote(keys: &[Value]) -> Result<KeySet, KeySetError> {
        KeySet::from_jwks(json!({"keys": keys}).to_string().as_bytes(), &Algorithm::ALL, Origin::Remote)
    }

    fn find(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> Result<String, NoKey> {
        set.find(kid, algorithm).map(|key| key.kid().unwrap_or("-").to_owned())
    }

    #[test]
    fn a_key_is_found_by_name_and_algorithm() {
        let set = remote(&[ed25519("b"), rsa("a"), ed25519("c")]).unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::Ps384), Ok("a".into()));
        assert_eq!(find(&set, Some("b"), Algorithm::EdDsa), Ok("b".into()));
        assert_eq!(find(&set, Some("c"), Algorithm::EdDsa), Ok("c".into()));
        assert_eq!(find(&set, Some("d"), Algorithm::EdDsa), Err(NoKey::Unknown));
        assert_eq!(find(&set, Some(""), Algorithm::EdDsa), Err(NoKey::Unknown));
    }

    #[test]
    fn hs256_with_the_rsa_key_s_name_is_refused() {
        let set = remote(&[rsa("a")]).unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::Hs256), Err(NoKey::WrongAlgorithm));
    }

    #[test]
    fn a_kid_is_never_more_than_a_name() {
        let set = remote(&[rsa("a")]).unwrap();
        for kid in ["../../etc/passwd", "' OR 1=1 --", "A", "a ", &"k".repeat(10_240)] {
            assert_eq!(find(&set, Some(kid), Algorithm::Rs256), Err(NoKey::Unknown), "{kid:.20}");
        }
    }

    #[test]
    fn a_token_without_kid_finds_only_the_sole_key() {
        let set = remote(&[ed25519("b"), rsa("a")]).unwrap();
        assert_eq!(find(&set, None, Algorithm::EdDsa), Ok("b".into()));
        assert_eq!(find(&set, None, Algorithm::Es256), Err(NoKey::Unknown));
        let set = remote(&[ed25519("b"), ed25519("c")]).unwrap();
        assert_eq!(find(&set, None, Algorithm::EdDsa), Err(NoKey::Ambiguous));
    }

    #[test]
    fn different_keys_of_one_name_are_ambiguous() {
        let set = remote(&[ed25519("a"), ed25519("a"), rsa("a"), ed25519("b")]).unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::EdDsa), Err(NoKey::Ambiguous));
        assert_eq!(set.ambiguities(), 1);
        assert_eq!(find(&set, Some("a"), Algorithm::Rs256), Ok("a".into()), "another algorithm is no rival");
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let key = ed25519("a");
        let set = remote(&[key.clone(), key]).unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::EdDsa), Ok("a".into()));
        assert_eq!(set.ambiguities(), 0);
    }

    #[test]
    fn one_odd_key_is_skipped_alone() {
        let odd = [json!(null), json!({"kty": 7}), json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})];
        let set = remote(&[&odd[..], &[ed25519("a")]].concat()).unwrap();
        assert!(find(&set, Some("a"), Algorithm::EdDsa).is_ok());
        let why: Vec<_> = set.rejected().iter().map(|rejected| (rejected.index, rejected.why)).collect();
        assert_eq!(why, [(0, KeyFault::NotAnObject), (1, KeyFault::Mistyped("kty")), (2, KeyFault::Modulus)]);
    }

    #[test]
    fn ten_thousand_keys_are_refused() {
        assert_eq!(remote(&vec![json!({}); 10_000]).map(drop), Err(KeySetError::TooManyKeys));
        let hundred: Vec<_> = (0..100).map(|i| ed25519(&i.to_string())).collect();
        assert_eq!(remote(&hundred).unwrap().keys().len(), 100);
    }

    #[test]
    fn a_set_of_more_than_512_kib_is_refused_unread() {
        let huge = vec![b' '; LARGEST_SET + 1];
        assert_eq!(
            KeySet::from_jwks(&huge, &Algorithm::ALL, Origin::Local).map(drop),
            Err(KeySetError::TooLarge)
        );
        assert_eq!(KeySet::from_pem(&huge, &Algorithm::ALL).map(drop), Err(KeySetError::TooLarge));
    }

    #[test]
    fn a_set_without_a_usable_key_is_an_error() {
        assert_eq!(remote(&[]).map(drop), Err(KeySetError::NoUsableKey { rejected: 0 }));
        assert_eq!(remote(&[json!({})]).map(drop), Err(KeySetError::NoUsableKey { rejected: 1 }));
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let read = |text: &str| KeySet::from_jwks(text.as_bytes(), &Algorithm::ALL, Origin::Local).map(drop);
        assert_eq!(read("<html>"), Err(KeySetError::NotJson { line: 1, column: 1 }));
        for odd in ["[]", "{}", r#"{"keys":{}}"#, r#"{"keys":"a"}"#, "7"] {
            assert_eq!(read(odd), Err(KeySetError::NotAKeySet), "{odd}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(read(&deep), Err(KeySetError::NotJson { .. })), "nesting exhausts no stack");
    }

    #[test]
    fn order_and_spelling_do_not_change_a_set() {
        let (a, b) = (ed25519("a"), ed25519("b"));
        let one = remote(&[a.clone(), b.clone()]).unwrap();
        let mut spelt = a.clone();
        spelt["x5t"] = json!("ignored");
        assert!(one.same_keys(&remote(&[b.clone(), spelt]).unwrap()));
        assert!(!one.same_keys(&remote(&[a]).unwrap()));
        let mut renamed = b;
        renamed["kid"] = json!("c");
        assert!(!one.same_keys(&remote(&[renamed]).unwrap()));
    }

    #[test]
    fn a_raw_secret_serves_any_kid_and_one_algorithm() {
        let set = KeySet::from_secret(&[7; 32], Algorithm::Hs256).unwrap();
        assert!(set.find(Some("whatever"), Algorithm::Hs256).is_ok());
        assert!(set.find(None, Algorithm::Hs256).is_ok());
        assert_eq!(set.find(None, Algorithm::Hs384).map(drop), Err(NoKey::Unknown));
        let short = KeySet::from_secret(&[7; 31], Algorithm::Hs256).map(drop);
        assert_eq!(short, Err(KeySetError::Secret(KeyFault::ShortSecret)));
        let empty = KeySet::from_secret(&[], Algorithm::Hs256).map(drop);
        assert_eq!(empty, Err(KeySetError::Secret(KeyFault::ShortSecret)));
    }

    #[test]
    fn jsonwebtoken_reads_the_same_keys() {
        let text = json!({"keys": [ed25519("a"), rsa("b")]}).to_string();
        let reference: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&text).unwrap();
        let set = KeySet::from_jwks(text.as_bytes(), &[Algorithm::EdDsa, Algorithm::Rs256], Origin::Remote);
        let set = set.unwrap();
        for jwk in &reference.keys {
            let kid = jwk.common.key_id.as_deref();
            assert!(set.keys().iter().any(|key| key.kid() == kid));
        }
        assert_eq!(set.keys().len(), reference.keys.len());
    }
}
