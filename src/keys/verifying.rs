//! One key, parsed once: what checks a signature. Parsing at each call would double the price of an RSA verification,
//! and a key whose faults show only at the first token is a key that was never checked.

use crate::keys::Algorithm;
use crate::keys::fault::{KeyFault, LONGEST_KID};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use aws_lc_rs::{digest, hmac};
use std::fmt;

const SMALLEST_MODULUS_BITS: usize = 2048;
const LARGEST_MODULUS_BITS: usize = 8192;
/// What AWS-LC takes at most: an exponent of 33 bits.
const LONGEST_EXPONENT: usize = 5;
const LARGEST_EXPONENT: u64 = (1 << 33) - 1;

const RSA: [Algorithm; 6] = [
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];
const HMAC: [Algorithm; 3] = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512];

/// A key's numbers as they stand in a JWK or a certificate, before anything was checked.
#[derive(Clone, Copy)]
pub(super) enum RawKey<'a> {
    /// Modulus and exponent, big-endian.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// An uncompressed point on P-256.
    P256(&'a [u8]),
    /// An uncompressed point on P-384.
    P384(&'a [u8]),
    /// A public key of Ed25519.
    Ed25519(&'a [u8]),
    /// A shared secret.
    Secret(&'a [u8]),
}

impl RawKey<'_> {
    /// The algorithms such a key can serve.
    pub(super) fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa { .. } => &RSA,
            Self::P256(_) => &[Algorithm::Es256],
            Self::P384(_) => &[Algorithm::Es384],
            Self::Ed25519(_) => &[Algorithm::EdDsa],
            Self::Secret(_) => &HMAC,
        }
    }
}

/// A key bound to one algorithm, ready to verify.
///
/// Whatever exists has passed every check that can be made at load: modulus and exponent, point on curve, length of
/// the secret. It never serves an algorithm other than its own.
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    fingerprint: [u8; 32],
    material: Material,
}

enum Material {
    Public { key: ParsedPublicKey, signature_len: usize },
    Secret(Box<hmac::Key>),
}

impl VerifyingKey {
    /// Checks and parses a key for one algorithm.
    pub(super) fn load(kid: Option<&str>, algorithm: Algorithm, raw: RawKey<'_>) -> Result<Self, KeyFault> {
        if kid.is_some_and(|kid| kid.is_empty() || kid.len() > LONGEST_KID) {
            return Err(KeyFault::Kid);
        }
        let (material, fingerprint) = match (raw, algorithm) {
            (RawKey::Rsa { n, e }, _) => {
                let (n, e) = checked_rsa(n, e)?;
                let parameters = rsa_parameters(algorithm).ok_or(KeyFault::ForeignAlgorithm)?;
                let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters);
                let key = key.map_err(|_| KeyFault::Modulus)?;
                (Material::Public { key, signature_len: n.len() }, fingerprint(kid, algorithm, &[n, e]))
            }
            (RawKey::P256(point), Algorithm::Es256) => {
                let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, uncompressed(point, 65)?);
                let key = key.map_err(|_| KeyFault::Point)?;
                (Material::Public { key, signature_len: 64 }, fingerprint(kid, algorithm, &[point]))
            }
            (RawKey::P384(point), Algorithm::Es384) => {
                let key = ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, uncompressed(point, 97)?);
                let key = key.map_err(|_| KeyFault::Point)?;
                (Material::Public { key, signature_len: 96 }, fingerprint(kid, algorithm, &[point]))
            }
            (RawKey::Ed25519(point), Algorithm::EdDsa) if point.len() == 32 => {
                let key = ParsedPublicKey::new(&signature::ED25519, point).map_err(|_| KeyFault::Point)?;
                (Material::Public { key, signature_len: 64 }, fingerprint(kid, algorithm, &[point]))
            }
            (RawKey::Ed25519(_), Algorithm::EdDsa) => return Err(KeyFault::Point),
            (RawKey::Secret(secret), _) => {
                let hash = hmac_algorithm(algorithm).ok_or(KeyFault::ForeignAlgorithm)?;
                if secret.len() < hash.tag_len() {
                    return Err(KeyFault::ShortSecret);
                }
                (
                    Material::Secret(Box::new(hmac::Key::new(hash, secret))),
                    fingerprint(kid, algorithm, &[secret]),
                )
            }
            (RawKey::P256(_) | RawKey::P384(_) | RawKey::Ed25519(_), _) => {
                return Err(KeyFault::ForeignAlgorithm);
            }
        };
        Ok(Self { kid: kid.map(Box::from), algorithm, fingerprint, material })
    }

    /// The key's name within its set; `None` where the set gave none.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm this key verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's over `signing_input` (RFC 7515 §5.2).
    ///
    /// ECDSA signatures are r‖s of exact length (RFC 7518 §3.4), never DER; a MAC is compared in constant time. Both
    /// of an ECDSA signature's forms (s and n−s) verify: tokens can't be told apart by their text. Headers, claims and
    /// time are not looked at.
    #[must_use]
    pub fn verify(&self, signing_input: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public { key, signature_len } => {
                signature.len() == *signature_len && key.verify_sig(signing_input, signature).is_ok()
            }
            Material::Secret(key) => hmac::verify(key, signing_input, signature).is_ok(),
        }
    }

    /// Digest over name, algorithm and key.
    pub(super) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Leading zeros off, sizes and parity checked: AWS-LC leaves that to the first verification.
