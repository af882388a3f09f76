//! Introspection (RFC 7662): one exchange for a token however many ask, a bounded number at once.
//!
//! Exchanges run in [`Introspector::run`], so a caller that goes away takes nobody's answer with it, and callers on any
//! runtime share one.

use crate::clock::Clock;
use crate::oauth::client::{Answer, Client, ExchangeError};
use crate::token::{Secret, TokenDigest};
use crate::verify::{Introspection, IssuerFailed, Said, Since, says_active};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Exchanges under way at once.
const AT_ONCE: usize = 64;
/// Tokens waiting for their exchange.
const WAITING: usize = 1024;
/// Answers are kept for so long after they came: for who began to ask before that, and of inactive tokens for all, so that
/// junk costs the issuer little. Short, for a token may be newer than the replica that was asked.
const KEPT_FOR: Duration = Duration::from_secs(2);
const KEPT: u64 = 4096;

type Answered = Result<Said, IssuerFailed>;

struct Question {
    digest: TokenDigest,
    token: Secret,
    since: Since,
    answer: oneshot::Sender<Answered>,
}

/// Who waits for an exchange, and who for the next one of the same token.
#[derive(Default)]
struct Flight {
    askers: Vec<oneshot::Sender<Answered>>,
    next: Vec<oneshot::Sender<Answered>>,
}

/// An answer that came a moment ago.
#[derive(Clone)]
struct Recent {
    said: Said,
    came_at: Duration,
    inactive: bool,
}

/// Asks one issuer's introspection endpoint.
pub struct Introspector {
    client: Client,
    clock: Clock,
    ask: mpsc::Sender<Question>,
    questions: Mutex<Option<mpsc::Receiver<Question>>>,
    recent: moka::sync::Cache<TokenDigest, Recent>,
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Introspector {
    /// With this client; [`Self::run`] does the exchanges.
    #[must_use]
    pub fn new(client: Client, clock: Clock) -> Self {
        let (ask, questions) = mpsc::channel(WAITING);
        let recent = moka::sync::Cache::builder().max_capacity(KEPT).time_to_live(KEPT_FOR).build();
        Self { client, clock, ask, questions: Mutex::new(Some(questions)), recent }
    }

    /// Exchanges until cancelled. Runs once; a second call returns at once.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let Some(mut questions) = self.questions.lock().take() else { return };
        let mut flights: HashMap<TokenDigest, Flight> = HashMap::new();
        let exchanging = |digest, token: Secret| {
            let this = &self;
            async move {
                let answered: Answered = this.exchange(digest, &token).await;
                (digest, token, answered)
            }
        };
        let mut under_way: FuturesUnordered<_> = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(ended) = under_way.next(), if !under_way.is_empty() => {
                    let (digest, token, answered): (TokenDigest, Secret, Answered) = ended;
                    let Flight { askers, mut next } = flights.remove(&digest).unwrap_or_default();
                    next.retain(|asker| !asker.is_closed());
                    for asker in askers {
                        // Who went away needs no answer.
                        let _ = asker.send(answered.clone());
                    }
                    if !next.is_empty() {
                        flights.insert(digest, Flight { askers: next, next: Vec::new() });
                        under_way.push(exchanging(digest, token));
                    }
                }
                question = questions.recv(), if under_way.len() < AT_ONCE => {
                    let Some(Question { digest, token, since, answer }) = question else { return };
                    // Who gave up while it waited costs the issuer nothing.
                    if answer.is_closed() {
                        continue;
                    }
                    match (flights.get_mut(&digest), since) {
                        // What is under way may have been answered there before this was asked.
                        (Some(flight), Since::Now) => flight.next.push(answer),
                        (Some(flight), Since::Begun(_)) => flight.askers.push(answer),
                        (None, since) => match self.known(&digest, since) {
                            Some(said) => {
                                let _ = answer.send(Ok(said));
                            }
                            None => {
                                flights.insert(digest, Flight { askers: vec![answer], next: Vec::new() });
                                under_way.push(exchanging(digest, token));
                            }
                        },
                    }
                }
            }
        }
    }

    /// An answer that came while the caller was on its way here, or a "not active" of a moment ago.
    fn known(&self, digest: &TokenDigest, since: Since) -> Option<Said> {
        let Since::Begun(begun) = since else { return None };
        let recent = self.recent.get(digest)?;
        (recent.inactive || recent.came_at >= begun).then_some(recent.said)
    }

    async fn exchange(&self, digest: TokenDigest, token: &Secret) -> Answered {
        let text = std::str::from_utf8(token.expose()).map_err(|_| IssuerFailed)?;
        let asked_at = self.clock.elapsed();
        let asked = self.client.post(&[("token", text), ("token_type_hint", "access_token")]).await;
        let issuer = self.client.issuer();
        match asked {
            Ok(Answer { status: StatusCode::OK, body }) => {
                let active = says_active(&body, issuer).inspect_err(|_| {
                    tracing::warn!(%issuer, "introspection was answered with what is no answer for this issuer");
                })?;
                let said = Said { body: body.as_ref().into(), asked_at };
                let recent = Recent { said: said.clone(), came_at: self.clock.elapsed(), inactive: !active };
                self.recent.insert(digest, recent);
                Ok(said)
            }
            Ok(Answer { status, .. }) => {
                // 401 is about us, not about the token: our id or secret is wrong.
                tracing::warn!(
                    %issuer,
                    %status,
                    "introspection was refused; check client_id, client_secret_file and auth"
                );
                Err(IssuerFailed)
            }
            Err(error) => {
                let error: &ExchangeError = &error;
                tracing::warn!(%issuer, error = error as &dyn std::error::Error, "introspection failed");
                Err(IssuerFailed)
            }
        }
    }
}

#[tonic::async_trait]
impl Introspection for Introspector {
    async fn introspect(&self, token: &str, since: Since) -> Answered {
        let digest = TokenDigest::of(token.as_bytes());
        let (answer, answered) = oneshot::channel();
        let token = Secret::new(token.as_bytes().to_vec());
        // Full: more are waiting than the issuer answers. Better to say so than to let them pile up.
        self.ask.try_send(Question { digest, token, since, answer }).map_err(|_| IssuerFailed)?;
        answered.await.unwrap_or(Err(IssuerFailed))
    }
}
