//! Serving connections: one thread accepts and deals them out; each worker thread runs its own single-threaded runtime
//! and keeps a connection for life, so that a call never crosses threads.
//!
//! Everything a peer can make grow is bounded here: connections, streams, header sizes, resets, the time to say hello,
//! a connection's age.

use crate::grpc::callers::Peer;
use crate::grpc::listener::{Accepted, Listener};
use crate::grpc::tls::TlsSource;
use crate::grpc::wire::{Outlet, Wire};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Over all workers; one more is closed as soon as it is accepted.
    pub max_connections: usize,
    /// Calls under way on one connection.
    pub max_streams_per_connection: u32,
    /// Until TLS and the HTTP/2 preface are done.
    pub handshake_timeout: Duration,
    /// After it, give or take a tenth, a connection is asked to go away and come back.
    pub max_connection_age: Duration,
    /// How often a silent peer is pinged; unanswered for as long again, it is gone.
    pub keepalive: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_streams_per_connection: 256,
            handshake_timeout: Duration::from_secs(5),
            max_connection_age: Duration::from_secs(1800),
            keepalive: Duration::from_secs(20),
        }
    }
}

/// Header lists larger than this are refused. A forwarded token travels in a message, not in a header.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Streams reset before they were served, and by us for errors: hyper's own defaults, said aloud because a flood of
/// either is an attack and an unset limit is none.
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 1024;
/// How long a connection past its age may finish its calls.
const AGE_GRACE: Duration = Duration::from_secs(30);
/// How long to wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Dealt {
    connection: Accepted,
    _place: OwnedSemaphorePermit,
}

/// What answers the calls of a connection.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers one call.
    fn answer(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Accepts until cancelled and deals connections to the workers in turn.
pub async fn accept(
    listener: Listener,
    places: Arc<Semaphore>,
    workers: Vec<mpsc::Sender<Dealt>>,
    cancel: CancellationToken,
) {
    let mut turn = workers.iter().cycle();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) if is_the_peer_s(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "can't accept connections for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!("a connection over the limit was closed");
            continue;
        };
        let Some(worker) = turn.next() else { return };
        if worker.send(Dealt { connection, _place: place }).await.is_err() {
            return;
        }
    }
}

fn is_the_peer_s(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Serves the connections dealt to one worker, until cancelled and then until they are done. The caller bounds the
/// latter.
pub async fn work<A: Answer>(
    mut dealt: mpsc::Receiver<Dealt>,
    answer: A,
    tls: Option<Arc<TlsSource>>,
    settings: Settings,
    cancel: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => break,
            next = dealt.recv() => next,
        };
        let Some(Dealt { connection, _place: place }) = next else { break };
        let (answer, tls, settings, cancel) = (answer.clone(), tls.clone(), settings.clone(), cancel.clone());
        connections.spawn(async move {
            let greeted = greet(connection, answer, tls, &settings, cancel);
            if let Err(error) = greeted.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// Ties the connection to this runtime and brings it to where HTTP/2 begins.
async fn greet<A: Answer>(
    connection: Accepted,
    answer: A,
    tls: Option<Arc<TlsSource>>,
    settings: &Settings,
    cancel: CancellationToken,
) -> io::Result<()> {
    let leaving = cancel.clone();
    let hello = Hello { patience: settings.handshake_timeout, leaving: &leaving };
    match connection {
        Accepted::Tcp(stream) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            match tls {
                None => {
                    let (wire, outlet) = hello.within(Wire::accept(stream)).await?;
                    converse(wire, outlet, Peer::default(), answer, settings, cancel).await
                }
                Some(tls) => {
                    let greeted = async {
                        let (stream, certificate_names) = tls.accept(stream).await?;
                        Ok::<_, io::Error>((Wire::accept(stream).await?, certificate_names))
                    };
                    let ((wire, outlet), certificate_names) = hello.within(greeted).await?;
                    let peer = Peer { certificate_names, ..Peer::default() };
                    converse(wire, outlet, peer, answer, settings, cancel).await
                }
            }
        }
        Accepted::Unix(stream, uid) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            let (wire, outlet) = hello.within(Wire::accept(stream)).await?;
            converse(wire, outlet, Peer { uid, ..Peer::default() }, answer, settings, cancel).await
        }
    }
}

/// How long a peer may take to say hello.
struct Hello<'a> {
    patience: Duration,
    leaving: &'a CancellationToken,
}

