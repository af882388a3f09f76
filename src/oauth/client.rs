//! A confidential client of an issuer: form posts to one of its endpoints, authenticated as RFC 6749 §2.3.1 says. On the
//! same short leash as key fetches: https unless the host is this machine, no redirects, one deadline, a small answer.

use crate::keys::{FetchError, FetchUrl, Fetcher, Named};
use crate::token::Issuer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The largest answer read.
const LARGEST: usize = 64 * 1024;
/// Connections kept while idle.
const IDLE_CONNECTIONS: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(30);
/// An endpoint is looked up again after this.
const DISCOVERED_FOR: Duration = Duration::from_secs(600);
/// An endpoint that was looked up in vain is looked up again after this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// How the client proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// HTTP Basic, the default of OAuth.
    Basic,
    /// Id and secret in the form.
    Post,
}

/// Which endpoint.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// At this URL.
    At(FetchUrl),
    /// Where the issuer's OpenID configuration says.
    Discovered(Named),
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whose endpoint.
    pub issuer: Issuer,
    /// Which.
    pub endpoint: Endpoint,
    /// Our id there.
    pub client_id: String,
    /// The file of our secret there; read at each call, so it can be renewed.
    pub secret_file: PathBuf,
    /// How we prove ourselves.
    pub authentication: Authentication,
    /// Authorities for the endpoint's certificate; the system's without it. Read at the start.
    pub ca_file: Option<PathBuf>,
    /// The deadline of one exchange.
    pub timeout: Duration,
    /// Whether connections are kept for the next exchange.
    pub keep_connections: bool,
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The authorities can't be read.
    #[error("the trusted certificates can't be read")]
    Trust(#[source] FetchError),
    /// The secret can't be read.
    #[error("the client's secret can't be read")]
    Secret(#[source] io::Error),
}

/// Why an exchange failed. Never holds what was sent or answered.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Not done within the deadline.
    #[error("not done within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
        /// Whether it may have been sent by then.
        sent: bool,
    },
    /// The endpoint could not be found.
    #[error("the endpoint could not be discovered")]
    Discovery(#[source] FetchError),
    /// The endpoint was looked up in vain a moment ago.
    #[error("the endpoint was looked up in vain a moment ago")]
    NotFoundYet,
    /// The secret can't be read.
    #[error("the client's secret can't be read")]
    Secret(#[source] io::Error),
    /// The connection or the exchange on it.
    #[error("the exchange failed")]
    Http(#[source] hyper_util::client::legacy::Error),
    /// The answer broke off or is larger than 64 KiB.
    #[error("the answer could not be read")]
    Body,
    /// The request could not be written down.
    #[error("id, secret or URL has characters that can't be sent")]
    Malformed,
}

impl ExchangeError {
    /// Whether the endpoint may have got the request.
    #[must_use]
    pub fn may_have_been_sent(&self) -> bool {
        match self {
            Self::TimedOut { sent, .. } => *sent,
            Self::Http(error) => !error.is_connect(),
            Self::Body => true,
            Self::Discovery(_) | Self::NotFoundYet | Self::Secret(_) | Self::Malformed => false,
        }
    }
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// A client of one endpoint.
pub struct Client {
    settings: ClientSettings,
    fetcher: Fetcher,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Looked up once for all who need it.
    discovered: Mutex<Arc<OnceCell<(FetchUrl, Instant)>>>,
    /// When it was looked up in vain.
    not_found_at: Mutex<Option<Instant>>,
}

impl Client {
    /// Prepares a client; nothing is connected yet. Connections live on the runtime that exchanges.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: ClientSettings) -> Result<Self, SetupError> {
        std::fs::read(&settings.secret_file).map(Zeroizing::new).map_err(SetupError::Secret)?;
        let fetcher = Fetcher::new(settings.ca_file.clone(), settings.timeout).map_err(SetupError::Trust)?;
        let tls = fetcher.tls_config().map_err(SetupError::Trust)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Half of the time, so that a host that is not there is told from one that does not answer.
        tcp.set_connect_timeout(Some(settings.timeout / 2));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(if settings.keep_connections { IDLE_CONNECTIONS } else { 0 })
            .build(connector);
        Ok(Self { settings, fetcher, http, discovered: Mutex::default(), not_found_at: Mutex::new(None) })
    }

    /// Whose endpoint it is.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.settings.issuer
    }

    /// The deadline of one exchange.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Posts a form and reads the answer, whatever its status.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn post(&self, form: &[(&str, &str)]) -> Result<Answer, ExchangeError> {
        let timeout = self.settings.timeout;
        let sent = AtomicBool::new(false);
        let exchange = async {
            let url = self.url().await?;
            let request = self.request(&url, form).await?;
            sent.store(true, Ordering::Relaxed);
            let response = self.http.request(request).await.map_err(ExchangeError::Http)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            Ok(Answer { status, body: body.map_err(|_| ExchangeError::Body)?.to_bytes() })
        };
        let late = || ExchangeError::TimedOut { after: timeout, sent: sent.load(Ordering::Relaxed) };
        let answer: Result<Answer, _> =
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(late()));
        // It may have moved: a secret and live tokens are not sent to where an endpoint once was.
        let is_there = answer.as_ref().is_ok_and(|answer| {
            !answer.status.is_redirection()
                && !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE)
        });
        if !is_there {
            *self.discovered.lock() = Arc::default();
        }
        answer
    }

    async fn url(&self) -> Result<FetchUrl, ExchangeError> {
        let named = match &self.settings.endpoint {
            Endpoint::At(url) => return Ok(url.clone()),
            Endpoint::Discovered(named) => *named,
        };
        let cell = {
            let mut discovered = self.discovered.lock();
            if discovered.get().is_some_and(|(_, found_at)| found_at.elapsed() >= DISCOVERED_FOR) {
                *discovered = Arc::default();
            }
            Arc::clone(&discovered)
        };
        cell.get_or_try_init(|| self.discover(named)).await.map(|(url, _)| url.clone())
    }

    async fn discover(&self, named: Named) -> Result<(FetchUrl, Instant), ExchangeError> {
        if self.not_found_at.lock().is_some_and(|at| at.elapsed() < LOOK_AGAIN_AFTER) {
            return Err(ExchangeError::NotFoundYet);
        }
        let found = self.fetcher.discovered_endpoint(&self.settings.issuer, named).await;
        if found.is_err() {
            *self.not_found_at.lock() = Some(Instant::now());
        }
        found.map(|url| (url, Instant::now())).map_err(ExchangeError::Discovery)
    }

    async fn request(
        &self,
        url: &FetchUrl,
        form: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let file = tokio::fs::read(&self.settings.secret_file).await.map_err(ExchangeError::Secret)?;
        let file = Zeroizing::new(file);
        let secret = std::str::from_utf8(file.trim_ascii_end()).map_err(|_| ExchangeError::Malformed)?;
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        encoded.extend_pairs(form);
        let mut request = Request::post(url.uri())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match self.settings.authentication {
            Authentication::Post => {
                encoded.append_pair("client_id", &self.settings.client_id);
                encoded.append_pair("client_secret", secret);
            }
            Authentication::Basic => {
                request = request.header(header::AUTHORIZATION, basic(&self.settings.client_id, secret)?);
            }
        }
        request.body(Full::from(encoded.finish())).map_err(|_| ExchangeError::Malformed)
    }
}

/// Id and secret are form-encoded before they are joined (RFC 6749 §2.3.1).
fn basic(id: &str, secret: &str) -> Result<HeaderValue, ExchangeError> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), encode(secret)));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        .map_err(|_| ExchangeError::Malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_encoded_before_they_are_joined() {
        let value = basic("a:b", "c d/é").unwrap();
        assert_eq!(value.to_str().unwrap(), format!("Basic {}", STANDARD.encode("a%3Ab:c+d%2F%C3%A9")));
        assert!(value.is_sensitive());
    }
}
