//! Faults of `issuers`.

use super::*;

#[test]
fn a_duration_without_a_unit_or_with_a_strange_one_is_refused() {
    for bad in ["30", "30 parsecs", "soon"] {
        let [fault] = &faults(&issuer_with(&format!("leeway: {bad}")))[..] else { panic!("one fault") };
        assert!(
            fault.starts_with("c.yaml:4:13: issuers[0].leeway: expected a duration with its unit"),
            "{fault}"
        );
    }
}

#[test]
fn a_leeway_over_a_minute_is_refused() {
    refused(&issuer_with("leeway: 61s"), "c.yaml:4:13: issuers[0].leeway: must be from 0s to 1m");
}

#[test]
fn staleness_that_contradicts_itself_is_refused() {
    refused(
        &issuer_with("says_stale_after: 30s"),
        "c.yaml:4:23: issuers[0].says_stale_after: must be less than `staleness_bound`: staler answers are not given at all",
    );
    refused(
        &issuer_with("staleness_bound: 0s"),
        "c.yaml:4:22: issuers[0].staleness_bound: must be from 1s to 7days",
    );
    let [fault] = &faults(&issuer_with("floor: at_least_as_fresh"))[..] else { panic!("one fault") };
    assert!(fault.starts_with("c.yaml:4:12: issuers[0].floor: expected one of"), "{fault}");
}

#[test]
fn an_issuer_without_audiences_is_refused() {
    refused(
        "issuers:\n  - issuer: https://a.example\n",
        "c.yaml:2:5: issuers[0].audiences: required, but not there",
    );
    refused(
        "issuers:\n  - issuer: https://a.example\n    audiences: []\n",
        "c.yaml:3:16: issuers[0].audiences: names no audience: tokens meant for anyone would be accepted",
    );
}

#[test]
fn an_issuer_there_twice_is_refused() {
    let twice = format!("{ISSUER}  - issuer: https://a.example\n    audiences: [x]\n");
    refused(&twice, "c.yaml:4:13: issuers[1].issuer: this issuer is there twice");
    let own = format!("{OWN}{}", ISSUER.replace("a.example", "auth.example"));
    refused(&own, "c.yaml:6:13: issuers[0].issuer: this issuer is there twice");
}

#[test]
fn an_hs_algorithm_with_a_public_key_is_refused() {
    refused(
        &issuer_with("algorithms: [RS256, HS256]"),
        "c.yaml:4:17: issuers[0].algorithms: HS algorithms need `secret_file`: with a public key anyone could sign",
    );
}

#[test]
fn a_secret_file_takes_exactly_one_hs_algorithm() {
    let secret = issuer_with("keys: {secret_file: /k}");
    refused(
        &secret,
        "c.yaml:2:5: issuers[0].algorithms: required with `secret_file`: one of `HS256`, `HS384`, `HS512`",
    );
    for algorithms in ["[HS256, HS512]", "[RS256]", "[HS256, RS256]"] {
        refused(
            &format!("{secret}    algorithms: {algorithms}\n"),
            "c.yaml:5:17: issuers[0].algorithms: with `secret_file` exactly one of `HS256`, `HS384`, `HS512`",
        );
    }
    assert!(load_text(&format!("{secret}    algorithms: HS384\n")).is_ok());
}

#[test]
fn none_is_no_algorithm() {
    let [fault] = &faults(&issuer_with("algorithms: [none]"))[..] else { panic!("one fault") };
    assert!(fault.starts_with("c.yaml:4:18: issuers[0].algorithms[0]: expected one of `RS256`"), "{fault}");
}

#[test]
fn keys_over_plain_http_are_refused_beyond_loopback() {
    refused(
        &issuer_with("keys: {jwks_url: http://a.example/jwks}"),
        "c.yaml:4:22: issuers[0].keys.jwks_url: http beyond loopback: whoever holds the network would choose the keys; use https",
    );
    assert!(load_text(&issuer_with("keys: {jwks_url: 'http://127.0.0.1:8080/jwks'}")).is_ok());
    refused(
        "issuers:\n  - issuer: accounts.example\n    audiences: [a]\n",
        "c.yaml:2:5: issuers[0].keys: keys can't be discovered below the issuer: not a URL: `https://…` is expected; name a source: `jwks_url`, `jwks_file`, `pem_file` or `secret_file`",
    );
}

#[test]
fn keys_come_from_one_source() {
    refused(
        &issuer_with("keys: {jwks_file: /a, pem_file: /b}"),
        "c.yaml:4:37: issuers[0].keys.pem_file: keys come from one source, not from `jwks_file`, `pem_file`",
    );
    refused(
        &issuer_with("keys: {jwks_file: /a, refresh_every: 1m}"),
        "c.yaml:4:42: issuers[0].keys.refresh_every: has no meaning for keys from a file",
    );
    let [fault] = &faults(&issuer_with("keys: {discovery: false}"))[..] else { panic!("one fault") };
    assert!(
        fault.starts_with("c.yaml:4:23: issuers[0].keys.discovery: `false`, and no other source"),
        "{fault}"
    );
    refused(
        &issuer_with("keys: {max_age: 5m}"),
        "c.yaml:4:21: issuers[0].keys.max_age: must be more than `refresh_every`: keys would lapse between two fetches",
    );
    refused(
        &issuer_with("keys: {cool_down: 1s}"),
        "c.yaml:4:23: issuers[0].keys.cool_down: must be from 30s to 1h",
    );
}

#[test]
fn a_claim_path_that_is_no_pointer_is_refused() {
    refused(
        &issuer_with("claims: {roles: /a~2}"),
        "c.yaml:4:21: issuers[0].claims.roles: in a JSON Pointer `~` is written `~0` and `/` within a name `~1`",
    );
}
