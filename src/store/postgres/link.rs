//! One connection: opened, set up, and looked at before it is used.

use super::address::Host;
use super::failed::{Failed, no_connection, no_right};
use super::heads::Heads;
use super::{Address, tls};
use crate::store::{Access, ServerFault};
use crate::token::Revision;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Connection, Error, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};

const OLDEST: i32 = 130_000;

/// What is known of the server behind a connection.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Host and port, or socket.
    pub(super) server: String,
    /// Such as `15.4 (Debian 15.4-1)`.
    pub(super) version: String,
    /// Of which cluster this is the primary, and since which promotion.
    pub(super) incarnation: String,
}

impl About {
    /// Whether the other is the same cluster after a promotion: `system identifier/timeline`, the latter in eight digits.
    pub(super) fn is_before(&self, other: &str) -> bool {
        let cluster = |incarnation: &str| incarnation.split('/').next().map(str::to_owned);
        cluster(&self.incarnation) == cluster(other) && *self.incarnation < *other
    }
}

/// A connection to a primary. Dropping it cuts it, whatever it is in the middle of.
pub(in crate::store) struct Link {
    pub(in crate::store) client: Client,
    pub(super) about: About,
    pub(super) heads: Arc<Heads>,
    prepared: Mutex<HashMap<Box<str>, Statement>>,
    /// A commit was not waited for until the standbys had it.
    unconfirmed: Arc<AtomicBool>,
    /// Something was appended since this was last asked.
    appended: AtomicBool,
    ended: CancellationToken,
    driver: AbortHandle,
    canceller: Canceller,
}

