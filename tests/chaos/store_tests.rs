//! The faults themselves: one that does nothing would let every history pass.

use crate::proxy::{Mode, Proxy};
use crate::store::{Engine, Setup, Store};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_forgets_freezes_ends_and_goes_back_in_time() {
    let setup = Setup { fsync_always: true, ..Setup::default() };
    let mut store = Store::start(Engine::Redis, setup, 1).await.unwrap();
    assert_eq!(store.ask("SET a 1"), "+OK");
    store.keep_copy();
    assert_eq!(store.ask("SET b 1"), "+OK");
    store.kill();
    assert!(!store.runs());
    store.restart();
    assert_eq!(store.ask("EXISTS a b"), ":2");
    store.put_copy_back();
    assert_eq!(store.ask("EXISTS a b"), ":1");
    store.flush();
    assert_eq!(store.ask("EXISTS a b"), ":0");
    store.signal("STOP");
    assert!(store.runs());
    store.signal("CONT");
    assert_eq!(store.ask("PING"), "+PONG");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_s_replica_takes_over_with_what_it_has() {
    let setup = Setup { replica: true, ..Setup::default() };
    let mut store = Store::start(Engine::Redis, setup, 1).await.unwrap();
    assert_eq!(store.ask("SET a 1"), "+OK");
    // WAIT would wait for what its own connection wrote, which is another one.
    let caught_up = || {
        let info = store.ask("INFO replication");
        let after = |name: &str| {
            let digits = info.split(name).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        };
        after("master_repl_offset:").is_some_and(|end| after(",offset=") >= Some(end))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !caught_up() {
        assert!(std::time::Instant::now() < deadline, "the replica follows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.detach_replica();
    assert_eq!(store.ask("SET late 1"), "+OK", "acknowledged, and nowhere else");
    store.fail_over();
    assert_eq!(store.ask("EXISTS a"), ":1");
    assert_eq!(store.ask("EXISTS late"), ":0", "lost with the primary");
    assert_eq!(store.ask("SET b 1"), "+OK", "no replica any more");
    let mut through = TcpStream::connect(("127.0.0.1", store.proxies()[0].port())).await.unwrap();
    through.write_all(b"EXISTS a\r\n").await.unwrap();
    let mut reply = [0; 2];
    through.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b":1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_ends_freezes_and_goes_back_in_time() {
    let mut store = Store::start(Engine::Postgres, Setup::default(), 1).await.unwrap();
    let count = "SELECT count(*) FROM t";
    let _ = store.ask("CREATE TABLE t AS SELECT 1");
    store.keep_copy();
    let _ = store.ask("INSERT INTO t VALUES (2)");
    store.kill();
    assert!(!store.runs());
    store.restart();
    assert_eq!(store.ask(count), "2");
    store.stop(true);
    store.restart();
    store.stop(false);
    store.restart();
    assert_eq!(store.ask(count), "2");
    store.put_copy_back();
    assert_eq!(store.ask(count), "1");
    store.signal("STOP");
    assert!(store.runs());
    store.signal("CONT");
    assert_eq!(store.ask(count), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_writes_until_it_has_room() {
    let setup = Setup { small_disk: true, ..Setup::default() };
    for engine in [Engine::Redis, Engine::Postgres] {
        let Some(mut store) = Store::start(engine, setup, 1).await else {
            return eprintln!("a small disk is for root");
        };
        store.fill_disk();
        let room = store.disk_room();
        assert!(room < 64 * 1024, "{room} bytes are left");
        store.heal();
        assert!(store.disk_room() > 1024 * 1024);
        assert!(store.runs());
    }
}

/// Answers each byte with it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    port
}

async fn answered(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(SOON, stream.read_exact(&mut byte)).await.is_ok_and(|read| read.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_holds_delays_and_resets() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    stream.write_all(b"a").await.unwrap();
    assert!(answered(&mut stream).await);
    for mode in [Mode::Hold, Mode::HoldReplies, Mode::Delay(2 * SOON)] {
        proxy.set(mode);
        stream.write_all(b"b").await.unwrap();
        assert!(!answered(&mut stream).await, "{mode:?}");
        proxy.set(Mode::Pass);
        tokio::time::sleep(3 * SOON).await;
        assert!(answered(&mut stream).await, "what was held arrives: {mode:?}");
    }
    let other = echo().await;
    proxy.point_to(other);
    let gone = tokio::time::timeout(SOON, stream.read(&mut [0])).await.unwrap();
    assert!(gone.is_err(), "reset, not closed: {gone:?}");
    let mut again = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    again.write_all(b"c").await.unwrap();
    assert!(answered(&mut again).await);
}
