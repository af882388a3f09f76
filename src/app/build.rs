//! From the configuration to built rooms.

use crate::app::edge::{edge_settings, encode, rest, served_names};
use crate::app::issuers::{Issuers, TokenAt, build_issuers};
use crate::app::level::LevelSource;
use crate::app::reader::SessionsForVerify;
use crate::app::reload::Reload;
use crate::app::rooms::{OwnRooms, build_callers, build_own, build_tls, chain, group_id};
use crate::app::sample::Sample;
use crate::app::store::{self, Opened, SharedStore};
use crate::app::tracing::build_tracing;
use crate::app::{App, Background, Drain, RunSettings};
use crate::clock::Clock;
use crate::config::{self, Config, Faults};
use crate::grpc::callers::Callers;
use crate::grpc::listener::Listener;
use crate::grpc::tls::TlsSource;
use crate::grpc::{self, Api, serve};
use crate::keys::KeyRing;
use crate::ops::{Health, Limits, Metrics, OpsState, Readiness};
use crate::revocation::{Denylist, Feed, Revoker, denylist, feed};
use crate::session::{Foundation, Purge, Reader, Relay, RelaySettings, SessionStore, Sessions};
use crate::store::ServerFault;
use crate::store::sqlite;
use crate::verify::{
    self, CacheSettings, IssuerSettings, SessionReader, SessionRows, SessionTokenSettings, TableError,
    Verifier,
};
use arc_swap::ArcSwap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't work; each fault has its place.
    #[error("{0}")]
    Configuration(Faults),
    /// The store's file can't be opened.
    #[error("the store can't be opened")]
    Store(#[source] sqlite::OpenError),
    /// The store's server can't be used.
    #[error("the store can't be used")]
    Server(#[source] ServerFault),
    /// An application's table of sessions is not as configured.
    #[error("a session table can't be used")]
    Table(#[source] TableError),
    /// A listener can't be bound.
    #[error("can't listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Rooms built and joined, before anything is bound. Also how benches and tests reach single rooms.
pub struct Assembly {
    config: Config,
    clock: Clock,
    background: Background,
    parts: Arc<grpc::Parts>,
    feed: Arc<Feed>,
    shared: Option<SharedStore>,
    rings: Vec<Arc<KeyRing>>,
    tables: Vec<Arc<SessionRows>>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    ended: CancellationToken,
    tls: Option<Arc<TlsSource>>,
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Assembly(…)")
    }
}

impl Assembly {
    /// Builds every room. Reads key files and opens the embedded store, and so blocks for a moment; a store on a server
    /// is connected to later, on the runtime this is called in.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(config: Config, clock: Clock) -> Result<Self, StartError> {
        config.check_files().map_err(StartError::Configuration)?;
        let mut background = Background::default();
        let mut faults = Vec::new();
        let own = build_own(&config, &mut faults);
        let issuers = build_issuers(&config, own.as_ref(), &clock, &mut faults);
        let tls = build_tls(&config, &mut faults);
        let callers = Callers::new(build_callers(&config, &mut faults));
        let metrics = Arc::new(Metrics::new());
        let traced = build_tracing(&config, &clock, &metrics, &mut faults);
        let Issuers { settings: issuers, introspectors, token_endpoints } =
            Faults::new(faults).unless(issuers).map_err(StartError::Configuration)?;

        let Opened { log, sessions: sessions_store, leases, shared } = store::open(&config)?;
        let relays: Vec<_> = token_endpoints
            .into_iter()
            .map(|TokenAt { issuer, client_id, endpoint, grace }| {
                let (leases, clock) = (Arc::clone(&leases), clock.clone());
                Arc::new(Relay::new(RelaySettings { issuer, client_id, endpoint, leases, grace, clock }))
            })
            .collect();
        let readiness = Readiness::new();
        let ended = CancellationToken::new();
        let denylist = Arc::new(Denylist::new(denylist::Settings {
            max_entries: config.denylist_entries,
            ..denylist::Settings::default()
        }));
        let bound = issuers.iter().flat_map(bounds).min().unwrap_or(Duration::from_secs(30));
        metrics.set_staleness_bound(bound);
        let feed = Arc::new(Feed::new(
            Arc::clone(&log),
            Arc::clone(&denylist),
            clock.clone(),
            feed::Settings {
                confirm_every: (bound / 3).min(Duration::from_secs(1)),
                answer_within: (bound / 3).min(Duration::from_secs(5)),
                settle: bound / 2,
                ..feed::Settings::default()
            },
        ));
        let rings: Vec<_> = issuers.iter().filter_map(|issuer| issuer.ring.clone()).collect();
        let cookies: Vec<_> = issuers.iter().filter_map(|issuer| issuer.cookies.clone()).collect();
        let tables: Vec<_> = issuers.iter().filter_map(|issuer| issuer.table.clone()).collect();
        let sessions = build_sessions(&config, own.as_ref(), &sessions_store, &denylist, &clock);
        let reader = config.own.as_ref().zip(own.as_ref()).map(|(settings, own)| {
            let issuer = Arc::clone(&settings.issuer);
            let policies = own.policies.clone();
            let reader =
                Reader { store: Arc::clone(&sessions_store), policies, issuer, clock: clock.clone() };
            Arc::new(SessionsForVerify(reader)) as Arc<dyn SessionReader>
        });
        let verifier = Verifier::new(verify::Parts {
            issuers,
            session_tokens: session_tokens(&config, own.as_ref(), reader.clone()),
            sessions: reader,
            denylist: Arc::clone(&denylist),
            feed: Arc::clone(&feed),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            encode: encode(&config),
            cache: CacheSettings { max_entries: usize::try_from(config.cache_entries).unwrap_or(usize::MAX) },
            max_token_bytes: config.api.max_token_bytes,
        });
        let parts = Arc::new(grpc::Parts {
            verifier: Arc::new(verifier),
            sessions,
            relays: relays.clone(),
            revoker: Arc::new(Revoker::new(log, Arc::clone(&denylist))),
            denylist,
            signing: own.as_ref().and_then(|own| own.signing.clone()),
            handles: own.as_ref().and_then(|own| own.handles.clone()),
            own_issuer: config.own.as_ref().map(|own| Arc::clone(&own.issuer)),
            callers: Arc::new(ArcSwap::from_pointee(callers)),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            tracer: traced.as_ref().map(|traced| Arc::clone(&traced.tracer)),
            settings: edge_settings(&config),
        });
        background_of_rooms(&mut background, own, &rings, &feed);
        for keys in cookies {
            background.add(move |cancel| keys.run(cancel));
        }
        for table in &tables {
            let (table, clock) = (Arc::clone(table), clock.clone());
            background.add(move |cancel| table.run(clock, cancel));
        }
        for relay in relays {
            background.add_ending(move |cancel| relay.run(cancel));
        }
        for introspector in introspectors {
            background.add(move |cancel| introspector.run(cancel));
        }
        if let Some(traced) = traced {
            background.add_ending(move |cancel| traced.exporter.run(cancel));
        }
        let purge = Purge { store: sessions_store, clock: clock.clone() };
        background.add(move |cancel| purge.run(cancel));
        if let Some(shared) = &shared {
            let store = Arc::clone(&shared.store);
            background.add(move |cancel| async move { store.listen(cancel).await });
        }
        Ok(Self {
            config,
            clock,
            background,
            parts,
            feed,
            shared,
            rings,
            tables,
            metrics,
            readiness,
            ended,
            tls,
        })
    }

    /// Every right to every caller, under this name. For development.
    #[must_use]
    pub fn danger_allow_everyone(self, name: &str) -> Self {
        self.parts.callers.store(Arc::new(Callers::danger_everyone(name)));
        self
    }

    /// Keeps the log level as its file says, from the start until the end.
    #[must_use]
    pub fn following_log_level(mut self, source: LevelSource) -> Self {
        let level = self.config.log.level;
        self.background.add(move |cancel| source.follow(level, cancel));
        self
    }

    /// Finds everything that [`Self::new`] would refuse, without touching the store.
    ///
    /// # Errors
    /// One fault for each.
    pub fn check(config: &Config, clock: &Clock) -> Result<(), Faults> {
        config.check_files()?;
        let mut faults = Vec::new();
        let own = build_own(config, &mut faults);
        build_issuers(config, own.as_ref(), clock, &mut faults);
        build_tls(config, &mut faults);
        build_callers(config, &mut faults);
        build_tracing(config, clock, &Arc::new(Metrics::new()), &mut faults);
        Faults::new(faults).unless(())
    }

    /// Who brings the denylist up to date.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The rooms a call can reach.
    #[must_use]
    pub fn parts(&self) -> &Arc<grpc::Parts> {
        &self.parts
    }

    /// Binds the listeners, after a look at the store's server.
    ///
    /// # Errors
    /// [`StartError::Listen`]; [`StartError::Server`] where the server answers and can't be used.
    pub async fn bind(mut self) -> Result<App, StartError> {
        if let Some(shared) = &self.shared {
            shared.greet().await.map_err(StartError::Server)?;
        }
        for table in &self.tables {
            store::greet_table(table).await.map_err(StartError::Table)?;
        }
        let mut listeners = Vec::new();
        if let Some(address) = self.config.api.tcp {
            listeners.push(listening(Listener::tcp(address).await, address)?);
        }
        if let Some(socket) = &self.config.api.unix {
            let address = format!("unix:{}", socket.path.display());
            let group = socket.group.as_ref().map(group_id).transpose();
            let bound = group.and_then(|group| Listener::unix(&socket.path, group));
            listeners.push(listening(bound, address)?);
        }
        let ops_listener =
            listening(TcpListener::bind(self.config.ops.address).await, self.config.ops.address)?;
        let ops_address = listening(ops_listener.local_addr(), self.config.ops.address)?;

        self.open_gates_when_reached();
        let reload = Reload::new(&self.config, Arc::clone(&self.parts.callers), self.tls.clone());
        self.background.add(move |cancel| reload.run(cancel));
        let sample = Arc::new(Sample::new(&self.parts, &self.feed, &self.rings, self.clock.clone()));
        let stepping = Arc::clone(&sample);
        let metrics = Arc::clone(&self.metrics);
        self.background.add(move |cancel| async move { stepping.watch_clock(&metrics, cancel).await });

        let served = served_names(&self.config);
        let health = Health::new(self.readiness.clone(), served, self.ended.clone());
        let signing = self.parts.signing.clone();
        let ops = OpsState {
            health: health.clone(),
            metrics: Arc::clone(&self.metrics),
            jwks: Arc::new(move || signing.as_ref().map(|signing| signing.public_jwks())),
            before_render: Arc::new(move |metrics| sample.take(metrics)),
            limits: Limits::default(),
        };
        let api = Api::new(Arc::clone(&self.parts), rest(&health, &self.config.api));
        let drain = &self.config.drain;
        Ok(App {
            background: self.background,
            api,
            ops,
            listeners,
            ops_listener,
            ops_address,
            settings: RunSettings {
                workers: self.config.api.workers,
                connections: serve::Settings {
                    max_connections: self.config.api.max_connections,
                    max_streams_per_connection: self.config.api.max_streams_per_connection,
                    max_connection_age: self.config.api.max_connection_age,
                    ..serve::Settings::default()
                },
                tls: self.tls,
                drain: Drain { grace: drain.grace, deadline: drain.deadline.saturating_sub(drain.grace) },
            },
            readiness: self.readiness,
            ended: self.ended,
        })
    }

    /// Ready once the first denylist snapshot is complete and every issuer marked required has keys. File keys are
    /// there already: without them it would not have been built.
    fn open_gates_when_reached(&mut self) {
        let denylist = self.readiness.gate("denylist");
        let required = self
            .rings
            .iter()
            .filter(|ring| ring.settings().required)
            .map(|ring| (self.readiness.gate(format!("keys of {}", ring.issuer())), Arc::clone(ring)));
        let required: Vec<_> = required.collect();
        let (held, clock) = (Arc::clone(&self.parts.denylist), self.clock.clone());
        self.background.add(move |_| async move {
            until(|| held.standing(&clock.now()).loaded).await;
            denylist.open();
        });
        for (gate, ring) in required {
            self.background.add(move |_| async move {
                until(|| ring.generation() != 0).await;
                gate.open();
            });
        }
    }
}

/// The error with everything that led to it, for people.
#[must_use]
pub fn explain(error: &StartError) -> String {
    match error {
        StartError::Configuration(faults) => format!("the configuration can't work\n{faults}"),
        StartError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            format!(
                "{}; choose another, such as --set api.tcp=127.0.0.1:0 or --set ops.address=127.0.0.1:0",
                chain(error)
            )
        }
        StartError::Store(_) | StartError::Server(_) | StartError::Table(_) | StartError::Listen { .. } => {
            chain(error)
        }
    }
}

