//! An issuer's token endpoint: refresh tokens presented to it (RFC 6749 §6).

use crate::clock::Clock;
use crate::oauth::client::{Answer, Client};
use crate::session::{Granting, Issued, TokenEndpoint};
use serde_json::Value;
use std::time::Duration;

/// What issuers say when only a new login helps: `invalid_grant` of RFC 6749 §5.2, and what OpenID Connect and Entra have
/// for a login whose terms changed. Whatever else they say loses nobody's session.
const FINAL: [&str; 4] = ["invalid_grant", "interaction_required", "login_required", "consent_required"];

/// The longest life of an access token that is believed: what is told beyond it is no life.
const LONGEST_LIFE: u64 = 10 * 365 * 86_400;

/// One issuer's token endpoint.
#[derive(Debug)]
pub struct TokenClient {
    client: Client,
    clock: Clock,
}

impl TokenClient {
    /// With this client, which should keep no connection: one that the issuer is about to close leaves it open whether a
    /// token arrived.
    #[must_use]
    pub const fn new(client: Client, clock: Clock) -> Self {
        Self { client, clock }
    }

    fn granted(&self, token: &str, answer: &Answer) -> Granting {
        let Answer { status, body } = answer;
        let issuer = self.client.issuer();
        let said = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let error = said.get("error").and_then(Value::as_str);
        if status.is_success() && error.is_none() {
            return issued(&said, token, self.clock.now().judged.as_millis()).map_or_else(
                || {
                    tracing::warn!(%issuer, "a refresh was answered with what is no token response");
                    Granting::Unknown
                },
                Granting::Issued,
            );
        }
        let is_answer = status.is_success() || status.is_client_error() || status.is_redirection();
        // A proxy's word that somebody was not patient enough.
        let is_late = matches!(status.as_u16(), 408 | 499);
        match error {
            Some(error) if is_answer && FINAL.contains(&error) => Granting::Refused,
            _ if is_answer && !is_late => {
                tracing::warn!(
                    %issuer,
                    %status,
                    error = error.filter(|error| is_code(error)).unwrap_or_default(),
                    "a refresh was refused for a reason that is not its token's; check the issuer's client and url"
                );
                Granting::NotTaken
            }
            _ => {
                tracing::warn!(%issuer, %status, "a refresh failed at the issuer");
                Granting::Unknown
            }
        }
    }
}

/// The tokens of an answer (RFC 6749 §5.1). What is odd beside them costs nobody a login.
fn issued(said: &Value, presented: &str, now: u64) -> Option<Issued> {
    let text = |name: &str| said.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    // Some issuers write the number as text.
    let seconds = said.get("expires_in");
    let seconds = seconds.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let seconds = seconds.filter(|seconds| (1..=LONGEST_LIFE).contains(seconds));
    Some(Issued {
        access_token: text("access_token")?.to_owned(),
        expires_at: seconds.map(|seconds| now + seconds * 1000),
        // Without another the one presented stays good (RFC 6749 §6).
        refresh_token: text("refresh_token").unwrap_or(presented).to_owned(),
        id_token: text("id_token").map(str::to_owned),
    })
}

/// An error code as the RFC has them; anything else could be anything.
fn is_code(error: &str) -> bool {
    error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[tonic::async_trait]
impl TokenEndpoint for TokenClient {
    async fn refresh(&self, token: &str) -> Granting {
        match self.client.post(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await {
            Ok(answer) => self.granted(token, &answer),
            Err(error) => {
                let issuer = self.client.issuer();
                tracing::warn!(%issuer, error = &error as &dyn std::error::Error, "a refresh could not be relayed");
                if error.may_have_been_sent() { Granting::Unknown } else { Granting::NotTaken }
            }
        }
    }

    fn longest(&self) -> Duration {
        self.client.timeout()
    }
}
