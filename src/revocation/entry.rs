//! One denial: what it hits and how long it counts.
//!
//! An entry names what it hits by a digest, so the log and the denylist hold no subject, session id or token id in
//! clear, an entry has one small size, and a sidecar can give back to the store every entry the store lost.

use crate::clock::Timestamp;
use aws_lc_rs::digest::{Context, SHA256, digest};
use std::fmt;

/// Names a token, session, subject or issuer: the first 128 bits of a SHA-256 over its kind, issuer and value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialKey([u32; 4]);

impl DenialKey {
    /// A token by its issuer and `jti`.
    #[must_use]
    pub fn token_id(issuer: &str, jti: &str) -> Self {
        Self::digest(b't', issuer, jti.as_bytes())
    }

    /// A token that has no `jti`, by its signing input (RFC 7515 §2). Never by the whole token: an ECDSA signature can
    /// be rewritten into another valid one.
    #[must_use]
    pub fn signing_input(issuer: &str, signing_input: &[u8]) -> Self {
        Self::digest(b'd', issuer, signing_input)
    }

    /// A session by its issuer and id.
    #[must_use]
    pub fn session(issuer: &str, session: &str) -> Self {
        Self::digest(b's', issuer, session.as_bytes())
    }

    /// A subject of an issuer.
    #[must_use]
    pub fn subject(issuer: &str, subject: &str) -> Self {
        Self::digest(b'u', issuer, subject.as_bytes())
    }

    /// An issuer.
    #[must_use]
    pub fn issuer(issuer: &str) -> Self {
        Self::digest(b'i', issuer, b"")
    }

    /// From its 16 bytes, as a store keeps them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        Self(words)
    }

    /// Its 16 bytes, as a store keeps them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Its four words: the digest's bits, evenly spread.
    #[must_use]
    pub fn words(&self) -> &[u32; 4] {
        &self.0
    }

    fn digest(kind: u8, issuer: &str, value: &[u8]) -> Self {
        let length = u64::try_from(issuer.len()).unwrap_or(u64::MAX).to_be_bytes();
        let parts = [&[kind], &length[..], issuer.as_bytes(), value];
        // What is short, and nearly everything is, is digested in one go: half the time of a context.
        let mut short = [0; 192];
        let mut rest = short.as_mut_slice();
        let fits = parts.iter().all(|part| {
            let taken = std::mem::take(&mut rest);
            taken.split_at_mut_checked(part.len()).is_some_and(|(here, after)| {
                here.copy_from_slice(part);
                rest = after;
                true
            })
        });
        let digested = if fits {
            let unused = rest.len();
            digest(&SHA256, short.get(..short.len() - unused).unwrap_or_default())
        } else {
            let mut context = Context::new(&SHA256);
            parts.iter().for_each(|part| context.update(part));
            context.finish()
        };
        digested.as_ref().first_chunk().map_or(Self([0; 4]), |bytes| Self::from_bytes(*bytes))
    }
}

impl fmt::Debug for DenialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DenialKey(…)")
    }
}

/// What an entry takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// One token.
    Token,
    /// One session with all its tokens.
    Session,
    /// Everything of a subject that goes back to a login at or before the cut-off.
    SubjectBefore {
        /// Logins at this instant are hit, too.
        cutoff: Timestamp,
        /// The session spared, by its [`DenialKey::session`].
        except: Option<DenialKey>,
    },
    /// Everything of an issuer that goes back to a login at or before the cut-off.
    IssuerBefore {
        /// Logins at this instant are hit, too.
        cutoff: Timestamp,
    },
    /// The access tokens of a session that carry attributes older than this version.
    ClaimsBefore {
        /// The first version still accepted.
        version: u64,
    },
}

/// One line of the revocation log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What it takes back.
    pub kind: EntryKind,
    /// Which one: a token's, session's (`Session`, `ClaimsBefore`), subject's or issuer's key.
    pub key: DenialKey,
    /// From here on everything it hits is dead by itself, leeway included.
    pub expires_at: Timestamp,
}

impl Entry {
    /// Its expiry in whole seconds, rounded up, as every holder keeps it; `u32::MAX` never expires.
    #[must_use]
    pub fn expiry_secs(&self) -> u32 {
        u32::try_from(self.expires_at.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// The entry with its expiry rounded up to whole seconds. Stores keep this form, so that an entry that a sidecar
    /// gives back is the very entry the store lost, and not a slightly longer one.
    #[must_use]
    pub fn rounded(self) -> Self {
        Self { expires_at: expiry_from_secs(self.expiry_secs()), ..self }
    }
}

/// The instant that [`Entry::expiry_secs`] stands for.
#[must_use]
pub fn expiry_from_secs(seconds: u32) -> Timestamp {
    if seconds == u32::MAX { Timestamp::MAX } else { Timestamp::from_secs(u64::from(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_kinds_issuers_and_values_differ() {
        let keys = [
            DenialKey::token_id("a", "b"),
            DenialKey::signing_input("a", b"b"),
            DenialKey::session("a", "b"),
            DenialKey::subject("a", "b"),
            DenialKey::subject("ab", ""),
            DenialKey::subject("", "ab"),
            DenialKey::issuer("a"),
            DenialKey::issuer("ab"),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|other| one != other));
        }
    }

    #[test]
    fn a_key_is_the_same_digest_short_or_long() {
        for length in [0, 100, 150, 160, 170, 180, 190, 200, 1000] {
            let (issuer, value) = ("https://auth.example.com", "v".repeat(length));
            let mut bytes = vec![b'u'];
            bytes.extend_from_slice(&24_u64.to_be_bytes());
            bytes.extend_from_slice(issuer.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
            let expected = digest(&SHA256, &bytes);
            assert_eq!(DenialKey::subject(issuer, &value).to_bytes(), expected.as_ref()[..16], "{length}");
        }
    }

    #[test]
    fn a_key_survives_the_store() {
        let key = DenialKey::subject("https://auth.example.com", "alice");
        assert_eq!(DenialKey::from_bytes(key.to_bytes()), key);
    }

    #[test]
    fn an_expiry_is_rounded_up_and_never_down() {
        let entry = |millis| Entry {
            kind: EntryKind::Token,
            key: DenialKey::token_id("a", "b"),
            expires_at: Timestamp::from_millis(millis),
        };
        assert_eq!(entry(1_000).rounded().expires_at, Timestamp::from_millis(1_000));
        assert_eq!(entry(1_001).rounded().expires_at, Timestamp::from_millis(2_000));
        assert_eq!(entry(u64::MAX).rounded().expires_at, Timestamp::MAX);
    }
}
