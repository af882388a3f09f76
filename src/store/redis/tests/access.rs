//! Who may use a server, which servers can be used, and what is said where not. No fault ever tells a password.

use super::healing::{connected, replica_of};
use super::*;
use crate::store::engines::free_port;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::PathBuf;
use tempfile::TempDir;

const SECRET: &str = "correct-horse";

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn at(address: &str, access: Access) -> RedisStore {
    RedisStore::new(address.parse().unwrap(), access).unwrap()
}

async fn refusal(store: &RedisStore) -> ServerFault {
    let fault = store.inspect().await.expect_err("it is refused");
    assert!(!told(&fault).contains(SECRET), "{fault:?}");
    // One that is not there yet: what is there needs no writing.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    let draft = token_draft(NEXT.fetch_add(1, Ordering::Relaxed));
    let call = store.append(draft).await.expect_err("it is refused");
    assert!(matches!(call, StoreError::Unavailable(_) | StoreError::Corrupt(_)), "{call:?}");
    assert!(!told(&call).contains(SECRET), "{call:?}");
    fault
}

#[tokio::test]
async fn the_password_comes_from_a_file_that_is_read_at_each_connection() {
    let arguments = vec!["--requirepass".to_owned(), SECRET.to_owned()];
    let server = Redis::with(RedisOptions { arguments });
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "password", "wrong");
    let access = Access { password_file: Some(path.clone()), ..settings() };
    let store = open(&server, &access);
    assert!(matches!(refusal(&store).await, ServerFault::Refused { .. }));
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    until("let in", async || store.append(token_draft(1)).await.is_ok()).await;
    assert!(
        matches!(refusal(&open(&server, &settings())).await, ServerFault::Refused { .. }),
        "no password at all"
    );
    std::fs::write(&path, "\n").unwrap();
    assert!(matches!(refusal(&open(&server, &access)).await, ServerFault::File { .. }));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(refusal(&open(&server, &access)).await, ServerFault::File { .. }));
}

#[tokio::test]
async fn a_user_needs_no_more_than_the_namespace_s_keys_and_is_told_what_is_missing() {
    let server = Redis::start();
    let dir = TempDir::new().unwrap();
    let access = Access { password_file: Some(file(&dir, "password", SECRET)), ..settings() };
    let address = format!("redis://sidecar@127.0.0.1:{}", server.port());
    let keys = format!("~{{{}}}:*", access.namespace);
    let allow = |rights: &str| {
        let line = format!("ACL SETUSER sidecar reset on >{SECRET} {keys} {rights}");
        assert_eq!(server.command(&line), "+OK");
    };
    allow("+@all -@admin -@dangerous +info");
    let store = at(&address, access.clone());
    store.append(token_draft(1)).await.unwrap();
    open_session(&store, login("alice", NOON)).await;
    let warnings = store.inspect().await.unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("does not tell its settings"), "{warnings:?}");
    for (rights, missing) in [
        ("+@all -info", "INFO"),
        ("+@all -xadd", "XADD"),
        ("+@all -zadd", "ZADD"),
        ("+@all -evalsha", "EVALSHA"),
    ] {
        allow(rights);
        let fault = refusal(&at(&address, access.clone())).await;
        assert!(matches!(fault, ServerFault::Forbidden { .. }), "{fault:?}");
        assert!(fault.to_string().contains(missing), "{fault}");
    }
    let other = Access { namespace: fresh_namespace().parse().unwrap(), ..access };
    allow("+@all");
    assert!(matches!(refusal(&at(&address, other)).await, ServerFault::Forbidden { .. }), "others' keys");
}

#[tokio::test]
async fn a_private_authority_s_certificate_is_checked() {
    let dir = TempDir::new().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    let stranger = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "sidecar");
    let leaf = leaf.signed_by(&pair, &authority).unwrap();
    let ca = file(&dir, "ca.pem", &authority.pem());
    let (chain, key) = (file(&dir, "chain.pem", &leaf.pem()), file(&dir, "key.pem", &pair.serialize_pem()));
    let port = free_port();
    let named = |path: &PathBuf| path.display().to_string();
    let arguments = [
        ("--tls-port", port.to_string()),
        ("--tls-ca-cert-file", named(&ca)),
        ("--tls-cert-file", named(&chain)),
        ("--tls-key-file", named(&key)),
    ];
    let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let server = Redis::with(RedisOptions { arguments });
    let address = format!("rediss://127.0.0.1:{port}");
    let identity = Some((chain, key.clone()));
    let trusted = Access { ca_file: Some(ca.clone()), identity: identity.clone(), ..settings() };
    at(&address, trusted.clone()).append(token_draft(1)).await.unwrap();
    let other = Access { ca_file: Some(file(&dir, "other.pem", &stranger.pem())), ..trusted.clone() };
    let fault = refusal(&at(&address, other)).await;
    assert!(
        matches!(fault, ServerFault::Unreachable { .. }) && told(&fault).contains("ertificate"),
        "{fault:?}"
    );
    let nobody = Access { identity: None, ..trusted.clone() };
    assert!(matches!(refusal(&at(&address, nobody)).await, ServerFault::Unreachable { .. }));
    let plain = format!("rediss://127.0.0.1:{}", server.port());
    assert!(
        matches!(refusal(&at(&plain, trusted.clone())).await, ServerFault::Unreachable { .. }),
        "no TLS there"
    );

    let bad = file(&dir, "bad.pem", "none");
    for access in [
        Access { ca_file: Some(bad.clone()), ..trusted.clone() },
        Access { identity: Some((bad.clone(), key)), ..trusted.clone() },
        Access { identity: Some((ca, bad.clone())), ..trusted.clone() },
        Access { ca_file: Some(dir.path().join("nowhere")), ..trusted.clone() },
    ] {
        let refused = RedisStore::new(address.parse().unwrap(), access).err();
        assert!(matches!(refused, Some(ServerFault::File { .. })), "{refused:?}");
    }
    let refused = RedisStore::new(server.url().parse().unwrap(), trusted).err();
    assert!(matches!(refused, Some(ServerFault::File { .. })), "certificates without TLS");
}

