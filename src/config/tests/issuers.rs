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

#[test]
fn a_preset_asks_for_what_its_issuer_can_t_do_without() {
    refused(
        "issuers:\n  - {preset: auth0, issuer: https://shop.eu.auth0.example, audiences: [orders]}\n",
        "c.yaml:2:29: issuers[0].issuer: Auth0's issuers end in `/`; write `https://shop.eu.auth0.example/`",
    );
    let [fault] = &faults("issuers:\n  - {preset: clerk, issuer: https://clerk.example}\n")[..] else {
        panic!("one fault")
    };
    assert!(
        fault.starts_with("c.yaml:2:5: issuers[0].authorized_parties: required with `preset: clerk`"),
        "{fault}"
    );
    let [fault] = &faults(&issuer_with("preset: okta"))[..] else { panic!("one fault") };
    assert!(
        fault.starts_with("c.yaml:4:13: issuers[0].preset: expected one of `oidc`, `auth0`, `clerk`"),
        "{fault}"
    );
}

#[test]
fn presets_are_defaults_and_give_way() {
    let clerk = "preset: clerk, issuer: https://clerk.example, authorized_parties: [https://shop.example]";
    let config = load_text(&format!("issuers:\n  - {{{clerk}}}\n")).unwrap();
    let issuer = &config.issuers[0];
    assert_eq!(
        (issuer.audiences.as_slice(), issuer.types.as_slice()),
        (&["https://clerk.example".to_owned()][..], &["JWT".to_owned()][..])
    );
    assert_eq!(
        (issuer.leeway, issuer.algorithms.as_slice()),
        (Duration::from_secs(5), &[Algorithm::Rs256][..])
    );
    let config =
        load_text(&format!("issuers:\n  - {{{clerk}, leeway: 9s, types: [at+jwt], audiences: [a]}}\n"))
            .unwrap();
    let issuer = &config.issuers[0];
    assert_eq!(
        (issuer.leeway, issuer.types[0].as_str(), issuer.audiences[0].as_str()),
        (Duration::from_secs(9), "at+jwt", "a")
    );

    let config = load_text(&issuer_with("preset: oidc")).unwrap();
    assert!(config.issuers[0].allow_missing_type);
    assert_eq!(config.issuers[0].claims.scopes, ["scope", "scp"]);
    let config = load_text(&issuer_with("preset: oidc\n    claims: {scopes: [a, b], roles: c}")).unwrap();
    assert_eq!(config.issuers[0].claims.scopes, ["a", "b"]);
    assert_eq!(config.issuers[0].claims.roles, ["c"]);
}

const COOKIES: &str = "issuers:\n  - issuer: web\n    audiences: [orders]\n    authjs: ";

#[test]
fn cookies_need_a_secret_and_no_settings_of_jwts() {
    let with = |settings: &str| format!("{COOKIES}{settings}\n");
    refused(&with("{}"), "c.yaml:4:5: issuers[0].authjs.secret_files: required, but not there");
    refused(
        &with("{secret_files: []}"),
        "c.yaml:4:28: issuers[0].authjs.secret_files: names no file: no cookie could be opened",
    );
    refused(
        &with("{secret_files: [a, b], version: 4}"),
        "c.yaml:4:28: issuers[0].authjs.secret_files: NextAuth 4 knows one secret",
    );
    refused(
        &with("{secret_files: a, cookies: []}"),
        "c.yaml:4:40: issuers[0].authjs.cookies: names no cookie: leave it out for the library's own names",
    );
    refused(
        &with("{secret_files: a, max_age: 1h}"),
        "c.yaml:4:5: issuers[0].authjs.update_age: must be less than `max_age`: a cookie would end before it is renewed",
    );
    for setting in
        ["keys: {discovery: true}", "algorithms: [RS256]", "types: [JWT]", "max_lifetime: 1h", "preset: oidc"]
    {
        let [fault] = &faults(&with(&format!("{{secret_files: a}}\n    {setting}")))[..] else {
            panic!("one fault: {setting}")
        };
        assert!(fault.ends_with("has no meaning beside `authjs`: it is about JWTs"), "{fault}");
    }
}

#[test]
fn cookies_bring_refresh_unless_it_is_left_out() {
    let config = load_text(&format!("{COOKIES}{{secret_files: a}}\n")).unwrap();
    assert!(config.api.serve.contains(&Rpc::Refresh));
    let config = load_text(&format!("{COOKIES}{{secret_files: a}}\napi: {{serve: [verify]}}\n")).unwrap();
    assert_eq!(config.api.serve, [Rpc::Verify].into());
}

#[test]
fn endpoints_of_an_issuer_need_a_client_and_a_place() {
    refused(
        &issuer_with("introspection: {}"),
        "c.yaml:4:20: issuers[0].introspection: needs a `client`: who this sidecar is at the issuer; add `client: {id: …, secret_file: …}` beside it",
    );
    let client = "client: {id: c, secret_file: s}";
    let config = load_text(&issuer_with(&format!("introspection: {{}}\n    {client}"))).unwrap();
    let introspection = config.issuers[0].introspection.as_ref().unwrap();
    assert_eq!((introspection.url.as_deref(), introspection.max_cache), (None, Duration::from_secs(10)));
    let nowhere = format!(
        "issuers:\n  - issuer: id\n    audiences: [a]\n    keys: {{jwks_file: k}}\n    {client}\n    revocation: {{}}\n"
    );
    let [fault] = &faults(&nowhere)[..] else { panic!("one fault") };
    assert!(
        fault.contains("issuers[0].revocation: the endpoint can't be discovered below the issuer"),
        "{fault}"
    );
    let two = format!(
        "issuers:\n  - {{issuer: \"https://a.example\", audiences: [a], {client}, introspection: {{}}}}\n  \
         - {{issuer: \"https://b.example\", audiences: [a], {client}, introspection: {{}}}}\n"
    );
    let [fault] = &faults(&two)[..] else { panic!("one fault") };
    assert!(
        fault.contains("issuers[1].introspection: another issuer's opaque tokens look the same"),
        "{fault}"
    );
}

