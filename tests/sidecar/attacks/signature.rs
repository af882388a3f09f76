//! Attacks on signatures: other keys, other algorithms, other spellings of a good one.

use super::{Attacked, LEGACY, PARTNER, SHARED};
use crate::mint::{Claims, Key, LOGIN, encode, input, parts};
use crate::support::assert_denied;

#[tokio::test]
async fn hs256_signed_with_the_rsa_public_key_is_refused() {
    let attacked = Attacked::start().await;
    let jwk = attacked.rsa.jwk();
    let modulus = jwk["n"].as_str().unwrap();
    let secrets = [
        ("as PEM", attacked.rsa.pem().into_bytes()),
        ("as PEM without its last newline", attacked.rsa.pem().trim_end().as_bytes().to_vec()),
        ("as DER", attacked.rsa.der()),
        ("as JWK", jwk.to_string().into_bytes()),
        ("its modulus", modulus.as_bytes().to_vec()),
        ("the key set", std::fs::read(attacked.home.path("login.json")).unwrap()),
    ];
    for (what, secret) in secrets {
        let forger = Key::secret(secret).called("rsa");
        for algorithm in ["HS256", "HS384", "HS512"] {
            let token = forger.token_for(algorithm, &Claims::good());
            attacked.denies_each("UNSUPPORTED_ALGORITHM", [(what, token)]).await;
        }
    }
}

#[tokio::test]
async fn an_algorithm_is_bound_to_its_key() {
    let attacked = Attacked::start().await;
    let claims = Claims::good().text();
    for (algorithm, kid) in [
        ("ES256", "p384"),
        ("ES384", "p256"),
        ("EdDSA", "p256"),
        ("ES256", "ed25519"),
        ("RS256", "p256"),
        ("ES256", "rsa"),
        ("PS256", "ed25519"),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"at+jwt","kid":"{kid}"}}"#);
        for key in [&attacked.rsa, &attacked.p256, &attacked.p384, &attacked.ed25519] {
            attacked.denies_each("UNSUPPORTED_ALGORITHM", [(kid, key.token_of(&header, &claims))]).await;
        }
    }
    // RSA's two paddings and three hashes share a key and not a signature.
    for (said, done) in [("RS256", "PS256"), ("PS256", "RS256"), ("RS256", "RS512"), ("PS384", "PS256")] {
        let input = input(attacked.rsa.header_for(said), &claims);
        let token = format!("{input}.{}", encode(attacked.rsa.sign(done, &input)));
        attacked.denies_each("BAD_SIGNATURE", [(said, token)]).await;
    }
}

#[tokio::test]
async fn an_algorithm_the_issuer_does_not_use_is_refused() {
    let attacked = Attacked::start().await;
    // Another HMAC under the very secret, and a public key where there is only a secret.
    let secret = Key::secret([7; 64]);
    let tokens = ["HS384", "HS512"].map(|name| (name, secret.token_for(name, &Claims::of(LEGACY))));
    attacked.denies_each("UNSUPPORTED_ALGORITHM", tokens).await;
    let token = attacked.ed25519.token(&Claims::of(LEGACY));
    attacked.denies_each("UNSUPPORTED_ALGORITHM", [("EdDSA", token)]).await;
}

#[tokio::test]
async fn issuer_a_s_token_signed_by_issuer_b_s_key_is_refused() {
    let attacked = Attacked::start().await;
    // Both have a key of this name.
    let forged = attacked.partner.token(&Claims::of(LOGIN));
    attacked.denies_each("BAD_SIGNATURE", [("a key of the same name", forged)]).await;
    let forged = attacked.rsa.token(&Claims::of(PARTNER));
    attacked.denies_each("UNKNOWN_KEY", [("a key of A's alone", forged)]).await;
    let forged = Key::secret(SHARED).token(&Claims::of(LOGIN));
    attacked.denies_each("UNSUPPORTED_ALGORITHM", [("a secret shared with B", forged)]).await;
    let own = crate::support::ISSUER;
    let forged = attacked.ed25519.token(&Claims::of(own));
    attacked.denies_each("UNKNOWN_KEY", [("A's token in our own name", forged)]).await;
}

