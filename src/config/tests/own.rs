//! Faults of `own`, of what is served, and of `callers`.

use super::*;

#[test]
fn serving_sessions_to_nobody_by_name_is_refused() {
    let served = format!("{OWN}api: {{serve: [verify, sessions]}}\n");
    refused(
        &served,
        "c.yaml:5:14: api.serve: `sessions` is served, but no caller may use it; add one to `callers` with `may: [sessions]`",
    );
    let revoker = format!("{served}callers: [{{name: a, secret_file: /s, may: [revoke]}}]\n");
    assert_eq!(faults(&revoker).len(), 1, "a right to something else is no right to sessions");
    assert!(load_text(&revoker.replace("[revoke]", "[sessions.read]")).is_ok());
}

#[test]
fn serving_what_there_are_no_keys_for_is_refused() {
    let bare = "own:\n  issuer: https://auth.example\n  keys: {jwks_file: /j}\napi: {serve: [refresh]}\n";
    assert_eq!(
        faults(bare),
        [
            "c.yaml:1:1: own.handle_keys: required to serve `refresh`: refresh tokens are made with them",
            "c.yaml:1:1: own.signing_keys: required to serve `refresh`: access tokens are signed with them",
        ]
    );
    refused(
        &format!("{ISSUER}api: {{serve: refresh}}\n"),
        "c.yaml:4:14: api.serve: `sessions` and `refresh` need a section `own`",
    );
    refused(
        &format!("{ISSUER}api: {{serve: []}}\n"),
        "c.yaml:4:14: api.serve: names no rpc: nothing would be served",
    );
}

#[test]
fn session_tokens_without_handle_keys_are_refused() {
    refused(
        "own:\n  issuer: https://auth.example\n  policies:\n    high: {}\n",
        "c.yaml:4:5: own.policies.high: its session tokens can't be verified without `own.handle_keys`",
    );
    let config = load_text("own:\n  issuer: i\n  handle_keys: /h\n  policies: {high: }\n").unwrap();
    assert_eq!(config.own.unwrap().keys, None, "opaque tokens need no signing keys");
}

#[test]
fn own_tokens_without_keys_are_refused() {
    refused(
        "own: {issuer: https://auth.example}\n",
        "c.yaml:1:1: own.signing_keys: our tokens can't be verified without keys; set `own.signing_keys`, or `own.keys` where a sibling signs",
    );
    refused(
        &own_with("keys: {jwks_file: /j}"),
        "c.yaml:5:9: own.keys: has no meaning beside `signing_keys`, which verifies too",
    );
    refused(
        "own:\n  issuer: i\n  keys: {secret_file: /s, jwks_file: /j}\n",
        "c.yaml:3:10: own.keys.secret_file: unknown key; known here: `jwks_file`, `pem_file`, `jwks_url`, `discovery`, `ca_file`, `refresh_every`, `cool_down`, `max_age`, `timeout`, `required`",
    );
}

#[test]
fn policies_that_contradict_themselves_are_refused() {
    for (settings, fault) in [
        ("idle: 2d, absolute: 1d", "c.yaml:5:42: own.policies.web.idle: must not exceed `absolute`"),
        (
            "access_token_life: 2h, idle: 1h",
            "c.yaml:5:55: own.policies.web.access_token_life: must not exceed `idle`",
        ),
        ("at_limit: reject", "c.yaml:5:46: own.policies.web.at_limit: has no meaning without `max_sessions`"),
        ("max_sessions: 0", "c.yaml:5:50: own.policies.web.max_sessions: must be from 1 to 10000"),
        (
            "audience: []",
            "c.yaml:5:46: own.policies.web.audience: names no audience; leave it out for our issuer",
        ),
        (
            "renew_before: 5m, access_token_life: 5m",
            "c.yaml:5:50: own.policies.web.renew_before: must be less than `access_token_life`",
        ),
    ] {
        refused(&policy_with(settings), fault);
    }
}

#[test]
fn a_default_policy_that_is_not_there_is_refused() {
    refused(
        &own_with("default_policy: medum"),
        "c.yaml:5:19: own.default_policy: no policy of this name; did you mean `medium`?",
    );
    refused(
        &own_with("policies: {a: {}, b: {}}"),
        "c.yaml:1:1: own.default_policy: required where several policies are, and none is `medium`",
    );
}

#[test]
fn a_policy_there_twice_or_with_a_strange_name_is_refused() {
    refused(
        &own_with("policies: {a: {}, a: {}}"),
        "c.yaml:5:21: own.policies.a: this key is there twice; first at c.yaml:5:14",
    );
    let [fault] = &faults(&own_with("policies: {'a b': {}}"))[..] else { panic!("one fault") };
    assert!(fault.starts_with("c.yaml:5:14: own.policies.a b: a name is 1 to 64"), "{fault}");
}

#[test]
fn callers_must_be_distinct_and_knowable() {
    let unix = format!("{ISSUER}api: {{unix: /run/c.sock}}\ncallers:\n");
    let one = "  - {name: a, uid: 1, may: revoke}\n";
    for (caller, fault) in [
        ("{name: a, uid: 2, may: revoke}", "c.yaml:7:12: callers[1].name: another caller has this name"),
        ("{name: b, uid: 1, may: revoke}", "c.yaml:7:5: callers[1]: another caller is known by the same"),
        (
            "{name: b, may: revoke}",
            "c.yaml:7:5: callers[1]: known by nothing: set one of `uid`, `certificate`, `secret_file`",
        ),
        (
            "{name: b, uid: 2, secret_file: /s, may: revoke}",
            "c.yaml:7:36: callers[1].secret_file: a caller is known by one thing; make it two callers",
        ),
        (
            "{name: b, certificate: 'spiffe://x/y', may: revoke}",
            "c.yaml:7:28: callers[1].certificate: certificates are asked for with `api.tls.client_ca` only, which is not set",
        ),
        ("{name: b, uid: 2}", "c.yaml:7:5: callers[1].may: required, but not there"),
        (
            "{name: b, uid: 2, may: []}",
            "c.yaml:7:28: callers[1].may: grants nothing; without rights a caller needs no rule",
        ),
        ("{uid: 2, may: revoke}", "c.yaml:7:5: callers[1].name: required, but not there"),
    ] {
        refused(&format!("{unix}{one}  - {caller}\n"), fault);
    }
    refused(
        &format!("{ISSUER}callers:\n{one}"),
        "c.yaml:5:20: callers[0].uid: user ids are known on `api.unix` only, which is not set",
    );
}
