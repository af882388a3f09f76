//! Introspection (RFC 7662): one exchange for a token however many ask, a bounded number at once.
//!
//! Exchanges run in [`Introspector::run`], so a caller that goes away takes nobody's answer with it, and callers on any
//! runtime share one.

use crate::oauth::client::{Answer, Client, ExchangeError};
use crate::token::{Secret, TokenDigest};
use crate::verify::{Introspection, IssuerFailed};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Exchanges under way at once.
const AT_ONCE: usize = 64;
/// Tokens waiting for their exchange.
const WAITING: usize = 1024;
/// Who asks again about a token that was just called inactive gets that answer for so long: junk costs the issuer little.
/// Short, for a token may be newer than the replica that was asked.
const INACTIVE_FOR: Duration = Duration::from_secs(2);
const INACTIVE_KEPT: u64 = 4096;

type Said = Result<Arc<[u8]>, IssuerFailed>;

struct Question {
    digest: TokenDigest,
    token: Secret,
    answer: oneshot::Sender<Said>,
}

/// Asks one issuer's introspection endpoint.
#[derive(Debug)]
pub struct Introspector {
    client: Client,
    ask: mpsc::Sender<Question>,
    questions: Mutex<Option<mpsc::Receiver<Question>>>,
    inactive: moka::sync::Cache<TokenDigest, Arc<[u8]>>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question(…)")
    }
}

impl Introspector {
    /// With this client; [`Self::run`] does the exchanges.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let (ask, questions) = mpsc::channel(WAITING);
        let inactive =
            moka::sync::Cache::builder().max_capacity(INACTIVE_KEPT).time_to_live(INACTIVE_FOR).build();
        Self { client, ask, questions: Mutex::new(Some(questions)), inactive }
    }

    /// Exchanges until cancelled. Runs once; a second call returns at once.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let Some(mut questions) = self.questions.lock().take() else { return };
        let mut waiting: HashMap<TokenDigest, Vec<oneshot::Sender<Said>>> = HashMap::new();
        let exchanging = |digest, token: Secret| {
            let this = &self;
            async move { (digest, this.exchange(digest, &token).await) }
        };
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some((digest, said)) = under_way.next(), if !under_way.is_empty() => {
                    let said: Said = said;
                    for answer in waiting.remove(&digest).unwrap_or_default() {
                        // Who went away needs no answer.
                        let _ = answer.send(said.clone());
                    }
                }
                question = questions.recv(), if under_way.len() < AT_ONCE => {
                    let Some(Question { digest, token, answer }) = question else { return };
                    let askers = waiting.entry(digest).or_default();
                    askers.push(answer);
                    if askers.len() == 1 {
                        under_way.push(exchanging(digest, token));
                    }
                }
            }
        }
    }

    async fn exchange(&self, digest: TokenDigest, token: &Secret) -> Said {
        let text = std::str::from_utf8(token.expose()).map_err(|_| IssuerFailed)?;
        let asked = self.client.post(&[("token", text), ("token_type_hint", "access_token")]).await;
        let issuer = self.client.issuer();
        match asked {
            Ok(Answer { status: StatusCode::OK, body }) => {
                let body: Arc<[u8]> = body.as_ref().into();
                if says_inactive(&body) {
                    self.inactive.insert(digest, Arc::clone(&body));
                }
                Ok(body)
            }
            Ok(Answer { status, .. }) => {
                // 401 is about us, not about the token: our id or secret is wrong.
                tracing::warn!(%issuer, %status, "introspection was refused; check client_id, client_secret_file and auth");
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

/// Whether it is the whole of a usual "no"; anything else is read where it is judged.
fn says_inactive(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Word {
        active: bool,
    }
    serde_json::from_slice::<Word>(body).is_ok_and(|word| !word.active)
}

#[tonic::async_trait]
impl Introspection for Introspector {
    async fn introspect(&self, token: &str) -> Said {
        let digest = TokenDigest::of(token.as_bytes());
        if let Some(inactive) = self.inactive.get(&digest) {
            return Ok(inactive);
        }
        let (answer, answered) = oneshot::channel();
        let question = Question { digest, token: Secret::new(token.as_bytes().to_vec()), answer };
        // Full: more are waiting than the issuer answers. Better to say so than to let them pile up.
        self.ask.try_send(question).map_err(|_| IssuerFailed)?;
        answered.await.unwrap_or(Err(IssuerFailed))
    }
}
