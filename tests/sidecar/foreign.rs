//! Other issuers' tokens: where their keys come from and how they change, what is read out of their claims, and how they
//! are taken back.

mod claims;
pub(crate) mod cookies;
mod opaque;
mod presets;
mod relayed;
mod revoked;
mod sources;
mod tables;

use crate::issuer::entry;
use crate::mint::{Claims, Key, LOGIN, jwks};
use crate::support::{Home, Sidecar};
use countersign::clock::ManualClock;

/// A sidecar that knows [`LOGIN`] by one Ed25519 key from a file.
struct World {
    sidecar: Sidecar,
    hands: ManualClock,
    key: Key,
    home: Home,
}

impl World {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further settings of the issuer.
    async fn start_with(more: &str) -> Self {
        let home = Home::new();
        let key = Key::ed25519("k");
        std::fs::write(home.path("keys.json"), jwks([&key])).unwrap();
        let keys = format!("{{jwks_file: {}}}", home.path("keys.json").display());
        let (sidecar, hands) = home.start_at(&format!("issuers:\n{}", entry(LOGIN, &keys, more))).await;
        Self { sidecar, hands, key, home }
    }

    fn token(&self, claims: Claims) -> String {
        self.key.token(&claims)
    }
}
