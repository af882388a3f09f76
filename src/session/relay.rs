//! Refreshes of sessions that somebody else keeps, relayed to their issuer (RFC 6749 §6): one exchange for a refresh token
//! at a time over all sidecars that share a store, its result given to latecomers, and nobody logged out but by the issuer's
//! own word.
//!
//! Exchanges run in [`Relay::run`] to their end, whoever waits for them: an answer that nobody hears is a login lost.

mod flight;
mod sealed;

use crate::clock::Clock;
use crate::session::lease::{LeaseStore, Outcome};
use crate::token::{Issuer, Secret, TokenDigest};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Refreshes under way at once.
const AT_ONCE: usize = 256;
/// Tokens waiting for their turn.
const WAITING: usize = 1024;
/// How long it is tried to write what an issuer said before those who wait are told all the same.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// How long whoever waits for another sidecar pauses between looks: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(200);
/// How often what has expired is deleted, and how much at once.
const PURGE_EVERY: Duration = Duration::from_secs(15);
const PURGE_BATCH: u32 = 500;
/// What a sealed result is bound to, beside its token.
const PURPOSE: &[u8] = b"countersign relayed refresh 1";

/// What an issuer gave for a refresh token.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Issued {
    /// The new access token.
    pub access_token: String,
    /// When it ends, in ms, where the issuer said.
    pub expires_at: Option<u64>,
    /// The refresh token to present next; the presented one where the issuer gave no other.
    pub refresh_token: String,
    /// An ID token, where the issuer gave one.
    pub id_token: Option<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(…)")
    }
}

/// What came of one request to a token endpoint.
#[derive(Debug)]
pub enum Granting {
    /// Tokens.
    Issued(Issued),
    /// The issuer says that the refresh token is no good, or that its user has to log in again: final.
    Refused,
    /// Nothing was sent, or the issuer said clearly that it did nothing with the token.
    NotTaken,
    /// It was sent, and nobody knows what came of it.
    Unknown,
}

/// An issuer's token endpoint.
#[tonic::async_trait]
pub trait TokenEndpoint: Send + Sync + fmt::Debug + 'static {
    /// Presents a refresh token, once.
    async fn refresh(&self, token: &str) -> Granting;

    /// How long that takes at most.
    fn longest(&self) -> Duration;
}

/// Why a refresh brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The issuer's own "no".
    #[error("the issuer refuses the refresh token")]
    Refused,
    /// The issuer could not be asked, or what it said is not known; to be tried again after so long.
    #[error("the issuer could not be asked")]
    Unavailable {
        /// How long.
        retry_after: Duration,
    },
    /// The store could not be reached before anything was sent.
    #[error("the store could not be reached")]
    Store,
}

/// What a relay is made of.
pub struct RelaySettings {
    /// Whose sessions.
    pub issuer: Issuer,
    /// Who we are there: another client's refresh tokens are not ours.
    pub client_id: String,
    /// Where its refresh tokens are presented.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// Where leases are kept.
    pub leases: Arc<dyn LeaseStore>,
    /// How long a lease lasts, and how long its result is given to latecomers. Longer than an exchange can take.
    pub grace: Duration,
    /// What time it is.
    pub clock: Clock,
}

type Answered = Result<Arc<Issued>, RelayError>;

/// Those who wait for a token's refresh.
type Askers = Vec<oneshot::Sender<Answered>>;

struct Question {
    digest: TokenDigest,
    token: Secret,
}

/// What an issuer said that is not written down yet.
struct Unsettled {
    digest: TokenDigest,
    holder: u64,
    outcome: Outcome,
    /// When nobody could come late for it any more, by the clock that never steps.
    until: Duration,
}

/// What ended.
enum Ended {
    Flight(TokenDigest, Answered, Option<Unsettled>),
    Settling(TokenDigest),
    Purge,
}

