//! The ops listener: one port for HTTP/1.1 and HTTP/2 in the clear, reachable from the node and the scraper.
//!
//! It is the one port of the sidecar that strangers in the cluster may reach, so everything is bounded: connections,
//! the time to a first request, idleness, header sizes, streams, resets, watches, and the time a drain may take.

use crate::ops::health::Health;
use crate::ops::metrics::Metrics;
use crate::ops::routes::Routes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

const MAX_HEADERS: usize = 64;
const HTTP1_HEADER_BYTES: usize = 16 * 1024;
const HTTP2_HEADER_BYTES: u32 = 16 * 1024;
const MAX_STREAMS: u32 = 64;
const MAX_RESETS: usize = 20;
const STREAM_WINDOW: u32 = 64 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept, which for want of descriptors would otherwise spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Gives the public key set as JSON text, or `None` where none is served.
pub type JwksSource = Arc<dyn Fn() -> Option<Arc<str>> + Send + Sync>;

/// Called before metrics are rendered, to set the sampled gauges.
pub type Sampler = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// Bounds of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones are closed as soon as accepted.
    pub connections: usize,
    /// From connecting to a first complete request, and for each later request's header or message.
    pub request_timeout: Duration,
    /// A connection with nothing under way is told to go away after this long, or up to twice as long.
    pub idle_timeout: Duration,
    /// How long open connections may take to finish once serving is over; then they are cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            request_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(2),
        }
    }
}

/// What the listener shows.
#[derive(Clone)]
pub struct OpsState {
    /// gRPC health, and the readiness behind `/readyz`.
    pub health: Health,
    /// What `/metrics` renders.
    pub metrics: Arc<Metrics>,
    /// What `/.well-known/jwks.json` serves.
    pub jwks: JwksSource,
    /// Runs before each rendering; must not block.
    pub before_render: Sampler,
    /// Bounds of the listener.
    pub limits: Limits,
}

impl fmt::Debug for OpsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpsState").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Serves until `cancel`, then lets open connections finish for at most [`Limits::drain`], then cuts them.
///
/// Returns only when every connection's task has ended, an open `Watch` or not. Dropping the future cuts everything
/// at once. Must run inside a tokio runtime; tasks are spawned on that one alone.
pub async fn serve(listener: TcpListener, state: OpsState, cancel: CancellationToken) {
    let limits = state.limits;
    let routes = Routes::new(Arc::new(state));
    let seats = Arc::new(Semaphore::new(limits.connections));
    let tasks = Tasks { tracker: TaskTracker::new(), cut: CancellationToken::new() };
    let _cut_if_dropped = tasks.cut.clone().drop_guard();
    let mut accepting = pin!(cancel.cancelled());
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.as_mut() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the ops listener could not accept a connection");
                let pause = tokio::time::sleep(ACCEPT_PAUSE);
                let _ = cancel.run_until_cancelled(pause).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::debug!(limit = limits.connections, "the ops listener is full");
            continue;
        };
        let (routes, tasks_of_its, drain) = (routes.clone(), tasks.clone(), cancel.clone());
        tasks.execute(async move {
            attend(stream, routes, limits, tasks_of_its, drain).await;
            drop(seat);
        });
    }
    drop(listener);
    tasks.tracker.close();
    if tokio::time::timeout(limits.drain, tasks.tracker.wait()).await.is_err() {
        tracing::debug!(connections = tasks.tracker.len(), "the ops listener cuts what is still open");
        tasks.cut.cancel();
        tasks.tracker.wait().await;
    }
}

/// Runs tasks that can be waited for and cut, those that hyper makes for HTTP/2 streams included.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.tracker.spawn(self.cut.clone().run_until_cancelled_owned(task));
    }
}

fn protocol(limits: Limits, tasks: Tasks) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HTTP1_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HTTP2_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Serves one connection to its end.
async fn attend(stream: TcpStream, routes: Routes, limits: Limits, tasks: Tasks, drain: CancellationToken) {
    // A failure to set it costs a little latency and nothing else.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let counting = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = UnderWay::begin(&counting);
        let answer = routes.clone().answer(request);
        async move {
            Ok::<_, Infallible>(answer.await.map(|body| Body::new(Counted { body, _under_way: under_way })))
        }
    });
    let builder = protocol(limits, tasks);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    let mut begun_before = 0;
    // The first look is soon: by then a request must have come. hyper times HTTP/1 headers, but not the bytes that
    // tell the versions apart, nor what follows an HTTP/2 preface.
    let mut look = pin!(tokio::time::sleep(limits.request_timeout));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "an ops connection ended badly");
                }
                return;
            }
            () = drain.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                let begun = activity.begun.load(Relaxed);
                let idle = begun == begun_before && activity.under_way.load(Relaxed) == 0;
                if idle && (closing || begun == 0) {
                    return;
                }
                if idle {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                begun_before = begun;
                let next = if closing { limits.request_timeout } else { limits.idle_timeout };
                look.set(tokio::time::sleep(next));
            }
        }
    }
}

/// What goes on on one connection.
#[derive(Default)]
struct Activity {
    begun: AtomicUsize,
    under_way: AtomicUsize,
}

/// One request, until its answer's body is done with.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Relaxed);
        activity.under_way.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// An answer's body that keeps its request under way.
struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
