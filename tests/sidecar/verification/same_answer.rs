//! A verification with the cache gives the answer that one without it gives, whatever happened in between.

use super::{known_issuer, sources};
use crate::mint::{Claims, Key, LOGIN, encode, parts};
use crate::support::{Home, START, Sidecar, as_caller, told};
use countersign::clock::{Clock, ManualClock};
use countersign::grpc::v1::consistency::Requirement;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{
    Attributes, Consistency, RevokeRequest, SubjectRevocation, UpdateSessionRequest, VerifyRequest,
    VerifyResponse,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::time::Duration;
use tonic::Status;

/// What can happen; numbers are reduced to what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Verify { token: usize, audience: usize, scope: usize, consistently: bool },
    RevokeToken(usize),
    CutOffForeign,
    CutOffOwn,
    ChangeRoles { session: usize, role: u8 },
    Pass(u64),
    SetWall(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verify = (0..TOKENS, 0..4_usize, 0..3_usize, prop::bool::weighted(0.1)).prop_map(
        |(token, audience, scope, consistently)| Step::Verify { token, audience, scope, consistently },
    );
    let step = prop_oneof![
        20 => verify,
        2 => (0..TOKENS).prop_map(Step::RevokeToken),
        1 => Just(Step::CutOffForeign),
        1 => Just(Step::CutOffOwn),
        2 => (0..2_usize, any::<u8>()).prop_map(|(session, role)| Step::ChangeRoles { session, role }),
        3 => (1..90_u64).prop_map(Step::Pass),
        1 => (300..1200_u64).prop_map(Step::Pass),
        1 => (-900..900_i64).prop_map(Step::SetWall),
    ];
    prop::collection::vec(step, 10..60)
}

/// Two sidecars of one store and one clock: one caches, the other doesn't.
struct Pair {
    cached: Sidecar,
    uncached: Sidecar,
    hands: ManualClock,
    signer: Key,
    round: u32,
}

impl Pair {
    async fn start(home: &Home) -> Self {
        let signer = Key::p256("k");
        let issuers = known_issuer(home, &signer, "");
        let own = home.own(
            "    low: {preset: low}\n    medium: {preset: medium}\n    high: {preset: high}\n    \
             quick: {preset: high, floor: minimize_latency, staleness_bound: 1h}\n",
        );
        let api = "api:\n  tcp: 127.0.0.1:0\n  workers: 1\n  serve: [verify, revoke, sessions]\n";
        let (clock, hands) = Clock::manual(START);
        let text = |cache: u32| home.config(&format!("{api}{own}{issuers}cache:\n  max_entries: {cache}\n"));
        let cached = Sidecar::start(&text(1000), clock.clone(), &home.path("")).await;
        let uncached = Sidecar::start(&text(0), clock, &home.path("")).await;
        Self { cached, uncached, hands, signer, round: 0 }
    }

    async fn play(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        self.round += 1;
        let cast = self.cast().await;
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Step::Verify { token, audience, scope, consistently } => {
                    let request = request(&cast.tokens[token], audience, scope, consistently);
                    let one = self.cached.verify_demanding(request.clone()).await;
                    let other = self.uncached.verify_demanding(request).await;
                    prop_assert_eq!(said(one), said(other), "step {}: {:?}", number, step);
                }
                Step::RevokeToken(token) => {
                    let target = Some(Target::Token(cast.tokens[token].clone()));
                    let request = RevokeRequest { target, reason: String::new() };
                    self.cached.tokens().revoke(request).await.unwrap();
                }
                Step::CutOffForeign => self.cut_off(&cast.subject, Some(LOGIN)).await,
                Step::CutOffOwn => self.cut_off(&cast.subject, None).await,
                Step::ChangeRoles { session, role } => {
                    let attributes = Attributes { roles: vec![role.to_string()], ..Attributes::default() };
                    let session_id = cast.sessions[session].clone();
                    let request = UpdateSessionRequest { session_id, attributes: Some(attributes) };
                    // It may be over by now.
                    let _ = self.uncached.sessions().update_session(as_caller(request)).await;
                }
                Step::Pass(seconds) => self.hands.advance(Duration::from_secs(seconds)),
                Step::SetWall(seconds) => {
                    let wall = self.hands.wall().as_secs().saturating_add_signed(seconds);
                    self.hands.step_wall_to(countersign::clock::Timestamp::from_secs(wall));
                }
            }
            if !matches!(step, Step::Verify { .. }) {
                self.cached.pass(&self.hands, Duration::ZERO).await;
                self.uncached.pass(&self.hands, Duration::ZERO).await;
            }
        }
        Ok(())
    }

    async fn cut_off(&self, subject: &str, issuer: Option<&str>) {
        let subject = subject.to_owned();
        let issuer = issuer.map(str::to_owned);
        let target = Target::Subject(SubjectRevocation { subject, issuer, ..SubjectRevocation::default() });
        self.uncached.revoke(target).await.unwrap();
    }

    /// Tokens of every kind, of a subject that no earlier round knew.
    async fn cast(&self) -> Cast {
        let subject = format!("user-{}", self.round);
        // The judged time: the wall may have been stepped back.
        let own = self.cached.login(&subject, "medium").await;
        let access = own.tokens.unwrap().access_token;
        let issued = self.cached.verify(&access).await.unwrap().issued_at.unwrap().seconds;
        let since = issued - i64::try_from(START.as_secs()).unwrap();
        let claims = |jti: &str| {
            Claims::good()
                .with("sub", format!("\"{subject}\""))
                .with("jti", format!("\"{jti}-{}\"", self.round))
                .with("sid", format!("\"{subject}\""))
                .at("iat", since)
                .at("exp", since + 900)
        };
        let sign = |claims: Claims| self.signer.token(&claims);
        let good = sign(claims("good"));
        let [header, payload, signature] = parts(&good).map(str::to_owned);
        let quick = self.cached.login(&subject, "quick").await;
        let high = self.cached.login(&subject, "high").await;
        let low = self.cached.login(&subject, "low").await;
        let tokens = [
            sign(claims("short").at("exp", since + 60)),
            sign(claims("early").at("nbf", since + 45)),
            sign(claims("old").at("iat", since - 900).at("exp", since - 100)),
            sign(claims("bank").with("aud", "[\"bank\",\"shop\"]")),
            sign(claims("elsewhere").with("aud", "\"elsewhere\"")),
            sign(claims("undated").without("iat").at("exp", since + 86_400 + 60)),
            sign(claims("nameless").without("jti")),
            sign(claims("good").with("scope", "\"admin\"")),
            Key::p256("k").token(&claims("forged")),
            Key::p256("other").token(&claims("unknown")),
            format!("{header}.{payload}.{}", encode([0; 64])),
            format!("{header}.{payload}.{signature}="),
            "junk".to_owned(),
            good,
            access,
            quick.tokens.unwrap().access_token,
            high.tokens.unwrap().access_token,
            low.tokens.unwrap().access_token,
        ];
        let sessions = [own.session.unwrap().session_id, quick.session.unwrap().session_id];
        Cast { subject, tokens, sessions }
    }
}

