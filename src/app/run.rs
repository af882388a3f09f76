//! Running what was built: background tasks, worker threads, listeners, and the way out.
//!
//! Every task that runs beside calls is spawned here, through one tracker and one token; the two listeners spawn only
//! their connections, each through a tracker of its own.

use crate::app::{App, Background};
use crate::grpc::serve::{self, Dealt};
use crate::grpc::{Api, listener::Listener};
use crate::ops;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a sidecar goes away.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Not ready any more, yet still serving, so that orchestrators and clients look elsewhere first.
    pub grace: Duration,
    /// From then on calls may finish; after this they are cut.
    pub deadline: Duration,
}

/// Connections that wait for one worker to take them.
const DEALT_AHEAD: usize = 64;

/// What is left for the ops listener where the calls took the whole deadline.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// A worker thread: where it takes connections from, and how it says that it is done.
struct Worker {
    deal: mpsc::Sender<Dealt>,
    done: oneshot::Receiver<()>,
}

impl App {
    /// Serves until `shutdown`, then drains. Returns when everything has ended, at the latest after grace and deadline.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { background, api, ops, listeners, ops_listener, settings, readiness, ended, .. } = self;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let drain = CancellationToken::new();
        let cut = CancellationToken::new();
        let _stop_if_dropped = stop.clone().drop_guard();
        let _cut_if_dropped = cut.clone().drop_guard();

        spawn_background(background, &tasks, &stop);
        tasks.spawn(ops::server::serve(ops_listener, ops, stop.clone()));
        let mut workers = Vec::new();
        for number in 0..settings.workers {
            workers.push(start_worker(number, &api, &settings, drain.clone(), cut.clone())?);
        }
        let places = Arc::new(Semaphore::new(settings.connections.max_connections));
        for listener in listeners {
            let deals = workers.iter().map(|worker| worker.deal.clone()).collect();
            tasks.spawn(serve::accept(listener, Arc::clone(&places), deals, drain.clone()));
        }

        let died = {
            let gone = futures_util::future::select_all(workers.iter_mut().map(|worker| &mut worker.done));
            tokio::select! {
                () = shutdown.cancelled() => false,
                _ = gone => true,
            }
        };
        if died {
            // Cannot happen while every call is its own task; but half a sidecar must not look like a whole one.
            return Err(io::Error::other("a worker thread ended by itself"));
        }
        tracing::info!(grace = ?settings.drain.grace, "draining");
        let end = tokio::time::Instant::now() + settings.drain.grace + settings.drain.deadline;
        readiness.drain();
        tokio::time::sleep(settings.drain.grace).await;
        drain.cancel();
        ended.cancel();
        let finished = async {
            for worker in &mut workers {
                // An error means the worker is gone, which is what is waited for.
                let _ = (&mut worker.done).await;
            }
        };
        if tokio::time::timeout(settings.drain.deadline, finished).await.is_err() {
            tracing::warn!(deadline = ?settings.drain.deadline, "calls still under way at the deadline were cut");
        }
        cut.cancel();
        stop.cancel();
        tasks.close();
        // Everything ends at the token but refreshes under way at an issuer, and probes, which have no claim on the deadline.
        let left = end.saturating_duration_since(tokio::time::Instant::now()).max(LAST_MOMENT);
        if tokio::time::timeout(left, tasks.wait()).await.is_err() {
            tracing::warn!("the last refreshes at issuers, or the ops listener's last connections, were cut");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn start_worker(
    number: usize,
    api: &Api,
    settings: &crate::app::RunSettings,
    drain: CancellationToken,
    cut: CancellationToken,
) -> io::Result<Worker> {
    let (deal, dealt) = mpsc::channel(DEALT_AHEAD);
    let (finished, done) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (api, tls, connections) = (api.for_worker(), settings.tls.clone(), settings.connections.clone());
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve::work(dealt, api, tls, connections, drain) => {}
                () = cut.cancelled() => {}
            }
        });
        runtime.shutdown_background();
        // Nobody waits any more once the deadline has passed.
        let _ = finished.send(());
    })?;
    Ok(Worker { deal, done })
}

fn spawn_background(background: Background, tasks: &TaskTracker, stop: &CancellationToken) {
    for task in background.tasks {
        tasks.spawn(task(stop.clone()));
    }
}

/// The addresses bound, for whoever has to find them.
pub(super) fn addresses(listeners: &[Listener]) -> Vec<String> {
    listeners.iter().map(Listener::address).collect()
}
