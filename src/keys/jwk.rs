//! Reads one JSON Web Key (RFC 7517, RFC 7518 §6, RFC 8037) into the keys it stands for.
//!
//! Members that countersign does not use (`x5c`, `x5u` and the like) are neither read nor followed, so whatever is wrong
//! with them costs nothing.

use crate::keys::Algorithm;
use crate::keys::fault::KeyFault;
use crate::keys::verifying::{RawKey, VerifyingKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Where a set comes from, which decides whether it may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file beside us.
    Local,
    /// Somebody's endpoint.
    Remote,
}

/// Reads one key. Without `alg` it serves every allowed algorithm of its type, one [`VerifyingKey`] each.
pub(super) fn read(
    jwk: &Value,
    allowed: &[Algorithm],
    origin: Origin,
) -> Result<Vec<VerifyingKey>, KeyFault> {
    let jwk = jwk.as_object().ok_or(KeyFault::NotAnObject)?;
    if !is_for_verifying(jwk)? {
        return Err(KeyFault::Purpose);
    }
    let kid = optional_text(jwk, "kid")?;
    match text(jwk, "kty")? {
        "RSA" => {
            refuse_published_private(jwk, origin)?;
            let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
            load(jwk, kid, allowed, RawKey::Rsa { n: &n, e: &e })
        }
        "EC" => {
            refuse_published_private(jwk, origin)?;
            match text(jwk, "crv")? {
                "P-256" => load(jwk, kid, allowed, RawKey::P256(&point(jwk, 32)?)),
                "P-384" => load(jwk, kid, allowed, RawKey::P384(&point(jwk, 48)?)),
                _ => Err(KeyFault::Curve),
            }
        }
        "OKP" => {
            refuse_published_private(jwk, origin)?;
            match text(jwk, "crv")? {
                "Ed25519" => load(jwk, kid, allowed, RawKey::Ed25519(&coordinate(jwk, "x", 32)?)),
                _ => Err(KeyFault::Curve),
            }
        }
        "oct" => match origin {
            Origin::Remote => Err(KeyFault::RemoteSecret),
            Origin::Local => load(jwk, kid, allowed, RawKey::Secret(&bytes(jwk, "k")?)),
        },
        _ => Err(KeyFault::KeyType),
    }
}

fn load(
    jwk: &Map<String, Value>,
    kid: Option<&str>,
    allowed: &[Algorithm],
    raw: RawKey<'_>,
) -> Result<Vec<VerifyingKey>, KeyFault> {
    match optional_text(jwk, "alg")? {
        Some(name) => {
            let algorithm: Algorithm = name.parse().map_err(|_| KeyFault::UnknownAlgorithm)?;
            if !raw.algorithms().contains(&algorithm) {
                return Err(KeyFault::ForeignAlgorithm);
            }
            if !allowed.contains(&algorithm) {
                return Err(KeyFault::NotAllowed);
            }
            Ok(vec![VerifyingKey::load(kid, algorithm, raw)?])
        }
        None => load_each(kid, allowed, raw),
    }
}

/// One key per allowed algorithm of its type. A secret serves those hashes it is long enough for.
///
/// # Errors
/// When it can serve none.
pub(super) fn load_each(
    kid: Option<&str>,
    allowed: &[Algorithm],
    raw: RawKey<'_>,
) -> Result<Vec<VerifyingKey>, KeyFault> {
    let mut keys = Vec::new();
    let mut fault = KeyFault::NotAllowed;
    for algorithm in raw.algorithms().iter().filter(|algorithm| allowed.contains(algorithm)) {
        match VerifyingKey::load(kid, *algorithm, raw) {
            Ok(key) => keys.push(key),
            Err(why) => fault = why,
        }
    }
    if keys.is_empty() { Err(fault) } else { Ok(keys) }
}

fn is_for_verifying(jwk: &Map<String, Value>) -> Result<bool, KeyFault> {
    if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Ok(false);
    }
    let Some(operations) = jwk.get("key_ops") else { return Ok(true) };
    let operations = operations.as_array().ok_or(KeyFault::Mistyped("key_ops"))?;
    Ok(operations.iter().any(|operation| operation == "verify"))
}