const TOKENS: usize = 18;

struct Cast {
    subject: String,
    tokens: [String; TOKENS],
    sessions: [String; 2],
}

fn request(token: &str, audience: usize, scope: usize, consistently: bool) -> VerifyRequest {
    let audiences = [&[][..], &["shop"], &["bank"], &[crate::support::ISSUER, "nobody"]][audience];
    let scopes = [&[][..], &["read"], &["admin"]][scope];
    let consistency =
        consistently.then_some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
    VerifyRequest {
        token: Some(token.to_owned()),
        audiences: audiences.iter().map(|name| (*name).to_owned()).collect(),
        scopes: scopes.iter().map(|name| (*name).to_owned()).collect(),
        consistency,
        ..VerifyRequest::default()
    }
}

/// All of an answer, or why there is none. A session's end may be remembered: where it moved meanwhile, it is read again
/// before anybody is told that it is over.
fn said(result: Result<VerifyResponse, Status>) -> Result<VerifyResponse, impl std::fmt::Debug + PartialEq> {
    match result {
        Ok(mut answer) => {
            if answer.kind() == countersign::grpc::v1::CredentialKind::SessionToken {
                answer.expires_at = None;
            }
            Ok(answer)
        }
        Err(status) => Err(told(&status)),
    }
}

#[test]
fn with_and_without_the_cache_every_sequence_of_calls_is_answered_the_same() {
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = tokio::sync::Mutex::new(runtime.block_on(Pair::start(&home)));
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| runtime.block_on(async { pair.lock().await.play(&steps).await }))
        .unwrap_or_else(|failed| panic!("{failed}"));
    runtime.block_on(async {
        let pair = pair.lock().await;
        assert!(sources(&pair.cached).await[0] > 0.0, "one of them did cache");
        assert_eq!(sources(&pair.uncached).await[0], 0.0, "and the other did not");
    });
}
