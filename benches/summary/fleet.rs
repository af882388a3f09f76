//! Sidecars over one store: how soon a revocation is in force everywhere, what sessions cost, how long a snapshot takes,
//! and what verification asks of the store.

use crate::engines::{Postgres, Redis, fresh_namespace};
use crate::report::Report;
use crate::servers::{Server, processor_time};
use crate::{load::Address, median, percentile, servers};
use countersign::clock::{Clock, Timestamp};
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{
    CreateSessionRequest, RefreshRequest, RevokeRequest, VerifyRequest, revoke_request,
};
use countersign::keys::{KeyFile, NewKey, SigningAlgorithm};
use countersign::revocation::{DenialKey, Denylist, Entry, EntryKind, Feed, RevocationLog, denylist, feed};
use countersign::store::postgres::PostgresStore;
use countersign::store::redis::RedisStore;
use countersign::store::sqlite::{self, SqliteStore};
use countersign::store::{Access, Shared};
use futures_util::future::join_all;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const SECRET: &str = "a secret of the bench";
const SIDECARS: usize = 8;
const REVOCATIONS: usize = 300;
const ANY: &str = "0,1";

/// A store to measure on.
pub enum Engine {
    Sqlite(TempDir),
    Redis(Redis),
    Postgres(Postgres),
}

impl Engine {
    pub fn all() -> [Self; 3] {
        [
            Self::Sqlite(tempfile::tempdir().unwrap()),
            Self::Redis(Redis::start()),
            Self::Postgres(Postgres::start()),
        ]
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
        }
    }

    fn section(&self, namespace: &str) -> String {
        match self {
            Self::Sqlite(folder) => format!("store: sqlite:{}/{namespace}.db\n", folder.path().display()),
            Self::Redis(server) => format!("store: {{url: \"{}\", namespace: {namespace}}}\n", server.url()),
            Self::Postgres(server) => format!(
                "store: {{url: \"{}\", namespace: {namespace}, password_file: {}}}\n",
                server.url(),
                server.password_file().display()
            ),
        }
    }

    async fn open(&self, namespace: &str) -> Arc<dyn RevocationLog> {
        let access = Access {
            namespace: namespace.parse().unwrap(),
            answer_within: Duration::from_secs(60),
            ..Access::default()
        };
        match self {
            Self::Sqlite(folder) => {
                let path = folder.path().join(format!("{namespace}.db"));
                let settings = sqlite::Settings {
                    answer_within: Duration::from_secs(60),
                    ..sqlite::Settings::default()
                };
                Arc::new(SqliteStore::open(&path, settings).unwrap())
            }
            Self::Redis(server) => {
                let store = RedisStore::new(server.url().parse().unwrap(), access).unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
            Self::Postgres(server) => {
                let access = Access { password_file: Some(server.password_file()), ..access };
                let store = PostgresStore::new(server.url().parse().unwrap(), access).unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
        }
    }
}

/// Sidecars over one namespace of a store.
pub struct Fleet {
    sidecars: Vec<Server>,
    _home: TempDir,
}

impl Fleet {
    pub async fn start(engine: &Engine, sidecars: usize, cores: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let now = Clock::system().now().judged;
        let signing = KeyFile::generate(NewKey::Signing(SigningAlgorithm::EdDsa), now).unwrap();
        signing.create(&path("signing.json")).unwrap();
        KeyFile::generate(NewKey::Handles, now).unwrap().create(&path("handles.json")).unwrap();
        std::fs::write(path("secret"), SECRET).unwrap();
        let namespace = fresh_namespace();
        let _ = engine.open(&namespace).await;
        let config = format!(
            "api: {{tcp: \"127.0.0.1:0\", workers: 1, serve: [verify, refresh, revoke, sessions]}}\n\
             ops: {{address: \"127.0.0.1:0\"}}\n{}\
             own: {{issuer: https://auth.example.com, signing_keys: signing.json, handle_keys: handles.json, \
             policies: {{medium: {{grace: 0s}}}}}}\n\
             callers: [{{name: bench, secret_file: secret, may: [sessions, revoke]}}]\n\
             log: {{format: json, level: info}}\n",
            engine.section(&namespace)
        );
        std::fs::write(path("countersign.yaml"), config).unwrap();
        let serving = |number: usize| {
            Server::serving(&path("countersign.yaml"), path(&format!("run-{number}/api.sock")), cores)
        };
        Self { sidecars: (0..sidecars).map(serving).collect(), _home: home }
    }

    pub async fn channels(&self) -> Vec<Channel> {
        join_all(self.sidecars.iter().map(|sidecar| connect(&sidecar.tcp))).await
    }

    /// The first one's Unix socket.
    pub fn socket(&self) -> PathBuf {
        match &self.sidecars[0].unix {
            Some(Address::Unix(path)) => path.clone(),
            _ => panic!("it listens on a socket"),
        }
    }
}

async fn connect(address: &Address) -> Channel {
    let uri = match address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub fn measure(report: &mut Report) {
    // The servers of a store, eight sidecars and their client share the machine; nothing here is held to one core.
    servers::pin_to_cores(&[0, 1]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for engine in Engine::all() {
            if !matches!(engine, Engine::Sqlite(_)) {
                propagation(&engine, report).await;
                asks(&engine, report).await;
            }
            sessions(&engine, report).await;
            for entries in [1_000, 10_000, 100_000, 1_000_000] {
                snapshot(&engine, entries, report).await;
            }
        }
    });
}

pub async fn login(channel: &Channel, subject: &str) -> (String, String) {
    let request = CreateSessionRequest { subject: subject.to_owned(), ..CreateSessionRequest::default() };
    let mut sessions = SessionServiceClient::new(channel.clone());
    let created = sessions.create_session(as_caller(request)).await.unwrap().into_inner();
    let tokens = created.tokens.unwrap();
    (tokens.access_token, tokens.refresh_token)
}

fn as_caller<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    request
}