/// Waits for something that comes soon after the start, or hardly ever.
async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn listening<T>(bound: io::Result<T>, address: impl ToString) -> Result<T, StartError> {
    bound.map_err(|source| StartError::Listen { address: address.to_string(), source })
}

fn bounds(issuer: &IssuerSettings) -> impl Iterator<Item = Duration> + '_ {
    issuer.by_policy.values().map(|freshness| freshness.bound).chain([issuer.freshness.bound])
}

fn background_of_rooms(
    background: &mut Background,
    own: Option<OwnRooms>,
    rings: &[Arc<KeyRing>],
    feed: &Arc<Feed>,
) {
    let feed = Arc::clone(feed);
    background.add(move |cancel| feed.run(cancel));
    for ring in rings {
        let ring = Arc::clone(ring);
        background.add(move |cancel| ring.run(cancel));
    }
    let (signing, handles) = own.map(|own| (own.signing, own.handles)).unwrap_or_default();
    if let Some(signing) = signing {
        background.add(move |cancel| signing.run(cancel));
    }
    if let Some(handles) = handles {
        background.add(move |cancel| handles.run(cancel));
    }
}

fn build_sessions(
    config: &Config,
    own: Option<&OwnRooms>,
    store: &Arc<dyn SessionStore>,
    denylist: &Arc<Denylist>,
    clock: &Clock,
) -> Option<Arc<Sessions>> {
    let served =
        [config::Rpc::Refresh, config::Rpc::Sessions].iter().any(|rpc| config.api.serve.contains(rpc));
    let own = own.filter(|_| served)?;
    Some(Arc::new(Sessions::new(Foundation {
        store: Arc::clone(store),
        denylist: Arc::clone(denylist),
        signing: own.signing.clone(),
        handles: own.handles.clone(),
        policies: own.policies.clone(),
        issuer: config.own.as_ref().map(|own| Arc::clone(&own.issuer))?,
        clock: clock.clone(),
    })))
}

fn session_tokens(
    config: &Config,
    own: Option<&OwnRooms>,
    reader: Option<Arc<dyn SessionReader>>,
) -> Option<SessionTokenSettings> {
    let issuer = config.own.as_ref().map(|own| Arc::clone(&own.issuer))?;
    Some(SessionTokenSettings { handles: own?.handles.clone()?, reader: reader?, issuer })
}
