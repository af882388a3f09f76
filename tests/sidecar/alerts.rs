//! The metrics that are promised, and the alerts that ask for them, against a live sidecar's /metrics.

use crate::lifecycle::get;
use crate::support::{Home, Sidecar, eventually};
use countersign::grpc::v1::SubjectRevocation;
use countersign::grpc::v1::revoke_request::Target;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the operations manual promises, with its labels.
const PROMISED: &[(&str, &[&str])] = &[
    ("countersign_verify_total", &["result", "reason", "issuer", "source"]),
    ("countersign_verify_duration_seconds_bucket", &["le"]),
    ("countersign_verify_duration_seconds_sum", &[]),
    ("countersign_verify_duration_seconds_count", &[]),
    ("countersign_refresh_total", &["result"]),
    ("countersign_revoke_total", &["kind"]),
    ("countersign_staleness_seconds", &[]),
    ("countersign_revision", &[]),
    ("countersign_denylist_capacity_ratio", &[]),
    ("countersign_clock_step_total", &[]),
    ("countersign_refresh_fast_forward_total", &[]),
    ("countersign_feed_resync_total", &["cause"]),
    ("countersign_denylist_entries", &[]),
    ("countersign_cache_hits_total", &[]),
    ("countersign_cache_misses_total", &[]),
    ("countersign_jwks_age_seconds", &[]),
    ("countersign_jwks_fetch_total", &["result"]),
    ("countersign_build_info", &[]),
];
/// What Prometheus itself gives every series, or makes.
const TARGET: [&str; 2] = ["job", "instance"];
const WORDS: [&str; 12] = [
    "sum",
    "by",
    "rate",
    "increase",
    "histogram_quantile",
    "unless",
    "on",
    "or",
    "and",
    "ignoring",
    "up",
    "max",
];

type Labels = BTreeMap<String, String>;

/// One line of text as a series: its name and labels.
fn series(line: &str) -> Option<(String, Labels)> {
    let (name, rest) = line.split_once(['{', ' '])?;
    let inside = if line.contains('{') { rest.rsplit_once('}')?.0 } else { "" };
    let labels = inside.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once("=\"").unwrap();
        (key.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Some((name.to_owned(), labels.collect()))
}

async fn live() -> (Sidecar, Vec<(String, Labels)>) {
    let home = Home::new();
    // Keys by URL from where nobody listens: fetches fail, and are seen.
    let sidecar = home
        .start(
            "issuers:\n  - {issuer: \"https://id.example\", audiences: [shop], \
             keys: {jwks_url: \"http://127.0.0.1:1/jwks\"}}\n",
        )
        .await;
    let tokens = sidecar.login("alice", "medium").await.tokens.unwrap();
    sidecar.verify(&tokens.access_token).await.unwrap();
    sidecar.verify("junk").await.unwrap_err();
    sidecar.refresh(&tokens.refresh_token).await.unwrap();
    let subject = SubjectRevocation { subject: "alice".into(), ..SubjectRevocation::default() };
    sidecar.revoke(Target::Subject(subject)).await.unwrap();
    eventually("a fetch failed", || async {
        let (_, metrics) = get(&sidecar.ops, "/metrics").await;
        metrics.lines().any(|line| line.contains("result=\"failed\"") && line.ends_with(" 1"))
    })
    .await;
    let (_, metrics) = get(&sidecar.ops, "/metrics").await;
    let found = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect();
    (sidecar, found)
}

#[tokio::test]
async fn every_metric_that_is_promised_is_there_with_its_labels() {
    let (_sidecar, found) = live().await;
    for (name, labels) in PROMISED {
        let named: Vec<_> = found.iter().filter(|(found, _)| found == name).collect();
        assert!(!named.is_empty(), "{name} is not in /metrics");
        for label in *labels {
            assert!(named.iter().all(|(_, has)| has.contains_key(*label)), "{name} lacks {label}");
        }
    }
    let forbidden = ["token", "subject", "kid", "session"];
    assert!(found.iter().all(|(_, labels)| forbidden.iter().all(|label| !labels.contains_key(*label))));
}

#[derive(serde::Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(serde::Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let text = include_str!("../../examples/alerts/countersign.rules.yaml");
    let rules: Rules = serde_saphyr::from_str(text).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// A name, and its matchers: label, operator, value.
type Selected = (String, Vec<(String, String, String)>);

/// The series that a query selects: each name with its matchers, and the labels that it groups by.
fn asked(query: &str) -> (Vec<Selected>, BTreeSet<String>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut selected, mut grouped) = (Vec::new(), BTreeSet::new());
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '[') {
        if rest.as_bytes()[start] == b'[' {
            rest = &rest[start + rest[start..].find(']').unwrap() + 1..];
            continue;
        }
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = rest[end..].trim_start();
        if ["by", "on", "ignoring"].contains(&word) {
            let (labels, after) = rest.strip_prefix('(').unwrap().split_once(')').unwrap();
            grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
            rest = after;
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').unwrap();
            for matcher in inside.split("\",").map(|matcher| matcher.trim_end_matches('"')) {
                let (label, value) = matcher.split_once('"').unwrap();
                let name = label.trim_end_matches(['=', '~', '!']);
                matchers.push((name.to_owned(), label[name.len()..].to_owned(), value.to_owned()));
            }
            rest = after;
        }
        if word == "up" || !WORDS.contains(&word) {
            selected.push((word.to_owned(), matchers));
        }
    }
    (selected, grouped)
}