pub async fn is_accepted(channel: &Channel, token: &str) -> bool {
    let request = VerifyRequest { token: Some(token.to_owned()), ..VerifyRequest::default() };
    TokenServiceClient::new(channel.clone()).verify(request).await.is_ok()
}

/// From a Revoke's OK at one sidecar to the first denial at each of seven others, which are asked all the time; and the
/// engine's own notification for comparison.
async fn propagation(engine: &Engine, report: &mut Report) {
    let fleet = Fleet::start(engine, SIDECARS, ANY).await;
    let channels = fleet.channels().await;
    let mut took = Vec::new();
    for number in 0..REVOCATIONS {
        let (token, _) = login(&channels[0], &format!("user-{number}")).await;
        for channel in &channels {
            assert!(is_accepted(channel, &token).await, "a fresh login is accepted");
        }
        let target = Some(revoke_request::Target::Token(token.clone()));
        let request = RevokeRequest { target, reason: String::new() };
        TokenServiceClient::new(channels[0].clone()).revoke(request).await.unwrap();
        let revoked = Instant::now();
        let denials = channels[1..].iter().map(|channel| {
            let token = &token;
            async move {
                while is_accepted(channel, token).await {
                    assert!(revoked.elapsed() < Duration::from_secs(30), "denied everywhere");
                }
                revoked.elapsed().as_secs_f64() * 1e3
            }
        });
        took.extend(join_all(denials).await);
    }
    let own = match engine {
        Engine::Sqlite(_) => return,
        Engine::Redis(server) => redis_notification(server).await,
        Engine::Postgres(server) => postgres_notification(server).await,
    };
    let against = format!(
        "8 sidecars, Revoke's OK to the denial at each; goal p99 10; the store's own notification {:.2} / {:.2}",
        median(own.clone()),
        percentile(own, 0.99)
    );
    let samples = took.len();
    let name = format!("revoke_propagation_ms_{}", engine.name());
    report.with_p99(&name, median(took.clone()), "ms", percentile(took, 0.99), samples, &against);
}

