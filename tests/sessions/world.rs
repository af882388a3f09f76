//! A store, keys, a denylist and a clock moved by hand, with sessions standing on them.

use crate::store::TestStore;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::{Clock, ManualClock, Timestamp};
use countersign::keys::{HandleKeys, HandleKind, KeyFile, NewKey, SigningAlgorithm, SigningKeys};
use countersign::revocation::denylist::Settings;
use countersign::revocation::{Denial, DenialKey, Denylist, Draft, Marks, RevocationLog};
use countersign::session::policy::{Overrides, Preset};
use countersign::session::{Foundation, Login, Opened, Policies, Policy, Purge, Reader, Sessions, Tokens};
use countersign::store::sqlite::SqliteStore;
use countersign::token::SessionId;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ISSUER: &str = "https://auth.example.com";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_250);

/// One sidecar's sessions, over a store of their own.
pub(crate) struct World {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) store: Arc<TestStore>,
    pub(crate) denylist: Arc<Denylist>,
    pub(crate) signing: Arc<SigningKeys>,
    pub(crate) handles: Arc<HandleKeys>,
    pub(crate) clock: Clock,
    pub(crate) hands: ManualClock,
    _directory: tempfile::TempDir,
}

/// A preset under a name.
pub(crate) fn policy(name: &str, preset: Preset) -> Policy {
    Policy::new(name, preset, Overrides::default(), ISSUER).unwrap()
}

/// A login under the default policy.
pub(crate) fn login(subject: &str) -> Login {
    Login { subject: subject.to_owned(), client_id: "shop-web".to_owned(), ..Login::default() }
}

/// Alice logs in.
pub(crate) async fn alice(world: &World) -> Opened {
    world.sessions.create(login("alice")).await.unwrap()
}

/// A JWT's payload, as written.
pub(crate) fn claims_of(token: &str) -> String {
    let payload = token.split('.').nth(1).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

impl World {
    pub(crate) fn purge(&self) -> Purge {
        Purge { store: Arc::clone(&self.store) as _, clock: self.clock.clone() }
    }

    /// The first policy is the default.
    pub(crate) fn with(policies: Vec<Policy>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (clock, hands) = Clock::manual(NOON);
        let store = TestStore::over(open_store(&directory));
        let (signing, handles) = fresh_keys(&directory);
        let denylist = Arc::new(Denylist::new(Settings::default()));
        let foundation = Foundation {
            store: store.clone(),
            denylist: Arc::clone(&denylist),
            signing: Some(Arc::clone(&signing)),
            handles: Some(Arc::clone(&handles)),
            policies: set(policies),
            issuer: ISSUER.into(),
            clock: clock.clone(),
        };
        let sessions = Arc::new(Sessions::new(foundation));
        let world = Self { sessions, store, denylist, signing, handles, clock, hands, _directory: directory };
        world.confirm(&world.denylist);
        world
    }

    /// Another sidecar with other policies.
    pub(crate) fn on_the_same_store(&self, policies: Vec<Policy>) -> Sessions {
        Sessions::new(self.foundation(Arc::clone(&self.denylist), set(policies)))
    }

    /// Another sidecar that has just started.
    pub(crate) fn with_an_empty_denylist(&self) -> Sessions {
        let empty = Arc::new(Denylist::new(Settings::default()));
        Sessions::new(self.foundation(empty, self.sessions.policies().clone()))
    }

    /// What verification reads sessions by.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            store: self.store.clone(),
            policies: self.sessions.policies().clone(),
            issuer: ISSUER.into(),
            clock: self.clock.clone(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().judged
    }

    pub(crate) async fn login_under(&self, policy: &str) -> Opened {
        self.sessions.create(Login { policy: Some(policy.to_owned()), ..login("alice") }).await.unwrap()
    }

    /// A refresh token under our keys, whatever the store says.
    pub(crate) fn refresh_token(&self, session: SessionId, generation: u64) -> String {
        self.handles.mint(HandleKind::Refresh, session, generation, self.now())
    }

    /// The generation of a refresh token.
    pub(crate) fn generation(&self, tokens: &Tokens) -> u64 {
        self.handles.open(tokens.refresh_token.as_deref().unwrap()).unwrap().generation
    }

    /// An access token's claims, its signature checked by somebody else's code against our published keys.
    pub(crate) fn verified(&self, token: &str) -> Value {
        let published: JwkSet = serde_json::from_str(&self.signing.public_jwks()).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let key = published.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        validation.validate_exp = false;
        jsonwebtoken::decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
    }

    /// What this sidecar's denylist says of an access token.
    pub(crate) fn denial_of(&self, token: &str) -> Option<Denial> {
        let claims = self.verified(token);
        let marks = Marks {
            issuer: DenialKey::issuer(ISSUER),
            subject: DenialKey::subject(ISSUER, claims["sub"].as_str().unwrap()),
            token: Some(DenialKey::token_id(ISSUER, claims["jti"].as_str().unwrap())),
            session: claims["sid"].as_str().map(|session| DenialKey::session(ISSUER, session)),
            logged_in_at: claims["sct"].as_u64().map(Timestamp::from_millis),
            claims_version: claims["sav"].as_u64(),
        };
        self.denylist.judge(&marks, self.now())
    }

    pub(crate) fn denies(&self, token: &str) -> bool {
        self.denial_of(token).is_some()
    }

    /// Another sidecar revokes, and this one has not heard yet.
    pub(crate) async fn append(&self, draft: Draft) {
        self.store.inner.append(draft).await.unwrap();
    }

    /// This sidecar revokes.
    pub(crate) async fn append_and_hold(&self, draft: Draft) {
        let appended = self.store.inner.append(draft).await.unwrap();
        self.denylist.insert(&appended.entry).unwrap();
    }

    fn foundation(&self, denylist: Arc<Denylist>, policies: Policies) -> Foundation {
        Foundation {
            store: self.store.clone(),
            denylist,
            signing: Some(Arc::clone(&self.signing)),
            handles: Some(Arc::clone(&self.handles)),
            policies,
            issuer: ISSUER.into(),
            clock: self.clock.clone(),
        }
    }

    fn confirm(&self, denylist: &Denylist) {
        let reading = denylist.begin_read(self.clock.now().elapsed);
        denylist.confirm(reading, countersign::token::Revision { epoch: 1, seq: 0 });
    }
}

fn set(policies: Vec<Policy>) -> Policies {
    let default = policies.first().unwrap().name().to_owned();
    Policies::new(policies, &default).unwrap()
}

fn open_store(directory: &tempfile::TempDir) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(&directory.path().join("store.db"), Default::default()).unwrap())
}

fn fresh_keys(directory: &tempfile::TempDir) -> (Arc<SigningKeys>, Arc<HandleKeys>) {
    let signing = directory.path().join("signing.json");
    let handles = directory.path().join("handles.json");
    KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), NOON).unwrap().create(&signing).unwrap();
    KeyFile::generate(NewKey::Handles, NOON).unwrap().create(&handles).unwrap();
    (Arc::new(SigningKeys::load(signing).unwrap()), Arc::new(HandleKeys::load(handles).unwrap()))
}
