//! Other issuers: where a sidecar finds their keys, over real HTTP where they are fetched.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How a path answers.
#[derive(Clone)]
enum Answer {
    Body(String),
    Held(Arc<Notify>, String),
}

/// An issuer's web server on loopback; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Site {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: AtomicUsize,
}

impl Site {
    pub(crate) async fn open() -> Self {
        let state = Arc::new(State::default());
        Self { address: serve_http(Arc::clone(&state), respond).await, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on this path has this body.
    pub(crate) fn publish(&self, path: &str, body: impl Into<String>) {
        self.state.answers.lock().insert(path.to_owned(), Answer::Body(body.into()));
    }

    /// From now on this path has this body once it is let go.
    pub(crate) fn hold(&self, path: &str, body: impl Into<String>) -> Arc<Notify> {
        let go = Arc::new(Notify::new());
        self.state.answers.lock().insert(path.to_owned(), Answer::Held(Arc::clone(&go), body.into()));
        go
    }

    /// From now on this path is an error.
    pub(crate) fn take_down(&self, path: &str) {
        self.state.answers.lock().remove(path);
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

/// An HTTP server on loopback that answers so; it ends with the test's runtime.
pub(crate) async fn serve_http<S: Send + Sync + 'static, F: Future<Output = Response<Full<Bytes>>> + Send>(
    state: Arc<S>,
    answer: impl Fn(Request<Incoming>, Arc<S>) -> F + Copy + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let service = service_fn(|request| async {
                    Ok::<_, Infallible>(answer(request, Arc::clone(&state)).await)
                });
                let connection = hyper::server::conn::http1::Builder::new();
                // The client hangs up whenever it has had enough.
                let _ended = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Response<Full<Bytes>> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let answer = state.answers.lock().get(request.uri().path()).cloned();
    let body = match answer {
        Some(Answer::Body(body)) => body,
        Some(Answer::Held(go, body)) => {
            go.notified().await;
            body
        }
        None => {
            let down = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            return down.body(Full::default()).unwrap();
        }
    };
    Response::new(Full::from(body))
}

/// An issuer's part of `issuers`: `keys` as one flow mapping, then further lines. Access tokens are `at+jwt`, for the shop
/// or the bank.
pub(crate) fn entry(issuer: &str, keys: &str, more: &str) -> String {
    let indented: String = more.lines().map(|line| format!("    {line}\n")).collect();
    let default = |name: &str, line: &str| {
        if more.lines().any(|line| line.starts_with(name)) { String::new() } else { format!("    {line}\n") }
    };
    let audiences = default("audiences:", "audiences: [shop, bank]");
    let types = default("types:", "types: [at+jwt]");
    format!("  - issuer: {issuer}\n    keys: {keys}\n{audiences}{types}{indented}")
}

/// Every algorithm whose keys are public.
pub(crate) const PUBLIC: &str =
    "algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]\n";
