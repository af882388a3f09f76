//! What the ops port answers: five paths, and gRPC health for what asks in gRPC.

use crate::ops::health::{Health, Phase};
use crate::ops::metrics::{self, Metrics};
use crate::ops::server::OpsState;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPENMETRICS: HeaderValue = HeaderValue::from_static(metrics::CONTENT_TYPE);
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Far shorter than a key is published before it signs.
const FIVE_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const GET_HEAD: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub(super) struct Routes {
    state: Arc<OpsState>,
    health: HealthServer<Health>,
}

impl Routes {
    pub(super) fn new(state: Arc<OpsState>) -> Self {
        Self { health: state.health.server(), state }
    }

    /// The answer to one request. A request's body is read for gRPC alone, and only as far as a health request goes.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::POST && is_grpc(request.headers()) {
            return self.grpc(request).await;
        }
        let head = request.method() == Method::HEAD;
        let Some(response) = self.page(request.uri().path(), head || request.method() == Method::GET) else {
            return plain(StatusCode::NOT_FOUND, "not found\n");
        };
        if head { without_body(response) } else { response }
    }

    /// `None` when there is no such page.
    fn page(&self, path: &str, allowed: bool) -> Option<Response<Body>> {
        let page: fn(&OpsState) -> Option<Response<Body>> = match path {
            "/livez" => |_| Some(plain(StatusCode::OK, "alive\n")),
            "/readyz" => |state| Some(readyz(state)),
            "/metrics" => |state| Some(exposition(&state.metrics, &*state.before_render)),
            "/.well-known/jwks.json" => jwks,
            _ => return None,
        };
        if allowed {
            return page(&self.state);
        }
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        refusal.headers_mut().insert(ALLOW, GET_HEAD);
        Some(refusal)
    }

    async fn grpc(mut self, request: Request<Incoming>) -> Response<Body> {
        if request.version() != Version::HTTP_2 {
            return plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n");
        }
        // Covers the arrival of the request message; a watch, once begun, is not timed.
        let limit: Duration = self.state.limits.request_timeout;
        match tokio::time::timeout(limit, self.health.call(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => Status::deadline_exceeded("no request message arrived").into_http(),
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match media_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

fn readyz(state: &OpsState) -> Response<Body> {
    let readiness = state.health.readiness();
    let waiting = match readiness.phase() {
        Phase::Ready => return plain(StatusCode::OK, "ready\n"),
        Phase::Draining => "draining".to_owned(),
        Phase::Starting => match readiness.closed().as_slice() {
            [] => "starting".to_owned(),
            gates => gates.join(", "),
        },
    };
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {waiting}\n"))
}

fn exposition(metrics: &Metrics, before_render: &dyn Fn(&Metrics)) -> Response<Body> {
    before_render(metrics);
    respond(StatusCode::OK, OPENMETRICS, NO_STORE, metrics.render())
}

fn jwks(state: &OpsState) -> Option<Response<Body>> {
    let keys = (state.jwks)()?;
    Some(respond(StatusCode::OK, JWK_SET, FIVE_MINUTES, keys.to_string()))
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    respond(status, TEXT, NO_STORE, text.into())
}

fn respond(status: StatusCode, media_type: HeaderValue, cache: HeaderValue, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// The answer to HEAD: all headers of the GET, its length included, and no body.
fn without_body(response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::empty())
}
