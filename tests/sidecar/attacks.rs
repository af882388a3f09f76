//! Attacks on what other issuers sign: one test for each, named for it, over real gRPC against the bound app.
//!
//! An attack that a test nearer to the code holds is not repeated here:
//!
//! | attack | held by |
//! |---|---|
//! | empty or short HMAC secret | `keys::verifying` a_secret_shorter_than_its_hash_is_refused_at_load, `keys::jwk` a_short_or_empty_secret_is_refused |
//! | HS256 beside public keys in one issuer | `config` a_secret_file_takes_exactly_one_hs_algorithm, `keys::ring` settings_that_contradict_each_other_are_refused |
//! | RSA below 2048 bits, e = 1 | `keys::verifying` an_rsa_modulus_below_…, an_rsa_exponent_of_one_… |
//! | JWKS: oct among remote keys, one odd key | `keys::ring` a_remote_set_s_secret_is_dropped_and_an_odd_key_skipped |
//! | JWKS: `use: enc`, missing `alg`, private key published | `keys::jwk` a_key_for_encryption_is_skipped, a_missing_alg_is_derived_…, a_published_private_key_is_refused |
//! | JWKS: 10,000 keys, 100 MB | `keys::key_set` ten_thousand_keys_are_refused, `keys::fetch` a_huge_body_is_cut_off_declared_or_not |
//! | JWKS: slow drip, redirect, http | `keys::fetch` a_slow_drip_ends_at_the_deadline, a_redirect_is_not_followed; `keys::url` http_stays_on_this_machine |
//! | JWKS: empty set replacing a good one | `keys::ring` an_empty_broken_or_oversized_set_replaces_no_good_one |
//! | discovery `issuer` differs | `keys::fetch` discovery_of_another_issuer_is_refused_to_the_letter; over gRPC in [`crate::foreign`] |
//! | refresh: 64 at once, replay, beside a revoke | [`crate::sessions`] sixty_four_…, a_stolen_refresh_token_…; [`crate::revocation`] nothing_refreshes_beside_a_revocation |
//! | denials purged early by a stepped clock | `revocation::denylist` a_clock_stepped_forward_purges_nothing_early |
//! | another container in the pod | [`crate::admission`] another_container_in_the_pod_may_only_make_the_free_calls |
//! | silent, idle and endless connections | [`crate::lifecycle`], `grpc::wire`, `grpc::limits` |
//! | logs at trace level | [`crate::secrecy`] |

mod bounds;
mod claims;
mod clock;
mod form;
mod keys;
mod memory;
mod signature;

use crate::issuer::{PUBLIC, entry};
use crate::mint::{Claims, Key, jwks};
use crate::support::{Home, Sidecar, told};
use countersign::clock::ManualClock;
use countersign::grpc::v1::VerifyResponse;
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::{RevokeRequest, VerifyRequest};
use tonic::{Code, Status};

/// A second issuer of the same sidecar, with keys of its own under the same names.
const PARTNER: &str = "https://partner.example.org";
/// An issuer that shares a secret with us.
const LEGACY: &str = "https://legacy.example.com";
const SHARED: [u8; 32] = [7; 32];

/// A sidecar, its issuers' keys, and a clock to move.
struct Attacked {
    sidecar: Sidecar,
    hands: ManualClock,
    rsa: Key,
    p256: Key,
    p384: Key,
    ed25519: Key,
    partner: Key,
    home: Home,
}

impl Attacked {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further sections.
    async fn start_with(sections: &str) -> Self {
        let home = Home::new();
        let (rsa, p256) = (Key::rsa("rsa"), Key::p256("p256"));
        let (p384, ed25519) = (Key::p384("p384"), Key::ed25519("ed25519"));
        let partner = Key::ed25519("ed25519");
        std::fs::write(home.path("login.json"), jwks([&rsa, &p256, &p384, &ed25519])).unwrap();
        std::fs::write(home.path("partner.json"), jwks([&partner])).unwrap();
        std::fs::write(home.path("legacy.secret"), SHARED).unwrap();
        let file = |kind: &str, name: &str| format!("{{{kind}: {}}}", home.path(name).display());
        let sections = [
            "issuers:\n",
            &entry(crate::mint::LOGIN, &file("jwks_file", "login.json"), PUBLIC),
            &entry(PARTNER, &file("jwks_file", "partner.json"), PUBLIC),
            &entry(LEGACY, &file("secret_file", "legacy.secret"), "algorithms: [HS256]\n"),
            sections,
        ]
        .concat();
        let (sidecar, hands) = home.start_at(&sections).await;
        Self { sidecar, hands, rsa, p256, p384, ed25519, partner, home }
    }

    async fn verify(&self, token: &str) -> Result<VerifyResponse, Status> {
        self.sidecar.verify(token).await
    }

    async fn demanding(
        &self,
        token: &str,
        audiences: &[&str],
        scopes: &[&str],
    ) -> Result<VerifyResponse, Status> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (audiences, scopes) = (own(audiences), own(scopes));
        let token = Some(token.to_owned());
        self.sidecar.verify_demanding(VerifyRequest { token, audiences, scopes, ..Default::default() }).await
    }

    /// Takes a token back by holding it.
    async fn revoke(&self, token: &str) {
        let request = RevokeRequest { target: Some(Target::Token(token.to_owned())), reason: String::new() };
        self.sidecar.tokens().revoke(request).await.unwrap();
    }

    /// Asserts that each of these is denied with this reason and no action, twice: the second time from what was kept.
    async fn denies_each<'a, T: AsRef<str>>(
        &self,
        reason: &str,
        tokens: impl IntoIterator<Item = (&'a str, T)>,
    ) {
        let expected = (Code::Unauthenticated, reason.to_owned(), "NONE".to_owned());
        for (what, token) in tokens {
            for time in ["at first", "again"] {
                match self.verify(token.as_ref()).await {
                    Ok(_) => panic!("{what} was accepted {time}"),
                    Err(status) => assert_eq!(told(&status), expected, "{what}, {time}"),
                }
            }
        }
    }

    /// Asserts that claims under the same good signature are denied with this reason.
    async fn denies_claims<'a>(&self, reason: &str, claims: impl IntoIterator<Item = (&'a str, Claims)>) {
        let tokens = claims.into_iter().map(|(what, claims)| (what, self.ed25519.token(&claims)));
        self.denies_each(reason, tokens).await;
    }

    /// Asserts that claims under a good signature are accepted.
    async fn accepts_claims<'a>(&self, claims: impl IntoIterator<Item = (&'a str, Claims)>) {
        for (what, claims) in claims {
            if let Err(status) = self.verify(&self.ed25519.token(&claims)).await {
                panic!("{what} was refused: {:?}", told(&status));
            }
        }
    }
}

#[tokio::test]
async fn without_an_attack_every_issuer_s_token_is_accepted() {
    let attacked = Attacked::start().await;
    for key in [&attacked.rsa, &attacked.p256, &attacked.p384, &attacked.ed25519] {
        let answer = attacked.verify(&key.token(&Claims::good())).await.unwrap();
        assert_eq!((answer.issuer.as_str(), answer.subject.as_str()), (crate::mint::LOGIN, "alice"));
        assert_eq!(answer.claims_json, Claims::good().text().into_bytes());
    }
    let partner = attacked.partner.token(&Claims::of(PARTNER));
    assert_eq!(attacked.verify(&partner).await.unwrap().issuer, PARTNER);
    let legacy = Key::secret(SHARED).token(&Claims::of(LEGACY));
    assert_eq!(attacked.verify(&legacy).await.unwrap().issuer, LEGACY);
}
