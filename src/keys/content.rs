//! Content encryption of a JWE (RFC 7518 §5): the two algorithms that Auth.js and NextAuth write.

use crate::keys::verifying::sha256;
use crate::token::{NoRandomness, Secret, random_bytes};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// How the content is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentEncryption {
    /// AES-256 in CBC mode under an HMAC-SHA-512 cut to 256 bits (RFC 7518 §5.2.5).
    A256CbcHs512,
    /// AES-256 in Galois/Counter mode (RFC 7518 §5.3).
    A256Gcm,
}

impl ContentEncryption {
    /// The name in a header's `enc`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A256CbcHs512 => "A256CBC-HS512",
            Self::A256Gcm => "A256GCM",
        }
    }

    /// The algorithm of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::A256CbcHs512, Self::A256Gcm].into_iter().find(|known| known.as_str() == name)
    }

    /// How long a key is, in bytes.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::A256CbcHs512 => 64,
            Self::A256Gcm => 32,
        }
    }
}

/// What a JWE's last three parts hold.
pub struct Sealed {
    /// The initialization vector.
    pub iv: Vec<u8>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
    /// The authentication tag.
    pub tag: Vec<u8>,
}

/// A content encryption key, ready for use.
pub struct ContentKey {
    parts: Parts,
    /// RFC 7638 thumbprint of the key as an `oct` JWK, by the hash Auth.js takes for its length.
    thumbprint: Box<str>,
}

struct Cbc {
    mac: hmac::Key,
    decrypt: PaddedBlockDecryptingKey,
    encrypt: PaddedBlockEncryptingKey,
}

enum Parts {
    Cbc(Box<Cbc>),
    Gcm(LessSafeKey),
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// The bytes are no key of that algorithm's length.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of this algorithm's length")]
pub struct BadContentKey;

const CBC_MAC: usize = 32;
const CBC_TAG: usize = 32;
const GCM_TAG: usize = 16;

impl ContentKey {
    /// Prepares a key.
    ///
    /// # Errors
    /// [`BadContentKey`] unless `key` has [`ContentEncryption::key_bytes`].
    pub fn new(algorithm: ContentEncryption, key: &Secret) -> Result<Self, BadContentKey> {
        let bytes = key.expose();
        if bytes.len() != algorithm.key_bytes() {
            return Err(BadContentKey);
        }
        let parts = match algorithm {
            ContentEncryption::A256CbcHs512 => {
                let (mac, cipher) = bytes.split_at_checked(CBC_MAC).ok_or(BadContentKey)?;
                let cipher_key = || UnboundCipherKey::new(&AES_256, cipher).map_err(|_| BadContentKey);
                Parts::Cbc(Box::new(Cbc {
                    mac: hmac::Key::new(hmac::HMAC_SHA512, mac),
                    decrypt: PaddedBlockDecryptingKey::cbc_pkcs7(cipher_key()?).map_err(|_| BadContentKey)?,
                    encrypt: PaddedBlockEncryptingKey::cbc_pkcs7(cipher_key()?).map_err(|_| BadContentKey)?,
                }))
            }
            ContentEncryption::A256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| BadContentKey)?;
                Parts::Gcm(LessSafeKey::new(key))
            }
        };
        Ok(Self { parts, thumbprint: thumbprint(algorithm, key).into() })
    }

    /// A key derived from a secret by HKDF-SHA-256 (RFC 5869).
    ///
    /// # Errors
    /// [`BadContentKey`]: never, as far as known.
    pub fn derived(
        algorithm: ContentEncryption,
        secret: &Secret,
        salt: &[u8],
        info: &[u8],
    ) -> Result<Self, BadContentKey> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret.expose());
        let info = [info];
        let expanded = extracted.expand(&info, Length(algorithm.key_bytes())).map_err(|_| BadContentKey)?;
        let mut bytes = Zeroizing::new(vec![0; algorithm.key_bytes()]);
        expanded.fill(&mut bytes).map_err(|_| BadContentKey)?;
        Self::new(algorithm, &Secret::new(std::mem::take(&mut *bytes)))
    }

    /// Which algorithm it is for.
    #[must_use]
    pub const fn algorithm(&self) -> ContentEncryption {
        match self.parts {
            Parts::Cbc(_) => ContentEncryption::A256CbcHs512,
            Parts::Gcm(_) => ContentEncryption::A256Gcm,
        }
    }

    /// What a header's `kid` names it by.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Decrypts what this key sealed under this header; `None` for anything else. The tag is compared in constant time,
    /// before anything is decrypted, and lengths are the algorithm's own.
    #[must_use]
    pub fn open(&self, header: &[u8], sealed: &Sealed) -> Option<Vec<u8>> {
        let mut content = sealed.ciphertext.clone();
        let opened = match &self.parts {
            Parts::Cbc(cbc) => {
                let iv = <[u8; 16]>::try_from(sealed.iv.as_slice()).ok()?;
                if sealed.tag.len() != CBC_TAG {
                    return None;
                }
                let expected = cbc_tag(&cbc.mac, header, &iv, &sealed.ciphertext)?;
                verify_slices_are_equal(expected.get(..CBC_TAG)?, &sealed.tag).ok()?;
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                cbc.decrypt.decrypt(&mut content, context).ok()?.len()
            }
            Parts::Gcm(key) => {
                let nonce = Nonce::try_assume_unique_for_key(&sealed.iv).ok()?;
                if sealed.tag.len() != GCM_TAG {
                    return None;
                }
                content.extend_from_slice(&sealed.tag);
                key.open_in_place(nonce, Aad::from(header), &mut content).ok()?.len()
            }
        };
        content.truncate(opened);
        Some(content)
    }

    /// Encrypts under a fresh random initialization vector.
    ///
    /// # Errors
    /// [`NoRandomness`], which also stands for the cipher's refusal: there is no other cause for it.
    pub fn seal(&self, header: &[u8], content: &[u8]) -> Result<Sealed, NoRandomness> {
        let mut ciphertext = content.to_vec();
        match &self.parts {
            Parts::Cbc(cbc) => {
                let iv = random_bytes::<16>()?;
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                cbc.encrypt.less_safe_encrypt(&mut ciphertext, context).map_err(|_| NoRandomness)?;
                let tag = cbc_tag(&cbc.mac, header, &iv, &ciphertext).ok_or(NoRandomness)?;
                let tag = tag.get(..CBC_TAG).unwrap_or_default().to_vec();
                Ok(Sealed { iv: iv.to_vec(), ciphertext, tag })
            }
            Parts::Gcm(key) => {
                let iv = random_bytes::<12>()?;
                let nonce = Nonce::assume_unique_for_key(iv);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(header), &mut ciphertext)
                    .map_err(|_| NoRandomness)?;
                Ok(Sealed { iv: iv.to_vec(), ciphertext, tag: tag.as_ref().to_vec() })
            }
        }
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(…)")
    }
}

