//! What can't be used says why, and never with a password.

use super::*;
use crate::store::engines::PostgresOptions;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::error::Error;
use tempfile::TempDir;

const PASSWORD: &str = "a password of the tests";

async fn fault(url: &str, access: Access) -> ServerFault {
    let store = PostgresStore::new(url.parse().unwrap(), access).unwrap();
    let fault = store.inspect().await.expect_err("it is refused");
    let mut told = format!("{fault} {fault:?}");
    let mut cause = fault.source();
    while let Some(error) = cause {
        told.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(!told.contains(PASSWORD), "{told}");
    fault
}

fn here(user: &str, database: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{}/{database}", SERVER.port())
}

fn asking(namespace: &str) -> Access {
    Access { migrate: false, ..access(&SERVER, namespace) }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_told_as_such() {
    let dir = TempDir::new().unwrap();
    let wrong = dir.path().join("password");
    std::fs::write(&wrong, "wrong\n").unwrap();
    let with_wrong = Access { password_file: Some(wrong), ..asking("refused") };
    for (url, access) in [(SERVER.url(), with_wrong), (here("nobody", "postgres"), asking("refused"))] {
        assert!(matches!(fault(&url, access).await, ServerFault::Refused { .. }));
    }
    let none = Access { password_file: Some("/nowhere/password".into()), ..asking("refused") };
    assert!(matches!(fault(&SERVER.url(), none).await, ServerFault::File { .. }));
}

#[tokio::test]
async fn a_missing_database_or_server_is_told_as_such() {
    let missing = fault(&here("countersign", "missing"), asking("refused")).await;
    assert!(missing.to_string().contains("`missing`"), "{missing}");
    let nobody = "postgres://countersign@127.0.0.1:1/postgres";
    assert!(matches!(fault(nobody, asking("refused")).await, ServerFault::Unreachable { .. }));
}

#[tokio::test]
async fn a_namespace_that_is_not_there_or_not_ours_is_left_alone() {
    let namespace = fresh_namespace();
    assert!(matches!(fault(&SERVER.url(), asking(&namespace)).await, ServerFault::NoNamespace(_)));
    let _ = SERVER.sql(&format!("CREATE SCHEMA {namespace}; CREATE TABLE {namespace}.theirs (x int)"));
    assert!(matches!(fault(&SERVER.url(), asking(&namespace)).await, ServerFault::Foreign(_)));
    let store = open(&SERVER, access(&SERVER, &namespace));
    assert!(matches!(store.migrate().await, Err(ServerFault::Foreign(_))));
    assert!(matches!(store.read_after(None, 1).await, Err(StoreError::Unavailable(_))));
    let _ = SERVER.sql(&format!("DROP TABLE {namespace}.theirs; CREATE TABLE {namespace}.head (x int)"));
    assert!(matches!(fault(&SERVER.url(), asking(&namespace)).await, ServerFault::Foreign(_)));
}

#[tokio::test]
async fn a_newer_release_s_namespace_is_refused() {
    let namespace = fresh_namespace();
    let store = open(&SERVER, access(&SERVER, &namespace));
    assert_eq!(store.migrate().await.unwrap(), Migration { from: 0, to: 2 });
    assert_eq!(store.migrate().await.unwrap(), Migration { from: 2, to: 2 });
    let age = store.read_after(None, 1).await.unwrap().epoch_age;
    assert_eq!(age, Duration::MAX, "nobody holds what a new namespace lost");
    let _ = SERVER.sql(&format!("UPDATE {namespace}.head SET schema_version = 99"));
    let newer = fault(&SERVER.url(), asking(&namespace)).await;
    assert!(matches!(newer, ServerFault::NewerSchema { found: 99, known: 2, .. }));
    assert!(matches!(store.migrate().await, Err(ServerFault::NewerSchema { .. })));
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_one_it_lacks() {
    let namespace = fresh_namespace();
    let user = format!("u_{namespace}");
    let _ = SERVER.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"));
    let url = here(&user, "postgres");
    let refused = fault(&url, access(&SERVER, &namespace)).await.to_string();
    assert!(refused.contains("CREATE on the database"), "{refused}");
    let store = PostgresStore::new(url.parse().unwrap(), access(&SERVER, &namespace)).unwrap();
    let refused = store.migrate().await.unwrap_err();
    assert!(matches!(refused, ServerFault::Forbidden { .. }), "{refused:?}");
    open(&SERVER, access(&SERVER, &namespace)).migrate().await.unwrap();
    let refused = fault(&url, asking(&namespace)).await.to_string();
    assert!(refused.contains("USAGE on the schema"), "{refused}");
    // An empty schema of its own is all that it needs.
    let own = fresh_namespace();
    let _ = SERVER.sql(&format!("CREATE SCHEMA {own} AUTHORIZATION {user}"));
    let store = PostgresStore::new(url.parse().unwrap(), access(&SERVER, &own)).unwrap();
    store.append(crate::store::conformance::token_draft(1)).await.unwrap();
    store.inspect().await.unwrap();
}

#[tokio::test]
async fn a_standby_alone_is_refused() {
    let primary = Postgres::start();
    let standby = primary.standby();
    let refused = fault(&standby.url(), access(&primary, "replica")).await;
    assert!(matches!(refused, ServerFault::NotPrimary { .. }), "{refused:?}");
}

#[tokio::test]
async fn settings_that_keep_less_than_promised_are_told() {
    let careless = PostgresOptions { settings: vec!["full_page_writes=off".to_owned()] };
    let server = Postgres::with(careless);
    let durability = crate::store::Durability::Replicated(1);
    let store = open(&server, Access { durability, ..access(&server, "careless") });
    let report = store.inspect().await.unwrap();
    assert!(report.server.starts_with("PostgreSQL "), "{report:?}");
    assert_eq!(report.warnings.len(), 2, "{report:?}");
}

#[tokio::test]
async fn a_commit_that_no_standby_confirms_is_no_success() {
    let server = Postgres::start();
    open(&server, access(&server, "sync")).migrate().await.unwrap();
    let store = open(&server, Access { answer_within: Duration::from_secs(5), ..access(&server, "sync") });
    store.append(crate::store::conformance::token_draft(1)).await.unwrap();
    let _ = server.sql("ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    let _ = server.sql("SELECT pg_reload_conf()");
    let refused = loop {
        // The server takes the setting up a moment later.
        match store.append(crate::store::conformance::token_draft(store_time())).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
}

/// A number that was not used before.
fn store_time() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn tls_is_verified_by_the_authority_that_was_named() {
    let dir = TempDir::new().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        (Issuer::new(params, key), path)
    };
    let ((issuer, ours), (_, other)) = (authority("ours.pem"), authority("other.pem"));
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let (chain_path, key_path) = (dir.path().join("server.crt"), dir.path().join("server.key"));
    std::fs::write(&chain_path, leaf.pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    Postgres::keep_private(&key_path);
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", chain_path.display()),
        format!("ssl_key_file={}", key_path.display()),
    ];
    let server = Postgres::with(PostgresOptions { settings: settings.to_vec() });
    let url = format!("{}?sslmode=verify-full", server.url());
    let trusting = |path| Access { ca_file: Some(path), ..access(&server, "tls") };
    let store = PostgresStore::new(url.parse().unwrap(), trusting(ours.clone())).unwrap();
    store.append(crate::store::conformance::token_draft(1)).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'countersign'";
    assert_eq!(server.sql(encrypted), "t");
    let refused = fault(&url, trusting(other)).await;
    assert!(refused.source().is_some() && matches!(refused, ServerFault::Unreachable { .. }), "{refused:?}");
    let elsewhere = url.replace("127.0.0.1", "localhost");
    assert!(matches!(fault(&elsewhere, trusting(ours)).await, ServerFault::Unreachable { .. }));
    let plain = fault(&format!("{}?sslmode=require", SERVER.url()), asking("tls")).await;
    assert!(matches!(plain, ServerFault::Unreachable { .. }), "a server without TLS: {plain:?}");
    let missing = PostgresStore::new(url.parse().unwrap(), trusting("/nowhere/ca.pem".into()));
    assert!(matches!(missing.err(), Some(ServerFault::File { .. })));
}