/// Relays refreshes of one issuer's sessions.
pub struct Relay {
    settings: RelaySettings,
    ask: mpsc::Sender<Question>,
    questions: Mutex<Option<mpsc::Receiver<Question>>>,
    /// Who waits for which refresh of this sidecar's.
    flights: Mutex<HashMap<TokenDigest, Askers>>,
    /// What is not written down yet.
    unsettled: Mutex<HashMap<TokenDigest, Outcome>>,
    ambiguous: AtomicU64,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

impl Relay {
    /// With these settings; [`Self::run`] does the work.
    #[must_use]
    pub fn new(settings: RelaySettings) -> Self {
        let (ask, questions) = mpsc::channel(WAITING);
        Self {
            settings,
            ask,
            questions: Mutex::new(Some(questions)),
            flights: Mutex::default(),
            unsettled: Mutex::default(),
            ambiguous: AtomicU64::new(0),
        }
    }

    /// How many attempts followed one of which nobody knows what came.
    pub fn ambiguous(&self) -> u64 {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// Whose sessions.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.settings.issuer
    }

    /// Refreshes, waiting at most so long. Who gives up loses nothing: the same call, made again within grace, is given
    /// the same result.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn refresh(&self, token: &str, within: Duration) -> Answered {
        let unavailable = || RelayError::Unavailable { retry_after: Duration::from_secs(1) };
        let digest = self.digest(token);
        let (answer, answered) = oneshot::channel();
        if self.board(digest, answer) {
            let question = Question { digest, token: Secret::new(token.as_bytes().to_vec()) };
            // Full: more are waiting than the issuer answers. Better to say so than to let them pile up.
            if self.ask.try_send(question).is_err() {
                self.flights.lock().remove(&digest);
            }
        }
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) | Err(_) => Err(unavailable()),
        }
    }

    /// Joins whoever waits for this token. Whether a refresh has to begin.
    fn board(&self, digest: TokenDigest, answer: oneshot::Sender<Answered>) -> bool {
        let mut flights = self.flights.lock();
        if let Some(askers) = flights.get_mut(&digest) {
            askers.retain(|asker| !asker.is_closed());
            askers.push(answer);
            return false;
        }
        flights.insert(digest, vec![answer]);
        true
    }

    fn is_waited_for(&self, digest: &TokenDigest) -> bool {
        self.flights.lock().get(digest).is_some_and(|askers| askers.iter().any(|asker| !asker.is_closed()))
    }

    fn digest(&self, token: &str) -> TokenDigest {
        TokenDigest::of_named(&self.bound_to(), token.as_bytes())
    }

    /// No issuer's name has a zero byte that came as text in a configuration's line.
    fn bound_to(&self) -> String {
        format!("{}\0{}", self.settings.issuer, self.settings.client_id)
    }

    /// Works until cancelled, and then until what was sent is answered. Runs once; a second call returns at once.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let Some(mut questions) = self.questions.lock().take() else { return };
        let mut under_way: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let mut purging = false;
        let mut purge = tokio::time::interval(PURGE_EVERY);
        let (this, cancel) = (&*self, &cancel);
        loop {
            tokio::select! {
                () = cancel.cancelled(), if under_way.is_empty() => return,
                Some(ended) = under_way.next(), if !under_way.is_empty() => match ended {
                    Ended::Flight(digest, answered, unsettled) => {
                        if let Some(unsettled) = unsettled {
                            this.unsettled.lock().insert(digest, unsettled.outcome.clone());
                            under_way.push(Box::pin(this.settle_in_the_end(unsettled, cancel)));
                        }
                        for asker in this.flights.lock().remove(&digest).unwrap_or_default() {
                            // Who went away asks again, if at all.
                            let _ = asker.send(answered.clone());
                        }
                    }
                    Ended::Settling(digest) => {
                        this.unsettled.lock().remove(&digest);
                    }
                    Ended::Purge => purging = false,
                },
                question = questions.recv(), if under_way.len() < AT_ONCE && !cancel.is_cancelled() => {
                    let Some(Question { digest, token }) = question else { return };
                    under_way.push(Box::pin(async move {
                        let (answered, unsettled) = this.fly(digest, &token, cancel).await;
                        Ended::Flight(digest, answered, unsettled)
                    }));
                }
                _ = purge.tick(), if !purging && !cancel.is_cancelled() => {
                    purging = true;
                    under_way.push(Box::pin(async move {
                        let now = this.now();
                        // One that fails is made good by the next.
                        let _purged = this.settings.leases.purge_leases(now, PURGE_BATCH).await;
                        Ended::Purge
                    }));
                }
            }
        }
    }
}
