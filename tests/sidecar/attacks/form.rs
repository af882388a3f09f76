//! Attacks on a token's form: its parts, their encoding, its header.

use super::Attacked;
use crate::issuer::Site;
use crate::mint::{Claims, Key, encode, input, jwks, parts};
use crate::support::assert_denied;
use serde_json::json;

#[tokio::test]
async fn alg_none_in_any_case_is_refused_before_any_key_is_looked_up() {
    let attacked = Attacked::start().await;
    // An issuer that is not configured would be noticed before its keys: it is not even looked at.
    for issuer in [crate::mint::LOGIN, "https://nobody.example.com"] {
        for name in ["none", "None", "NONE", "nOnE", "none "] {
            let header = format!(r#"{{"alg":"{name}","typ":"at+jwt","kid":"ed25519"}}"#);
            let unsigned = input(&header, Claims::of(issuer).text());
            let signed = attacked.ed25519.signed(&unsigned);
            let tokens = [(name, format!("{unsigned}.")), (name, signed)];
            attacked.denies_each("UNSUPPORTED_ALGORITHM", tokens).await;
        }
    }
}

#[tokio::test]
async fn a_leading_space_or_another_spelling_of_alg_is_refused() {
    let attacked = Attacked::start().await;
    let header = |name: &str| format!(r#"{{"alg":"{name}","typ":"at+jwt","kid":"ed25519"}}"#);
    let names = [" EdDSA", "EdDSA ", "eddsa", "EDDSA", "Ed25519", "EdDSA\\u0000", "", "HS1", "ES256K"];
    let tokens = names.map(|name| (name, attacked.ed25519.token_of(header(name), Claims::good().text())));
    attacked.denies_each("UNSUPPORTED_ALGORITHM", tokens).await;
    for alg in ["null", "[\"EdDSA\"]", "{}", "1"] {
        let header = format!(r#"{{"alg":{alg},"typ":"at+jwt","kid":"ed25519"}}"#);
        let token = attacked.ed25519.token_of(header, Claims::good().text());
        attacked.denies_each("MALFORMED", [(alg, token)]).await;
    }
    let without = attacked.ed25519.token_of(r#"{"typ":"at+jwt"}"#, Claims::good().text());
    attacked.denies_each("MALFORMED", [("no alg", without)]).await;
}

#[tokio::test]
async fn a_kid_as_path_sql_or_command_is_only_a_name() {
    let attacked = Attacked::start().await;
    let kids =
        ["../../../../dev/null", "' OR '1'='1' --", "|/usr/bin/id", "$(id)", "ED25519", "ed25519 ", ""];
    let tokens = kids.map(|kid| {
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid}).to_string();
        (kid, attacked.ed25519.token_of(header, Claims::good().text()))
    });
    attacked.denies_each("UNKNOWN_KEY", tokens).await;
    // dev/null's content as the secret of an HMAC.
    let header = r#"{"alg":"HS256","typ":"at+jwt","kid":"/dev/null"}"#;
    let empty = Key::secret([]).token_of(header, Claims::of(super::LEGACY).text());
    attacked.denies_each("BAD_SIGNATURE", [("an empty secret", empty)]).await;
}

#[tokio::test]
async fn a_kid_of_10_kb_or_of_another_type_is_refused() {
    let attacked = Attacked::start().await;
    let long = format!("\"{}\"", "k".repeat(10_000));
    let just_too_long = format!("\"{}\"", "k".repeat(257));
    for kid in [long.as_str(), &just_too_long, "7", "null", "[\"ed25519\"]"] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":{kid}}}"#);
        let token = attacked.ed25519.token_of(header, Claims::good().text());
        attacked.denies_each("MALFORMED", [(&kid[..kid.len().min(20)], token)]).await;
    }
    let longest = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, "k".repeat(256));
    let token = attacked.ed25519.token_of(longest, Claims::good().text());
    attacked.denies_each("UNKNOWN_KEY", [("256 bytes", token)]).await;
}

#[tokio::test]
async fn keys_named_or_carried_in_a_header_are_never_used_nor_fetched() {
    let attacked = Attacked::start().await;
    let site = Site::open().await;
    let evil = Key::ed25519("ed25519");
    site.publish("/jwks.json", jwks([&evil]));
    let certificate = encode(evil.der());
    let url = site.url("/jwks.json");
    for member in [
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"jwk": evil.jwk()}),
        json!({"x5c": [certificate]}),
        json!({"jku": url, "x5u": url, "jwk": evil.jwk(), "x5c": [certificate], "x5t": "AAAA"}),
    ] {
        let mut header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "ed25519"});
        header.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        let header = header.to_string();
        let forged = evil.token_of(&header, Claims::good().text());
        attacked.denies_each("BAD_SIGNATURE", [("signed by the key it names", forged)]).await;
        let good = attacked.ed25519.token_of(&header, Claims::good().text());
        assert!(attacked.verify(&good).await.is_ok(), "{member} is ignored");
        let nameless = header.replace(r#""kid":"ed25519""#, r#""kid":"evil""#);
        let forged = evil.token_of(nameless, Claims::good().text());
        attacked.denies_each("UNKNOWN_KEY", [("under a name of its own", forged)]).await;
    }
    assert_eq!(site.requests(), 0);
}

