//! The room as a whole; beside it one test for each fault, with its exact place.

mod issuers;
mod listeners;
mod own;

use super::file::parse;
use super::*;
use crate::keys::Algorithm;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

const EXAMPLE: &str = include_str!("example.yaml");

fn load_text(text: &str) -> Result<Config, Faults> {
    parse(Some("c.yaml".into()), text, PathBuf::from("/etc/countersign"), &Overlay::default())
}

fn with(text: &str, overlay: &Overlay) -> Result<Config, Faults> {
    parse(Some("c.yaml".into()), text, PathBuf::from("/etc/countersign"), overlay)
}

fn variables(pairs: &[(&str, &str)]) -> Overlay {
    let pairs = pairs.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
    Overlay::from_variables(pairs, &[])
}

/// Every fault of `text`, one a line.
fn faults(text: &str) -> Vec<String> {
    load_text(text).unwrap_err().as_slice().iter().map(ToString::to_string).collect()
}

/// `text` has this one fault.
#[track_caller]
fn refused(text: &str, fault: &str) {
    assert_eq!(faults(text), [fault], "{text}");
}

const ISSUER: &str = "issuers:\n  - issuer: https://a.example\n    audiences: [orders]\n";
const OWN: &str = "own:\n  issuer: https://auth.example\n  signing_keys: s.json\n  handle_keys: h.json\n";

fn issuer_with(line: &str) -> String {
    format!("{ISSUER}    {line}\n")
}

fn own_with(line: &str) -> String {
    format!("{OWN}  {line}\n")
}

fn policy_with(settings: &str) -> String {
    own_with(&format!("policies: {{web: {{preset: medium, {settings}}}}}"))
}