/// XADD on one connection until XREAD BLOCK returns on another.
async fn redis_notification(server: &Redis) -> Vec<f64> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut writing = client.get_multiplexed_async_connection().await.unwrap();
    let mut reading = client.get_multiplexed_async_connection().await.unwrap();
    let mut took = Vec::new();
    for number in 1..=REVOCATIONS {
        let last = format!("{}-0", number - 1);
        let waiting = async {
            let mut read = redis::cmd("XREAD");
            read.arg("BLOCK").arg(5000).arg("STREAMS").arg("bench").arg(&last);
            let _: redis::Value = read.query_async(&mut reading).await.unwrap();
            Instant::now()
        };
        let adding = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let sent = Instant::now();
            let mut add = redis::cmd("XADD");
            add.arg("bench").arg(format!("{number}-0")).arg("field").arg("value");
            let _: redis::Value = add.query_async(&mut writing).await.unwrap();
            sent
        };
        let (seen, sent) = tokio::join!(waiting, adding);
        took.push(seen.saturating_duration_since(sent).as_secs_f64() * 1e3);
    }
    took
}

/// NOTIFY on one connection until it arrives on another.
async fn postgres_notification(server: &Postgres) -> Vec<f64> {
    let writing = crate::neighbours::postgres_client(server).await;
    let mut config: tokio_postgres::Config = server.url().parse().unwrap();
    config.password(server.password());
    let (reading, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = futures_util::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, tokio_postgres::AsyncMessage::Notification(_)) {
                let _ = tell.send(Instant::now());
            }
        }
    });
    reading.batch_execute("LISTEN bench").await.unwrap();
    let mut took = Vec::new();
    for _ in 0..REVOCATIONS {
        let sent = Instant::now();
        writing.batch_execute("NOTIFY bench").await.unwrap();
        took.push((told.recv().await.unwrap() - sent).as_secs_f64() * 1e3);
    }
    took
}

/// Commands and processor time that eight sidecars cost the store, idle and under full load.
async fn asks(engine: &Engine, report: &mut Report) {
    const SPAN: Duration = Duration::from_secs(5);
    let fleet = Fleet::start(engine, SIDECARS, ANY).await;
    let channels = fleet.channels().await;
    let mut tokens = Vec::new();
    for number in 0..64 {
        tokens.push(login(&channels[0], &format!("user-{number}")).await.0);
    }
    let commands = async || match engine {
        Engine::Sqlite(_) => 0.0,
        Engine::Redis(server) => redis_commands(server).await,
        Engine::Postgres(server) => postgres_transactions(server).await,
    };
    let group = match engine {
        Engine::Sqlite(_) => return,
        Engine::Redis(server) => server.process().pid(),
        Engine::Postgres(server) => server.process().pid(),
    };
    // Postgres' sessions that idle report what they did after ten seconds.
    let settled = if matches!(engine, Engine::Postgres(_)) { 12 } else { 1 };
    tokio::time::sleep(Duration::from_secs(settled)).await;
    let before = (commands().await, processor_time(group));
    tokio::time::sleep(SPAN).await;
    let idle = (commands().await, processor_time(group));
    let end = Instant::now() + SPAN;
    let load =
        channels.iter().flat_map(|channel| (0..4).map(move |_| channel)).enumerate().map(|(n, channel)| {
            let tokens = &tokens;
            async move {
                let mut calls = 0_usize;
                while Instant::now() < end {
                    assert!(is_accepted(channel, &tokens[(n + calls) % tokens.len()]).await);
                    calls += 1;
                }
                calls
            }
        });
    let calls: usize = join_all(load).await.into_iter().sum();
    let loaded = (commands().await, processor_time(group));
    let more = (loaded.0 - idle.0) - (idle.0 - before.0);
    report.value(
        &format!("store_ops_per_verify_{}", engine.name()),
        more.max(0.0) / calls as f64,
        "ops",
        calls,
        &format!(
            "goal 0; 8 sidecars of JWTs, 5 s of load against 5 s idle: {:.0} and {:.0} ops",
            loaded.0 - idle.0,
            idle.0 - before.0
        ),
    );
    report.value(
        &format!("store_cpu_under_load_{}", engine.name()),
        (loaded.1 - idle.1) / SPAN.as_secs_f64() * 100.0,
        "% core",
        calls,
        &format!("idle {:.1} % of a core", (idle.1 - before.1) / SPAN.as_secs_f64() * 100.0),
    );
}

