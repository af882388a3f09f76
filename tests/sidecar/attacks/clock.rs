//! Attacks on the clock: it is stepped an hour, either way, while tokens are judged.

use super::Attacked;
use crate::mint::Claims;
use crate::support::{START, assert_denied};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_clock_stepped_back_revives_no_expired_token() {
    let attacked = Attacked::start().await;
    let cached = attacked.ed25519.token(&Claims::good());
    assert!(attacked.verify(&cached).await.is_ok());
    attacked.sidecar.pass(&attacked.hands, HOUR).await;
    let seen = attacked.p256.token(&Claims::good());
    assert_denied(attacked.verify(&seen).await, "EXPIRED", "REFRESH");
    attacked.hands.step_wall_to(START);
    for token in [&cached, &seen, &attacked.p384.token(&Claims::good())] {
        assert_denied(attacked.verify(token).await, "EXPIRED", "REFRESH");
    }
}

#[tokio::test]
async fn a_clock_stepped_back_before_the_start_makes_no_token_too_young() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good().at("nbf", 0));
    attacked.hands.step_wall_to(START.before(HOUR));
    assert!(attacked.verify(&token).await.is_ok());
    assert!(attacked.verify(&attacked.p256.token(&Claims::good().at("nbf", 0))).await.is_ok());
}

#[tokio::test]
async fn a_clock_stepped_forward_and_back_leaves_nobody_expired() {
    let attacked = Attacked::start().await;
    let cached = attacked.ed25519.token(&Claims::good());
    assert!(attacked.verify(&cached).await.is_ok());
    attacked.hands.step_wall_to(START.after(HOUR));
    let new = attacked.p256.token(&Claims::good());
    assert_denied(attacked.verify(&cached).await, "EXPIRED", "REFRESH");
    assert_denied(attacked.verify(&new).await, "EXPIRED", "REFRESH");
    attacked.hands.step_wall_to(START);
    assert!(attacked.verify(&cached).await.is_ok());
    assert!(attacked.verify(&new).await.is_ok());
}

#[tokio::test]
async fn a_clock_stepped_either_way_forgets_no_revocation() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    attacked.revoke(&token).await;
    assert_denied(attacked.verify(&token).await, "REVOKED", "REFRESH");
    attacked.hands.step_wall_to(START.after(24 * HOUR));
    assert_denied(attacked.verify(&token).await, "EXPIRED", "REFRESH");
    // Time for whatever purges in the background, by the one clock it must not go by.
    for second in 1..=20 {
        attacked.sidecar.pass(&attacked.hands, Duration::from_secs(1)).await;
        attacked.hands.step_wall_to(START.after(24 * HOUR + Duration::from_secs(second)));
    }
    attacked.hands.step_wall_to(START);
    assert_denied(attacked.verify(&token).await, "REVOKED", "REFRESH");
}

#[tokio::test]
async fn what_is_taken_back_while_the_clock_stands_an_hour_ahead_stays_so_once_it_is_right() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good());
    attacked.hands.step_wall_to(START.after(HOUR));
    attacked.revoke(&token).await;
    attacked.hands.step_wall_to(START);
    assert_denied(attacked.verify(&token).await, "REVOKED", "REFRESH");
}

#[tokio::test]
async fn a_clock_stepped_forward_tells_no_cached_answer_to_be_fresher_or_staler() {
    let attacked = Attacked::start().await;
    let token = attacked.ed25519.token(&Claims::good().at("exp", 7200));
    let before = attacked.verify(&token).await.unwrap().staleness.unwrap();
    attacked.hands.step_wall_to(START.after(HOUR));
    let after = attacked.verify(&token).await.unwrap().staleness.unwrap();
    assert_eq!((before.seconds, after.seconds), (0, 0), "staleness is counted, not read off the wall");
}
