//! Other issuers' keys, and tokens under them as odd as an attack needs them.

use crate::support::START;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// An issuer of every public-key algorithm.
pub(crate) const LOGIN: &str = "https://login.example.net";

/// Base64url without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs, and the name it is published under.
pub(crate) struct Key {
    kid: String,
    pair: Pair,
}

enum Pair {
    /// All of them the same one: an RSA key takes a while to make.
    Rsa,
    Ec(&'static str, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

impl Key {
    pub(crate) fn rsa(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Rsa }
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.into(), pair: Pair::Ec("P-256", pair) }
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { kid: kid.into(), pair: Pair::Ec("P-384", pair) }
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self { kid: kid.into(), pair: Pair::Ed25519(Ed25519KeyPair::generate().unwrap()) }
    }

    /// For HMAC.
    pub(crate) fn secret(secret: impl AsRef<[u8]>) -> Self {
        Self { kid: "secret".into(), pair: Pair::Secret(secret.as_ref().to_vec()) }
    }

    /// The same key under another name.
    pub(crate) fn called(self, kid: &str) -> Self {
        Self { kid: kid.into(), ..self }
    }

    /// The public key as an issuer publishes it; without `alg`, so that it serves all of its type.
    pub(crate) fn jwk(&self) -> Value {
        let kid = &self.kid;
        match &self.pair {
            Pair::Rsa => {
                let n = encode(RSA.public_key().modulus().big_endian_without_leading_zero());
                let e = encode(RSA.public_key().exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": e})
            }
            Pair::Ec(curve, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "kid": kid, "use": "sig", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(pair.public_key())})
            }
            Pair::Secret(secret) => json!({"kty": "oct", "kid": kid, "k": encode(secret)}),
        }
    }

    /// The public key as SubjectPublicKeyInfo.
    pub(crate) fn der(&self) -> Vec<u8> {
        let info: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa => RSA.public_key().as_der().unwrap(),
            Pair::Ec(_, pair) => pair.public_key().as_der().unwrap(),
            Pair::Ed25519(pair) => pair.public_key().as_der().unwrap(),
            Pair::Secret(_) => panic!("a secret is not published"),
        };
        info.as_ref().to_vec()
    }

    pub(crate) fn pem(&self) -> String {
        let text = STANDARD.encode(self.der());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The algorithm it is used with where a test names none.
    fn usual_algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa => "RS256",
            Pair::Ec("P-256", _) => "ES256",
            Pair::Ec(..) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Secret(_) => "HS256",
        }
    }

    /// The header of a usual access token of this key.
    pub(crate) fn header(&self) -> String {
        self.header_for(self.usual_algorithm())
    }

    pub(crate) fn header_for(&self, algorithm: &str) -> String {
        format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"{}"}}"#, self.kid)
    }

    /// A usual access token with these claims.
    pub(crate) fn token(&self, claims: &Claims) -> String {
        self.token_of(self.header(), claims.text())
    }

    pub(crate) fn token_for(&self, algorithm: &str, claims: &Claims) -> String {
        let input = input(self.header_for(algorithm), claims.text());
        let signature = encode(self.sign(algorithm, &input));
        format!("{input}.{signature}")
    }

    /// Header and claims as they are, signed with the usual algorithm.
    pub(crate) fn token_of(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        self.signed(&input(header, claims))
    }

    /// The signing input with its signature.
    pub(crate) fn signed(&self, input: &str) -> String {
        format!("{input}.{}", encode(self.sign(self.usual_algorithm(), input)))
    }

    pub(crate) fn sign(&self, algorithm: &str, input: &str) -> Vec<u8> {
        let input = input.as_bytes();
        match &self.pair {
            Pair::Rsa => {
                let encoding: &dyn signature::RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    other => panic!("{other} is not for RSA"),
                };
                let mut signature = vec![0; RSA.public_modulus_len()];
                RSA.sign(encoding, &SystemRandom::new(), input, &mut signature).unwrap();
                signature
            }
            Pair::Ec(_, pair) => pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
            Pair::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), input).as_ref().to_vec()
            }
        }
    }
}

/// A JWK set of these keys.
pub(crate) fn jwks<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    json!({"keys": keys.into_iter().map(Key::jwk).collect::<Vec<_>>()}).to_string()
}

/// Header and claims as they are signed.
pub(crate) fn input(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    format!("{}.{}", encode(header), encode(claims))
}

/// The three parts.
pub(crate) fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// Claims as text, each value as it will stand in the token, however odd.
#[derive(Clone)]
pub(crate) struct Claims(Vec<(String, String)>);

impl Claims {
    /// What [`LOGIN`] says of alice for the shop: made at [`START`], for a quarter of an hour.
    pub(crate) fn good() -> Self {
        Self::of(LOGIN)
    }

    pub(crate) fn of(issuer: &str) -> Self {
        let start = START.as_secs();
        let text = |text: &str| format!("\"{text}\"");
        let claims = [
            ("iss", text(issuer)),
            ("sub", text("alice")),
            ("aud", text("shop")),
            ("iat", start.to_string()),
            ("exp", (start + 900).to_string()),
            ("jti", text("t1")),
            ("sid", text("s1")),
            ("scope", text("read write")),
        ];
        Self(claims.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// With this member put in or replaced.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| other != name);
        self
    }

    /// With an instant this many seconds after [`START`], or before it.
    pub(crate) fn at(self, name: &str, seconds: i64) -> Self {
        self.with(name, START.as_secs().saturating_add_signed(seconds))
    }

    pub(crate) fn text(&self) -> String {
        let members: Vec<_> = self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}