#[tokio::test]
async fn any_crit_even_an_empty_one_is_refused() {
    let attacked = Attacked::start().await;
    for crit in ["[]", "[\"exp\"]", "[\"b64\"]", "[\"http://evil.example.com\"]", "\"exp\"", "null", "{}"] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"ed25519","exp":1,"crit":{crit}}}"#);
        let token = attacked.ed25519.token_of(header, Claims::good().text());
        attacked.denies_each("UNSUPPORTED_TYPE", [(crit, token)]).await;
    }
}

#[tokio::test]
async fn an_unencoded_payload_is_refused_however_it_is_announced() {
    let attacked = Attacked::start().await;
    let claims = Claims::good().text();
    for member in [r#""b64":false"#, r#""b64":true"#, r#""b64":false,"crit":["b64"]"#] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"ed25519",{member}}}"#);
        let encoded = attacked.ed25519.token_of(&header, &claims);
        attacked.denies_each("UNSUPPORTED_TYPE", [(member, &encoded)]).await;
        // RFC 7797: the payload stands there as it is. Ours has a dot in its issuer, and quotes.
        let raw = attacked.ed25519.signed(&format!("{}.{claims}", encode(&header)));
        assert!(attacked.verify(&raw).await.is_err());
        let (header, signature) = (encode(&header), parts(&encoded)[2].to_owned());
        assert_denied(attacked.verify(&format!("{header}..{signature}")).await, "UNSUPPORTED_TYPE", "NONE");
    }
}

#[tokio::test]
async fn a_compressed_token_is_refused() {
    let attacked = Attacked::start().await;
    let header = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"ed25519","zip":"DEF"}"#;
    let token = attacked.ed25519.token_of(header, Claims::good().text());
    attacked.denies_each("UNSUPPORTED_TYPE", [("zip", token)]).await;
}

#[tokio::test]
async fn duplicate_members_are_refused_in_header_and_claims_nested_and_escaped_too() {
    let attacked = Attacked::start().await;
    let good = Claims::good().text();
    for twin in [
        r#""alg":"EdDSA""#,
        r#""alg":"none""#,
        r#""\u0061lg":"EdDSA""#,
        r#""kid":"rsa""#,
        r#""x":{"a":1,"a":1}"#,
        r#""x":[[{"a":1,"\u0061":1}]]"#,
    ] {
        let header = attacked.ed25519.header();
        let before = attacked.ed25519.token_of(header.replacen('{', &format!("{{{twin},"), 1), &good);
        let after = attacked.ed25519.token_of(header.replacen('}', &format!(",{twin}}}"), 1), &good);
        attacked.denies_each("MALFORMED", [(twin, before), (twin, after)]).await;
    }
    for twin in [
        r#""sub":"admin""#,
        r#""s\u0075b":"admin""#,
        r#""exp":9999999999"#,
        r#""iss":"https://partner.example.org""#,
        r#""x":{"a":1,"a":2}"#,
        r#""x":[{"deep":{"a":1,"b":2,"a":3}}]"#,
    ] {
        let claims = good.replacen('{', &format!("{{{twin},"), 1);
        let claims = if twin.contains("\"x\"") { claims } else { claims.replacen('}', ",\"y\":1}", 1) };
        let token = attacked.ed25519.token_of(attacked.ed25519.header(), claims);
        attacked.denies_each("MALFORMED", [(twin, token)]).await;
    }
}

#[tokio::test]
async fn a_duplicate_after_many_members_is_refused() {
    let attacked = Attacked::start().await;
    let many: String = (0..200).map(|number| format!("\"m{number}\":{number},")).collect();
    let claims = Claims::good().text();
    let accepted =
        attacked.ed25519.token_of(attacked.ed25519.header(), claims.replacen('{', &format!("{{{many}"), 1));
    assert!(attacked.verify(&accepted).await.is_ok());
    let twice = claims.replacen('{', &format!("{{{many}\"m7\":7,"), 1);
    let token = attacked.ed25519.token_of(attacked.ed25519.header(), twice);
    attacked.denies_each("MALFORMED", [("m7", token)]).await;
}