#[tokio::test]
async fn a_server_that_can_t_keep_what_is_asked_is_refused_or_warned_about() {
    let primary = Redis::start();
    let replica = Redis::with(replica_of(&primary));
    connected(&primary, &replica).await;
    assert!(matches!(refusal(&open(&replica, &settings())).await, ServerFault::NotPrimary { .. }));
    let report = open(&primary, &settings()).inspect().await.unwrap();
    assert!(report.server.starts_with("Redis ") || report.server.starts_with("Valkey "), "{report:?}");
    assert!(report.warnings.iter().any(|warning| warning.contains("min-replicas-to-write")), "{report:?}");
    assert!(report.warnings.iter().any(|warning| warning.contains("appendfsync always")), "{report:?}");
    let _ = primary.command("CONFIG SET appendonly no");
    let _ = primary.command("CONFIG SET maxmemory 100mb");
    let _ = primary.command("CONFIG SET maxmemory-policy allkeys-lru");
    let three = Access { durability: Durability::Replicated(3), ..settings() };
    let warnings = open(&primary, &three).inspect().await.unwrap().warnings;
    for said in ["appendonly yes", "evict revocations", "needs 3 replicas and 1"] {
        assert!(warnings.iter().any(|warning| warning.contains(said)), "{said}: {warnings:?}");
    }
    if report.server.starts_with("Redis 7.0") {
        let fsynced = Access { durability: Durability::Fsynced, ..settings() };
        assert!(matches!(refusal(&open(&primary, &fsynced)).await, ServerFault::TooOld { .. }));
    }
    let nobody = at(&format!("redis://127.0.0.1:{}", free_port()), settings());
    assert!(matches!(refusal(&nobody).await, ServerFault::Unreachable { .. }));
}

#[tokio::test]
async fn ten_may_create_a_namespace_at_once_and_it_counts_as_old() {
    let access = Access { migrate: false, ..settings() };
    let stores: Vec<_> = (0..10).map(|_| open(&SERVER, &access)).collect();
    assert!(matches!(refusal(&stores[0]).await, ServerFault::NoNamespace(_)));
    let migrated = futures_util::future::join_all(stores.iter().map(Shared::migrate)).await;
    let from = |version| migrated.iter().filter(|one| one.as_ref().unwrap().from == version).count();
    assert_eq!((from(0), from(1)), (1, 9));
    let page = stores[0].read_after(None, 10).await.unwrap();
    assert_eq!((page.epoch_age, page.head.seq), (Duration::MAX, 0));
    assert_eq!(stores[9].read_after(None, 10).await.unwrap().head, page.head);
    stores[1].inspect().await.unwrap();
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_as_it_was() {
    for theirs in [
        "redis.call('SET', K..'head', 'theirs')",
        "redis.call('HSET', K..'head', 'theirs', 1)",
        "redis.call('SET', K..'log', 'theirs')",
        "redis.call('XADD', K..'log', '*', 'theirs', 1)",
    ] {
        let store = open(&SERVER, &settings());
        meddle(&store, theirs).await;
        let before =
            meddle(&store, "return {redis.call('EXISTS', K..'head', K..'log', K..'entry', K..'expiry')}")
                .await;
        assert!(matches!(store.migrate().await, Err(ServerFault::Foreign(_))), "{theirs}");
        assert!(matches!(refusal(&store).await, ServerFault::Foreign(_)), "{theirs}");
        let after =
            meddle(&store, "return {redis.call('EXISTS', K..'head', K..'log', K..'entry', K..'expiry')}")
                .await;
        assert_eq!(before, after, "{theirs}");
    }
}

#[tokio::test]
async fn a_newer_release_s_schema_is_refused() {
    let store = open(&SERVER, &settings());
    store.migrate().await.unwrap();
    meddle(&store, "redis.call('HSET', K..'head', 'schema', 7)").await;
    assert!(matches!(refusal(&store).await, ServerFault::NewerSchema { found: 7, known: 1, .. }));
    assert!(matches!(store.migrate().await, Err(ServerFault::NewerSchema { found: 7, .. })));
}
