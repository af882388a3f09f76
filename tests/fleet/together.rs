//! What one sidecar does is in force at the others.

use crate::on_each_engine;
use crate::servers::Store;
use crate::support::{assert_denied, eventually, told};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{Attributes, SessionRevocation, SubjectRevocation, UpdateSessionRequest};
use futures_util::future::join_all;
use std::time::Duration;
use tonic::Code;

on_each_engine!(
    a_revocation_is_in_force_everywhere,
    at_least_as_fresh_waits_for_another_sidecar_s_revocation,
    fully_consistent_asks_the_store_now,
    sixty_four_refreshes_over_three_sidecars_have_one_successor,
    no_refresh_anywhere_survives_a_revocation,
    a_used_refresh_token_ends_the_session_everywhere,
    changed_attributes_make_older_tokens_stale_everywhere,
    ten_sidecars_may_create_the_namespace_at_once,
);

async fn a_revocation_is_in_force_everywhere(store: Store) {
    let [one, two] = store.fleet("").await;
    let tokens = one.login("alice", "medium").await.tokens.unwrap();
    assert!(two.verify(&tokens.access_token).await.is_ok());
    one.revoke(Target::Token(tokens.access_token.clone())).await.unwrap();
    assert_denied(one.verify(&tokens.access_token).await, "REVOKED", "REFRESH");
    eventually("denied at the other", || async { two.verify(&tokens.access_token).await.is_err() }).await;
    assert_denied(two.verify(&tokens.access_token).await, "REVOKED", "REFRESH");
}

async fn at_least_as_fresh_waits_for_another_sidecar_s_revocation(store: Store) {
    let [one, two] = store.fleet("").await;
    for subject in ["alice", "bob", "carol"] {
        let created = one.login(subject, "medium").await;
        let token = created.tokens.unwrap().access_token;
        let target = SubjectRevocation { subject: subject.to_owned(), ..SubjectRevocation::default() };
        let revision = one.revoke(Target::Subject(target)).await.unwrap().revision;
        assert_denied(two.verify_after(&token, &revision).await, "REVOKED", "REAUTHENTICATE");
    }
    let token = one.login("dave", "medium").await.tokens.unwrap().access_token;
    let future = "0000000000000001.999999";
    assert!(two.verify_after(&token, future).await.is_ok(), "a foreign epoch costs one resync");
}

async fn fully_consistent_asks_the_store_now(store: Store) {
    let [one, two] = store.fleet("").await;
    let created = one.login("alice", "medium").await;
    let token = created.tokens.unwrap().access_token;
    assert!(two.verify_consistently(&token).await.is_ok());
    let session =
        SessionRevocation { session_id: created.session.unwrap().session_id, ..SessionRevocation::default() };
    one.revoke(Target::Session(session)).await.unwrap();
    assert!(two.verify_consistently(&token).await.is_err(), "no wait, and no OK");
}

async fn sixty_four_refreshes_over_three_sidecars_have_one_successor(store: Store) {
    let policies = "    medium: {preset: medium, grace: 5s}\n";
    let [one, two, three] = store.fleet(policies).await;
    let token = one.login("alice", "medium").await.tokens.unwrap().refresh_token;
    // Past the login's own grace, so that the first of them rotates.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    let sidecars = [&one, &two, &three];
    let refreshed = join_all((0..64).map(|n| sidecars[n % 3].refresh(&token))).await;
    let successors: std::collections::HashSet<_> =
        refreshed.into_iter().map(|answer| answer.unwrap().tokens.unwrap().refresh_token).collect();
    assert_eq!(successors.len(), 1);
    assert!(!successors.contains(&token), "and it is a new one");
}

async fn no_refresh_anywhere_survives_a_revocation(store: Store) {
    let [one, two] = store.fleet("").await;
    for round in 0..5 {
        let created = one.login(&format!("user-{round}"), "medium").await;
        let token = created.tokens.unwrap().refresh_token;
        let session = SessionRevocation {
            session_id: created.session.unwrap().session_id,
            ..SessionRevocation::default()
        };
        let refreshes =
            join_all((0..8).map(|n| if n % 2 == 0 { one.refresh(&token) } else { two.refresh(&token) }));
        let (refreshed, revoked) = tokio::join!(refreshes, one.revoke(Target::Session(session)));
        let revision = revoked.unwrap().revision;
        for access in refreshed.into_iter().flatten().map(|answer| answer.tokens.unwrap().access_token) {
            assert_denied(two.verify_after(&access, &revision).await, "REVOKED", "REAUTHENTICATE");
        }
        assert!(two.refresh(&token).await.is_err(), "nothing refreshes afterwards");
    }
}

async fn a_used_refresh_token_ends_the_session_everywhere(store: Store) {
    let [one, two] = store.fleet("    medium: {preset: medium, grace: 0s}\n").await;
    let first = one.login("alice", "medium").await.tokens.unwrap().refresh_token;
    let second = one.refresh(&first).await.unwrap().tokens.unwrap();
    assert_denied(two.refresh(&first).await, "REFRESH_REUSED", "REAUTHENTICATE");
    eventually("its access token is denied at the other", || async {
        one.verify(&second.access_token).await.is_err()
    })
    .await;
    assert!(one.refresh(&second.refresh_token).await.is_err());
}

async fn changed_attributes_make_older_tokens_stale_everywhere(store: Store) {
    let [one, two] = store.fleet("").await;
    let created = one.login("alice", "medium").await;
    let token = created.tokens.unwrap().access_token;
    let request = UpdateSessionRequest {
        session_id: created.session.unwrap().session_id,
        attributes: Some(Attributes { roles: vec!["admin".to_owned()], ..Attributes::default() }),
    };
    one.sessions().update_session(crate::support::as_caller(request)).await.unwrap();
    eventually("stale at the other", || async { two.verify(&token).await.is_err() }).await;
    assert_denied(two.verify(&token).await, "STALE_CLAIMS", "REFRESH");
}

async fn ten_sidecars_may_create_the_namespace_at_once(store: Store) {
    let policies = "    medium: {preset: medium, staleness_bound: 5s}\n";
    let text = store.config(policies, ", migrate: true");
    let starts = (0..10).map(|_| async {
        let home = store.home.path("");
        crate::support::Sidecar::start(&text, countersign::clock::Clock::system(), &home).await
    });
    let sidecars = join_all(starts).await;
    let token = sidecars[0].login("alice", "medium").await.tokens.unwrap().access_token;
    for sidecar in &sidecars {
        let answer = sidecar.verify(&token).await;
        assert!(answer.is_ok(), "{:?}", answer.map_err(|status| told(&status)));
    }
    let unknown = sidecars[9].verify("x").await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unauthenticated);
}