fn checked_rsa<'a>(n: &'a [u8], e: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), KeyFault> {
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    let bits = match n.first() {
        Some(first) => n.len() * 8 - first.leading_zeros() as usize,
        None => 0,
    };
    let odd = n.last().is_some_and(|last| last % 2 == 1);
    if !odd || !(SMALLEST_MODULUS_BITS..=LARGEST_MODULUS_BITS).contains(&bits) {
        return Err(KeyFault::Modulus);
    }
    if e.len() > LONGEST_EXPONENT {
        return Err(KeyFault::Exponent);
    }
    let exponent = e.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    if exponent % 2 == 0 || !(3..=LARGEST_EXPONENT).contains(&exponent) {
        return Err(KeyFault::Exponent);
    }
    Ok((n, e))
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// AWS-LC would also take a compressed point or a whole SubjectPublicKeyInfo here.
fn uncompressed(point: &[u8], len: usize) -> Result<&[u8], KeyFault> {
    if point.len() == len && point.first() == Some(&4) { Ok(point) } else { Err(KeyFault::Point) }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::EdDsa => None,
    }
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::EdDsa => None,
    }
}

fn fingerprint(kid: Option<&str>, algorithm: Algorithm, key: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    // A name of no key is told from an empty one, and each part from the next, by what stands before it.
    context.update(&[u8::from(kid.is_some())]);
    for part in [kid.unwrap_or_default().as_bytes(), algorithm.as_str().as_bytes()].iter().chain(key) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    sha256(context)
}