async fn redis_commands(server: &Redis) -> f64 {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut connection).await.unwrap();
    info.lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

async fn postgres_transactions(server: &Postgres) -> f64 {
    let client = crate::neighbours::postgres_client(server).await;
    // Statistics are flushed by each session about once a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let sql = "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = 'postgres'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Logins and refreshes a second, 64 at once at one sidecar.
async fn sessions(engine: &Engine, report: &mut Report) {
    const ROUNDS: usize = 20;
    let fleet = Fleet::start(engine, 1, ANY).await;
    let channel = &fleet.channels().await[0];
    let begun = Instant::now();
    let logins = join_all((0..64).map(|number| async move {
        let mut last = String::new();
        for round in 0..ROUNDS {
            last = login(channel, &format!("user-{number}-{round}")).await.1;
        }
        last
    }));
    let refresh_tokens = logins.await;
    let count = 64 * ROUNDS;
    let name = format!("create_session_throughput_{}", engine.name());
    report.value(
        &name,
        count as f64 / begun.elapsed().as_secs_f64(),
        "calls/s",
        count,
        "64 at once, one worker",
    );
    let begun = Instant::now();
    join_all(refresh_tokens.into_iter().map(|mut token| async move {
        for _ in 0..ROUNDS {
            let request = RefreshRequest { refresh_token: Some(token), ..RefreshRequest::default() };
            let refreshed =
                TokenServiceClient::new(channel.clone()).refresh(request).await.unwrap().into_inner();
            token = refreshed.tokens.unwrap().refresh_token;
        }
    }))
    .await;
    let name = format!("refresh_throughput_{}", engine.name());
    report.value(
        &name,
        count as f64 / begun.elapsed().as_secs_f64(),
        "calls/s",
        count,
        "64 at once, one worker",
    );
}

/// From an empty denylist to the first complete snapshot.
async fn snapshot(engine: &Engine, entries: u32, report: &mut Report) {
    let log = engine.open(&fresh_namespace()).await;
    let expires_at = Timestamp::from_secs(4_000_000_000);
    for from in (0..entries).step_by(1000) {
        let batch = (from..entries.min(from + 1000)).map(|number| {
            let key = DenialKey::session("https://auth.example.com", &format!("denied-{number}"));
            Entry { kind: EntryKind::Session, key, expires_at }
        });
        log.restore(batch.collect()).await.unwrap();
    }
    let limits = denylist::Settings { max_entries: 1_200_000, ..denylist::Settings::default() };
    let (denylist, clock) = (Arc::new(Denylist::new(limits)), Clock::system());
    let feed = Arc::new(Feed::new(log, Arc::clone(&denylist), clock.clone(), feed::Settings::default()));
    let cancel = CancellationToken::new();
    let begun = Instant::now();
    let running = tokio::spawn(feed.run(cancel.clone()));
    while !denylist.standing(&clock.now()).loaded {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let took = begun.elapsed();
    assert_eq!(denylist.len(), entries as usize);
    cancel.cancel();
    running.await.unwrap();
    let name = format!("snapshot_ms_{}_{entries}", engine.name());
    report.value(
        &name,
        took.as_secs_f64() * 1e3,
        "ms",
        1,
        "from an empty denylist to the first complete one",
    );
}
