//! Fetches key sets and OpenID configurations from issuers over HTTP, on a short leash: https unless the host is this machine, no redirects, no
//! proxies, 512 KiB, one deadline for everything.

use crate::keys::key_set::LARGEST_SET;
use crate::keys::url::{BadUrl, FetchUrl};
use bytes::{Bytes, BytesMut};
use http::uri::{Authority, Scheme};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::convert::Infallible;
use std::error::Error;
use std::future::{pending, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not done within the deadline.
    #[error("not done within {0:?}")]
    TimedOut(Duration),
    /// The certificates to trust can't be read.
    #[error("the trusted certificates can't be read")]
    Trust(#[source] Box<dyn Error + Send + Sync>),
    /// No connection: address, TCP or TLS.
    #[error("no connection to {url}")]
    Connect {
        /// Where to.
        url: String,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The exchange broke off.
    #[error("the exchange failed")]
    Http(#[source] hyper::Error),
    /// Any status but 200; a redirect is not followed.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// A body of more than 512 KiB.
    #[error("the answer is larger than {LARGEST_SET} bytes")]
    TooLarge,
    /// The OpenID configuration can't be read.
    #[error("the OpenID configuration is not understood")]
    Discovery(#[source] serde_json::Error),
    /// The OpenID configuration is some other issuer's.
    #[error("the OpenID configuration names another issuer")]
    IssuerDiffers,
    /// An endpoint's URL is none that is asked.
    #[error("the URL of an endpoint in the OpenID configuration can't be used")]
    BadUrl(#[source] BadUrl),
    /// It has no such endpoint.
    #[error("the OpenID configuration names no {0}")]
    NoEndpoint(&'static str),
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    token_endpoint: Option<String>,
}

/// An endpoint by its name in an OpenID configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `introspection_endpoint`.
    Introspection,
    /// `revocation_endpoint`.
    Revocation,
    /// `token_endpoint`.
    Token,
}

/// Fetches, one connection per fetch: at one fetch in minutes a kept connection would be a stale one.
#[derive(Debug)]
pub struct Fetcher {
    ca_file: Option<PathBuf>,
    deadline: Duration,
    /// The machine's roots, read at the first need.
    native: Mutex<Option<Arc<ClientConfig>>>,
}

impl Fetcher {
    /// With `ca_file` its certificates alone are trusted. They are read again for each fetch, so they can be renewed.
    ///
    /// # Errors
    /// [`FetchError::Trust`] when the file can't be used now.
    pub fn new(ca_file: Option<PathBuf>, deadline: Duration) -> Result<Self, FetchError> {
        let fetcher = Self { ca_file, deadline, native: Mutex::new(None) };
        if fetcher.ca_file.is_some() {
            fetcher.tls()?;
        }
        Ok(fetcher)
    }

    /// The most time a fetch takes.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Fetches a key set's bytes.
    pub(super) async fn jwks(&self, url: &FetchUrl) -> Result<Bytes, FetchError> {
        self.in_time(self.body(url)).await
    }

    /// Finds an issuer's key set by its OpenID configuration, which must name that very issuer, and fetches it.
    pub(super) async fn discovered_jwks(
        &self,
        issuer: &str,
        configuration: &FetchUrl,
    ) -> Result<Bytes, FetchError> {
        let both = async {
            let found = self.configured(issuer, configuration).await?;
            self.body(&url(found.jwks_uri.as_deref(), "jwks_uri")?).await
        };
        self.in_time(both).await
    }

    /// Finds one of an issuer's endpoints by its OpenID configuration (or RFC 8414 metadata of the same form), which must
    /// name that very issuer.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn discovered_endpoint(&self, issuer: &str, endpoint: Named) -> Result<FetchUrl, FetchError> {
        let configuration = FetchUrl::discovery(issuer).map_err(FetchError::BadUrl)?;
        let found = self.in_time(self.configured(issuer, &configuration)).await?;
        match endpoint {
            Named::Introspection => url(found.introspection_endpoint.as_deref(), "introspection_endpoint"),
            Named::Revocation => url(found.revocation_endpoint.as_deref(), "revocation_endpoint"),
            Named::Token => url(found.token_endpoint.as_deref(), "token_endpoint"),
        }
    }

    async fn configured(&self, issuer: &str, configuration: &FetchUrl) -> Result<Discovered, FetchError> {
        let body = self.body(configuration).await?;
        let found: Discovered = serde_json::from_slice(&body).map_err(FetchError::Discovery)?;
        if found.issuer == issuer { Ok(found) } else { Err(FetchError::IssuerDiffers) }
    }

    /// The TLS settings its fetches have.
    ///
    /// # Errors
    /// [`FetchError::Trust`].
    pub fn tls_config(&self) -> Result<ClientConfig, FetchError> {
        self.tls().map(|tls| tls.as_ref().clone())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
        tokio::time::timeout(self.deadline, work).await.unwrap_or(Err(FetchError::TimedOut(self.deadline)))
    }

    async fn body(&self, url: &FetchUrl) -> Result<Bytes, FetchError> {
        let connect = |source| FetchError::Connect { url: url.to_string(), source };
        let mut connector = self.connector(url)?;
        poll_fn(|context| connector.poll_ready(context)).await.map_err(connect)?;
        let stream = connector.call(url.0.clone()).await.map_err(connect)?;
        let (mut requests, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(FetchError::Http)?;
        let exchange = async {
            let request = request(url)?;
            let response = requests.send_request(request).await.map_err(FetchError::Http)?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            read_bounded(response.into_body()).await
        };
        // The connection only carries the exchange, which learns of its end by itself.
        let carried = async {
            let _ended = connection.await;
            pending::<Infallible>().await
        };
        tokio::select! {
            body = exchange => body,
            never = carried => match never {},
        }
    }

    fn connector(&self, url: &FetchUrl) -> Result<HttpsConnector<HttpConnector>, FetchError> {
        let tls = if url.0.scheme() == Some(&Scheme::HTTPS) {
            self.tls()?
        } else {
            Arc::new(trusting(RootCertStore::empty())?)
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.as_ref().clone());
        Ok(builder.https_or_http().enable_http1().build())
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, FetchError> {
        if let Some(path) = &self.ca_file {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(trust)? {
                roots.add(certificate.map_err(trust)?).map_err(trust)?;
            }
            if roots.is_empty() {
                return Err(trust("no certificate in the file"));
            }
            return trusting(roots).map(Arc::new);
        }
        let mut native = self.native.lock();
        if let Some(tls) = native.as_ref() {
            return Ok(Arc::clone(tls));
        }
        let builder = hyper_rustls::ConfigBuilderExt::with_native_roots(versions()?).map_err(trust)?;
        let tls = Arc::new(builder.with_no_client_auth());
        *native = Some(Arc::clone(&tls));
        Ok(tls)
    }
}

type WantsRoots = tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier>;

fn url(found: Option<&str>, name: &'static str) -> Result<FetchUrl, FetchError> {
    found.ok_or(FetchError::NoEndpoint(name))?.parse().map_err(FetchError::BadUrl)
}

fn versions() -> Result<WantsRoots, FetchError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    builder.with_safe_default_protocol_versions().map_err(trust)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, FetchError> {
    Ok(versions()?.with_root_certificates(roots).with_no_client_auth())
}

fn trust(source: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
    FetchError::Trust(source.into())
}

fn request(url: &FetchUrl) -> Result<Request<Empty<Bytes>>, FetchError> {
    let path = url.0.path_and_query().map_or("/", |path| path.as_str());
    let host = url.0.authority().map_or("", Authority::as_str);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close");
    let malformed =
        |error: http::Error| FetchError::Connect { url: url.to_string(), source: Box::new(error) };
    request.body(Empty::new()).map_err(malformed)
}

async fn read_bounded(body: hyper::body::Incoming) -> Result<Bytes, FetchError> {
    if body.size_hint().lower() > LARGEST_SET as u64 {
        return Err(FetchError::TooLarge);
    }
    let mut body = pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Http)?.into_data() else { continue };
        if read.len() + data.len() > LARGEST_SET {
            return Err(FetchError::TooLarge);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::issuer_double::{Answer, IssuerDouble};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use serde_json::json;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;

    const SOON: Duration = Duration::from_secs(5);

    async fn get(double: &IssuerDouble, path: &str, deadline: Duration) -> Result<Bytes, FetchError> {
        let fetcher = Fetcher::new(None, deadline).unwrap();
        fetcher.jwks(&double.url(path).parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_key_set_is_fetched_and_we_say_who_we_are() {
        let double = IssuerDouble::start().await;
        double.answer("/k", Answer::Body("{}".into()));
        assert_eq!(get(&double, "/k", SOON).await.unwrap(), "{}");
        assert_eq!(double.last_user_agent(), USER_AGENT);
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let double = IssuerDouble::start().await;
        double.answer("/k", Answer::Status(StatusCode::FOUND, "/real"));
        double.answer("/real", Answer::Body("{}".into()));
        let refused = get(&double, "/k", SOON).await.unwrap_err();
        assert!(matches!(refused, FetchError::Status(StatusCode::FOUND)));
        assert_eq!(double.requests(), 1);
    }

    #[tokio::test]
    async fn any_status_but_200_is_a_failure() {
        let double = IssuerDouble::start().await;
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::INTERNAL_SERVER_ERROR] {
            double.answer("/k", Answer::Status(status, ""));
            assert!(matches!(get(&double, "/k", SOON).await, Err(FetchError::Status(s)) if s == status));
        }
    }

    #[tokio::test]
    async fn a_slow_drip_ends_at_the_deadline() {
        let double = IssuerDouble::start().await;
        double.answer("/k", Answer::Drip);
        let refused = get(&double, "/k", Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(refused, FetchError::TimedOut(_)));
    }

    #[tokio::test]
    async fn a_huge_body_is_cut_off_declared_or_not() {
        let double = IssuerDouble::start().await;
        double.answer("/endless", Answer::Endless);
        double.answer("/declared", Answer::Body(" ".repeat(LARGEST_SET + 1)));
        double.answer("/just", Answer::Body(" ".repeat(LARGEST_SET)));
        assert!(matches!(get(&double, "/endless", SOON).await, Err(FetchError::TooLarge)));
        assert!(matches!(get(&double, "/declared", SOON).await, Err(FetchError::TooLarge)));
        assert_eq!(get(&double, "/just", SOON).await.unwrap().len(), LARGEST_SET);
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_no_connection() {
        let fetcher = Fetcher::new(None, SOON).unwrap();
        let refused = fetcher.jwks(&"http://127.0.0.1:1/k".parse().unwrap()).await.unwrap_err();
        assert!(matches!(refused, FetchError::Connect { .. }));
    }

    async fn discover(issuer: &str, named: &str, jwks_uri: &str) -> Result<Bytes, FetchError> {
        let double = IssuerDouble::start().await;
        let fill = |text: &str| text.replace("{}", &double.url(""));
        let document = json!({"issuer": fill(named), "jwks_uri": fill(jwks_uri)});
        double.answer("/t/.well-known/openid-configuration", Answer::Body(document.to_string()));
        double.answer("/k", Answer::Body("keys".into()));
        let issuer = fill(issuer);
        let configuration = FetchUrl::discovery(&issuer).unwrap();
        Fetcher::new(None, SOON).unwrap().discovered_jwks(&issuer, &configuration).await
    }

    #[tokio::test]
    async fn discovery_leads_to_the_keys() {
        assert_eq!(discover("{}/t", "{}/t", "{}/k").await.unwrap(), "keys");
        assert_eq!(discover("{}/t/", "{}/t/", "{}/k").await.unwrap(), "keys");
    }

    #[tokio::test]
    async fn discovery_of_another_issuer_is_refused_to_the_letter() {
        for other in ["{}/T", "{}/t/", "{}", "https://evil.example", ""] {
            let refused = discover("{}/t", other, "{}/k").await;
            assert!(matches!(refused, Err(FetchError::IssuerDiffers)), "{other}");
        }
    }

    #[tokio::test]
    async fn discovery_without_the_endpoint_or_with_a_member_twice_is_refused() {
        let double = IssuerDouble::start().await;
        let (issuer, path) = (double.url("/t"), "/t/.well-known/openid-configuration");
        let fetcher = Fetcher::new(None, SOON).unwrap();
        double.answer(path, Answer::Body(json!({"issuer": issuer}).to_string()));
        let keys = fetcher.discovered_jwks(&issuer, &FetchUrl::discovery(&issuer).unwrap()).await;
        assert!(matches!(keys, Err(FetchError::NoEndpoint("jwks_uri"))));
        let revocation = fetcher.discovered_endpoint(&issuer, Named::Revocation).await;
        assert!(matches!(revocation, Err(FetchError::NoEndpoint("revocation_endpoint"))));
        double.answer(
            path,
            Answer::Body(format!(r#"{{"issuer":"https://evil.example","issuer":"{issuer}"}}"#)),
        );
        let twice = fetcher.discovered_endpoint(&issuer, Named::Introspection).await;
        assert!(matches!(twice, Err(FetchError::Discovery(_))));
    }

    #[tokio::test]
    async fn discovery_does_not_lead_to_plain_http_elsewhere() {
        let refused = discover("{}/t", "{}/t", "http://10.0.0.1/k").await;
        assert!(matches!(refused, Err(FetchError::BadUrl(BadUrl::NotHttps))));
    }

    fn certificate_authority() -> (String, TlsAcceptor) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &ca).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![leaf.der().clone()], key.into()).unwrap();
        (ca.pem(), TlsAcceptor::from(Arc::new(config)))
    }

    #[tokio::test]
    async fn a_private_ca_is_trusted_where_configured_and_only_there() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, acceptor) = certificate_authority();
        std::fs::write(dir.path().join("ca.pem"), ca).unwrap();
        std::fs::write(dir.path().join("other.pem"), certificate_authority().0).unwrap();
        let double = IssuerDouble::start_tls(acceptor).await;
        double.answer("/k", Answer::Body("{}".into()));
        let url = double.url("/k").parse().unwrap();
        let fetcher = |ca: &str| Fetcher::new(Some(dir.path().join(ca)), SOON).unwrap();
        assert_eq!(fetcher("ca.pem").jwks(&url).await.unwrap(), "{}");
        assert!(matches!(fetcher("other.pem").jwks(&url).await, Err(FetchError::Connect { .. })));
        assert_eq!(double.requests(), 1);
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused_at_start() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty.pem"), "").unwrap();
        for name in ["empty.pem", "missing.pem"] {
            let refused = Fetcher::new(Some(dir.path().join(name)), SOON).unwrap_err();
            assert!(matches!(refused, FetchError::Trust(_)));
        }
    }
}