#[tokio::test]
async fn an_issuer_is_equal_to_the_letter_or_unknown() {
    let attacked = Attacked::start().await;
    let tokens = [
        "https://login.example.net/",
        "HTTPS://login.example.net",
        "https://LOGIN.example.net",
        "https://login.example.net:443",
        "https://login.example.net.evil.example",
        "http://login.example.net",
        "login.example.net",
        " https://login.example.net",
        "https://login.example.net ",
        "https://login.example.net\\u0000",
        "https://l\u{3bf}gin.example.net",
    ]
    .map(|issuer| (issuer, attacked.ed25519.token(&Claims::of(issuer))));
    attacked.denies_each("UNKNOWN_ISSUER", tokens).await;
    let escaped = Claims::good().with("iss", r#""https:\/\/login.example.net""#);
    attacked.accepts_claims([("an escape that means the same", escaped)]).await;
}

#[tokio::test]
async fn changed_cut_or_missing_signatures_are_refused() {
    let attacked = Attacked::start().await;
    for key in [&attacked.rsa, &attacked.p256, &attacked.p384, &attacked.ed25519] {
        let token = key.token(&Claims::good());
        assert!(attacked.verify(&token).await.is_ok());
        let [header, claims, signature] = parts(&token);
        let bytes = base64(signature);
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        let admin = encode(Claims::good().with("sub", "\"admin\"").text());
        let odd = [
            ("one bit", format!("{header}.{claims}.{}", encode(&flipped))),
            ("no signature", format!("{header}.{claims}.")),
            ("half of it", format!("{header}.{claims}.{}", encode(&bytes[..bytes.len() / 2]))),
            ("one byte less", format!("{header}.{claims}.{}", encode(&bytes[..bytes.len() - 1]))),
            ("a zero more", format!("{header}.{claims}.{}", encode([&bytes[..], &[0]].concat()))),
            ("a zero before", format!("{header}.{claims}.{}", encode([&[0], &bytes[..]].concat()))),
            ("all zeros", format!("{header}.{claims}.{}", encode(vec![0; bytes.len()]))),
            ("other claims", format!("{header}.{admin}.{signature}")),
        ];
        attacked.denies_each("BAD_SIGNATURE", odd).await;
    }
    let mac = Key::secret(SHARED).token(&Claims::of(LEGACY));
    let [header, claims, signature] = parts(&mac);
    let odd = [0, 1, 16, 31].map(|bytes| {
        ("a truncated MAC", format!("{header}.{claims}.{}", encode(&base64(signature)[..bytes])))
    });
    attacked.denies_each("BAD_SIGNATURE", odd).await;
}

#[tokio::test]
async fn es256_and_es384_r_or_s_of_zero_n_too_long_or_der_are_refused() {
    let attacked = Attacked::start().await;
    for (key, order) in [(&attacked.p256, &P256_ORDER[..]), (&attacked.p384, &P384_ORDER[..])] {
        let token = key.token(&Claims::good());
        let (input, signature) = token.rsplit_once('.').unwrap();
        let good = base64(signature);
        let (r, s) = good.split_at(order.len());
        let zero = vec![0; order.len()];
        let odd = [
            ("r = s = 0", [&zero[..], &zero].concat()),
            ("r = 0", [&zero[..], s].concat()),
            ("s = 0", [r, &zero].concat()),
            ("r = n", [order, s].concat()),
            ("s = n", [r, order].concat()),
            ("r and s swapped", [s, r].concat()),
            ("too long by leading zeros", [&[0], r, &[0], s].concat()),
            ("too short", [&r[1..], &s[1..]].concat()),
            ("r alone", r.to_vec()),
            ("DER", der(r, s)),
        ];
        let odd = odd.map(|(what, signature)| (what, format!("{input}.{}", encode(signature))));
        attacked.denies_each("BAD_SIGNATURE", odd).await;
    }
}

#[tokio::test]
async fn es256_malleability_gives_two_tokens_and_revoking_one_revokes_both() {
    let attacked = Attacked::start().await;
    for claims in [Claims::good(), Claims::good().without("jti")] {
        let one = attacked.p256.token(&claims);
        let (input, signature) = one.rsplit_once('.').unwrap();
        let good = base64(signature);
        let (r, s) = good.split_at(32);
        let other = format!("{input}.{}", encode([r, &negated(s)].concat()));
        assert_ne!(one, other);
        // Only one of the two is in the cache when it is taken back through the other.
        assert!(attacked.verify(&one).await.is_ok());
        attacked.revoke(&other).await;
        assert_denied(attacked.verify(&one).await, "REVOKED", "REFRESH");
        assert_denied(attacked.verify(&other).await, "REVOKED", "REFRESH");
    }
    let spared = attacked.p256.token(&Claims::good().with("jti", "\"t2\""));
    let (input, signature) = spared.rsplit_once('.').unwrap();
    let (r, s) = (base64(signature)[..32].to_vec(), base64(signature)[32..].to_vec());
    assert!(attacked.verify(&format!("{input}.{}", encode([&r[..], &negated(&s)].concat()))).await.is_ok());
}

#[tokio::test]
async fn eddsa_malleability_by_adding_the_order_is_refused() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let good = base64(signature);
    let mut carry = 0_u16;
    let shifted: Vec<u8> = good[32..]
        .iter()
        .zip(ED25519_ORDER)
        .map(|(s, l)| {
            let sum = u16::from(*s) + u16::from(l) + carry;
            carry = sum >> 8;
            sum.to_le_bytes()[0]
        })
        .collect();
    let token = format!("{input}.{}", encode([&good[..32], &shifted].concat()));
    attacked.denies_each("BAD_SIGNATURE", [("s + l", token)]).await;
}

fn base64(part: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// FIPS 186-4 §D.1.2.3.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// FIPS 186-4 §D.1.2.4.
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];
/// RFC 8032 §5.1, little-endian.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The order of P-256 less `s`: the other signature that the same key verifies.
fn negated(s: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut negated: Vec<u8> = P256_ORDER
        .iter()
        .zip(s)
        .rev()
        .map(|(n, s)| {
            let difference = 256 + u16::from(*n) - u16::from(*s) - borrow;
            borrow = u16::from(difference < 256);
            difference.to_le_bytes()[0]
        })
        .collect();
    negated.reverse();
    negated
}

/// SEQUENCE { INTEGER r, INTEGER s }, as every other use of ECDSA has it.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let positive = if number[0] & 0x80 == 0 { number.to_vec() } else { [&[0], number].concat() };
        [&[0x02, u8::try_from(positive.len()).unwrap()], &positive[..]].concat()
    };
    let both = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(both.len()).unwrap()], &both[..]].concat()
}
