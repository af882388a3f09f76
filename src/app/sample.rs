//! Gauges and counters that rooms keep themselves, taken into the metrics when these are asked for.

use crate::clock::{Clock, Step};
use crate::grpc::Parts;
use crate::keys::KeyRing;
use crate::ops::Metrics;
use crate::revocation::{Feed, ResyncCause};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the wall clock is held against counted time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is sampled.
pub(super) struct Sample {
    parts: Arc<Parts>,
    feed: Arc<Feed>,
    rings: Vec<Arc<KeyRing>>,
    clock: Clock,
}

impl Sample {
    pub(super) fn new(parts: &Arc<Parts>, feed: &Arc<Feed>, rings: &[Arc<KeyRing>], clock: Clock) -> Self {
        Self { parts: Arc::clone(parts), feed: Arc::clone(feed), rings: rings.to_vec(), clock }
    }

    /// Sets the gauges.
    pub(super) fn take(&self, metrics: &Metrics) {
        let standing = self.parts.denylist.standing(&self.clock.now());
        metrics.set_staleness(standing.loaded.then_some(standing.staleness));
        metrics.set_revision(standing.revision.seq);
        metrics.set_denylist(self.parts.denylist.len(), self.parts.denylist.ratio());
        for ring in &self.rings {
            let counts = ring.counts();
            if !ring.settings().source.is_remote() {
                continue;
            }
            metrics.set_jwks_age(ring.issuer(), ring.age());
            metrics.set_jwks_max_age(ring.issuer(), ring.settings().max_age);
            metrics.set_jwks_fetches(ring.issuer(), counts.fetched, counts.failed);
        }
        for cause in ResyncCause::ALL {
            metrics.set_feed_resyncs(cause.as_str(), self.feed.resyncs(cause));
        }
        metrics.set_feed(self.feed.restored(), self.feed.failures());
        metrics.set_refresh_ambiguous(self.parts.relays.iter().map(|relay| relay.ambiguous()).sum());
        if let Some(sessions) = &self.parts.sessions {
            metrics.set_refresh_fast_forwards(sessions.fast_forwards());
        }
    }

    /// Counts and logs every step of the wall clock.
    pub(super) async fn watch_clock(&self, metrics: &Metrics, cancel: CancellationToken) {
        let mut seen = Step::None;
        while cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let step = self.clock.step();
            match (seen, step) {
                (Step::None, Step::Forward(by)) => {
                    metrics.clock_step("forward");
                    tracing::warn!(?by, "the wall clock was set ahead");
                }
                (Step::None, Step::Back(by)) => {
                    metrics.clock_step("back");
                    tracing::warn!(?by, "the wall clock was set back");
                }
                _ => {}
            }
            seen = step;
        }
    }
}
