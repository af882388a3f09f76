//! One refresh, from whose turn it is to what is written of it.

use super::sealed::{open, seal};
use super::{Answered, Ended, FIRST_LOOK, Granting, LAST_LOOK, Relay, RelayError, SETTLE_WITHIN, Unsettled};
use crate::clock::Timestamp;
use crate::revocation::StoreError;
use crate::session::lease::{Lease, Outcome, Settling, Turn, settle, turn};
use crate::token::{Secret, TokenDigest, random_bytes};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a refresh has come to.
enum Turned {
    /// This sidecar may send. `ambiguous`: somebody may have sent it before.
    Send {
        ambiguous: bool,
    },
    Take(Outcome),
}

impl Relay {
    /// One refresh: whoever's turn it is sends, the others wait for what comes of it.
    pub(super) async fn fly(
        &self,
        digest: TokenDigest,
        token: &Secret,
        cancel: &CancellationToken,
    ) -> (Answered, Option<Unsettled>) {
        let kept = self.unsettled.lock().get(&digest).cloned();
        if let Some(outcome) = kept {
            return (self.open(token, &outcome), None);
        }
        let Ok(holder) = random_bytes().map(u64::from_be_bytes) else {
            return (Err(RelayError::Store), None);
        };
        match self.take_turn(digest, holder, cancel).await {
            Err(error) => (Err(error), None),
            Ok(Turned::Take(outcome)) => (self.open(token, &outcome), None),
            Ok(Turned::Send { ambiguous }) => self.send(digest, token, holder, ambiguous).await,
        }
    }