/// The MAC of RFC 7518 §5.2.2.1, not yet cut: header, vector, ciphertext, and the header's length in bits.
fn cbc_tag(mac: &hmac::Key, header: &[u8], iv: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    let bits = u64::try_from(header.len()).ok()?.checked_mul(8)?;
    let mut context = hmac::Context::with_key(mac);
    for part in [header, iv, ciphertext, &bits.to_be_bytes()] {
        context.update(part);
    }
    Some(context.sign().as_ref().to_vec())
}

/// SHA-512 for a key of 512 bits and SHA-256 for one of 256, over the members of RFC 7638 §3.2.
fn thumbprint(algorithm: ContentEncryption, key: &Secret) -> String {
    let members = |encoded: &str| format!(r#"{{"k":"{encoded}","kty":"oct"}}"#);
    let jwk = Secret::new(members(&URL_SAFE_NO_PAD.encode(key.expose())).into_bytes());
    match algorithm {
        ContentEncryption::A256CbcHs512 => {
            URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA512, jwk.expose()))
        }
        ContentEncryption::A256Gcm => {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(jwk.expose());
            URL_SAFE_NO_PAD.encode(sha256(context))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"eyJhbGciOiJkaXIifQ";

    fn key(algorithm: ContentEncryption, byte: u8) -> ContentKey {
        ContentKey::new(algorithm, &Secret::new(vec![byte; algorithm.key_bytes()])).unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_vector_of_rfc_7518_appendix_b_3_opens() {
        let key_bytes: Vec<u8> = (0..64).collect();
        let key = ContentKey::new(ContentEncryption::A256CbcHs512, &Secret::new(key_bytes)).unwrap();
        let sealed = Sealed {
            iv: hex("1af38c2dc2b96ffdd86694092341bc04"),
            ciphertext: hex("4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd
                822c301dd67c373bccb584ad3e9279c2e6d12a1374b77f077553df829410446b
                36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80bfecbad28c73f09b3
                a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950b
                be2638d09dd7a4930930806d0703b1f6"),
            tag: hex("4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"),
        };
        let content = key.open(b"The second principle of Auguste Kerckhoffs", &sealed).unwrap();
        assert!(content.starts_with(b"A cipher system must not be required to be secret"));
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_key_and_header_alone() {
        for algorithm in [ContentEncryption::A256CbcHs512, ContentEncryption::A256Gcm] {
            for length in [0, 1, 15, 16, 17, 4000] {
                let content = vec![b'x'; length];
                let sealed = key(algorithm, 1).seal(HEADER, &content).unwrap();
                assert_eq!(key(algorithm, 1).open(HEADER, &sealed), Some(content));
                assert_eq!(key(algorithm, 2).open(HEADER, &sealed), None);
                assert_eq!(key(algorithm, 1).open(b"eyJhbGciOiJkaXIiIH0", &sealed), None);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_and_a_part_of_another_length_open_nothing() {
        for algorithm in [ContentEncryption::A256CbcHs512, ContentEncryption::A256Gcm] {
            let key = key(algorithm, 1);
            let again = || key.seal(HEADER, b"{\"sub\":\"alice\"}").unwrap();
            let parts: [fn(&mut Sealed) -> &mut Vec<u8>; 3] =
                [|sealed| &mut sealed.iv, |sealed| &mut sealed.ciphertext, |sealed| &mut sealed.tag];
            for part in parts {
                for at in 0..part(&mut again()).len() {
                    let mut sealed = again();
                    part(&mut sealed)[at] ^= 0x10;
                    assert_eq!(key.open(HEADER, &sealed), None);
                }
                for change in [Vec::pop as fn(&mut Vec<u8>) -> Option<u8>, |bytes| {
                    bytes.push(0);
                    None
                }] {
                    let mut sealed = again();
                    change(part(&mut sealed));
                    assert_eq!(key.open(HEADER, &sealed), None);
                }
                let mut sealed = again();
                part(&mut sealed).clear();
                assert_eq!(key.open(HEADER, &sealed), None, "an empty tag is no tag");
            }
        }
    }

    #[test]
    fn two_seals_of_one_content_differ() {
        let key = key(ContentEncryption::A256CbcHs512, 1);
        assert_ne!(
            key.seal(HEADER, b"same").unwrap().ciphertext,
            key.seal(HEADER, b"same").unwrap().ciphertext
        );
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let short = Secret::new(vec![1; 32]);
        assert_eq!(ContentKey::new(ContentEncryption::A256CbcHs512, &short).unwrap_err(), BadContentKey);
    }
}
