//! Forgetting what is over: sessions, stamps and entries of the revocation log. Every sidecar does its share, whether or not
//! it serves sessions, or a fleet that only revokes foreign tokens would fill its store.

use crate::clock::Clock;
use crate::session::store::SessionStore;
use crate::token::random_bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(60);
const BATCH: u32 = 500;

/// Kept this much longer than the earlier of two clocks asks, because other sidecars' clocks differ.
const SLACK: Duration = Duration::from_secs(120);

/// Purges one store.
pub struct Purge {
    /// Whose.
    pub store: Arc<dyn SessionStore>,
    /// What time it is.
    pub clock: Clock,
}

impl Purge {
    /// Purges what is over, about every minute until cancelled. Several sidecars on one store may do so at once. A
    /// store that fails is tried again a minute later; a streak of failures is logged once.
    pub async fn run(self, cancel: CancellationToken) {
        let mut failing = false;
        while cancel.run_until_cancelled(tokio::time::sleep(jittered())).await.is_some() {
            let Some(purged) = cancel.run_until_cancelled(self.purge()).await else { return };
            match purged {
                Ok(0) => failing = false,
                Ok(records) => {
                    failing = false;
                    tracing::debug!(records, "purged what was over");
                }
                Err(error) => {
                    if !failing {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "the store can't be purged");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Purges what is over now, in batches, making way for other calls in between. Returns how many records went.
    ///
    /// # Errors
    /// [`crate::revocation::StoreError`]; earlier batches are gone.
    pub async fn purge(&self) -> Result<u64, crate::revocation::StoreError> {
        let over_by = self.clock.now().purging.before(SLACK);
        let mut purged = 0_u64;
        loop {
            let batch = self.store.purge(over_by, BATCH).await?;
            purged = purged.saturating_add(u64::from(batch));
            if batch < BATCH {
                return Ok(purged);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A minute, give or take a quarter, so that a fleet does not purge in step.
fn jittered() -> Duration {
    let [byte] = random_bytes::<1>().unwrap_or([128]);
    EVERY.mul_f64(0.75 + f64::from(byte) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_come_about_every_minute() {
        for _ in 0..100 {
            let wait = jittered().as_secs_f64();
            assert!((45.0..=75.0).contains(&wait), "{wait}");
        }
    }
}
