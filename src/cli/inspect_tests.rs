//! One test for what a report must tell, named for the attack.

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const GOOD_HEADER: &str = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k"}"#;
const GOOD_CLAIMS: &str = r#"{"iss":"i","sub":"s","aud":"a","jti":"j","iat":1799999990,"exp":1800000890}"#;

fn token(header: &str, claims: &str, signature: usize) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(&vec![1; signature]))
}

fn reasons(token: &str) -> Vec<(Reason, bool)> {
    inspect(token, NOW).refusals.iter().map(|refusal| (refusal.reason, refusal.always)).collect()
}

fn with_header(header: &str) -> Vec<(Reason, bool)> {
    reasons(&token(header, GOOD_CLAIMS, 64))
}

fn with_claims(claims: &str) -> Vec<(Reason, bool)> {
    reasons(&token(GOOD_HEADER, claims, 64))
}

#[test]
fn a_good_token_is_shown_with_human_times_and_marked_unverified() {
    let report = inspect(&token(GOOD_HEADER, GOOD_CLAIMS, 64), NOW);
    assert_eq!(report.refusals, []);
    let text = report.to_string();
    assert!(text.starts_with("UNVERIFIED"), "{text}");
    assert!(text.contains("exp: 1800000890  (2027-01-15T08:14:50.000Z, in 14m 50s)"), "{text}");
    assert!(text.contains("iat: 1799999990  (2027-01-15T07:59:50.000Z, 10s ago)"), "{text}");
}

