//! Reads public keys and certificates from PEM (RFC 7468). A certificate is only a wrapping here: its names, dates and
//! signature are not checked, because the operator who put the file there vouches for it.

use crate::keys::Algorithm;
use crate::keys::fault::KeyFault;
use crate::keys::jwk;
use crate::keys::verifying::{RawKey, VerifyingKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::der_parser::{Oid, oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

const ED25519: Oid<'static> = oid!(1.3.101.112);
const P256: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const P384: Oid<'static> = oid!(1.3.132.0.34);

/// Why a PEM file was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    /// Not PEM.
    #[error("not well-formed PEM")]
    Malformed,
    /// A section that is neither PUBLIC KEY nor CERTIFICATE; a private key has no business here.
    #[error("section {0} is neither a PUBLIC KEY nor a CERTIFICATE")]
    Section(usize),
    /// A section whose content is no key.
    #[error("section {0} can't be read")]
    Unreadable(usize),
    /// A section whose key is not taken.
    #[error("section {index}: {fault}")]
    Key {
        /// Counted from 1.
        index: usize,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

/// Every section must be good: a file of the operator's with a bad part is a mistake to hear of, not to skip.
pub(super) fn read(pem: &[u8], allowed: &[Algorithm]) -> Result<Vec<VerifyingKey>, PemFault> {
    let mut keys = Vec::new();
    for (index, section) in (1..).zip(<(SectionKind, Vec<u8>)>::pem_slice_iter(pem)) {
        let (kind, der) = section.map_err(|_| PemFault::Malformed)?;
        let unreadable = |_| PemFault::Unreadable(index);
        let loaded = if kind == SectionKind::PublicKey {
            let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(unreadable)?;
            if !rest.is_empty() {
                return Err(PemFault::Unreadable(index));
            }
            load(&info, allowed)
        } else if kind == SectionKind::Certificate {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(unreadable)?;
            load(certificate.public_key(), allowed)
        } else {
            return Err(PemFault::Section(index));
        };
        keys.extend(loaded.map_err(|fault| PemFault::Key { index, fault })?);
    }
    Ok(keys)
}

fn load(info: &SubjectPublicKeyInfo<'_>, allowed: &[Algorithm]) -> Result<Vec<VerifyingKey>, KeyFault> {
    let parsed = info.parsed().map_err(|_| KeyFault::KeyType)?;
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match parsed {
        PublicKey::RSA(rsa) => jwk::load_each(None, allowed, RawKey::Rsa { n: rsa.modulus, e: rsa.exponent }),
        PublicKey::EC(point) => match curve {
            Some(curve) if curve == P256 => jwk::load_each(None, allowed, RawKey::P256(point.data())),
            Some(curve) if curve == P384 => jwk::load_each(None, allowed, RawKey::P384(point.data())),
            Some(_) | None => Err(KeyFault::Curve),
        },
        PublicKey::Unknown(key) if info.algorithm.algorithm == ED25519 => {
            jwk::load_each(None, allowed, RawKey::Ed25519(key))
        }
        PublicKey::Unknown(_)
        | PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_) => Err(KeyFault::KeyType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::RsaPublicKeyComponents;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair};

    const EACH: [(&rcgen::SignatureAlgorithm, Algorithm); 3] = [
        (&rcgen::PKCS_ED25519, Algorithm::EdDsa),
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::Es256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::Es384),
    ];

    fn algorithms(pem: &str) -> Result<Vec<Algorithm>, PemFault> {
        Ok(read(pem.as_bytes(), &Algorithm::ALL)?.iter().map(VerifyingKey::algorithm).collect())
    }

    #[test]
    fn a_public_key_and_a_certificate_of_each_type_are_read() {
        for (kind, algorithm) in EACH {
            let pair = KeyPair::generate_for(kind).unwrap();
            assert_eq!(algorithms(&pair.public_key_pem()), Ok(vec![algorithm]));
            let certificate = CertificateParams::new(vec!["a.example".into()]).unwrap();
            let certificate = certificate.self_signed(&pair).unwrap();
            assert_eq!(algorithms(&certificate.pem()), Ok(vec![algorithm]));
        }
    }

    #[test]
    fn an_rsa_key_serves_each_allowed_rsa_algorithm() {
        let info: PublicKeyX509Der<'_> =
            RsaPublicKeyComponents { n: vec![0xff; 256], e: vec![1, 0, 1] }.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(info.as_ref())
        );
        let keys = read(pem.as_bytes(), &[Algorithm::Rs256, Algorithm::Ps512]).unwrap();
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn a_private_key_in_the_file_is_refused() {
        let pair = KeyPair::generate().unwrap();
        let both = pair.public_key_pem() + &pair.serialize_pem();
        assert_eq!(algorithms(&both), Err(PemFault::Section(2)));
    }

    #[test]
    fn a_damaged_section_costs_the_file() {
        let good = KeyPair::generate().unwrap().public_key_pem();
        let bad = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert_eq!(algorithms(&(good.clone() + bad)), Err(PemFault::Unreadable(2)));
        assert_eq!(algorithms(&good.replace("-----END", "-----FIN")), Err(PemFault::Malformed));
    }

    #[test]
    fn a_key_of_no_allowed_algorithm_is_refused() {
        let pem = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().public_key_pem();
        let fault = PemFault::Key { index: 1, fault: KeyFault::NotAllowed };
        assert_eq!(read(pem.as_bytes(), &[Algorithm::Rs256]).map(drop), Err(fault));
    }
}
