//! The same service asking its sidecar, and asking the session store on every request: a primary-key SELECT or a GET,
//! each with its usual client. Server on core 0, client on core 1.

use crate::engines::{Postgres, Redis};
use crate::fleet::{Engine, Fleet, is_accepted, login};
use crate::report::Report;
use crate::{median, servers};
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{VerifyRequest, VerifyStreamRequest, verify_stream_response};
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const TURNS: usize = 5;
const AT_ONCE: usize = 64;
const SPAN: Duration = Duration::from_secs(1);

pub async fn postgres_client(server: &Postgres) -> tokio_postgres::Client {
    let mut config: tokio_postgres::Config = server.url().parse().unwrap();
    config.password(server.password());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn measure(report: &mut Report) {
    servers::pin_to_core(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sqlite = Engine::Sqlite(tempfile::tempdir().unwrap());
        let fleet = Fleet::start(&sqlite, 1, "0").await;
        let channel = fleet.channels().await.remove(0);
        let token = login(&channel, "alice").await.0;
        select(&channel, &token, report).await;
        get(&fleet, &channel, &token, report).await;
    });
}

/// Keeps a process and its later children on core 0.
fn pin(pid: i32) {
    let pinned =
        std::process::Command::new("taskset").args(["-acp", "0", &pid.to_string()]).output().unwrap();
    assert!(pinned.status.success());
}

/// Calls a second, so many under way at once.
async fn rate(at_once: usize, call: impl AsyncFn(usize)) -> f64 {
    let begun = Instant::now();
    let done = join_all((0..at_once).map(|number| {
        let call = &call;
        async move {
            let mut calls = 0_usize;
            while begun.elapsed() < SPAN {
                call(number).await;
                calls += 1;
            }
            calls
        }
    }));
    done.await.into_iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64()
}

/// Answers a second on one VerifyStream, so many items under way: how a service pipelines.
async fn stream_rate(channel: &Channel, token: &str, at_once: usize) -> f64 {
    let (ask, asked) = mpsc::channel(at_once);
    let verify = VerifyRequest { token: Some(token.to_owned()), ..VerifyRequest::default() };
    let item = || VerifyStreamRequest { id: 1, verify: Some(verify.clone()) };
    for _ in 0..at_once {
        ask.send(item()).await.unwrap();
    }
    let mut client = TokenServiceClient::new(channel.clone());
    let mut answers = client.verify_stream(ReceiverStream::new(asked)).await.unwrap().into_inner();
    let begun = Instant::now();
    let mut count = 0_usize;
    while begun.elapsed() < SPAN {
        let answer = answers.message().await.unwrap().unwrap();
        assert!(matches!(answer.result, Some(verify_stream_response::Result::Accepted(_))));
        count += 1;
        ask.send(item()).await.unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn select(channel: &Channel, token: &str, report: &mut Report) {
    let server = Postgres::start();
    pin(server.process().pid());
    let client = postgres_client(&server).await;
    client
        .batch_execute(
            "CREATE TABLE session (id text PRIMARY KEY, subject text, data jsonb, expires timestamptz); \
             INSERT INTO session SELECT md5(n::text), 'user-' || n, \
             jsonb_build_object('roles', '[\"customer\"]'::jsonb, 'tenant', 'example-01', 'email', 'user@example.com'), \
             now() + interval '1 day' FROM generate_series(1, 100000) n",
        )
        .await
        .unwrap();
    // By itself: it can't be one statement of several.
    client.batch_execute("VACUUM ANALYZE session").await.unwrap();
    let sql = "SELECT subject, data::text, expires > now() FROM session WHERE id = $1";
    let keys: Vec<String> = client
        .query("SELECT id FROM session LIMIT 64", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut pool = Vec::new();
    for _ in 0..AT_ONCE {
        let client = postgres_client(&server).await;
        let statement = client.prepare(sql).await.unwrap();
        pool.push((client, statement));
    }
    let (one, prepared) = &pool[0];
    let (mut streamed, mut pipelined, mut pooled) = (Vec::new(), Vec::new(), Vec::new());
    let mut streamed_pooled = Vec::new();
    let (mut ours, mut ours_streamed) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let stream = stream_rate(channel, token, AT_ONCE).await;
        let verify = rate(AT_ONCE, async |_| assert!(is_accepted(channel, token).await)).await;
        let on_one = rate(AT_ONCE, async |n| {
            assert!(one.query_one(prepared, &[&keys[n]]).await.unwrap().get::<_, bool>(2));
        });
        let on_one = on_one.await;
        let on_pool = rate(AT_ONCE, async |n| {
            let (client, statement) = &pool[n];
            assert!(client.query_one(statement, &[&keys[n]]).await.unwrap().get::<_, bool>(2));
        });
        let on_pool = on_pool.await;
        streamed.push(stream / on_one);
        streamed_pooled.push(stream / on_pool);
        pipelined.push(verify / on_one);
        pooled.push(verify / on_pool);
        ours.push(verify);
        ours_streamed.push(stream);
    }
    let (unary, stream) = (median(ours), median(ours_streamed));
    let samples = (stream * TURNS as f64) as usize;
    let mut told = |name: &str, ratios: Vec<f64>, against: String| {
        report.value(
            &format!("verify_warm_vs_postgres_select_{name}"),
            median(ratios),
            "ratio",
            samples,
            &against,
        );
    };
    told(
        "pipelined",
        streamed,
        format!("a VerifyStream ({stream:.0}/s) against one connection, 64 under way on each; goal 1.7"),
    );
    told(
        "pool",
        streamed_pooled,
        "the same against 64 connections, one query at a time on each; goal 3".into(),
    );
    told(
        "pipelined_unary",
        pipelined,
        format!("64 Verify calls at once ({unary:.0}/s, which is tonic's client) against one connection"),
    );
    told("pool_unary", pooled, "the same against 64 connections".into());
}

async fn get(fleet: &Fleet, channel: &Channel, token: &str, report: &mut Report) {
    let server = Redis::start();
    pin(server.process().pid());
    let over = async |url: String| {
        let client = redis::Client::open(url).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    };
    let tcp = over(server.url()).await;
    let unix = over(format!("unix://{}", server.socket().display())).await;
    let session =
        format!("{{\"subject\":\"alice\",\"roles\":[\"customer\"],\"padding\":\"{}\"}}", "x".repeat(240));
    let _: () = redis::cmd("SET").arg("session").arg(&session).query_async(&mut tcp.clone()).await.unwrap();
    let lookup = async |connection: &redis::aio::MultiplexedConnection| {
        let found: Option<String> =
            redis::cmd("GET").arg("session").query_async(&mut connection.clone()).await.unwrap();
        assert!(found.is_some());
    };
    let socket = format!("unix:{}", fleet.socket().display());
    let ours = Endpoint::from_shared(socket).unwrap().connect().await.unwrap();
    let (mut lone, mut many) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let verify = rate(1, async |_| assert!(is_accepted(&ours, token).await)).await;
        lone.push(verify / rate(1, async |_| lookup(&unix).await).await);
        let verify = rate(256, async |_| assert!(is_accepted(channel, token).await)).await;
        many.push(verify / rate(256, async |_| lookup(&tcp).await).await);
    }
    let against = "one call at a time on a Unix socket each, real clients; goal 1.2";
    report.value("verify_warm_vs_redis_get", median(lone), "ratio", TURNS, against);
    let against = "256 at once on one TCP connection each; Redis wins there";
    report.value("verify_warm_vs_redis_get_pipelined", median(many), "ratio", TURNS, against);
}
