//! One claim or header at a time, then any of them: nothing panics, and jsonwebtoken accepts what we accept.

use super::*;
use crate::clock::Clock;
use crate::token::TokenDigest;
use crate::verify::compact;
use crate::verify::minting::{CLAIMS, ISSUER, NOON, Signer, acceptance, encode, entry, policy, settings};
use crate::verify::policy::PolicySettings;
use jsonwebtoken::{DecodingKey, Validation};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;

static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| Algorithm::ALL.map(Signer::new).into());

/// [`CLAIMS`] with one member replaced, added, or for an empty value taken away.
fn claims_with(name: &str, value: &str) -> String {
    type Members = BTreeMap<String, Box<serde_json::value::RawValue>>;
    let members: Members = serde_json::from_str(CLAIMS).unwrap();
    let mut members: Vec<_> = members
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    if !value.is_empty() {
        members.push(format!("\"{name}\":{value}"));
    }
    format!("{{{}}}", members.join(","))
}

/// What becomes of well-signed claims at [`NOON`], under changed settings.
fn judged<T>(
    claims: &str,
    change: impl FnOnce(&mut PolicySettings),
    then: impl FnOnce(Accepted<'_>) -> T,
) -> Result<T, Reason> {
    let mut settings = settings();
    change(&mut settings);
    let signer = &SIGNERS[0];
    let token = signer.token(signer.header(), claims);
    let policy = IssuerPolicy::new(settings).unwrap();
    signer.accept(&token, &policy, then).map_err(|denied| denied.reason)
}

fn ignored(_: Accepted<'_>) {}

fn reason(name: &str, value: &str) -> Option<Reason> {
    judged(&claims_with(name, value), |_| (), ignored).err()
}

#[test]
fn a_good_token_of_every_algorithm_is_accepted_and_one_changed_is_not() {
    for signer in SIGNERS.iter() {
        let token = signer.token(signer.header(), CLAIMS);
        let said = signer.accept(&token, &policy(), |accepted| {
            assert_eq!(accepted.claims_json(), CLAIMS.as_bytes());
            accepted.subject().to_owned()
        });
        assert_eq!(said.as_deref(), Ok("alice"), "{}", signer.algorithm);
        let (input, _) = token.rsplit_once('.').unwrap();
        let mut signature = signer.sign(input.as_bytes());
        signature[3] ^= 1;
        let changed = format!("{input}.{}", encode(signature));
        let denied = signer.accept(&changed, &policy(), ignored).unwrap_err();
        assert_eq!(denied.reason, Reason::BadSignature, "{}", signer.algorithm);
    }
}

#[test]
fn a_key_of_another_algorithm_checks_nothing() {
    let token = SIGNERS[0].token(SIGNERS[0].header(), CLAIMS);
    for other in &SIGNERS[1..] {
        let denied = other.accept(&token, &policy(), ignored).unwrap_err();
        assert_eq!(denied.reason, Reason::UnsupportedAlgorithm, "{}", other.algorithm);
    }
}

#[test]
fn dates_of_a_wrong_type_are_refused_though_optional() {
    for name in ["exp", "nbf", "iat", "auth_time"] {
        for value in ["\"1800000000\"", "-1", "1e18", "[1800000000]", "{}", "true", "null"] {
            assert_eq!(reason(name, value), Some(Reason::InvalidClaim), "{name}: {value}");
        }
    }
    assert_eq!(reason("exp", ""), Some(Reason::MissingClaim));
}

#[test]
fn a_life_ends_after_it_began_and_is_no_longer_than_it_may_be() {
    let day = 86_400;
    assert_eq!(reason("exp", &(1_800_000_000 + day).to_string()), None);
    assert_eq!(reason("exp", &(1_800_000_001 + day).to_string()), Some(Reason::InvalidClaim));
    assert_eq!(reason("exp", "1799999999"), Some(Reason::InvalidClaim), "before iat");
    for exp in ["1700000000", "1900000000"] {
        let undated = claims_with("iat", "").replace("1800000900", exp);
        assert!(judged(&undated, |_| (), ignored).is_ok(), "what depends on the time is asked elsewhere");
    }
}

#[test]
fn a_login_is_the_configured_claim_else_auth_time_else_iat_and_never_after_the_token() {
    let login = |claims: &str, path: Option<&str>| {
        let path = path.map(|path| ClaimPath::parse(path).unwrap());
        judged(claims, |settings| settings.paths.login = path, |accepted| accepted.logged_in_at).unwrap()
    };
    let at = |seconds| Some(Timestamp::from_secs(seconds));
    assert_eq!(login(CLAIMS, None), at(1_799_999_000));
    let both = claims_with("began", "1799990000");
    assert_eq!(login(&both, Some("began")), at(1_799_990_000));
    assert_eq!(login(CLAIMS, Some("began")), at(1_799_999_000));
    assert_eq!(login(&claims_with("auth_time", ""), Some("began")), Some(NOON));
    assert_eq!(login(&claims_with("auth_time", "1800000500"), None), Some(NOON));
    let neither = claims_with("auth_time", "").replace(r#""iat":1800000000,"#, "");
    assert_eq!(login(&neither, None), None);
}

#[test]
fn only_our_own_tokens_name_policy_login_and_version() {
    let claims = CLAIMS.replacen('{', r#"{"pol":"medium","sct":1799999000750,"sav":3,"#, 1);
    let named = |own: bool| {
        let said = |accepted: Accepted<'_>| {
            (accepted.policy().map(str::to_owned), accepted.logged_in_at, accepted.claims_version)
        };
        judged(&claims, |settings| settings.own = own, said).unwrap()
    };
    let stamp = Some(Timestamp::from_millis(1_799_999_000_750));
    assert_eq!(named(true), (Some("medium".into()), stamp, Some(3)));
    assert_eq!(named(false), (None, Some(Timestamp::from_secs(1_799_999_000)), None));
    for (name, value) in
        [("pol", "1"), ("pol", "\"\""), ("sct", "1.5"), ("sct", "-1"), ("sav", "-1"), ("sav", "\"3\"")]
    {
        let odd = claims_with(name, value);
        assert_eq!(
            judged(&odd, |settings| settings.own = true, ignored),
            Err(Reason::InvalidClaim),
            "{name}"
        );
    }
}

#[test]
fn a_token_is_named_by_its_id_or_its_signing_input_and_never_by_its_signature() {
    let signer = &SIGNERS[9];
    for claims in [CLAIMS.to_owned(), claims_with("jti", "")] {
        let input = format!("{}.{}", encode(signer.header()), encode(claims));
        // ECDSA signs twice, and differently.
        let keys = [0, 1].map(|_| {
            let token = format!("{input}.{}", encode(signer.sign(input.as_bytes())));
            let marks = signer.accept(&token, &policy(), |accepted| accepted.marks(&policy())).unwrap();
            marks.token.unwrap()
        });
        assert_eq!(keys[0], keys[1]);
    }
    let by_input = claims_with("jti", "");
    let input = format!("{}.{}", encode(signer.header()), encode(&by_input));
    let token = signer.token(signer.header(), &by_input);
    let marks = signer.accept(&token, &policy(), |accepted| accepted.marks(&policy())).unwrap();
    assert_eq!(marks.token, Some(DenialKey::signing_input(ISSUER, input.as_bytes())));
}

#[test]
fn nothing_shows_a_token_or_a_claim_in_debug() {
    let signer = &SIGNERS[0];
    let token = signer.token(signer.header(), CLAIMS);
    let decoded = compact::decode(&token, 16 * 1024).unwrap();
    let unverified = Unverified::parse(&decoded).unwrap();
    let mut shown = format!("{decoded:?}{:?}{:?}", unverified.claims, unverified.decoded);
    shown += &signer.accept(&token, &policy(), |accepted| format!("{accepted:?}")).unwrap();
    assert!(!shown.contains("alice") && !shown.contains("eyJ") && !shown.contains("t1"), "{shown}");
}

/// Whether a token is accepted at this instant, the last step's time included.
fn accepted_at(token: &str, signer: &Signer, now: Timestamp) -> bool {
    let entry = entry();
    let digest = TokenDigest::of(token.as_bytes());
    signer
        .accept(token, &policy(), |accepted| acceptance(&accepted, digest, &entry).check_time(now).is_ok())
        .unwrap_or_default()
}

/// What jsonwebtoken says under the settings that come nearest to ours.
fn reference(token: &str, signer: &Signer) -> Result<(), String> {
    let jwk = serde_json::from_value(signer.jwk.clone()).unwrap();
    let mut validation = Validation::new(signer.algorithm.as_str().parse().unwrap());
    validation.set_audience(&["shop", "bank"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.validate_nbf = true;
    validation.leeway = 60;
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Claims moved from [`NOON`] to the machine's clock, by which jsonwebtoken judges.
fn moved(claims: &str, now: Timestamp) -> String {
    [1_799_999_000, 1_800_000_000, 1_800_000_900].iter().fold(claims.to_owned(), |claims, at| {
        claims.replace(&at.to_string(), &(now.as_secs() + at - NOON.as_secs()).to_string())
    })
}

fn changed(token: &str, at: usize, with: char) -> String {
    let mut letters: Vec<char> = token.chars().collect();
    let at = at % letters.len();
    letters[at] = with;
    letters.into_iter().collect()
}

/// A value for a claim: often a date near now, else what some claim might take, and some that none does.
fn value() -> impl Strategy<Value = String> {
    let date = (-2_000_i64..2_000, 0_u8..4).prop_map(|(offset, digit)| {
        // Away from the leeway's edge: the two clocks are read one after the other, and a fraction is floored by us.
        let offset = if (50..70).contains(&offset.abs()) { offset * 2 } else { offset };
        let seconds = Clock::system().now().judged.as_secs().saturating_add_signed(offset);
        if digit == 0 { format!("{seconds}.{offset}").replace('-', "") } else { seconds.to_string() }
    });
    let others = [
        "null",
        "true",
        "-1",
        "1e18",
        "1.9e9",
        "[]",
        "{}",
        "\"\"",
        "0",
        "\"shop\"",
        "[\"shop\"]",
        "[\"shop\",\"x\"]",
        "[\"shop\",1]",
        "\"\\u0073hop\"",
        "\"https://login.example.net\"",
        "[\"https://login.example.net\"]",
        "\"read\"",
        "",
    ];
    prop_oneof![2 => date, 3 => prop::sample::select(others.to_vec()).prop_map(str::to_owned)]
}

proptest! {
    #[test]
    fn no_text_panics(token in any::<String>()) {
        if let Ok(decoded) = compact::decode(&token, 16 * 1024) {
            let _ = Unverified::parse(&decoded);
        }
    }

    #[test]
    fn no_text_of_a_token_s_letters_panics(token in "[A-Za-z0-9_=-]{0,40}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,40}") {
        if let Ok(decoded) = compact::decode(&token, 16 * 1024) {
            let _ = Unverified::parse(&decoded);
        }
    }

    #[test]
    fn no_signed_bytes_panic(header in any::<Vec<u8>>(), claims in any::<Vec<u8>>()) {
        let signer = &SIGNERS[0];
        prop_assert!(signer.accept(&signer.token(&header, CLAIMS), &policy(), ignored).is_err());
        prop_assert!(signer.accept(&signer.token(signer.header(), &claims), &policy(), ignored).is_err());
    }

    #[test]
    fn a_changed_token_is_never_accepted(at in any::<usize>(), with in "[A-Za-z0-9_.=-]", which in 0_usize..12) {
        let signer = &SIGNERS[which];
        let token = signer.token(signer.header(), CLAIMS);
        let odd = changed(&token, at, with.chars().next().unwrap());
        prop_assert!(odd == token || signer.accept(&odd, &policy(), ignored).is_err());
    }

    #[test]
    fn changed_claims_are_refused_or_read_as_everybody_reads_them(at in any::<usize>(), with in any::<char>()) {
        let claims = changed(CLAIMS, at, with);
        let read = judged(&claims, |_| (), |accepted| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let ids = [own(accepted.token_id()), own(accepted.session_id()), own(accepted.client_id())];
            (accepted.subject().to_owned(), ids, accepted.expires_at().as_secs())
        });
        if let Ok((subject, [token_id, session_id, client_id], expires_at)) = read {
            let reference: serde_json::Value = serde_json::from_str(&claims).unwrap();
            let text = |name: &str| reference[name].as_str().map(str::to_owned);
            prop_assert_eq!(Some(subject), text("sub"));
            prop_assert_eq!((token_id, session_id), (text("jti"), text("sid")));
            prop_assert_eq!(client_id, text("client_id").or_else(|| text("azp")));
            let floored = reference["exp"].as_f64().map(f64::floor);
            prop_assert_eq!(u32::try_from(expires_at).ok().map(f64::from), floored);
        }
    }

    #[test]
    fn jsonwebtoken_accepts_whatever_claims_we_accept(
        which in prop::sample::select(&[0_usize, 3, 6, 9, 11][..]),
        changes in prop::collection::vec((
            prop::sample::select(&["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "sid", "scope", "other"][..]),
            value(),
        ), 0..3),
    ) {
        let (signer, now) = (&SIGNERS[which], Clock::system().now().judged);
        let mut claims = moved(CLAIMS, now);
        for (name, value) in changes {
            let members: serde_json::Map<_, _> = serde_json::from_str(&claims).unwrap();
            let kept = members.iter().filter(|(other, _)| *other != name).map(|(name, value)| format!("\"{name}\":{value}"));
            let put = (!value.is_empty()).then(|| format!("\"{name}\":{value}"));
            claims = format!("{{{}}}", kept.chain(put).collect::<Vec<_>>().join(","));
        }
        let token = signer.token(signer.header(), &claims);
        if accepted_at(&token, signer, now) {
            prop_assert_eq!(reference(&token, signer), Ok(()), "{}", claims);
        }
    }
}

#[test]
fn jsonwebtoken_accepts_what_we_accept_under_every_algorithm() {
    let now = Clock::system().now().judged;
    for signer in SIGNERS.iter() {
        let token = signer.token(signer.header(), moved(CLAIMS, now));
        assert!(accepted_at(&token, signer, now), "{}", signer.algorithm);
        assert_eq!(reference(&token, signer), Ok(()), "{}", signer.algorithm);
    }
}