#[tokio::test]
async fn padded_spaced_wrapped_and_non_canonical_base64_is_refused() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    assert!(attacked.verify(&token).await.is_ok(), "and kept, so that no look-alike may find it");
    let [header, claims, signature] = parts(&token);
    // 64 bytes leave four bits over, which have to be zero.
    let respelled = |part: &str, by: usize| {
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = ALPHABET.find(part.chars().last().unwrap()).unwrap();
        format!("{}{}", &part[..part.len() - 1], &ALPHABET[last + by..=last + by])
    };
    let odd = [
        ("padding", format!("{token}=")),
        ("two of it", format!("{token}==")),
        ("trailing bits", format!("{header}.{claims}.{}", respelled(signature, 1))),
        ("other trailing bits", format!("{header}.{claims}.{}", respelled(signature, 15))),
        ("a space before", format!(" {token}")),
        ("a space after", format!("{token} ")),
        ("a newline after", format!("{token}\n")),
        ("a newline and return", format!("{token}\r\n")),
        ("a wrapped line", format!("{}\n{}", &token[..76], &token[76..])),
        ("spaces around dots", format!("{header} . {claims} . {signature}")),
        ("padding inside", format!("{header}=.{claims}.{signature}")),
        ("the other alphabet", token.replace(['-', '_'], "+")),
        ("percent encoding", format!("{header}%2E{claims}%2E{signature}")),
        ("a scheme", format!("Bearer {token}")),
        ("quotes", format!("\"{token}\"")),
        ("a zero byte", format!("{token}\0")),
        ("full stops of another script", format!("{header}。{claims}。{signature}")),
    ];
    let odd = odd.into_iter().filter(|(_, odd)| *odd != token);
    attacked.denies_each("MALFORMED", odd).await;
}

#[tokio::test]
async fn the_json_serialization_and_any_other_number_of_parts_are_refused() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    let [header, claims, signature] = parts(&token);
    let general = json!({"payload": claims, "signatures": [{"protected": header, "signature": signature}]});
    let flat = json!({"protected": header, "payload": claims, "signature": signature});
    let odd = [
        ("flattened JSON", flat.to_string()),
        ("general JSON", general.to_string()),
        ("one part", header.to_owned()),
        ("two parts", format!("{header}.{claims}")),
        ("an empty fourth", format!("{token}.")),
        ("an empty first", format!(".{token}")),
        ("four parts", format!("{token}.{signature}")),
        ("six parts", format!("{token}.{token}")),
        ("nothing", String::new()),
        ("a dot", ".".to_owned()),
        ("only dots", "..".to_owned()),
        ("thousands of dots", ".".repeat(10_000)),
        ("a token and thousands of dots", format!("{token}{}", ".".repeat(10_000))),
    ];
    attacked.denies_each("MALFORMED", odd).await;
    attacked.denies_each("TOO_LARGE", [("more dots than a token may have bytes", ".".repeat(16_385))]).await;
}

#[tokio::test]
async fn an_encrypted_token_is_refused_by_name_whatever_it_asks_for() {
    let attacked = Attacked::start().await;
    for alg in ["RSA1_5", "RSA-OAEP", "PBES2-HS256+A128KW", "ECDH-ES", "dir", "A128KW"] {
        let header = json!({"alg": alg, "enc": "A128GCM", "zip": "DEF", "p2c": 2_147_483_647, "p2s": "AAAA"});
        let token = format!("{}.AAAA.AAAA.AAAA.AAAA", encode(header.to_string()));
        attacked.denies_each("UNSUPPORTED_TYPE", [(alg, token)]).await;
    }
    attacked.denies_each("UNSUPPORTED_TYPE", [("direct, without a key", "e30..AAAA.AAAA.AAAA")]).await;
}

#[tokio::test]
async fn what_is_not_one_strict_json_object_is_refused_though_well_signed() {
    let attacked = Attacked::start().await;
    let (key, good) = (&attacked.ed25519, Claims::good().text());
    let odd: [(&str, Vec<u8>); 10] = [
        ("a second object", format!("{good}{{}}").into()),
        ("a comment", good.replacen('{', "{/**/", 1).into()),
        ("a trailing comma", good.replacen('}', ",}", 1).into()),
        ("a byte order mark", format!("\u{feff}{good}").into()),
        (
            "bytes that are no UTF-8",
            good.replace("alice", "al\u{1}ce").replace('\u{1}', "\u{e9}").into_bytes(),
        ),
        ("an array", format!("[{good}]").into()),
        ("a string", serde_json::to_vec(&good).unwrap()),
        ("nothing", Vec::new()),
        ("NaN", good.replacen('{', "{\"x\":NaN,", 1).into()),
        ("a lone surrogate", good.replace("alice", "\\ud800").into()),
    ];
    for (what, mut claims) in odd {
        if what.contains("UTF-8") {
            // The second byte of é alone.
            let at = claims.iter().position(|byte| *byte == 0xc3).unwrap();
            claims.remove(at);
        }
        attacked.denies_each("MALFORMED", [(what, key.token_of(key.header(), claims))]).await;
    }
    for (what, header) in [("an array", "[]"), ("a string", "\"EdDSA\""), ("no JSON", "alg=EdDSA")] {
        attacked.denies_each("MALFORMED", [(what, key.token_of(header, &good))]).await;
    }
}

#[tokio::test]
async fn deep_nesting_is_refused_and_exhausts_nothing() {
    let attacked = Attacked::start().await;
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        attacked.ed25519.token(&Claims::good().with("x", value))
    };
    assert!(attacked.verify(&nested(31)).await.is_ok());
    attacked.denies_each("MALFORMED", [("33 deep", nested(32)), ("5000 deep", nested(5000))]).await;
}
