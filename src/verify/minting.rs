//! For tests of this room: keys of every algorithm, tokens under them, and what judges those.

use crate::clock::Timestamp;
use crate::keys::{Algorithm, KeySet, Origin};
use crate::ops::Metrics;
use crate::token::{Reason, TokenDigest};
use crate::verify::acceptance::{Acceptance, Read};
use crate::verify::compact;
use crate::verify::jwt::Unverified;
use crate::verify::policy::{ClaimPaths, Dialect, PolicySettings};
use crate::verify::refusal::Denied;
use crate::verify::{Accepted, Encode, Freshness, IssuerEntry, IssuerPolicy, IssuerSettings, Source};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub(super) const ISSUER: &str = "https://login.example.net";
pub(super) const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Claims that [`policy`] accepts at [`NOON`].
pub(super) const CLAIMS: &str = r#"{"iss":"https://login.example.net","sub":"alice","aud":"shop","iat":1800000000,"exp":1800000900,"jti":"t1","sid":"s1","scope":"read write","roles":["buyer"],"client_id":"web","auth_time":1799999000}"#;

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key for one algorithm, as its issuer has it and as we have it.
pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    pair: Pair,
    set: KeySet,
    pub(super) jwk: Value,
}

enum Pair {
    Secret(Vec<u8>, hmac::Algorithm),
    Rsa(&'static dyn signature::RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let pair = pair(algorithm);
        let mut jwk = jwk(&pair);
        jwk["kid"] = json!("k1");
        jwk["alg"] = json!(algorithm.as_str());
        let set = json!({"keys": [jwk]}).to_string();
        let set = KeySet::from_jwks(set.as_bytes(), &[algorithm], Origin::Local).unwrap();
        Self { algorithm, pair, set, jwk }
    }

    pub(super) fn sign(&self, input: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Secret(secret, hash) => hmac::sign(&hmac::Key::new(*hash, secret), input).as_ref().to_vec(),
            Pair::Rsa(encoding) => {
                let mut signature = vec![0; RSA.public_modulus_len()];
                RSA.sign(*encoding, &SystemRandom::new(), input, &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    /// A header that [`policy`] accepts.
    pub(super) fn header(&self) -> String {
        format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"k1"}}"#, self.algorithm)
    }

    /// Header and claims as they are, signed.
    pub(super) fn token(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = encode(self.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// All steps to an acceptance, and what is made of it.
    pub(super) fn accept<T>(
        &self,
        token: &str,
        policy: &IssuerPolicy,
        then: impl FnOnce(Accepted<'_>) -> T,
    ) -> Result<T, Denied> {
        let decoded = compact::decode(token, 16 * 1024)?;
        let unverified = Unverified::parse(&decoded)?;
        if unverified.issuer()? != &**policy.issuer() {
            return Err(Denied::new(Reason::UnknownIssuer, "another issuer"));
        }
        unverified.check_header(policy)?;
        let key = self.set.find(Some("k1"), self.algorithm).unwrap();
        unverified.check_signature(key)?.judge(policy).map(then)
    }
}

fn pair(algorithm: Algorithm) -> Pair {
    let secret = |hash, length| Pair::Secret(vec![7; length], hash);
    let ec = |curve| Pair::Ec(EcdsaKeyPair::generate(curve).unwrap());
    match algorithm {
        Algorithm::Hs256 => secret(hmac::HMAC_SHA256, 32),
        Algorithm::Hs384 => secret(hmac::HMAC_SHA384, 48),
        Algorithm::Hs512 => secret(hmac::HMAC_SHA512, 64),
        Algorithm::Rs256 => Pair::Rsa(&signature::RSA_PKCS1_SHA256),
        Algorithm::Rs384 => Pair::Rsa(&signature::RSA_PKCS1_SHA384),
        Algorithm::Rs512 => Pair::Rsa(&signature::RSA_PKCS1_SHA512),
        Algorithm::Ps256 => Pair::Rsa(&signature::RSA_PSS_SHA256),
        Algorithm::Ps384 => Pair::Rsa(&signature::RSA_PSS_SHA384),
        Algorithm::Ps512 => Pair::Rsa(&signature::RSA_PSS_SHA512),
        Algorithm::Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDsa => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
    }
}

fn jwk(pair: &Pair) -> Value {
    match pair {
        Pair::Secret(secret, _) => json!({"kty": "oct", "k": encode(secret)}),
        Pair::Rsa(_) => {
            let public = RSA.public_key();
            let n = encode(public.modulus().big_endian_without_leading_zero());
            json!({"kty": "RSA", "n": n, "e": encode(public.exponent().big_endian_without_leading_zero())})
        }
        Pair::Ec(pair) => {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            let curve = if x.len() == 32 { "P-256" } else { "P-384" };
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        }
        Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
    }
}

/// Every algorithm, `at+jwt`, for the shop or the bank, a minute of leeway, a day of life.
pub(super) fn settings() -> PolicySettings {
    PolicySettings {
        issuer: ISSUER.into(),
        algorithms: Algorithm::ALL.to_vec(),
        audiences: vec!["shop".to_owned(), "bank".to_owned()],
        types: vec!["at+jwt".to_owned()],
        allow_missing_type: false,
        leeway: Duration::from_secs(60),
        max_lifetime: Duration::from_secs(86_400),
        required: Vec::new(),
        paths: ClaimPaths::default(),
        dialect: Dialect::Plain,
        allow_missing_audience: false,
        authorized_parties: Vec::new(),
        renew_before: Duration::from_secs(120),
        own: false,
    }
}

pub(super) fn policy() -> IssuerPolicy {
    IssuerPolicy::new(settings()).unwrap()
}

pub(super) const FRESHNESS: Freshness = Freshness {
    fully_consistent: false,
    bound: Duration::from_secs(30),
    says_stale_after: Duration::MAX,
    renew_before: None,
};

/// An issuer as a verifier has it, but for its keys.
pub(super) fn entry() -> Arc<IssuerEntry> {
    let metrics = Metrics::new();
    Arc::new(IssuerEntry {
        settings: IssuerSettings {
            policy: policy(),
            ring: None,
            cookies: None,
            table: None,
            opaque: None,
            relay: None,
            freshness: Arc::new(FRESHNESS),
            by_policy: HashMap::new(),
            longest_life: Duration::from_secs(86_400),
        },
        place: 0,
        counted: Source::ALL.map(|source| metrics.verify_source(ISSUER, source.as_str())),
    })
}

/// An acceptance as it is kept; its answer is this long.
pub(super) fn acceptance(
    accepted: &Accepted<'_>,
    digest: TokenDigest,
    entry: &Arc<IssuerEntry>,
) -> Acceptance {
    let freshness = Arc::new(FRESHNESS);
    let read: Option<Read> = None;
    let encode = Encode { answer: |accepted| accepted.claims_json().to_vec(), for_proxies: None };
    Acceptance::new(accepted, &encode, digest, entry, 1, &freshness, read)
}