impl Hello<'_> {
    async fn within<T>(&self, greeted: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            greeted = tokio::time::timeout(self.patience, greeted) => greeted.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not say hello in time"))
            }),
            () = self.leaving.cancelled() => Err(io::Error::other("the sidecar is going away")),
        }
    }
}

/// Serves calls until the peer leaves, the connection is too old or the sidecar drains.
async fn converse<S, A>(
    wire: hyper_util::rt::TokioIo<Wire<S>>,
    outlet: Outlet<S>,
    peer: Peer,
    answer: A,
    settings: &Settings,
    cancel: CancellationToken,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Answer,
{
    let peer = Arc::new(peer);
    let leaving = peer.leaving.clone();
    let service = hyper::service::service_fn(move |request| {
        let (answer, peer) = (answer.clone(), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(answer.answer(peer, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams_per_connection)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(settings.keepalive)
        .keep_alive_timeout(settings.keepalive)
        .serve_connection(wire, service);
    let mut connection = pin!(connection);
    let age = tokio::time::sleep(jittered(settings.max_connection_age));
    let leave = tokio::select! {
        done = sending(connection.as_mut(), &outlet) => return done,
        () = cancel.cancelled() => None,
        () = age => Some(AGE_GRACE),
    };
    leaving.cancel();
    connection.as_mut().graceful_shutdown();
    match leave {
        None => sending(connection, &outlet).await,
        Some(grace) => tokio::select! {
            done = sending(connection, &outlet) => done,
            () = tokio::time::sleep(grace) => Ok(()),
        },
    }
}

/// The connection; and whenever it pauses, what it wrote is sent.
fn sending<S, C>(mut connection: Pin<&mut C>, outlet: &Outlet<S>) -> impl Future<Output = io::Result<()>>
where
    S: AsyncWrite + Unpin,
    C: Future<Output = hyper::Result<()>>,
{
    poll_fn(move |context| {
        let done = connection.as_mut().poll(context);
        match (done, outlet.poll_send(context)) {
            (Poll::Ready(done), _) => Poll::Ready(done.map_err(io::Error::other)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
}

/// Within a tenth of `age`, so that connections made together don't all come back together.
fn jittered(age: Duration) -> Duration {
    let [random] = crate::token::random_bytes().unwrap_or([128]);
    age.mul_f64(0.9 + f64::from(random) / 255.0 * 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper_util::rt::TokioIo;
    use std::task::Context;
    use tokio::io::ReadBuf;

    /// Answers everything with this.
    #[derive(Clone)]
    struct Says(Bytes);

    impl Answer for Says {
        async fn answer(&self, _: Arc<Peer>, _: Request<Incoming>) -> Response<Body> {
            Response::new(Body::new(Full::new(self.0.clone())))
        }
    }

    async fn serve<S>(stream: S, answer: Says) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (wire, outlet) = Wire::accept(stream).await?;
        converse(wire, outlet, Peer::default(), answer, &Settings::default(), CancellationToken::new()).await
    }

    #[tokio::test]
    async fn a_client_with_little_room_gets_every_answer_whole() {
        let whole: Bytes = (0..=250).cycle().take(300_000).collect::<Vec<u8>>().into();
        let (ours, theirs) = tokio::io::duplex(700);
        tokio::spawn(serve(ours, Says(whole.clone())));
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(theirs)).await.unwrap();
        tokio::spawn(connection);
        let calls = (0..8).map(|_| {
            client.send_request(Request::post("http://localhost/").body(Empty::<Bytes>::new()).unwrap())
        });
        let answers = tokio::time::timeout(Duration::from_secs(20), async {
            let calls: Vec<_> = calls.collect();
            let mut answers = Vec::new();
            for call in calls {
                answers.push(call.await.unwrap().into_body().collect().await.unwrap().to_bytes());
            }
            answers
        });
        for answer in answers.await.expect("nothing is stuck") {
            assert_eq!(answer, whole);
        }
    }

    /// Sends what every client does first and then nothing; takes nothing, for it is gone.
    struct Gone(&'static [u8]);

    impl AsyncRead for Gone {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            let (now, later) = self.0.split_at(self.0.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.0 = later;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_connection_ends_when_nothing_can_be_written() {
        let gone = Gone(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let served = serve(gone, Says(Bytes::new()));
        let ended = tokio::time::timeout(Duration::from_secs(5), served).await.expect("it ends at once");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
