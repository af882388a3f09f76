//! `countersign check`: everything `serve` would refuse, at once, the store's server included.

use crate::app::{self, Assembly, StartError};
use crate::cli::output::{Output, Tone};
use crate::cli::{CheckArgs, UNDECIDED, USAGE, YES, client};
use crate::clock::Clock;
use crate::config::{self, Config, Credentials, Faults, Overlay, Store};
use crate::store::{Report, ServerFault};
use std::path::Path;

/// A secret that is shorter may be guessed.
const WEAK_SECRET: u64 = 32;

/// Variables the command line reads itself.
const OTHERS: [&str; 2] = ["COUNTERSIGN_ADDRESS", "COUNTERSIGN_OPS_ADDRESS"];

pub(crate) fn run(args: &CheckArgs, output: &Output) -> u8 {
    if args.reference {
        output.raw(config::markdown().as_bytes());
        return YES;
    }
    let checked = load(args.config.as_deref(), &args.set).and_then(|config| {
        // Key files are read and rooms built as for serving, in a runtime as for serving.
        client::block_on(async { Assembly::check(&config, &Clock::system()) }).map_err(Told::Words)??;
        Ok(config)
    });
    match checked {
        Ok(config) => {
            let looked = if args.offline { Ok(None) } else { look_at_store(&config) };
            match looked {
                Ok(report) => {
                    output.headline(Tone::Good, "OK", "the configuration is good");
                    let of_store = report.map_or_else(Vec::new, |report| told(&report));
                    for warning in warnings(&config).into_iter().chain(of_store) {
                        output.headline(Tone::Unsure, "note", &warning);
                    }
                    YES
                }
                Err((code, why)) => {
                    let tone = if code == UNDECIDED { Tone::Unsure } else { Tone::Bad };
                    output.line(&why);
                    let word = if code == UNDECIDED { "UNDECIDED" } else { "NOT OK" };
                    output.headline(tone, word, "the store can't be used; `--offline` leaves it out");
                    code
                }
            }
        }
        Err(Told::Faults(faults)) => {
            output.line(&faults.to_string());
            output.headline(Tone::Bad, "NOT OK", &format!("{} to mend", count(faults.as_slice().len())));
            USAGE
        }
        Err(Told::Words(why)) => output.fault(&why),
    }
}

/// Asks the store's server whether it can be used; what it is, or the exit code and why not.
fn look_at_store(config: &Config) -> Result<Option<Report>, (u8, String)> {
    match client::block_on(async { app::inspect(config).await }) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(StartError::Server(fault))) => {
            let code = if matches!(fault, ServerFault::Unreachable { .. }) { UNDECIDED } else { USAGE };
            Err((code, config.fault_at("store.url", app::chain(&fault)).to_string()))
        }
        Ok(Err(error)) => Err((USAGE, app::explain(&error))),
        Err(why) => Err((UNDECIDED, why)),
    }
}

fn told(report: &Report) -> Vec<String> {
    let found = format!("the store is {}", report.server);
    std::iter::once(found)
        .chain(report.warnings.iter().map(|warning| format!("the store: {warning}")))
        .collect()
}

/// What went wrong: faults with their places, or something else in words.
pub(crate) enum Told {
    Faults(Faults),
    Words(String),
}

impl From<Faults> for Told {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

/// The configuration as file, environment and flags make it.
pub(crate) fn load(file: Option<&Path>, settings: &[String]) -> Result<Config, Told> {
    Ok(config::load(file, &overlay(settings)?)?)
}

/// What goes over the file: the environment, and flags over it.
pub(crate) fn overlay(settings: &[String]) -> Result<Overlay, Told> {
    let mut overlay = Overlay::from_environment(&OTHERS);
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Told::Words(format!("--set {setting}: write KEY=VALUE")));
        };
        overlay.set("--set", key, value);
    }
    Ok(overlay)
}

/// What works and may still surprise.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Store::Sqlite(file) = &config.store
        && let Some(directory) = file.parent().filter(|directory| !directory.exists())
    {
        warnings.push(format!(
            "there is no directory {} here; `serve` needs it for its store",
            directory.display()
        ));
    }
    for issuer in &config.issuers {
        if let Credentials::Cookies(cookies) = &issuer.credentials {
            for (place, file) in cookies.secret_files.iter().enumerate() {
                if std::fs::metadata(file).is_ok_and(|found| found.len() < WEAK_SECRET) {
                    warnings.push(format!(
                        "{}: secret_files[{place}] is shorter than {WEAK_SECRET} bytes: who holds a cookie can guess it \
                         and make others; `openssl rand -base64 33` makes a better one",
                        issuer.issuer
                    ));
                }
            }
            warnings.push(format!(
                "{}: Auth.js renews its cookies, with a new `iat` and `jti`; only a cookie that carries its login's \
                 instant as `{}` is hit by a cut-off by subject after it was renewed: have the jwt callback set it once",
                issuer.issuer, issuer.claims.login
            ));
            continue;
        }
        warnings.push(format!(
            "{}: a cut-off by subject is judged by `{}`, failing that by `iat`; where tokens are renewed without a new \
             login and don't carry it, a renewal escapes the cut-off",
            issuer.issuer, issuer.claims.login
        ));
    }
    warnings
}

fn count(faults: usize) -> String {
    if faults == 1 { "one fault".to_owned() } else { format!("{faults} faults") }
}