fn refuse_published_private(jwk: &Map<String, Value>, origin: Origin) -> Result<(), KeyFault> {
    if origin == Origin::Remote && jwk.contains_key("d") { Err(KeyFault::PrivatePublished) } else { Ok(()) }
}

fn optional_text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, KeyFault> {
    jwk.get(name).map(|value| value.as_str().ok_or(KeyFault::Mistyped(name))).transpose()
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, KeyFault> {
    optional_text(jwk, name)?.ok_or(KeyFault::Missing(name))
}

/// Strict base64url: no padding, no spaces, no stray trailing bits (RFC 7515 §2).
fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let decoded = URL_SAFE_NO_PAD.decode(text(jwk, name)?);
    decoded.map(Zeroizing::new).map_err(|_| KeyFault::Misencoded(name))
}

/// A coordinate always has its curve's full length (RFC 7518 §6.2.1.2).
fn coordinate(
    jwk: &Map<String, Value>,
    name: &'static str,
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let bytes = bytes(jwk, name)?;
    if bytes.len() == len { Ok(bytes) } else { Err(KeyFault::Misencoded(name)) }
}

fn point(jwk: &Map<String, Value>, len: usize) -> Result<Vec<u8>, KeyFault> {
    let (x, y) = (coordinate(jwk, "x", len)?, coordinate(jwk, "y", len)?);
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 7515 §A.3.1 and RFC 8037 §A.2.
    const P256: &str = r#"{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn with(base: &str, member: &str, value: Value) -> Value {
        let mut jwk: Value = serde_json::from_str(base).unwrap();
        jwk[member] = value;
        jwk
    }

    fn read_any(jwk: &Value, origin: Origin) -> Result<Vec<Algorithm>, KeyFault> {
        let keys = read(jwk, &Algorithm::ALL, origin)?;
        Ok(keys.iter().map(VerifyingKey::algorithm).collect())
    }

    fn rsa() -> String {
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"}}"#)
    }

    #[test]
    fn a_missing_alg_is_derived_from_type_and_curve_within_the_allowed() {
        assert_eq!(read_any(&with(P256, "kid", json!("a")), Origin::Remote), Ok(vec![Algorithm::Es256]));
        assert_eq!(read_any(&with(ED25519, "kid", json!("a")), Origin::Remote), Ok(vec![Algorithm::EdDsa]));
        let jwk: Value = serde_json::from_str(&rsa()).unwrap();
        let keys =
            read(&jwk, &[Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256], Origin::Remote).unwrap();
        let algorithms: Vec<_> = keys.iter().map(VerifyingKey::algorithm).collect();
        assert_eq!(algorithms, [Algorithm::Rs256, Algorithm::Ps256]);
        assert_eq!(read(&jwk, &[Algorithm::Es256], Origin::Remote).map(drop), Err(KeyFault::NotAllowed));
    }

    #[test]
    fn an_alg_of_another_key_type_is_refused() {
        let confused = with(&rsa(), "alg", json!("HS256"));
        assert_eq!(read_any(&confused, Origin::Local), Err(KeyFault::ForeignAlgorithm));
        assert_eq!(
            read_any(&with(P256, "alg", json!("ES384")), Origin::Remote),
            Err(KeyFault::ForeignAlgorithm)
        );
        for unknown in ["none", "NONE", "RSA-OAEP", "es256", ""] {
            let jwk = with(P256, "alg", json!(unknown));
            assert_eq!(read_any(&jwk, Origin::Remote), Err(KeyFault::UnknownAlgorithm), "{unknown}");
        }
    }

    #[test]
    fn an_alg_that_the_issuer_does_not_allow_is_refused() {
        let jwk = with(&rsa(), "alg", json!("PS512"));
        assert_eq!(read(&jwk, &[Algorithm::Rs256], Origin::Remote).map(drop), Err(KeyFault::NotAllowed));
    }

    #[test]
    fn a_key_for_encryption_is_skipped() {
        assert_eq!(read_any(&with(P256, "use", json!("enc")), Origin::Remote), Err(KeyFault::Purpose));
        assert_eq!(
            read_any(&with(P256, "key_ops", json!(["encrypt"])), Origin::Remote),
            Err(KeyFault::Purpose)
        );
        assert_eq!(read_any(&with(P256, "key_ops", json!([])), Origin::Remote), Err(KeyFault::Purpose));
        assert!(read_any(&with(P256, "use", json!("sig")), Origin::Remote).is_ok());
        assert!(read_any(&with(P256, "key_ops", json!(["verify"])), Origin::Remote).is_ok());
    }

    #[test]
    fn a_secret_among_remote_keys_is_dropped() {
        let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 64])});
        assert_eq!(read_any(&oct, Origin::Remote), Err(KeyFault::RemoteSecret));
        assert_eq!(
            read_any(&oct, Origin::Local),
            Ok(vec![Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512])
        );
    }

    #[test]
    fn a_short_or_empty_secret_is_refused() {
        let oct = |len: usize| json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(vec![7; len])});
        assert_eq!(read_any(&oct(0), Origin::Local), Err(KeyFault::ShortSecret));
        assert_eq!(read_any(&oct(31), Origin::Local), Err(KeyFault::ShortSecret));
        assert_eq!(read_any(&oct(32), Origin::Local), Ok(vec![Algorithm::Hs256]), "long enough for one hash");
    }

    #[test]
    fn a_published_private_key_is_refused() {
        let leaked = with(ED25519, "d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"));
        assert_eq!(read_any(&leaked, Origin::Remote), Err(KeyFault::PrivatePublished));
        assert!(read_any(&leaked, Origin::Local).is_ok());
    }

    #[test]
    fn a_mistyped_x5c_costs_nothing() {
        assert!(read_any(&with(P256, "x5c", json!(7)), Origin::Remote).is_ok());
        assert!(read_any(&with(P256, "x5u", json!({"url": "http://evil.example"})), Origin::Remote).is_ok());
    }

    #[test]
    fn a_mistyped_member_costs_the_key() {
        for member in ["kid", "kty", "alg", "use", "crv", "x"] {
            let jwk = with(P256, member, json!(7));
            assert_eq!(read_any(&jwk, Origin::Remote), Err(KeyFault::Mistyped(member)));
        }
        assert_eq!(read_any(&json!("key"), Origin::Remote), Err(KeyFault::NotAnObject));
        assert_eq!(read_any(&json!({}), Origin::Remote), Err(KeyFault::Missing("kty")));
    }

    #[test]
    fn base64_that_is_not_strict_is_refused() {
        for bad in ["AQAB=", "AQ AB", "AQAB\n", "+/8", "AR", "AQA", "é"] {
            let jwk = with(&rsa(), "e", json!(bad));
            assert!(read_any(&jwk, Origin::Remote).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_coordinate_of_the_wrong_length_is_refused() {
        for len in [0, 31, 33] {
            let jwk = with(P256, "x", json!(URL_SAFE_NO_PAD.encode(vec![1; len])));
            assert_eq!(read_any(&jwk, Origin::Remote), Err(KeyFault::Misencoded("x")));
        }
    }

    #[test]
    fn an_unknown_type_or_curve_is_refused() {
        assert_eq!(read_any(&with(P256, "kty", json!("AKP")), Origin::Remote), Err(KeyFault::KeyType));
        assert_eq!(read_any(&with(P256, "crv", json!("secp256k1")), Origin::Remote), Err(KeyFault::Curve));
        assert_eq!(read_any(&with(ED25519, "crv", json!("X25519")), Origin::Remote), Err(KeyFault::Curve));
    }

    #[test]
    fn a_kid_of_10_kilobytes_is_refused() {
        let jwk = with(P256, "kid", json!("k".repeat(10_240)));
        assert_eq!(read_any(&jwk, Origin::Remote), Err(KeyFault::Kid));
    }
}
