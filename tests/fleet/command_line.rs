//! What an operator is told: `check` and `migrate` against servers that are well, and that are not.

use crate::engines::{Redis, free_port};
use crate::on_each_engine;
use crate::servers::{Server, Store};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn countersign(arguments: &[&str], config: &Path) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

fn check(store: &Store, more: &str) -> (Option<i32>, String) {
    countersign(&["check"], &store.write("check.yaml", &store.config("", more)))
}

on_each_engine!(a_namespace_is_created_once_and_then_checked, an_unreachable_server_is_undecided,);

async fn a_namespace_is_created_once_and_then_checked(store: Store) {
    let config = store.write("countersign.yaml", &store.config("", ""));
    let (code, told) = countersign(&["check"], &config);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("store.url: ") && told.contains("countersign migrate"), "{told}");
    let (code, told) = countersign(&["migrate"], &config);
    let version = match &store.server {
        Server::Redis(_) => 1,
        Server::Postgres(_) => 2,
    };
    assert_eq!((code, told), (Some(0), format!("OK  created: schema version {version}\n")));
    let (code, told) = countersign(&["migrate"], &config);
    assert_eq!((code, told), (Some(0), format!("OK  nothing to do: schema version {version}\n")));
    let (code, told) = countersign(&["check"], &config);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("note  the store is "), "{told}");
}

async fn an_unreachable_server_is_undecided(store: Store) {
    let text = store.config("", "");
    let port = match &store.server {
        Server::Redis(server) => server.port(),
        Server::Postgres(server) => server.port(),
    };
    let config = store.write("lost.yaml", &text.replace(&port.to_string(), &free_port().to_string()));
    let (code, told) = countersign(&["check"], &config);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("can't reach 127.0.0.1:") && told.contains("UNDECIDED"), "{told}");
    assert_eq!(countersign(&["check", "--offline"], &config).0, Some(0));
    assert_eq!(countersign(&["migrate"], &config).0, Some(3));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    for store in [Store::redis_with(&["--requirepass", "right"]), Store::postgres()] {
        let wrong = store.write("wrong.password", "hunter2-and-wrong");
        let wrong = wrong.display().to_string();
        let text = match &store.server {
            Server::Redis(_) => store.config("", &format!(", password_file: {wrong}")),
            Server::Postgres(server) => {
                store.config("", "").replace(&server.password_file().display().to_string(), &wrong)
            }
        };
        let config = store.write("wrong.yaml", &text);
        for command in ["check", "migrate", "serve"] {
            let (code, told) = countersign(&[command], &config);
            assert_eq!(code, Some(2), "{command}: {told}");
            assert!(told.contains("refuses the user or the password"), "{command}: {told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_replica_is_refused() {
    let primary = Redis::start();
    let replica = Store::redis_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    let (code, told) = check(&replica, "");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("is a replica"), "{told}");
}

#[tokio::test]
async fn a_redis_that_forgets_is_warned_about() {
    let store = Store::redis_with(&[
        "--appendonly",
        "no",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    store.migrate().await;
    let (code, told) = check(&store, "");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("appendonly") && told.contains("maxmemory-policy"), "{told}");
}

#[tokio::test]
async fn a_redis_that_can_t_fsync_on_demand_is_refused_that_class() {
    let store = Store::redis();
    let (code, told) = check(&store, ", durability: fsynced");
    // From 7.2 on it can, and then the namespace is what is missing.
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("Redis 7.2") || told.contains("countersign migrate"), "{told}");
}

#[tokio::test]
async fn a_postgres_that_forgets_is_warned_about() {
    let store = Store::postgres_with(&["fsync=off"]);
    store.migrate().await;
    let (code, told) = check(&store, "");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("fsync"), "{told}");
}

#[tokio::test]
async fn a_foreign_schema_is_refused_and_left_alone() {
    let store = Store::postgres();
    let Server::Postgres(server) = &store.server else { panic!("a Postgres") };
    let _ = server.sql(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.theirs (x int)", store.namespace));
    let config = store.write("foreign.yaml", &store.config("", ""));
    for command in ["check", "migrate"] {
        let (code, told) = countersign(&[command], &config);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("is not countersign's"), "{told}");
    }
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{}'", store.namespace);
    assert_eq!(server.sql(&tables), "1");
    let store = Store::redis();
    let Server::Redis(server) = &store.server else { panic!("a Redis") };
    for key in ["log", "head"] {
        let _ = server.command(&format!("SET {{{}}}:{key} theirs", store.namespace));
    }
    let (code, told) = check(&store, "");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("is not countersign's"), "{told}");
}
