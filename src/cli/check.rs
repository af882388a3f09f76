//! `countersign check`: everything `serve` would refuse, at once.

use crate::app::Assembly;
use crate::cli::output::{Output, Tone};
use crate::cli::{CheckArgs, USAGE, YES, client};
use crate::clock::Clock;
use crate::config::{self, Config, Faults, Overlay};
use std::path::Path;

/// Variables the command line reads itself.
const OTHERS: [&str; 2] = ["COUNTERSIGN_ADDRESS", "COUNTERSIGN_OPS_ADDRESS"];

pub(crate) fn run(args: &CheckArgs, output: &Output) -> u8 {
    if args.reference {
        output.raw(config::markdown().as_bytes());
        return YES;
    }
    let checked = load(args.config.as_deref(), &args.set).and_then(|config| {
        // Key files are read and rooms built as for serving, in a runtime as for serving; the store is not touched.
        client::block_on(async { Assembly::check(&config, &Clock::system()) }).map_err(Told::Words)??;
        Ok(config)
    });
    match checked {
        Ok(config) => {
            output.headline(Tone::Good, "OK", "the configuration is good");
            for warning in warnings(&config) {
                output.headline(Tone::Unsure, "note", &warning);
            }
            YES
        }
        Err(Told::Faults(faults)) => {
            output.line(&faults.to_string());
            output.headline(Tone::Bad, "NOT OK", &format!("{} to mend", count(faults.as_slice().len())));
            USAGE
        }
        Err(Told::Words(why)) => output.fault(&why),
    }
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
    let mut overlay = Overlay::from_environment(&OTHERS);
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Told::Words(format!("--set {setting}: write KEY=VALUE")));
        };
        overlay.set("--set", key, value);
    }
    Ok(config::load(file, &overlay)?)
}

/// What works and may still surprise.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for issuer in &config.issuers {
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
