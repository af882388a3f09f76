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
fn an_engine_of_the_fleet_is_refused_by_this_build() {
    refused(
        &format!("{ISSUER}store: redis://:hunter2@r:6379\n"),
        "c.yaml:4:8: store: this build has the embedded engine only, `sqlite:PATH`",
    );
}