#[test]
fn three_lines_are_enough() {
    let config = load_text(ISSUER).unwrap();
    assert_eq!(config.api.tcp, Some("127.0.0.1:50051".parse().unwrap()));
    assert!(
        matches!(config.store, Store::Sqlite(path) if path == Path::new("/var/lib/countersign/store.db"))
    );
    assert_eq!(config.api.serve, [Rpc::Verify, Rpc::Revoke, Rpc::Jwks].into());
    let [issuer] = config.issuers.as_slice() else { panic!("one issuer") };
    let Credentials::Jwts(keys) = &issuer.credentials else { panic!("JWTs") };
    assert_eq!(keys.source, Source::Discovery);
    assert_eq!(issuer.algorithms, [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    assert_eq!(issuer.types, ["at+jwt", "JWT"]);
    assert_eq!(issuer.leeway, Duration::from_secs(30));
    assert_eq!(issuer.claims.login, "auth_time");
    assert_eq!(keys.fetch.max_age, Duration::from_secs(86_400));
    assert_eq!(config.drain.deadline, Duration::from_secs(20));
    assert_eq!(config.denylist_entries, 1_000_000);
}

#[test]
fn own_tokens_need_a_name_and_keys() {
    let config = load_text(OWN).unwrap();
    let own = config.own.unwrap();
    assert_eq!(own.keys, Some(OwnKeys::Signing("/etc/countersign/s.json".into())));
    assert_eq!(own.default_policy, "medium");
    assert!(own.can_refresh());
    assert!(config.api.serve.contains(&Rpc::Refresh));
    assert!(!config.api.serve.contains(&Rpc::Sessions), "sessions are served only when asked for");
}

#[test]
fn the_full_example_reads_as_written() {
    let config = load_text(EXAMPLE).unwrap();
    assert_eq!(config.api.serve.len(), 6);
    assert_eq!(config.api.unix.as_ref().unwrap().group, Some(Group::Name("app".to_owned())));
    assert_eq!(config.api.tls.as_ref().unwrap().client_ca, Some("/etc/countersign/tls/clients.pem".into()));
    assert_eq!(config.api.max_connection_age, Duration::from_secs(1800));
    let own = config.own.as_ref().unwrap();
    assert_eq!(own.default_policy, "shop");
    let shop = &own.policies[0];
    assert_eq!((shop.preset, shop.strategy), (Preset::Medium, Strategy::Hybrid));
    assert_eq!(shop.max_sessions, Some(5));
    assert_eq!(shop.at_limit, Some(AtLimit::Reject));
    assert_eq!(shop.freshness.floor, Some(Floor::MinimizeLatency));
    assert_eq!(own.policies[1].preset, Preset::High, "a policy named as a preset starts from it");
    let [keycloak, legacy, web, table] = config.issuers.as_slice() else { panic!("four issuers") };
    assert_eq!(keycloak.claims.roles, ["/realm_access/roles"]);
    assert_eq!((keycloak.preset, keycloak.authorized_parties.len()), (Some(IssuerPreset::Oidc), 1));
    assert_eq!(keycloak.require, ["jti"]);
    let Credentials::Jwts(keys) = &legacy.credentials else { panic!("JWTs") };
    assert_eq!(keys.source, Source::SecretFile("/etc/countersign/legacy.secret".into()));
    let Credentials::Cookies(cookies) = &web.credentials else { panic!("cookies") };
    assert_eq!(cookies.version, AuthJsVersion::V5);
    assert_eq!(cookies.secret_files.len(), 2);
    assert_eq!(web.leeway, Duration::from_secs(15));
    let Credentials::Table(table) = &table.credentials else { panic!("a table") };
    assert_eq!((table.columns.expires.as_str(), table.max_sessions), ("ends", Some(5)));
    assert_eq!(legacy.refresh.as_ref().map(|refresh| refresh.grace), Some(Duration::from_secs(20)));
    assert_eq!(legacy.algorithms, [Algorithm::Hs256]);
    assert_eq!(config.callers.len(), 3);
    assert_eq!(config.callers[0].identity, Identity::Uid(1000));
    assert_eq!(config.callers[0].may.len(), 4);
    assert_eq!(config.callers[2].may, [Right::RevokeIssuer].into());
    let tracing = config.tracing.as_ref().unwrap();
    assert_eq!((tracing.ratio, tracing.queue), (0.05, 2048));
    assert_eq!(tracing.headers_file, Some("/etc/countersign/otel.headers".into()));
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
}

#[test]
fn the_full_example_names_every_setting_but_alternatives() {
    let (root, _) = yaml::parse(EXAMPLE, &tree::Origin::Default).unwrap();
    let paths: HashSet<String> = tree::places(&root)
        .into_keys()
        .map(|path| path.replace("[0]", "[]").replace("[1]", "[]").replace("[2]", "[]").replace("[3]", "[]"))
        .map(|path| path.replace(".shop", ".<name>"))
        .collect();
    let alternatives = ["own.keys", "own.algorithms", "jwks_file", "pem_file", "discovery", "danger_"];
    for key in reference() {
        let is_alternative = alternatives.iter().any(|alternative| key.path.contains(alternative));
        assert!(is_alternative || paths.contains(key.path), "{} is not in the example", key.path);
    }
}

#[test]
fn every_word_of_the_reference_is_understood() {
    for key in reference() {
        let (Kind::Choice(words) | Kind::Choices(words)) = key.kind else { continue };
        for word in words {
            let name = key.name();
            let text = match key.path.rsplit_once('.').map(|(section, _)| section) {
                Some("issuers[]") => issuer_with(&format!("{name}: {word}")),
                Some("own.policies.<name>") => {
                    policy_with(&format!("{name}: {word}")).replace("preset: medium, preset", "preset")
                }
                Some("own") => own_with(&format!("{name}: {word}")),
                Some("callers[]") => format!("{ISSUER}callers: [{{name: a, {name}: {word}}}]"),
                Some(section) => format!("{ISSUER}{section}: {{{name}: {word}}}"),
                None => format!("{ISSUER}{name}: {word}"),
            };
            let found = load_text(&text).err().map(|faults| faults.to_string()).unwrap_or_default();
            assert!(!found.contains("expected one of"), "{}: {word}: {found}", key.path);
        }
    }
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    refused(&issuer_with("leway: 5s"), "c.yaml:4:5: issuers[0].leway: unknown key; did you mean `leeway`?");
    refused(&format!("{ISSUER}Api: {{}}\n"), "c.yaml:4:1: Api: unknown key; did you mean `api`?");
    refused(
        &format!("{ISSUER}log: {{colour: red}}\n"),
        "c.yaml:4:7: log.colour: unknown key; known here: `format`, `level`",
    );
    refused(
        &policy_with("iddle: 1h"),
        "c.yaml:5:36: own.policies.web.iddle: unknown key; did you mean `idle`?",
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_where_it_stands() {
    refused(
        &issuer_with("leeway: [30s]"),
        "c.yaml:4:13: issuers[0].leeway: expected a duration with its unit, such as `30s` or `15m`, found a list",
    );
    refused(
        &issuer_with("allow_missing_type: maybe"),
        "c.yaml:4:25: issuers[0].allow_missing_type: expected `true` or `false`, found `maybe`",
    );
    refused(&format!("{ISSUER}api: on\n"), "c.yaml:4:6: api: expected a section, found a single value");
    refused("issuers: {}\n", "c.yaml:1:10: issuers: expected a list of sections, found a section");
    refused(
        &format!("{ISSUER}api:\n  workers: many\n"),
        "c.yaml:5:12: api.workers: expected a whole number, found `many`",
    );
    refused(
        &format!("{ISSUER}log: {{level: inof}}\n"),
        "c.yaml:4:14: log.level: expected one of `error`, `warn`, `info`, `debug`, `trace`, found `inof`; did you mean `info`?",
    );
}

#[test]
fn a_file_that_accepts_nobody_is_refused() {
    refused("", "c.yaml:1:1: neither `own` nor `issuers`: no token could be accepted");
}

#[test]
fn a_syntax_error_is_the_one_fault() {
    let [fault] = &faults("issuers:\n  - issuer: 'a\n    audiences: [x]\n")[..] else { panic!("one fault") };
    assert!(fault.starts_with("c.yaml:") && fault.contains(": not valid YAML: "), "{fault}");
}

#[test]
fn twenty_faults_are_told_together_in_the_file_s_order() {
    let text = include_str!("twenty_faults.yaml");
    let told = load_text(text).unwrap_err();
    let expected: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("# wrong"))
        .map(|(index, _)| index + 1)
        .collect();
    let lines: Vec<usize> = told.as_slice().iter().filter_map(Fault::line).collect();
    assert_eq!(lines, expected, "{told}");
    assert_eq!(lines.len(), 20);
}

#[test]
fn the_environment_goes_over_the_file_and_flags_over_both() {
    let text = issuer_with("leeway: 1s");
    let mut overlay =
        variables(&[("COUNTERSIGN_ISSUERS__0__LEEWAY", "2s"), ("COUNTERSIGN_LOG__LEVEL", "warn")]);
    let config = with(&text, &overlay).unwrap();
    assert_eq!(config.issuers[0].leeway, Duration::from_secs(2));
    assert_eq!(config.log.level, LogLevel::Warn);
    overlay.set("--set", "issuers[0].leeway", "3s");
    overlay.set("--tcp", "api.tcp", "[::1]:0");
    let config = with(&text, &overlay).unwrap();
    assert_eq!(config.issuers[0].leeway, Duration::from_secs(3));
    assert_eq!(config.api.tcp, Some("[::1]:0".parse().unwrap()));
}

#[test]
fn the_environment_alone_is_enough() {
    let overlay = variables(&[
        ("COUNTERSIGN_ISSUERS__0__ISSUER", "https://a.example"),
        ("COUNTERSIGN_ISSUERS__0__AUDIENCES", "[a, b]"),
        ("COUNTERSIGN_API__TCP", ""),
        ("COUNTERSIGN_API__UNIX", "c.sock"),
    ]);
    let config = parse(None, "", PathBuf::new(), &overlay).unwrap();
    assert_eq!(config.issuers[0].audiences, ["a", "b"]);
    assert_eq!(config.api.tcp, None);
    assert_eq!(config.api.unix.unwrap().path, PathBuf::from("c.sock"), "relative to where we were started");
}

#[test]
fn a_wrong_variable_or_flag_is_told_by_its_name() {
    let mut overlay =
        variables(&[("COUNTERSIGN_ISSUERS__0__LEEWAY", "1h"), ("COUNTERSIGN_OWM__ISSUER", "x")]);
    overlay.set("--tcp", "api.tcp", "localhost:1");
    let told: Vec<String> =
        with(ISSUER, &overlay).unwrap_err().as_slice().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "COUNTERSIGN_ISSUERS__0__LEEWAY: issuers[0].leeway: must be from 0s to 1m",
            "COUNTERSIGN_OWM__ISSUER: owm: unknown key; did you mean `own`?",
            "--tcp: api.tcp: expected an IP address with a port, such as `127.0.0.1:50051`, found `localhost:1`; write `127.0.0.1:1`",
        ]
    );
}

#[test]
fn a_room_s_fault_finds_its_place() {
    let config = load_text(&policy_with("grace: 1m")).unwrap();
    let at = |path: &str| config.fault_at(path, "no").place.to_string();
    assert_eq!(at("own.policies.web.grace"), "c.yaml:5:43");
    assert_eq!(at("own.policies.web.idle"), "c.yaml:5:19");
    assert_eq!(at("cache.max_entries"), "c.yaml:1:1");
}

#[test]
fn files_that_are_not_there_are_told_and_a_secret_in_a_path_s_place_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    let text = "issuers:\n  - issuer: a\n    audiences: [x]\n    algorithms: HS256\n    keys: {secret_file: hunter2}\nown:\n  issuer: b\n  signing_keys: s.json\n";
    std::fs::write(&path, text).unwrap();
    let config = load(Some(&path), &Overlay::default()).unwrap();
    let told = config.check_files().unwrap_err().to_string();
    assert!(!told.contains("hunter2"), "{told}");
    assert!(told.contains("c.yaml:5:25: issuers[0].keys.secret_file: the file can't be read"), "{told}");
    assert!(told.contains("s.json: can't be read"), "{told}");
    std::fs::write(directory.path().join("s.json"), "{}").unwrap();
    std::fs::write(directory.path().join("hunter2"), "x").unwrap();
    assert_eq!(config.check_files(), Ok(()));
}

#[test]
fn a_file_that_can_t_be_read_is_the_one_fault() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |bytes: &[u8]| {
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, bytes).unwrap();
        load(Some(&path), &Overlay::default()).unwrap_err().to_string()
    };
    assert!(refusal(b"a: 1\nb: \xff\n").ends_with("c.yaml:2:4: not valid UTF-8"));
    assert!(refusal(&vec![b'#'; (1 << 20) + 1]).ends_with("larger than 1 MiB"));
    let missing = load(Some(&directory.path().join("none.yaml")), &Overlay::default()).unwrap_err();
    assert!(missing.to_string().contains("none.yaml:1:1: can't be read"));
}

proptest::proptest! {
    #[test]
    fn no_text_and_no_variable_makes_it_panic(text in "[ -~\\n\u{e9}\u{2028}]{0,200}", value in ".{0,40}") {
        let overlay = variables(&[("COUNTERSIGN_ISSUERS__0__KEYS", value.as_str()), ("COUNTERSIGN_API__SERVE", value.as_str())]);
        let _ = with(&text, &overlay);
        let _ = with(&format!("{OWN}  policies: {text}"), &Overlay::default());
    }
}