    /// Waits for this sidecar's turn to send, or for what another's attempt brings.
    async fn take_turn(
        &self,
        digest: TokenDigest,
        holder: u64,
        cancel: &CancellationToken,
    ) -> Result<Turned, RelayError> {
        let mut pause = FIRST_LOOK;
        loop {
            let began = self.settings.clock.elapsed();
            let (seen, now) = self.look(digest).await?;
            let lease = seen.as_deref().map(Lease::read).transpose().map_err(|error| self.failed(&error))?;
            match turn(lease.as_ref(), now) {
                Turn::Take(outcome) => return Ok(Turned::Take(outcome)),
                Turn::Wait { until, unanswered } => {
                    let retry_after = until.since(now).max(FIRST_LOOK);
                    if unanswered || cancel.is_cancelled() || !self.is_waited_for(&digest) {
                        return Err(RelayError::Unavailable { retry_after });
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_LOOK);
                }
                Turn::Send { ambiguous } => {
                    let lease = Lease::new(holder, now, self.settings.grace);
                    if !self.claim(digest, seen, &lease, now).await? {
                        continue;
                    }
                    // A store that was slow used the lease up: the exchange has to be over before it ends.
                    let used = self.settings.clock.elapsed().saturating_sub(began);
                    if used + self.settings.endpoint.longest() >= self.settings.grace {
                        self.change_own(digest, holder, Lease::released).await;
                        return Err(RelayError::Store);
                    }
                    if ambiguous {
                        tracing::warn!(
                            issuer = %self.settings.issuer,
                            "a refresh token is sent again: an attempt before it ended without an answer"
                        );
                        self.ambiguous.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(Turned::Send { ambiguous });
                }
            }
        }
    }

    /// Puts the lease where the register is. A write whose answer was lost counts if it is there.
    async fn claim(
        &self,
        digest: TokenDigest,
        seen: Option<Vec<u8>>,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<bool, RelayError> {
        let Err(error) = self.put(digest, seen, lease, now).await else { return Ok(true) };
        let Some(failed) = error else { return Ok(false) };
        let (there, _) = self.look(digest).await?;
        let is_ours =
            there.as_deref().is_some_and(|there| Lease::read(there).is_ok_and(|there| there == *lease));
        if is_ours { Ok(true) } else { Err(failed) }
    }

    /// Sends the token and writes what came of it.
    async fn send(
        &self,
        digest: TokenDigest,
        token: &Secret,
        holder: u64,
        ambiguous: bool,
    ) -> (Answered, Option<Unsettled>) {
        let grace = self.settings.grace;
        let unavailable = |retry_after| (Err(RelayError::Unavailable { retry_after }), None);
        let Ok(text) = std::str::from_utf8(token.expose()) else { return (Err(RelayError::Refused), None) };
        match self.settings.endpoint.refresh(text).await {
            Granting::Issued(issued) => {
                let Some(outcome) = seal(&self.bound_to(), token, &issued) else {
                    return (Ok(Arc::new(issued)), None);
                };
                match self.settle_soon(digest, holder, &outcome).await {
                    Ok(Settling::Keep(others)) => {
                        (self.open(token, &others).or_else(|_| Ok(Arc::new(issued))), None)
                    }
                    Ok(Settling::Write | Settling::Tell) => (Ok(Arc::new(issued)), None),
                    Err(_) => {
                        tracing::warn!(
                            issuer = %self.settings.issuer,
                            "refreshed tokens are not in the store yet for those who come late; it is tried on"
                        );
                        let until = self.settings.clock.elapsed() + grace;
                        (Ok(Arc::new(issued)), Some(Unsettled { digest, holder, outcome, until }))
                    }
                }
            }
            Granting::Refused => match self.settle_soon(digest, holder, &Outcome::Refused).await {
                // Whoever sent it before got tokens for it, or may yet.
                Ok(Settling::Keep(others)) => (self.open(token, &others), None),
                Ok(Settling::Tell) => unavailable(Duration::from_secs(1)),
                // The store may hold the tokens that used it up.
                Err(_) if ambiguous => unavailable(Duration::from_secs(1)),
                Ok(Settling::Write) | Err(_) => (Err(RelayError::Refused), None),
            },
            Granting::NotTaken => {
                self.change_own(digest, holder, Lease::released).await;
                unavailable(Duration::from_secs(1))
            }
            Granting::Unknown => {
                self.change_own(digest, holder, |lease, _| lease.unanswered()).await;
                unavailable(grace)
            }
        }
    }

    /// Writes an outcome, but keeps those who wait not long from what is known.
    async fn settle_soon(
        &self,
        digest: TokenDigest,
        holder: u64,
        outcome: &Outcome,
    ) -> Result<Settling, RelayError> {
        let settling = self.settle(digest, holder, outcome);
        tokio::time::timeout(SETTLE_WITHIN, settling).await.unwrap_or(Err(RelayError::Store))
    }

    /// Goes on trying while anybody could come late for it.
    pub(super) async fn settle_in_the_end(&self, unsettled: Unsettled, cancel: &CancellationToken) -> Ended {
        let Unsettled { digest, holder, outcome, until } = unsettled;
        while self.settings.clock.elapsed() < until && self.settle(digest, holder, &outcome).await.is_err() {
            tokio::time::sleep(LAST_LOOK).await;
            if cancel.is_cancelled() {
                break;
            }
        }
        Ended::Settling(digest)
    }

    /// Writes an outcome, unless another one counts.
    async fn settle(
        &self,
        digest: TokenDigest,
        holder: u64,
        outcome: &Outcome,
    ) -> Result<Settling, RelayError> {
        loop {
            let (seen, now) = self.look(digest).await?;
            let lease = seen.as_deref().map(Lease::read).transpose().map_err(|error| self.failed(&error))?;
            let settling = settle(lease.as_ref(), holder, outcome, now);
            if settling != Settling::Write {
                return Ok(settling);
            }
            let lease = Lease::settled(holder, outcome.clone(), now, self.settings.grace);
            match self.put(digest, seen, &lease, now).await {
                Ok(()) => return Ok(settling),
                Err(None) => {}
                Err(Some(failed)) => return Err(failed),
            }
        }
    }

    /// Changes the lease while it is this holder's. Where that fails it runs out.
    async fn change_own(&self, digest: TokenDigest, holder: u64, change: impl Fn(Lease, Timestamp) -> Lease) {
        for _ in 0..3 {
            let Ok((Some(seen), now)) = self.look(digest).await else { continue };
            let Ok(lease) = Lease::read(&seen) else { return };
            if !lease.is_held_by(holder)
                || self.put(digest, Some(seen), &change(lease, now), now).await.is_ok()
            {
                return;
            }
        }
    }

    /// By the earlier of the clocks, where the store has none: what stands ahead in one process would end leases of
    /// others.
    pub(super) fn now(&self) -> Timestamp {
        self.settings.clock.now().purging
    }

    async fn look(&self, digest: TokenDigest) -> Result<(Option<Vec<u8>>, Timestamp), RelayError> {
        self.settings.leases.lease(digest, self.now()).await.map_err(|error| self.failed(&error))
    }

    /// `Err(None)`: another register is there by now.
    async fn put(
        &self,
        digest: TokenDigest,
        seen: Option<Vec<u8>>,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<(), Option<RelayError>> {
        let register = lease.register().map_err(|error| Some(self.failed(&error)))?;
        let put = self.settings.leases.put_lease(digest, seen, register, lease.expires_at(), now).await;
        if put.map_err(|error| Some(self.failed(&error)))? { Ok(()) } else { Err(None) }
    }

    fn failed(&self, error: &StoreError) -> RelayError {
        tracing::warn!(
            issuer = %self.settings.issuer,
            error = error as &dyn std::error::Error,
            "the store failed a relayed refresh"
        );
        RelayError::Store
    }

    fn open(&self, token: &Secret, outcome: &Outcome) -> Answered {
        match outcome {
            Outcome::Refused => Err(RelayError::Refused),
            Outcome::Sealed(text) => open(&self.bound_to(), token, text).map(Arc::new).ok_or_else(|| {
                tracing::error!(issuer = %self.settings.issuer, "a relayed refresh's result can't be opened");
                RelayError::Store
            }),
        }
    }
}
