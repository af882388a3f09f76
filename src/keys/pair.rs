//! Key pairs of our own: made, kept parsed, and shown to the world as JWKs.

use crate::keys::Algorithm;
use crate::token::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;

/// The algorithms our own tokens can be signed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// Ed25519: the smallest and quickest.
    #[default]
    EdDsa,
    /// ECDSA on P-256, for verifiers without Ed25519.
    Es256,
    /// RSA of 2048 bits, for verifiers with nothing else.
    Rs256,
}

impl SigningAlgorithm {
    /// The same among all algorithms.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::EdDsa => Algorithm::EdDsa,
            Self::Es256 => Algorithm::Es256,
            Self::Rs256 => Algorithm::Rs256,
        }
    }
}

/// Not an algorithm that our own tokens can be signed with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("keys for signing are EdDSA, ES256 or RS256")]
pub struct NoSigningAlgorithm;

impl TryFrom<Algorithm> for SigningAlgorithm {
    type Error = NoSigningAlgorithm;

    fn try_from(algorithm: Algorithm) -> Result<Self, NoSigningAlgorithm> {
        let all = [Self::EdDsa, Self::Es256, Self::Rs256];
        all.into_iter().find(|signing| signing.algorithm() == algorithm).ok_or(NoSigningAlgorithm)
    }
}

impl FromStr for SigningAlgorithm {
    type Err = NoSigningAlgorithm;

    fn from_str(name: &str) -> Result<Self, NoSigningAlgorithm> {
        name.parse::<Algorithm>().map_err(|_| NoSigningAlgorithm)?.try_into()
    }
}

/// AWS-LC refused: a damaged or unfit key, or an operation that failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key pair can't be used")]
pub(super) struct Unusable;

/// A key pair, parsed once.
pub(super) enum KeyPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<rsa::KeyPair>),
}

impl KeyPair {
    /// Makes a pair; its PKCS#8 comes along, to be kept.
    pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<(Self, Secret), Unusable> {
        let pkcs8 = match algorithm {
            SigningAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(|_| Unusable)?;
                Secret::new(pair.to_pkcs8v1().map_err(|_| Unusable)?.as_ref().to_vec())
            }
            SigningAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Unusable)?;
                Secret::new(pair.to_pkcs8v1().map_err(|_| Unusable)?.as_ref().to_vec())
            }
            SigningAlgorithm::Rs256 => {
                let pair = rsa::KeyPair::generate(KeySize::Rsa2048).map_err(|_| Unusable)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| Unusable)?;
                Secret::new(der.as_ref().to_vec())
            }
        };
        Ok((Self::from_pkcs8(algorithm, &pkcs8)?, pkcs8))
    }

    /// Parses a pair and checks that its halves belong together.
    pub(super) fn from_pkcs8(algorithm: SigningAlgorithm, pkcs8: &Secret) -> Result<Self, Unusable> {
        let pkcs8 = pkcs8.expose();
        match algorithm {
            SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map(Self::Ed25519),
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Self::P256)
            }
            SigningAlgorithm::Rs256 => rsa::KeyPair::from_pkcs8(pkcs8).map(Box::new).map(Self::Rsa),
        }
        .map_err(|_| Unusable)
    }

    /// Signs as a JWS wants it (RFC 7518 §3.3, §3.4; RFC 8037 §3.1).
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Unusable> {
        match self {
            Self::Ed25519(pair) => pair.try_sign(input).map(|signature| signature.as_ref().to_vec()),
            Self::P256(pair) => {
                pair.sign(&SystemRandom::new(), input).map(|signature| signature.as_ref().to_vec())
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| Unusable)
    }

    /// The JWK's required members, in the order and spelling that RFC 7638 §3 digests.
    pub(super) fn public_jwk(&self) -> String {
        match self {
            Self::Ed25519(pair) => {
                let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                let coordinates = point.split_first().map_or(point, |(_, coordinates)| coordinates);
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
                let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
            }
        }
    }

    /// The JWK's SHA-256 thumbprint (RFC 7638), which names the key.
    pub(super) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.public_jwk().as_bytes()))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.thumbprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SigningAlgorithm; 3] =
        [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256];

    #[test]
    fn a_pair_reads_back_from_its_pkcs8() {
        for algorithm in ALL {
            let (pair, pkcs8) = KeyPair::generate(algorithm).unwrap();
            let again = KeyPair::from_pkcs8(algorithm, &pkcs8).unwrap();
            assert_eq!(pair.public_jwk(), again.public_jwk());
            assert_eq!(format!("{pair:?}"), format!("KeyPair({})", pair.thumbprint()));
        }
    }

    #[test]
    fn a_key_of_another_algorithm_or_a_damaged_one_is_refused() {
        let (_, ed25519) = KeyPair::generate(SigningAlgorithm::EdDsa).unwrap();
        for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
            assert!(KeyPair::from_pkcs8(algorithm, &ed25519).is_err());
        }
        for algorithm in ALL {
            assert!(KeyPair::from_pkcs8(algorithm, &Secret::new(vec![0x30; 40])).is_err());
            assert!(KeyPair::from_pkcs8(algorithm, &Secret::new(Vec::new())).is_err());
        }
    }

    #[test]
    fn the_thumbprint_is_rfc_8037_s() {
        // RFC 8037 §A.1 and §A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let pair = KeyPair::Ed25519(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
        assert_eq!(pair.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn hmac_is_no_signing_algorithm() {
        for name in ["HS256", "none", "PS256", "ES384", ""] {
            assert_eq!(name.parse::<SigningAlgorithm>(), Err(NoSigningAlgorithm));
        }
        assert_eq!("EdDSA".parse(), Ok(SigningAlgorithm::EdDsa));
    }
}
