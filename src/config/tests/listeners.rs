//! Faults of listeners, drain and store.

use super::*;

#[test]
fn plaintext_beyond_loopback_wants_the_word_danger() {
    let open = format!("{ISSUER}api:\n  tcp: 0.0.0.0:50051\n");
    let [fault] = &faults(&open)[..] else { panic!("one fault") };
    assert!(fault.starts_with("c.yaml:5:8: api.tcp: beyond loopback without client certificates"), "{fault}");
    let one_way = format!("{open}  tls: {{certificate: /c, key: /k}}\n");
    assert_eq!(faults(&one_way).len(), 1, "a server certificate alone lets anyone call");
    assert!(load_text(&format!("{open}  tls: {{certificate: /c, key: /k, client_ca: /a}}\n")).is_ok());
    assert!(load_text(&format!("{open}  danger_plaintext_beyond_loopback: true\n")).is_ok());
}

#[test]
fn a_sidecar_that_nobody_can_reach_is_refused() {
    refused(
        &format!("{ISSUER}api:\n  tcp: null\n"),
        "c.yaml:5:8: api.tcp: `null` without `unix`: nobody could reach this sidecar",
    );
    let config = load_text(&format!("{ISSUER}api:\n  tcp: null\n  unix: /run/c.sock\n")).unwrap();
    assert_eq!(config.api.tcp, None);
}

#[test]
fn a_socket_path_the_system_can_t_hold_is_refused() {
    let long = format!("{ISSUER}api:\n  unix: /{}\n", "a".repeat(107));
    refused(&long, "c.yaml:5:9: api.unix: a socket's path is at most 107 bytes");
    refused(
        &format!("{ISSUER}api:\n  unix_group: app\n"),
        "c.yaml:5:15: api.unix_group: has no meaning without `unix`",
    );
}

#[test]
fn a_drain_without_time_to_drain_is_refused() {
    refused(
        &format!("{ISSUER}drain: {{grace: 20s}}\n"),
        "c.yaml:4:16: drain.grace: must be less than `deadline`: no time would be left for calls to end",
    );
}

#[test]
fn a_url_alone_stands_for_the_store_s_section() {
    let config = load_text(&format!("{ISSUER}store: sqlite:/a/b.db\n")).unwrap();
    assert!(matches!(config.store, Store::Sqlite(path) if path == Path::new("/a/b.db")));
    let mut overlay = Overlay::default();
    overlay.set("--set", "store.namespace", "shop");
    let config = with(&format!("{ISSUER}store: redis://r\n"), &overlay).unwrap();
    let Store::Server { engine: Engine::Redis, url, access } = config.store else { panic!("a server") };
    assert_eq!((url.as_str(), access.namespace.as_str()), ("redis://r", "shop"));
    let overlay = variables(&[("COUNTERSIGN_STORE", "sqlite:/c.db")]);
    let config = with(&format!("{ISSUER}store: {{url: redis://r, namespace: shop}}\n"), &overlay).unwrap();
    assert!(matches!(config.store, Store::Sqlite(path) if path == Path::new("/c.db")));
}

#[test]
fn a_password_in_the_store_s_url_is_refused_at_its_place_and_not_told() {
    refused(
        &format!("{ISSUER}store: redis://:hunter2@r:6379\n"),
        "c.yaml:4:8: store.url: holds a password; put it in a file and name that as `password_file`",
    );
}

#[test]
fn what_only_a_server_has_is_refused_for_the_embedded_engine() {
    refused(
        &format!("{ISSUER}store: {{url: sqlite:/a.db, namespace: shop}}\n"),
        "c.yaml:4:39: store.namespace: has no meaning for the embedded engine, `sqlite:`",
    );
}

#[test]
fn a_store_s_settings_are_refused_at_their_places() {
    for (settings, fault) in [
        (
            "namespace: Shop",
            "c.yaml:4:40: store.namespace: expected 1 to 32 lower-case letters, digits and `_`, a letter first, and not `pg_…`",
        ),
        (
            "durability: safe",
            "c.yaml:4:41: store.durability: expected `acknowledged`, `replicated:N` with N from 1 to 9, or `fsynced`",
        ),
        ("certificate: c.pem", "c.yaml:4:42: store.certificate: `certificate` and `key` go together"),
    ] {
        refused(&format!("{ISSUER}store: {{url: redis://redis, {settings}}}\n"), fault);
    }
}

#[test]
fn a_collector_is_a_host_and_its_headers_do_not_travel_in_clear() {
    let with = |settings: &str| format!("{ISSUER}tracing: {{{settings}}}\n");
    let config = load_text(&with("endpoint: \"http://otel:4317\"")).unwrap().tracing.unwrap();
    assert_eq!((config.ratio, config.queue, config.service_name.as_str()), (0.0, 4096, "countersign"));
    refused(&with("ratio: 0.5"), "c.yaml:4:1: tracing.endpoint: required, but not there");
    for (wrong, why) in [
        ("otel:4317", "not a URL"),
        ("http://user:hunter2@otel:4317", "a URL with a user or password"),
        ("http://otel:4318/v1/traces", "spans are sent by gRPC"),
    ] {
        let [fault] = &faults(&with(&format!("endpoint: \"{wrong}\"")))[..] else { panic!("one fault") };
        assert!(fault.contains(why) && !fault.contains("hunter2"), "{fault}");
    }
    for wrong in ["1.1", "-1", "1e-3", "NaN", "half", "."] {
        let [fault] = &faults(&with(&format!("endpoint: \"http://o:1\", ratio: {wrong}")))[..] else {
            panic!("one fault: {wrong}")
        };
        assert!(fault.contains("tracing.ratio: expected a number from 0 to 1"), "{fault}");
    }
    let headers = |endpoint: &str| with(&format!("endpoint: \"{endpoint}\", headers_file: /h"));
    assert!(faults(&headers("http://otel:4317"))[0].contains("in clear"));
    assert!(load_text(&headers("http://127.0.0.1:4317")).is_ok());
    assert!(load_text(&headers("https://otel:4317")).is_ok());
}

#[test]
fn two_listeners_have_two_ports() {
    refused(
        &format!("{ISSUER}ops: {{address: \"0.0.0.0:50051\"}}\n"),
        "c.yaml:4:16: ops.address: is the port of `api.tcp`: only one of them could listen",
    );
    load_text(&format!("{ISSUER}api: {{tcp: \"127.0.0.1:7000\"}}\nops: {{address: \"127.0.0.2:7000\"}}\n"))
        .unwrap();
}

#[test]
fn a_demand_that_nobody_could_meet_is_refused() {
    refused(
        &format!("{ISSUER}ext_authz: {{scopes: [\"orders read\"]}}\n"),
        "c.yaml:4:21: ext_authz.scopes: a scope (RFC 6749 §3.3) has neither spaces nor quotes",
    );
    refused(
        &format!("{ISSUER}ext_authz: {{cookies: [\"a b\"]}}\n"),
        "c.yaml:4:22: ext_authz.cookies: a cookie's name has neither spaces nor separators",
    );
    refused(
        &format!("{ISSUER}ext_authz:\n"),
        "c.yaml:4:10: ext_authz: says nothing; write `ext_authz: {}` for the defaults",
    );
}