#[tokio::test]
async fn every_alert_says_what_to_do_and_asks_for_what_is_in_metrics() {
    let (_sidecar, found) = live().await;
    let rules = rules();
    assert!(rules.len() >= 12, "{}", rules.len());
    for Rule { alert, expr, labels, annotations } in &rules {
        for said in ["summary", "what_to_do"] {
            assert!(annotations.get(said).is_some_and(|text| text.len() > 20), "{alert} lacks {said}");
        }
        assert!(["critical", "warning", "info"].contains(&labels["severity"].as_str()), "{alert}");
        let (selected, grouped) = asked(expr);
        assert!(!selected.is_empty(), "{alert} asks for something");
        let mut has: BTreeSet<&str> = TARGET.into();
        for (name, matchers) in &selected {
            if name == "up" {
                assert!(matchers.iter().all(|(label, _, _)| TARGET.contains(&label.as_str())), "{alert}");
                continue;
            }
            let meets = |labels: &Labels| {
                matchers.iter().all(|(label, operator, value)| {
                    let is = labels.get(label).map(String::as_str);
                    match operator.as_str() {
                        "=" => is == Some(value),
                        "=~" => value.split('|').any(|one| is == Some(one)),
                        other => panic!("{alert}: {other} is not looked at here"),
                    }
                })
            };
            let met: Vec<_> = found.iter().filter(|(is, labels)| is == name && meets(labels)).collect();
            assert!(!met.is_empty(), "{alert}: nothing in /metrics is {name} {matchers:?}");
            has.extend(met.iter().flat_map(|(_, labels)| labels.keys()).map(String::as_str));
        }
        for label in &grouped {
            assert!(has.contains(label.as_str()), "{alert}: nothing it asks for has {label}");
        }
        for text in annotations.values() {
            for label in text.split("$labels.").skip(1) {
                let label: String = label.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(has.contains(label.as_str()), "{alert}: no label {label}");
                let aggregated = expr.contains(" by (");
                assert!(!aggregated || grouped.contains(&label), "{alert}: {label} is summed away");
            }
        }
    }
}

#[test]
fn a_query_is_taken_apart_into_what_it_asks_for() {
    let (selected, grouped) = asked("sum by (job, le) (rate(a_total{x=\"1\",y=~\"b|c\"}[5m])) > 0.5 * other");
    let matchers = [("x", "=", "1"), ("y", "=~", "b|c")].map(|(a, b, c)| (a.into(), b.into(), c.into()));
    assert_eq!(selected, [("a_total".to_owned(), matchers.to_vec()), ("other".to_owned(), Vec::new())]);
    assert_eq!(grouped, BTreeSet::from(["job".to_owned(), "le".to_owned()]));
}
