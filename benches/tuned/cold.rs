//! A first verification without a server: parsing, signature and claim policy, held against the crypto library's own
//! check with a parsed key, and against jsonwebtoken. Measured in turns, a few thousand at a time.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{encoding::AsDer, hmac, rand::SystemRandom, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign::clock::{Clock, Timestamp};
use countersign::keys::{Algorithm, KeySet};
use countersign::verify::IssuerPolicy;
use countersign::verify::compact;
use countersign::verify::jwt::Unverified;
use countersign::verify::policy::{ClaimPaths, Dialect, PolicySettings};
use jsonwebtoken::{DecodingKey, Validation};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 31;
const ISSUER: &str = "https://issuer.example.com";
const AUDIENCE: &str = "orders";

/// The claims every token of the measurements carries: eight, about 300 bytes.
fn claims(now: Timestamp, number: usize) -> String {
    format!(
        r#"{{"iss":"{ISSUER}","sub":"user-{number:08}","aud":"{AUDIENCE}","iat":{},"exp":{},"jti":"{:032x}","sid":"{:032x}","scope":"orders:read orders:write","roles":["customer","reviewer"],"tenant":"example-tenant-0001","email":"user{number:08}@example.com","padding":"0123456789"}}"#,
        now.as_secs(),
        now.as_secs() + 3600,
        number as u128 * 7919,
        number as u128 * 104_729,
    )
}

/// A signature check: message, signature.
type Check = Box<dyn Fn(&[u8], &[u8]) -> bool>;

struct Case {
    name: &'static str,
    algorithm: Algorithm,
    keys: KeySet,
    token: String,
    raw: Check,
    theirs: (jsonwebtoken::Algorithm, DecodingKey),
}

fn token(algorithm: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#));
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(sign(input.as_bytes()));
    format!("{input}.{signature}")
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn parsed(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Check {
    let key: ParsedPublicKey = UnparsedPublicKey::new(algorithm, key).parse().unwrap();
    Box::new(move |message, signature| key.verify_sig(message, signature).is_ok())
}

fn cases(payload: &str) -> Vec<Case> {
    let random = SystemRandom::new();
    let mut cases = Vec::new();

    let secret = b"0123456789abcdef0123456789abcdef";
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let verifying = key.clone();
    cases.push(Case {
        name: "hs256",
        algorithm: Algorithm::Hs256,
        keys: KeySet::from_secret(secret, Algorithm::Hs256).unwrap(),
        token: token("HS256", payload, |input| hmac::sign(&key, input).as_ref().to_vec()),
        raw: Box::new(move |message, tag| hmac::verify(&verifying, message, tag).is_ok()),
        theirs: (jsonwebtoken::Algorithm::HS256, DecodingKey::from_secret(secret)),
    });

    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let text = pem(public.as_ref());
    for (name, algorithm, theirs) in [
        ("rs256", Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        ("ps256", Algorithm::Ps256, jsonwebtoken::Algorithm::PS256),
    ] {
        let sign = |input: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                if name == "rs256" { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
            pair.sign(padding, &random, input, &mut signature).unwrap();
            signature
        };
        let check: &'static dyn VerificationAlgorithm =
            if name == "rs256" { &RSA_PKCS1_2048_8192_SHA256 } else { &RSA_PSS_2048_8192_SHA256 };
        cases.push(Case {
            name,
            algorithm,
            keys: KeySet::from_pem(text.as_bytes(), &[algorithm]).unwrap(),
            token: token(algorithm.as_str(), payload, sign),
            raw: parsed(check, public.as_ref()),
            theirs: (theirs, DecodingKey::from_rsa_pem(text.as_bytes()).unwrap()),
        });
    }

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let text = pem(public.as_ref());
    cases.push(Case {
        name: "es256",
        algorithm: Algorithm::Es256,
        keys: KeySet::from_pem(text.as_bytes(), &[Algorithm::Es256]).unwrap(),
        token: token("ES256", payload, |input| pair.sign(&random, input).unwrap().as_ref().to_vec()),
        raw: parsed(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()),
        theirs: (jsonwebtoken::Algorithm::ES256, DecodingKey::from_ec_pem(text.as_bytes()).unwrap()),
    });

    let pair = Ed25519KeyPair::generate().unwrap();
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let text = pem(public.as_ref());
    cases.push(Case {
        name: "eddsa",
        algorithm: Algorithm::EdDsa,
        keys: KeySet::from_pem(text.as_bytes(), &[Algorithm::EdDsa]).unwrap(),
        token: token("EdDSA", payload, |input| pair.sign(input).as_ref().to_vec()),
        raw: parsed(&ED25519, pair.public_key().as_ref()),
        theirs: (jsonwebtoken::Algorithm::EdDSA, DecodingKey::from_ed_pem(text.as_bytes()).unwrap()),
    });
    cases
}

/// Prints `name ours raw theirs` in microseconds, medians of the rounds, and the medians of the rounds' ratios.
pub(crate) fn measure() {
    let now = Clock::system().now().judged;
    let payload = claims(now, 1);
    for case in cases(&payload) {
        let policy = policy(case.algorithm);
        let ours = || {
            let decoded = compact::decode(&case.token, 16_384).unwrap();
            let unverified = Unverified::parse(&decoded).unwrap();
            assert_eq!(unverified.issuer().unwrap(), ISSUER);
            unverified.check_header(&policy).unwrap();
            let key = case.keys.find(unverified.key_id(), unverified.algorithm()).unwrap();
            let signed = unverified.check_signature(key).unwrap();
            black_box(signed.judge(&policy).unwrap());
        };
        let (input, signature) = case.token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let raw = || assert!((case.raw)(black_box(input.as_bytes()), &signature));
        let mut validation = Validation::new(case.theirs.0);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        let theirs = || {
            let decoded = jsonwebtoken::decode::<serde_json::Value>(&case.token, &case.theirs.1, &validation);
            black_box(decoded.unwrap());
        };
        let count = if case.name == "hs256" { 20_000 } else { 1_000 };
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push([timed(count, ours), timed(count, raw), timed(count, theirs)]);
        }
        let column = |index: usize| median(times.iter().map(|times| times[index]).collect());
        let ratio = |over: usize| median(times.iter().map(|times| times[over] / times[0]).collect());
        println!(
            "cold {} {:.3} {:.3} {:.3} {:.4} {:.4} {}",
            case.name,
            column(0),
            column(1),
            column(2),
            ratio(1),
            ratio(2),
            count * ROUNDS
        );
    }
}

fn policy(algorithm: Algorithm) -> IssuerPolicy {
    IssuerPolicy::new(PolicySettings {
        issuer: ISSUER.into(),
        algorithms: vec![algorithm],
        audiences: vec![AUDIENCE.to_owned()],
        types: vec!["at+jwt".to_owned()],
        allow_missing_type: false,
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        required: vec!["jti".to_owned()],
        paths: ClaimPaths::default(),
        renew_before: Duration::from_secs(120),
        dialect: Dialect::Plain,
        allow_missing_audience: false,
        authorized_parties: Vec::new(),
        own: false,
    })
    .unwrap()
}

fn timed(count: usize, call: impl Fn()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    start.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
