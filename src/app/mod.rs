//! The one room that knows every other: builds them from the configuration, runs them, and takes them down.
//!
//! Three stages, three types: [`crate::config::Config`] is what was asked for, [`App`] is built and bound, and
//! [`App::run`] is what runs.

mod build;
mod edge;
mod issuers;
mod level;
mod reader;
mod reload;
mod rooms;
mod run;
mod sample;
mod store;
mod tables;
mod tracing;

pub use build::{Assembly, StartError, explain};
pub use level::LevelSource;
pub use rooms::chain;
pub use run::Drain;
pub use store::{Migrated, inspect, migrate};

use crate::clock::Clock;
use crate::config::Config;
use crate::grpc::Api;
use crate::grpc::listener::Listener;
use crate::grpc::serve;
use crate::grpc::tls::TlsSource;
use crate::ops::{OpsState, Readiness};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A task that runs beside the calls, and ends by itself at the token; at the latest with the drain.
type Task = Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What runs beside the calls.
#[derive(Default)]
struct Background {
    tasks: Vec<Task>,
}

impl Background {
    fn add<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        task: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) {
        self.add_ending(move |cancel| {
            let task = task(cancel.clone());
            // One that does not keep to the token is dropped at it.
            async move {
                cancel.run_until_cancelled(task).await;
            }
        });
    }

    /// For a task that has something to finish after the token.
    fn add_ending<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        task: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) {
        self.tasks.push(Box::new(move |cancel| Box::pin(task(cancel))));
    }
}

/// How it runs.
struct RunSettings {
    workers: usize,
    connections: serve::Settings,
    tls: Option<Arc<TlsSource>>,
    drain: Drain,
}

/// A sidecar that is built and bound, and serves nothing yet.
pub struct App {
    background: Background,
    api: Api,
    ops: OpsState,
    listeners: Vec<Listener>,
    ops_listener: TcpListener,
    ops_address: SocketAddr,
    settings: RunSettings,
    readiness: Readiness,
    /// Ends what has no end of its own: streams and watches.
    ended: CancellationToken,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("api", &self.api_addresses())
            .field("ops", &self.ops_address)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Opens the store, reads the keys and binds the listeners.
    ///
    /// # Errors
    /// [`StartError`]: everything that is wrong with the configuration beyond its form, or what the system refused.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, StartError> {
        Assembly::new(config, clock)?.bind().await
    }

    /// Where callers find it: `HOST:PORT` and `unix:/PATH`.
    #[must_use]
    pub fn api_addresses(&self) -> Vec<String> {
        run::addresses(&self.listeners)
    }

    /// Where orchestrators find it.
    #[must_use]
    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Its readiness, to be waited for.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }
}