const TABLE: &str = "issuers:\n  - issuer: web\n    audiences: [orders]\n    session_table: ";

#[test]
fn a_session_table_is_prisma_s_unless_it_says_otherwise() {
    let config = load_text(&format!("{TABLE}{{url: sqlite:/data/dev.db}}\n")).unwrap();
    let Credentials::Table(table) = &config.issuers[0].credentials else { panic!("a table") };
    let day = Duration::from_secs(86_400);
    assert_eq!((table.table.as_str(), table.columns.token.as_str()), ("Session", "sessionToken"));
    assert_eq!((table.max_age, table.update_age, table.idle), (30 * day, day, 30 * day));
    assert_eq!(table.cookie_names().len(), 2);
    assert!(!config.api.serve.contains(&Rpc::Refresh), "there is nothing to refresh");
    let config = load_text(&format!("{TABLE}{{url: sqlite:a, idle: 1h, purge_every: 0s}}\n")).unwrap();
    let Credentials::Table(table) = &config.issuers[0].credentials else { panic!("a table") };
    assert_eq!((table.update_age, table.purge_every), (Duration::from_secs(600), None));
}

#[test]
fn a_session_table_that_can_t_work_is_refused_with_its_place() {
    let with = |settings: &str| format!("{TABLE}{{{settings}}}\n");
    let told = |text: &str, what: &str| {
        let faults = faults(text);
        assert!(faults.len() == 1 && faults[0].contains(what), "{text}: {faults:?}");
    };
    told(&with(""), "issuers[0].session_table.url: required, but not there");
    told(&with("url: redis://r"), "expected `postgres://USER@HOST/DATABASE` or `sqlite:PATH`");
    told(&with("url: 'postgres://u:hunter2@h/d'"), "holds a password; put it in a file");
    told(&with("url: sqlite:a, connections: 2"), "connections: has no meaning for `sqlite:`");
    told(&with("url: sqlite:a, absolute: 9d"), "absolute: nothing tells when a login was; name the column");
    told(&with("url: sqlite:a, idle: 40d"), "idle: must be at most `max_age`");
    told(&with("url: sqlite:a, idle: 1h, update_age: 1h"), "update_age: must be less than `idle`");
    told(&with("url: sqlite:a, cookies: []"), "cookies: names no cookie");
    told(&with("url: sqlite:a, user: {columns: [sub]}"), "`sub` is a claim of the session's own");
    told(&with("url: sqlite:a, user: {}"), "user.columns: required, but not there");
    told(
        &with(&format!("url: sqlite:a, table: {}", "x".repeat(64))),
        "a table's or column's name of 1 to 63 bytes",
    );
    for setting in
        ["types: [JWT]", "refresh: {}", "leeway: 1s", "authjs: {secret_files: a}", "claims: {subject: email}"]
    {
        let faults = faults(&format!("{TABLE}{{url: sqlite:a}}\n    {setting}\n"));
        assert!(
            faults.iter().any(|fault| fault.contains("has no meaning beside `session_table`")),
            "{faults:?}"
        );
    }
}

#[test]
fn whose_a_session_is_must_follow_from_its_cookie() {
    let table = |name: &str, cookies: &str| {
        format!("  - {{issuer: {name}, audiences: [a], session_table: {{url: sqlite:{name}{cookies}}}}}\n")
    };
    let two = |cookies: &str| format!("issuers:\n{}{}", table("a", ""), table("b", cookies));
    load_text(&two(", cookies: [other]")).unwrap();
    let both = faults(&two(""));
    assert!(
        both.iter().all(|fault| fault.contains("issuers[1].session_table: another issuer's sessions are in"))
    );
    let shown = |prefix: &str| {
        format!(
            "issuers:\n{}  - {{issuer: \"https://b.example\", audiences: [a], client: {{id: c, secret_file: s}}, \
             introspection: {{{prefix}}}}}\n",
            table("a", "")
        )
    };
    load_text(&shown("token_prefix: at_")).unwrap();
    let [fault] = &faults(&shown(""))[..] else { panic!("one fault") };
    assert!(fault.contains("issuers[1].introspection: another issuer's `session_table`"), "{fault}");
}

#[test]
fn one_attempt_at_a_refresh_is_over_before_the_next() {
    let with = |timeout: &str, grace: &str| {
        issuer_with(&format!(
            "client: {{id: c, secret_file: s, timeout: {timeout}}}\n    refresh: {{grace: {grace}}}"
        ))
    };
    let config = load_text(&with("2s", "3s")).unwrap();
    assert!(config.api.serve.contains(&Rpc::Refresh), "and Refresh is served, without keys of our own");
    let [fault] = &faults(&with("3s", "3s"))[..] else { panic!("one fault") };
    assert!(fault.contains("issuers[0].refresh.grace: must be more than `client.timeout`"), "{fault}");
}
