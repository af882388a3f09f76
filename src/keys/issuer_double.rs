//! An issuer for tests: a real HTTP server on loopback that answers as told, well or badly.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// How a path answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// 200 with this body.
    Body(String),
    /// This status, and the place it points to.
    Status(StatusCode, &'static str),
    /// 200 and a byte now and then, for ever.
    Drip,
    /// 200 and bytes without end, of no declared length.
    Endless,
    /// 200 with this body, once told to go on.
    Held(Arc<Notify>, String),
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub(super) struct IssuerDouble {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: AtomicUsize,
    last_user_agent: Mutex<String>,
}

impl IssuerDouble {
    pub(super) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(super) async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::serve(Some(acceptor)).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State::default());
        let double = Self { scheme, address, state: Arc::clone(&state) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&state), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        double
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(super) fn answer(&self, path: &str, answer: Answer) {
        self.state.answers.lock().insert(path.to_owned(), answer);
    }

    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub(super) fn last_user_agent(&self) -> String {
        self.state.last_user_agent.lock().clone()
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let service = service_fn(|request| respond(request, Arc::clone(&state)));
    // The client hangs up whenever it has had enough.
    let _ended =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let agent = request.headers().get(header::USER_AGENT).map(|agent| agent.to_str().unwrap().to_owned());
    *state.last_user_agent.lock() = agent.unwrap_or_default();
    let answer = state.answers.lock().get(request.uri().path()).cloned();
    Ok(match answer {
        Some(Answer::Body(body)) => Response::new(Full::from(body).boxed_unsync()),
        Some(Answer::Status(status, location)) => {
            let builder = Response::builder().status(status).header(header::LOCATION, location);
            builder.body(Full::default().boxed_unsync()).unwrap()
        }
        Some(Answer::Drip) => Response::new(endless(" ", Duration::from_millis(5))),
        Some(Answer::Endless) => Response::new(endless(&" ".repeat(16 * 1024), Duration::ZERO)),
        Some(Answer::Held(go_on, body)) => {
            go_on.notified().await;
            Response::new(Full::from(body).boxed_unsync())
        }
        None => {
            Response::builder().status(StatusCode::NOT_FOUND).body(Full::default().boxed_unsync()).unwrap()
        }
    })
}

fn endless(piece: &str, pause: Duration) -> Body {
    let piece = Bytes::copy_from_slice(piece.as_bytes());
    let pieces = futures_util::stream::unfold(piece, move |piece| async move {
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(piece.clone())), piece))
    });
    StreamBody::new(pieces).boxed_unsync()
}
