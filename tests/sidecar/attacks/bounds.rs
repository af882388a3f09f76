//! Attacks by dates: of the wrong type, in the future, without end.

use super::Attacked;
use crate::mint::Claims;
use crate::support::{START, assert_denied};
use std::time::Duration;

const NO_DATES: [&str; 12] = [
    "\"1900000900\"",
    "-1",
    "-0.5",
    "1e18",
    "1000000000000000000",
    "18446744073709551616",
    "1900000900000",
    "null",
    "true",
    "[1900000900]",
    "{}",
    "\"\"",
];

#[tokio::test]
async fn exp_as_string_negative_huge_or_no_number_is_refused() {
    let attacked = Attacked::start().await;
    let claims = NO_DATES.map(|exp| (exp, Claims::good().with("exp", exp)));
    attacked.denies_claims("INVALID_CLAIM", claims).await;
}

#[tokio::test]
async fn a_token_without_exp_is_refused() {
    let attacked = Attacked::start().await;
    attacked.denies_claims("MISSING_CLAIM", [("none", Claims::good().without("exp"))]).await;
    let elsewhere = Claims::good().without("exp").with("Exp", START.as_secs() + 900);
    attacked.denies_claims("MISSING_CLAIM", [("in capitals", elsewhere)]).await;
}

#[tokio::test]
async fn exp_with_a_fraction_is_floored() {
    let attacked = Attacked::start().await;
    for exp in ["1900000900.999", "1.9000009e9", "19000009E2"] {
        let token = attacked.ed25519.token(&Claims::good().with("exp", exp));
        let answer = attacked.verify(&token).await.unwrap();
        assert_eq!(answer.expires_at.unwrap().seconds, 1_900_000_900, "{exp}");
        assert_eq!(answer.expires_at.unwrap().nanos, 0, "{exp}");
    }
    let token = attacked.ed25519.token(&Claims::good().with("exp", "1900000900.999"));
    attacked.sidecar.pass(&attacked.hands, Duration::from_millis(930_000)).await;
    assert_denied(attacked.verify(&token).await, "EXPIRED", "REFRESH");
}

#[tokio::test]
async fn a_token_that_lives_longer_than_its_issuer_s_may_is_refused() {
    let attacked = Attacked::start().await;
    const DAY: i64 = 86_400;
    attacked
        .accepts_claims([
            ("a day", Claims::good().at("exp", DAY)),
            ("a day without iat", Claims::good().without("iat").at("exp", DAY)),
        ])
        .await;
    attacked
        .denies_claims(
            "INVALID_CLAIM",
            [
                ("a day and a second", Claims::good().at("exp", DAY + 1)),
                ("nearly over", Claims::good().at("iat", -DAY).at("exp", 1)),
                ("to the year 9999", Claims::good().with("exp", 253_402_300_799_u64)),
            ],
        )
        .await;
}

#[tokio::test]
async fn a_token_without_iat_is_not_valid_long_before_its_end() {
    let attacked = Attacked::start().await;
    const DAY: i64 = 86_400;
    let undated = |exp: i64| Claims::good().without("iat").at("exp", exp);
    attacked.accepts_claims([("a day and the leeway", undated(DAY + 30))]).await;
    let eternal = undated(0).with("exp", 253_402_300_799_u64);
    let early = [("a second more", undated(DAY + 31)), ("to the year 9999", eternal)];
    attacked.denies_claims("NOT_YET_VALID", early).await;
    // What was too early becomes valid, whether it was asked about before or not; a clock set back takes that back.
    attacked.hands.step_wall_to(START.after(Duration::from_secs(60)));
    let token = attacked.ed25519.token(&undated(DAY + 60));
    assert!(attacked.verify(&token).await.is_ok());
    attacked.hands.step_wall_to(START);
    assert_denied(attacked.verify(&token).await, "NOT_YET_VALID", "NONE");
}

#[tokio::test]
async fn a_token_is_accepted_to_its_expiry_and_leeway_and_no_millisecond_longer() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    attacked.sidecar.pass(&attacked.hands, Duration::from_millis(929_999)).await;
    assert!(attacked.verify(&token).await.is_ok());
    attacked.sidecar.pass(&attacked.hands, Duration::from_millis(1)).await;
    assert_denied(attacked.verify(&token).await, "EXPIRED", "REFRESH");
    let same = attacked.p256.token(&Claims::good());
    assert_denied(attacked.verify(&same).await, "EXPIRED", "REFRESH");
}

#[tokio::test]
async fn nbf_or_iat_in_the_future_beyond_leeway_is_refused() {
    let attacked = Attacked::start().await;
    for name in ["nbf", "iat"] {
        attacked.accepts_claims([(name, Claims::good().at(name, 30))]).await;
        attacked
            .denies_claims(
                "NOT_YET_VALID",
                [(name, Claims::good().at(name, 31)), (name, Claims::good().at(name, 600))],
            )
            .await;
    }
}

#[tokio::test]
async fn nbf_iat_and_auth_time_of_a_wrong_type_are_refused_though_optional() {
    let attacked = Attacked::start().await;
    for name in ["nbf", "iat", "auth_time"] {
        let claims = NO_DATES.map(|value| (value, Claims::good().with(name, value)));
        attacked.denies_claims("INVALID_CLAIM", claims).await;
        attacked.accepts_claims([(name, Claims::good().without(name))]).await;
    }
}

#[tokio::test]
async fn a_leeway_makes_no_date_overflow() {
    let attacked = Attacked::start().await;
    let far = 253_402_300_799_u64;
    let claims = Claims::good().with("nbf", far).with("iat", far).with("exp", far);
    attacked.denies_claims("NOT_YET_VALID", [("the end of time", claims)]).await;
    let claims = Claims::good().with("nbf", 0).with("iat", 0).with("exp", 0);
    let token = attacked.ed25519.token(&claims);
    assert_denied(attacked.verify(&token).await, "EXPIRED", "REFRESH");
}