/// Finishes a SHA-256 as an array.
pub(super) fn sha256(context: digest::Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    const INPUT: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.e30";

    fn es256() -> (EcdsaKeyPair, VerifyingKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let key = VerifyingKey::load(Some("a"), Algorithm::Es256, RawKey::P256(&point)).unwrap();
        (pair, key)
    }

    fn modulus(bits: usize) -> Vec<u8> {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] = if bits.is_multiple_of(8) { 0xff } else { (1 << (bits % 8)) - 1 };
        n
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<(), KeyFault> {
        VerifyingKey::load(None, Algorithm::Rs256, RawKey::Rsa { n, e }).map(drop)
    }

    #[test]
    fn a_signature_verifies_and_an_altered_one_does_not() {
        let (pair, key) = es256();
        let signature = pair.sign(&SystemRandom::new(), INPUT).unwrap();
        assert!(key.verify(INPUT, signature.as_ref()));
        assert!(!key.verify(b"eyJhbGciOiJFUzI1NiJ9.e31", signature.as_ref()));
        let pair = Ed25519KeyPair::generate().unwrap();
        let key =
            VerifyingKey::load(None, Algorithm::EdDsa, RawKey::Ed25519(pair.public_key().as_ref())).unwrap();
        let mut signature = pair.sign(INPUT).as_ref().to_vec();
        assert!(key.verify(INPUT, &signature));
        signature[0] ^= 1;
        assert!(!key.verify(INPUT, &signature));
    }

    #[test]
    fn an_ecdsa_signature_of_any_other_length_is_refused() {
        let (pair, key) = es256();
        let good = pair.sign(&SystemRandom::new(), INPUT).unwrap();
        let good = good.as_ref();
        for bad in [&[][..], &good[..63], &[good, &[0]].concat(), &[&[0], good].concat(), &[0; 64]] {
            assert!(!key.verify(INPUT, bad), "{} bytes", bad.len());
        }
    }

    #[test]
    fn an_ecdsa_signature_in_der_is_refused() {
        let (_, key) = es256();
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let own = VerifyingKey::load(None, Algorithm::Es256, RawKey::P256(&point)).unwrap();
        let der = pair.sign(&SystemRandom::new(), INPUT).unwrap();
        assert!(!own.verify(INPUT, der.as_ref()));
        assert!(!key.verify(INPUT, der.as_ref()));
    }

    #[test]
    fn r_or_s_of_zero_or_the_order_is_refused() {
        let (pair, key) = es256();
        let good = pair.sign(&SystemRandom::new(), INPUT).unwrap();
        let (r, s) = good.as_ref().split_at(32);
        let order: Vec<u8> = [
            [0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            [0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84],
            [0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51],
        ]
        .concat();
        for bad in [&[0; 32][..], &order, &[0xff; 32]] {
            assert!(!key.verify(INPUT, &[bad, s].concat()));
            assert!(!key.verify(INPUT, &[r, bad].concat()));
        }
    }

    #[test]
    fn an_rsa_modulus_below_2048_bits_is_refused_at_load() {
        assert_eq!(rsa(&modulus(1024), &[1, 0, 1]), Err(KeyFault::Modulus));
        assert_eq!(rsa(&modulus(2047), &[1, 0, 1]), Err(KeyFault::Modulus));
        let padded = [vec![0; 128], modulus(1024)].concat();
        assert_eq!(rsa(&padded, &[1, 0, 1]), Err(KeyFault::Modulus), "zeros in front are no strength");
        assert_eq!(rsa(&[], &[1, 0, 1]), Err(KeyFault::Modulus));
        assert_eq!(rsa(&modulus(2048), &[1, 0, 1]), Ok(()));
        assert_eq!(rsa(&modulus(8200), &[1, 0, 1]), Err(KeyFault::Modulus), "a modulus made to be slow");
    }

    #[test]
    fn an_rsa_exponent_of_one_or_an_even_one_is_refused_at_load() {
        for bad in [&[][..], &[0], &[1], &[0, 0, 1], &[2], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1; 6], &[255; 300]]
        {
            assert_eq!(rsa(&modulus(2048), bad), Err(KeyFault::Exponent), "{bad:?}");
        }
        assert_eq!(rsa(&modulus(2048), &[3]), Ok(()));
    }

    #[test]
    fn a_point_off_the_curve_or_compressed_is_refused_at_load() {
        let (pair, _) = es256();
        let good = pair.public_key().as_ref().to_vec();
        let mut off = good.clone();
        off[64] ^= 1;
        let compressed: Vec<u8> = [&[2 + (good[64] & 1)], &good[1..33]].concat();
        for bad in [&off, &compressed, &good[..64].to_vec(), &vec![4; 65], &vec![0]] {
            let loaded = VerifyingKey::load(None, Algorithm::Es256, RawKey::P256(bad));
            assert_eq!(loaded.map(drop), Err(KeyFault::Point));
        }
    }

    #[test]
    fn a_secret_shorter_than_its_hash_is_refused_at_load() {
        for (algorithm, len) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
            for short in [0, len - 1] {
                let loaded = VerifyingKey::load(None, algorithm, RawKey::Secret(&vec![7; short]));
                assert_eq!(loaded.map(drop), Err(KeyFault::ShortSecret));
            }
            let key = VerifyingKey::load(None, algorithm, RawKey::Secret(&vec![7; len])).unwrap();
            let tag = hmac::sign(&hmac::Key::new(hmac_algorithm(algorithm).unwrap(), &vec![7; len]), INPUT);
            assert!(key.verify(INPUT, tag.as_ref()));
            assert!(!key.verify(INPUT, &tag.as_ref()[..16]), "a truncated MAC is none");
            assert!(!key.verify(INPUT, &[]));
        }
    }

    #[test]
    fn a_public_key_never_becomes_an_hmac_secret() {
        let n = modulus(2048);
        let raw = RawKey::Rsa { n: &n, e: &[1, 0, 1] };
        assert_eq!(
            VerifyingKey::load(None, Algorithm::Hs256, raw).map(drop),
            Err(KeyFault::ForeignAlgorithm)
        );
        let loaded = VerifyingKey::load(None, Algorithm::Rs256, RawKey::Secret(&[7; 64]));
        assert_eq!(loaded.map(drop), Err(KeyFault::ForeignAlgorithm));
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = [b'S'; 32];
        let key = VerifyingKey::load(Some("a"), Algorithm::Hs256, RawKey::Secret(&secret)).unwrap();
        assert_eq!(format!("{key:?}"), r#"VerifyingKey { kid: Some("a"), algorithm: Hs256, .. }"#);
    }
}