/// Ends what a server is still doing for a connection that was given up. Cutting the connection does not: a commit that waits
/// for a standby waits on, holds its locks, and keeps one of the server's connections.
#[derive(Clone)]
pub(super) struct Canceller {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Canceller {
    /// Asks once, and for no longer than a call may take. Whether the server was there to be asked.
    pub(super) async fn cancel(self, within: Duration) -> bool {
        let asked = async {
            match self.tls {
                Some(tls) => self.token.cancel_query(tls).await,
                None => self.token.cancel_query(NoTls).await,
            }
        };
        let done = matches!(tokio::time::timeout(within, asked).await, Ok(Ok(())));
        if !done {
            tracing::debug!("what the store was still doing could not be cancelled");
        }
        done
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Statements, prepared once for each connection. Those that are sent together have to be prepared before.
    pub(in crate::store) async fn statements<const N: usize>(
        &self,
        texts: [&str; N],
    ) -> Result<[Statement; N], Failed> {
        for text in texts {
            if !self.prepared.lock().contains_key(text) {
                let statement = self.client.prepare(text).await?;
                self.prepared.lock().insert(text.into(), statement);
            }
        }
        let prepared = self.prepared.lock();
        let found: Vec<_> = texts.iter().filter_map(|text| prepared.get(*text).cloned()).collect();
        found.try_into().map_err(|_| Failed::Stale("a statement was not prepared"))
    }

    /// One statement, a transaction by itself or inside one.
    pub(super) async fn query(&self, text: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failed> {
        let [statement] = self.statements([text]).await?;
        Ok(self.client.query(&statement, values).await?)
    }

    /// One statement that returns nothing; how many rows it changed.
    pub(in crate::store) async fn execute(
        &self,
        text: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failed> {
        let [statement] = self.statements([text]).await?;
        Ok(self.client.execute(&statement, values).await?)
    }

    /// Whether the commit just made was waited for as long as it had to be.
    pub(super) fn confirmed(&self) -> bool {
        !self.unconfirmed.swap(false, Ordering::SeqCst)
    }

    /// An entry was appended and committed.
    pub(super) fn appended(&self, revision: Revision) {
        self.heads.appended(revision);
        self.appended.store(true, Ordering::SeqCst);
    }

    /// Whether something was appended since this was last asked.
    pub(super) fn take_appended(&self) -> bool {
        self.appended.swap(false, Ordering::SeqCst)
    }

    /// For when the connection is dropped in the middle of something.
    pub(super) fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Resolves when the connection has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Connects to this host and sets the session up; refuses replicas and what is too old. Looks at no namespace.
    pub(super) async fn open(
        address: &Address,
        host: &Host,
        access: &Access,
        heads: &Arc<Heads>,
    ) -> Result<Self, ServerFault> {
        let server = host.to_string();
        let config = config(address, host, access)?;
        let refused = |error| no_connection(error, &server, address.database());
        let unconfirmed = Arc::new(AtomicBool::new(false));
        let ended = CancellationToken::new();
        let watched = Watched {
            heads: Arc::clone(heads),
            channel: channel(access),
            unconfirmed: Arc::clone(&unconfirmed),
            _ended: ended.clone().drop_guard(),
        };
        let tls = if address.tls_to(host) { Some(tls::connector(access)?) } else { None };
        let (client, driver) = if let Some(tls) = tls.clone() {
            let (client, connection) = config.connect(tls).await.map_err(refused)?;
            (client, tokio::spawn(drive(connection, watched)).abort_handle())
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
            (client, tokio::spawn(drive(connection, watched)).abort_handle())
        };
        let about = About { server: server.clone(), version: String::new(), incarnation: String::new() };
        let canceller = Canceller { token: client.cancel_token(), tls };
        let mut link = Self {
            client,
            about,
            heads: Arc::clone(heads),
            prepared: Mutex::default(),
            unconfirmed,
            appended: AtomicBool::new(false),
            ended,
            driver,
            canceller,
        };
        link.set_up(access).await?;
        Ok(link)
    }

    async fn set_up(&mut self, access: &Access) -> Result<(), ServerFault> {
        let settings = settings(access);
        // `pg_walfile_name` fails on a replica.
        let look = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int, \
                    current_setting('server_version'), \
                    CASE WHEN pg_is_in_recovery() THEN '' ELSE \
                    (SELECT system_identifier::text FROM pg_control_system()) || '/' \
                    || left(pg_walfile_name(pg_current_wal_lsn()), 8) END";
        let nothing: [(&(dyn ToSql + Sync), Type); 0] = [];
        let (set, looked) = futures_util::future::join(
            self.client.batch_execute(&settings),
            self.client.query_typed(look, &nothing),
        )
        .await;
        let server = self.about.server.clone();
        let what = || "look at the server: it needs EXECUTE on pg_control_system()".to_owned();
        set.map_err(|error| no_right(error, &server, what))?;
        let rows = looked.map_err(|error| no_right(error, &server, what))?;
        let row = rows.first().ok_or_else(|| ServerFault::Odd("no answer to a look".into()))?;
        let odd = |error: Error| ServerFault::Odd(error.into());
        if row.try_get::<_, bool>(0).map_err(odd)? {
            return Err(ServerFault::NotPrimary { server });
        }
        let version: String = row.try_get(2).map_err(odd)?;
        if row.try_get::<_, i32>(1).map_err(odd)? < OLDEST {
            let needed = "PostgreSQL 13 or later is needed";
            return Err(ServerFault::TooOld { found: format!("PostgreSQL {version}"), needed });
        }
        self.about.version = version;
        self.about.incarnation = row.try_get(3).map_err(odd)?;
        // Warnings at the start are about something else.
        self.unconfirmed.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// The channel on which heads are told.
pub(super) fn channel(access: &Access) -> String {
    format!("countersign_{}", access.namespace)
}

/// How long a host may take to be connected to, or to be made ready; where there are several, half the time that a call
/// has.
pub(super) fn patience(address: &Address, access: &Access) -> Duration {
    if address.hosts().len() > 1 { access.answer_within / 2 } else { access.answer_within }
}

fn config(address: &Address, host: &Host, access: &Access) -> Result<Config, ServerFault> {
    let mut config = Config::new();
    match host {
        Host::Tcp { name, port } => config.host(name).port(*port),
        Host::Socket { directory, port } => config.host_path(directory).port(*port),
    };
    config
        .user(address.user())
        .dbname(address.database())
        .application_name("countersign")
        .ssl_mode(if address.tls_to(host) { SslMode::Require } else { SslMode::Disable })
        .connect_timeout(patience(address, access))
        .tcp_user_timeout(access.answer_within)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(3))
        .keepalives_retries(3);
    if let Some(path) = &access.password_file {
        let text = std::fs::read(path)
            .map_err(|error| ServerFault::File { path: path.clone(), why: error.to_string() })?;
        config.password(
            text.strip_suffix(b"\n").map_or(&*text, |line| line.strip_suffix(b"\r").unwrap_or(line)),
        );
    }
    Ok(config)
}

/// `synchronous_commit` is `on` whatever the server's default: a commit is on the server's disk before it is answered, and
/// on the synchronous standbys' where there are any. The rest bounds what a connection can hold on to, and makes plans
/// and snapshots what the statements here count on.
fn settings(access: &Access) -> String {
    let answer = access.answer_within.as_millis();
    let statement = (answer * 9 / 10).max(1);
    let idle = (answer * 2).max(1);
    format!(
        "SET search_path = pg_catalog, \"{}\"; SET synchronous_commit = on; SET statement_timeout = {statement}; \
         SET idle_in_transaction_session_timeout = {idle}; SET default_transaction_isolation = 'read committed'; \
         SET client_min_messages = warning; SET jit = off; SET row_security = off; SET bytea_output = hex",
        access.namespace
    )
}

/// What the messages that answer no question are for.
struct Watched {
    heads: Arc<Heads>,
    channel: String,
    unconfirmed: Arc<AtomicBool>,
    _ended: DropGuard,
}

/// Carries the connection until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, watched: Watched)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(told))) if told.channel() == watched.channel => {
                if let Ok(head) = told.payload().parse() {
                    watched.heads.hinted(head);
                }
            }
            // "canceling the wait for synchronous replication", which ends in a commit all the same.
            Some(Ok(AsyncMessage::Notice(notice))) if notice.code().code() == "01000" => {
                watched.unconfirmed.store(true, Ordering::SeqCst);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection to the store ended");
                return;
            }
            None => return,
        }
    }
}
