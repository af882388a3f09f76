//! The store, from its section: opened, looked at, and told about.

use crate::app::build::StartError;
use crate::app::rooms::chain;
use crate::config::{self, Config, Engine, Faults};
use crate::revocation::RevocationLog;
use crate::session::{LeaseStore, SessionStore};
use crate::store::postgres::{self, PostgresStore};
use crate::store::redis::{self, RedisStore};
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Access, Migration, Report, ServerFault, Shared};
use crate::verify::{SessionRows, TableError};
use std::sync::Arc;
use std::time::Duration;

/// A look at a server is over by then, whatever it does.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// The store as the rooms use it.
pub(super) struct Opened {
    pub(super) log: Arc<dyn RevocationLog>,
    pub(super) sessions: Arc<dyn SessionStore>,
    pub(super) leases: Arc<dyn LeaseStore>,
    /// Where it is a server.
    pub(super) shared: Option<SharedStore>,
}

/// A store on a server.
pub(super) struct SharedStore {
    pub(super) store: Arc<dyn Shared>,
    access: Access,
}

/// Opens the embedded engine, or makes ready to connect to a server.
pub(super) fn open(config: &Config) -> Result<Opened, StartError> {
    match &config.store {
        config::Store::Sqlite(path) => {
            let store = SqliteStore::open(path, sqlite::Settings::default()).map_err(StartError::Store)?;
            tracing::info!(
                store = "sqlite",
                path = %path.display(),
                durability = "fsynced",
                "the store is open; pods on other machines don't share it"
            );
            let store = Arc::new(store);
            Ok(Opened {
                log: Arc::clone(&store) as _,
                leases: Arc::clone(&store) as _,
                sessions: store,
                shared: None,
            })
        }
        config::Store::Server { engine, url, access } => {
            let store = server(config, *engine, url, access)?;
            let shared = SharedStore { store: Arc::clone(&store), access: access.clone() };
            Ok(Opened {
                log: Arc::clone(&store) as _,
                leases: Arc::clone(&store) as _,
                sessions: store as _,
                shared: Some(shared),
            })
        }
    }
}

fn server(
    config: &Config,
    engine: Engine,
    url: &str,
    access: &Access,
) -> Result<Arc<dyn Shared>, StartError> {
    let misspelt = |error: &dyn std::error::Error| {
        StartError::Configuration(Faults::new(vec![config.fault_at("store.url", error.to_string())]))
    };
    let store: Arc<dyn Shared> = match engine {
        Engine::Redis => {
            let address = url.parse::<redis::Address>().map_err(|error| misspelt(&error))?;
            Arc::new(RedisStore::new(address, access.clone()).map_err(StartError::Server)?)
        }
        Engine::Postgres => {
            let address = url.parse::<postgres::Address>().map_err(|error| misspelt(&error))?;
            Arc::new(PostgresStore::new(address, access.clone()).map_err(StartError::Server)?)
        }
    };
    Ok(store)
}

impl SharedStore {
    /// Looks at the server before the start. One that can't be used is told at once; one that can't be reached is waited
    /// for while serving, because what needs no store needs not wait.
    pub(super) async fn greet(&self) -> Result<(), ServerFault> {
        match self.look().await {
            Ok(report) => {
                let Report { server, warnings } = report;
                let (namespace, durability) = (&self.access.namespace, self.access.durability);
                tracing::info!(store = server, %namespace, %durability, "the store answers");
                for warning in warnings {
                    tracing::warn!(durability = %durability, "the store: {warning}");
                }
                Ok(())
            }
            Err(fault @ ServerFault::Unreachable { .. }) => {
                tracing::warn!("{}; not ready until it answers", chain(&fault));
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    async fn look(&self) -> Result<Report, ServerFault> {
        let looked = tokio::time::timeout(LOOK_WITHIN, self.store.inspect()).await;
        match looked.map_err(|late| ServerFault::Unreachable {
            server: "the store".to_owned(),
            source: late.into(),
        })? {
            Err(ServerFault::NoNamespace(_) | ServerFault::OlderSchema { .. }) if self.access.migrate => {
                Ok(Report { server: "a server without our namespace".to_owned(), warnings: Vec::new() })
            }
            looked => looked,
        }
    }
}

/// Looks at an application's table before the start, as at the store: what is not as configured is told at once, what can't
/// be reached is waited for while serving.
pub(super) async fn greet_table(rows: &SessionRows) -> Result<(), TableError> {
    let looked = tokio::time::timeout(LOOK_WITHIN, rows.table().look()).await;
    match looked.unwrap_or_else(|late| Err(TableError::Unreachable(late.to_string()))) {
        Err(error @ TableError::Unreachable(_)) => {
            tracing::warn!("{}; its sessions are undecided until then", chain(&error));
            Ok(())
        }
        looked => looked,
    }
}

/// What [`migrate`] did.
#[derive(Debug)]
pub enum Migrated {
    /// The embedded engine's file, which whoever opens it migrates.
    File,
    /// A server's namespace.
    Namespace(Migration),
}

/// Creates the store that the configuration names, or brings it to this release's schema.
///
/// # Errors
/// [`StartError`].
pub async fn migrate(config: &Config) -> Result<Migrated, StartError> {
    match open(config)?.shared {
        None => Ok(Migrated::File),
        Some(shared) => shared.store.migrate().await.map(Migrated::Namespace).map_err(StartError::Server),
    }
}

/// Looks at the store that the configuration names, and changes nothing: `None` where it is the embedded engine, which is
/// a file like others.
///
/// # Errors
/// [`StartError`].
pub async fn inspect(config: &Config) -> Result<Option<Report>, StartError> {
    if matches!(config.store, config::Store::Sqlite(_)) {
        return Ok(None);
    }
    match open(config)?.shared {
        None => Ok(None),
        Some(shared) => shared.look().await.map(Some).map_err(StartError::Server),
    }
}