#[test]
fn alg_none_in_any_case_is_told() {
    for alg in ["none", "None", "NONE", " none", "HS255", ""] {
        let found = with_header(&format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"k"}}"#));
        assert_eq!(found, [(Reason::UnsupportedAlgorithm, true)], "{alg}");
    }
    assert_eq!(with_header(r#"{"typ":"JWT"}"#), [(Reason::Malformed, true)]);
    assert_eq!(with_header(r#"{"alg":1,"typ":"JWT"}"#), [(Reason::Malformed, true)]);
}

#[test]
fn crit_b64_and_zip_are_told() {
    for member in [r#""crit":[]"#, r#""crit":["exp"]"#, r#""b64":false"#, r#""zip":"DEF""#] {
        let found = with_header(&format!(r#"{{"alg":"EdDSA","typ":"JWT",{member}}}"#));
        assert_eq!(found, [(Reason::UnsupportedType, true)], "{member}");
    }
}

#[test]
fn a_type_that_is_unusual_is_refused_by_default_only() {
    assert_eq!(with_header(r#"{"alg":"EdDSA"}"#), [(Reason::UnsupportedType, false)]);
    assert_eq!(with_header(r#"{"alg":"EdDSA","typ":"logout+jwt"}"#), [(Reason::UnsupportedType, false)]);
}

#[test]
fn a_kid_that_is_too_long_or_no_text_is_told() {
    let long = "k".repeat(257);
    assert_eq!(
        with_header(&format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{long}"}}"#)),
        [(Reason::Malformed, true)]
    );
    assert_eq!(with_header(r#"{"alg":"EdDSA","typ":"JWT","kid":7}"#), [(Reason::Malformed, true)]);
}

#[test]
fn a_signature_of_an_impossible_length_is_told() {
    for (alg, good) in [("HS256", 32), ("ES256", 64), ("ES384", 96), ("RS256", 256)] {
        let header = format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"k"}}"#);
        assert_eq!(reasons(&token(&header, GOOD_CLAIMS, good)), [], "{alg}");
        assert_eq!(reasons(&token(&header, GOOD_CLAIMS, good - 1)), [(Reason::BadSignature, true)], "{alg}");
        assert_eq!(reasons(&token(&header, GOOD_CLAIMS, 0)), [(Reason::BadSignature, true)], "{alg}");
    }
}

#[test]
fn duplicates_are_told() {
    assert_eq!(
        with_claims(&GOOD_CLAIMS.replace(r#""jti":"j""#, r#""jti":"j","jti":"j""#)),
        [(Reason::Malformed, true)]
    );
    assert_eq!(with_header(r#"{"alg":"none","alg":"EdDSA","typ":"JWT"}"#), [(Reason::Malformed, true)]);
}

#[test]
fn an_expired_token_is_told_with_how_long_ago() {
    let at =
        |exp: u64| GOOD_CLAIMS.replace("1799999990", "1799990000").replace("1800000890", &exp.to_string());
    assert_eq!(with_claims(&at(1_799_996_400)), [(Reason::Expired, true)]);
    assert_eq!(
        with_claims(&at(1_799_999_960)),
        [(Reason::Expired, false)],
        "between usual and largest leeway"
    );
    assert_eq!(with_claims(&at(1_799_999_990)), []);
    let report = inspect(&token(GOOD_HEADER, &at(1_799_996_400), 64), NOW);
    assert_eq!(report.refusals[0].why, "expired 1h ago");
}

#[test]
fn a_token_that_never_expires_or_from_the_future_is_told() {
    assert_eq!(with_claims(r#"{"iss":"i","aud":"a"}"#), [(Reason::MissingClaim, true)]);
    assert_eq!(
        with_claims(r#"{"iss":"i","aud":"a","exp":1800000890,"nbf":1800000300}"#),
        [(Reason::NotYetValid, true)]
    );
    assert_eq!(
        with_claims(r#"{"iss":"i","aud":"a","exp":1900000000,"iat":1799999990}"#),
        [(Reason::InvalidClaim, false)],
        "lives too long"
    );
}

#[test]
fn claims_of_wrong_types_are_told() {
    for exp in ["\"1800000890\"", "-1", "1e18", "null", "true", "[1]"] {
        let found = with_claims(&format!(r#"{{"iss":"i","aud":"a","exp":{exp}}}"#));
        assert_eq!(found, [(Reason::InvalidClaim, true)], "{exp}");
    }
    for aud in ["123", "[\"a\",1]", "{}", "null"] {
        let found = with_claims(&format!(r#"{{"iss":"i","aud":{aud},"exp":1800000890}}"#));
        assert_eq!(found, [(Reason::InvalidClaim, true)], "{aud}");
    }
    assert_eq!(with_claims(r#"{"iss":"i","aud":[],"exp":1800000890}"#), [(Reason::WrongAudience, true)]);
    assert_eq!(with_claims(r#"{"iss":["i"],"aud":"a","exp":1800000890}"#), [(Reason::InvalidClaim, true)]);
}

#[test]
fn what_is_no_compact_jwt_is_told() {
    for bad in ["", ".", "..", "a.b", "a.b.c.d", "{\"payload\":1}", &".".repeat(5000)] {
        let found = reasons(bad);
        assert!(
            !found.is_empty() && found.iter().all(|(reason, _)| *reason == Reason::Malformed),
            "{bad} {found:?}"
        );
    }
    assert_eq!(reasons(&"a".repeat(16_385)), [(Reason::TooLarge, false)]);
}

#[test]
fn base64_with_padding_or_spaces_is_told() {
    let good = token(GOOD_HEADER, GOOD_CLAIMS, 64);
    for bad in [format!("{good}="), format!(" {good}"), format!("{good}\n"), good.replacen('.', "=.", 1)] {
        assert_eq!(reasons(&bad), [(Reason::Malformed, true)], "{bad}");
    }
}

#[test]
fn an_encrypted_cookie_is_recognised_and_its_library_named() {
    let with = |header: &str| format!("{}..AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(header));
    for (header, library) in [
        (r#"{"alg":"dir","enc":"A256GCM"}"#, "NextAuth v4"),
        (r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"k"}"#, "Auth.js v5"),
    ] {
        let report = inspect(&with(header), NOW);
        assert_eq!(report.kind, Kind::Jwe);
        assert_eq!(reasons(&with(header)), [(Reason::UnsupportedType, false)]);
        assert!(report.notes[0].contains(library), "{:?}", report.notes);
    }
}

#[test]
fn what_no_cookie_may_be_is_told() {
    let first = |header: &str, wrapped: &str| {
        let token = format!("{}.{wrapped}.AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(header));
        reasons(&token)[0]
    };
    let good = r#"{"alg":"dir","enc":"A256GCM"}"#;
    assert_eq!(first(good, "AAAA"), (Reason::Malformed, true));
    for (header, reason) in [
        (r#"{"alg":"PBES2-HS512+A256KW","enc":"A256GCM"}"#, Reason::UnsupportedAlgorithm),
        (r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#, Reason::UnsupportedAlgorithm),
        (r#"{"alg":"dir","enc":"A128GCM"}"#, Reason::UnsupportedAlgorithm),
        (r#"{"alg":"dir","enc":"A256GCM","zip":"DEF"}"#, Reason::UnsupportedType),
        (r#"{"enc":"A256GCM"}"#, Reason::Malformed),
        (r#"{"alg":"dir"}"#, Reason::Malformed),
    ] {
        assert_eq!(first(header, ""), (reason, true), "{header}");
    }
}

#[test]
fn opaque_tokens_of_ours_are_recognised_with_their_session() {
    let mut bytes = [0_u8; 60];
    bytes[4..20].copy_from_slice(&[7; 16]);
    bytes[27] = 3;
    let encoded = URL_SAFE_NO_PAD.encode(bytes);
    let handle = Some(Handle { session: SessionId::from_bytes([7; 16]), generation: 3 });
    let refresh = inspect(&format!("csr_{encoded}"), NOW);
    assert_eq!(refresh.kind, Kind::RefreshToken(handle.clone()));
    assert_eq!(refresh.refusals[0].reason, Reason::UnsupportedType, "Verify takes no refresh token");
    let session = inspect(&format!("css_{encoded}"), NOW);
    assert_eq!((session.kind, session.refusals.len()), (Kind::SessionToken(handle), 0));
    assert_eq!(reasons("css_AAAA"), [(Reason::Malformed, true)]);
}

#[test]
fn nothing_in_a_token_moves_the_terminal() {
    let claims = GOOD_CLAIMS.replace("\"s\"", "\"\u{9b}31m\u{202e}\u{7f}\"");
    let text = inspect(&token(GOOD_HEADER, &claims, 64), NOW).to_string();
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}", header in ".{0,60}", claims in ".{0,60}") {
        let _ = inspect(&text, NOW).to_string();
        let _ = inspect(&token(&header, &claims, 64), NOW).to_string();
    }
}

#[test]
fn a_random_uuid_is_told_as_what_auth_js_names_its_rows() {
    let report = inspect("5f1c2a34-9a7e-4c1b-8f00-0123456789ab", NOW);
    assert_eq!(report.kind, Kind::RowName);
    let text = report.to_string();
    assert!(text.contains("Auth.js names sessions") && text.contains("session_table"), "{text}");
    for other in [
        "5f1c2a34-9a7e-1c1b-8f00-0123456789ab",
        "5F1C2A34-9A7E-4C1B-8F00-0123456789AB",
        "5f1c2a34-9a7e-4c1b-8f00",
    ] {
        assert_eq!(inspect(other, NOW).kind, Kind::Unknown, "{other}");
    }
}
