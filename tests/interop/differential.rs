//! Thousands of tokens, good and mutated, judged here and by `jose`, PyJWT and joserfc. Where the answers differ it must
//! be a rule of ours, by name; everything else is a bug.

mod mutations;

use crate::mint::{Key, encode, jwks};
use crate::peer::{Peer, node};
use crate::support::{Home, told, verify_request};
use countersign::clock::Clock;
use mutations::{Chance, Draft, MUTATIONS};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

pub(crate) const ISSUER: &str = "https://login.example.net";
const TOKENS: usize = 12_000;

/// A token, and what was done to it.
struct Case {
    token: String,
    mutations: Vec<&'static str>,
}

fn cases(keys: &[(Key, &'static str)], seed: u64) -> Vec<Case> {
    let now = Clock::system().now().judged.as_secs();
    let mut chance = Chance(seed);
    (0..TOKENS)
        .map(|_| {
            let (key, algorithm) = &keys[chance.below(keys.len())];
            let mut draft = Draft::good(now, algorithm, &key.jwk()["kid"]);
            let mut mutations = Vec::new();
            // A quarter stays good, so that a judge who refuses everything is found out.
            for _ in 0..chance.below(4) {
                let (name, mutate) = MUTATIONS[chance.below(MUTATIONS.len())];
                mutate(&mut draft, &mut chance);
                mutations.push(name);
            }
            let input = format!("{}.{}", encode(draft.header_text()), encode(draft.claims_text()));
            let signature = encode(key.sign(algorithm, &input));
            Case { token: draft.finish(&format!("{input}.{signature}")), mutations }
        })
        .collect()
}

/// Our rules that are stricter than a library's: the reason we give, and a mutation that leads there.
fn is_our_rule(reason: &str, mutations: &[&str]) -> Option<&'static str> {
    let did = |names: &[&str]| names.iter().any(|name| mutations.contains(name));
    [
        ("MALFORMED", &["claim twice", "header twice"][..], "a member is there once"),
        ("MALFORMED", &["nested deeply"], "claims nest 32 deep at most"),
        ("MALFORMED", &["loose base64"], "base64url has one spelling"),
        ("MALFORMED", &["odd kid"], "kid is text of at most 256 bytes"),
        ("MALFORMED", &["typ"], "typ is text"),
        ("MALFORMED", &["odd time"], "a number is one that a double can hold"),
        ("UNSUPPORTED_TYPE", &["typ"], "typ is one that the issuer's access tokens have"),
        ("UNSUPPORTED_TYPE", &["crit", "b64", "zip"], "no extension is understood, known or not"),
        (
            "INVALID_CLAIM",
            &["odd claim", "odd time", "odd subject", "audience"],
            "a claim has its type even where it is not needed",
        ),
        ("INVALID_CLAIM", &["time"], "exp lies after iat, and no further than max_lifetime"),
        ("NOT_YET_VALID", &["time", "odd time"], "iat does not lie in the future"),
        ("UNKNOWN_KEY", &["no kid"], "without kid exactly one key fits"),
        ("MISSING_CLAIM", &["gone"], "aud and sub are there"),
    ]
    .into_iter()
    .find(|(ours, names, _)| *ours == reason && did(names))
    .map(|(_, _, rule)| rule)
}

#[tokio::test]
async fn no_answer_differs_but_by_a_rule_of_ours() {
    let (Some(place), Some(python)) = (node(), std::env::var_os("TEST_PYTHON")) else { return };
    let keys = [
        (Key::rsa("rsa"), "RS256"),
        (Key::rsa("pss"), "PS256"),
        (Key::p256("p256"), "ES256"),
        (Key::p384("p384"), "ES384"),
        (Key::ed25519("ed25519"), "EdDSA"),
    ];
    let set: Value = serde_json::from_str(&jwks(keys.iter().map(|(key, _)| key))).unwrap();
    let home = Home::new();
    std::fs::write(home.path("keys.json"), set.to_string()).unwrap();
    let sidecar = home
        .start(&format!(
            "issuers:\n  - issuer: {ISSUER}\n    audiences: [shop]\n    algorithms: [RS256, PS256, ES256, ES384, EdDSA]\n    \
             types: [at+jwt, JWT]\n    keys: {{jwks_file: {}}}\n",
            home.path("keys.json").display()
        ))
        .await;

    let seed = std::env::var("DIFFERENTIAL_SEED").map_or(20_261_125, |seed| seed.parse().unwrap());
    let cases = cases(&keys, seed);
    let mut peers = [
        ("jose", Peer::node(&place, "judge.mjs")),
        ("pyjwt", Peer::start(python_judge(&python))),
        ("joserfc", Peer::start(python_judge(&python))),
    ];
    let mut theirs: Vec<(&str, Vec<Option<String>>)> = Vec::new();
    let tokens: Vec<&str> = cases.iter().map(|case| case.token.as_str()).collect();
    for (name, peer) in &mut peers {
        let ask = json!({
            "ask": name, "tokens": tokens, "jwks": set, "issuer": ISSUER, "audience": ["shop"], "leeway": 30,
            "algorithms": ["RS256", "PS256", "ES256", "ES384", "EdDSA"],
        });
        theirs.push((name, serde_json::from_value(peer.ask(&ask).unwrap()).unwrap()));
    }

    let mut tokens = sidecar.tokens();
    let (mut accepted, mut differences, mut bugs) = (0, BTreeMap::<_, usize>::new(), Vec::new());
    for (at, case) in cases.iter().enumerate() {
        let mut ours = tokens.verify(verify_request(&case.token)).await;
        // On a busy machine a call can pass its deadline, which says nothing of its token.
        while ours.as_ref().is_err_and(|status| told(status).1.is_empty()) {
            ours = tokens.verify(verify_request(&case.token)).await;
        }
        let ours = ours.err().map(|status| told(&status).1);
        accepted += usize::from(ours.is_none());
        for (name, answers) in &theirs {
            match (&ours, &answers[at]) {
                (None, None) | (Some(_), Some(_)) => {}
                (Some(reason), None) => match is_our_rule(reason, &case.mutations) {
                    Some(rule) => *differences.entry((*name, reason.clone(), rule)).or_default() += 1,
                    None => bugs.push(format!(
                        "{name} accepts, we say {reason}: {:?} {}",
                        case.mutations, case.token
                    )),
                },
                (None, Some(why)) => match is_their_rule(name, why, &case.mutations) {
                    Some(rule) => *differences.entry((*name, why.clone(), rule)).or_default() += 1,
                    None => bugs
                        .push(format!("we accept, {name} says {why}: {:?} {}", case.mutations, case.token)),
                },
            }
        }
    }
    println!("{} tokens, {accepted} accepted here; seed {seed}", cases.len());
    for ((name, why, rule), count) in &differences {
        println!("{count:5} {name:8} {why:22} {rule}");
    }
    assert!(accepted > TOKENS / 5 && accepted < TOKENS * 4 / 5, "good and bad are both there: {accepted}");
    bugs.truncate(40);
    assert!(bugs.is_empty(), "{} answers differ without a rule:\n{}", bugs.len(), bugs.join("\n"));
}

/// Where a library refuses what the standard allows.
fn is_their_rule(name: &str, why: &str, mutations: &[&str]) -> Option<&'static str> {
    [
        (
            "pyjwt",
            "KeyError",
            "no kid",
            "looks keys up by kid alone; we take the one key that fits the algorithm",
        ),
        (
            "joserfc",
            "InvalidKeyIdError",
            "no kid",
            "looks keys up by kid alone; we take the one key that fits the algorithm",
        ),
    ]
    .into_iter()
    .find(|(whose, theirs, mutation, _)| *whose == name && *theirs == why && mutations.contains(mutation))
    .map(|(.., rule)| rule)
}

fn python_judge(python: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/python/judge.py"));
    command
}
