//! `countersign migrate`: creates the store's namespace, or brings it to this release's schema.

use crate::app::{self, Migrated, StartError};
use crate::cli::check::{self, Told};
use crate::cli::output::{Output, Tone};
use crate::cli::{MigrateArgs, YES, client};
use crate::store::ServerFault;

pub(crate) fn run(args: &MigrateArgs, output: &Output) -> u8 {
    let config = match check::load(args.config.as_deref(), &args.set) {
        Ok(config) => config,
        Err(Told::Faults(faults)) => return output.fault(&format!("the configuration has faults\n{faults}")),
        Err(Told::Words(why)) => return output.fault(&why),
    };
    match client::block_on(async { app::migrate(&config).await }) {
        Ok(Ok(Migrated::File)) => {
            output.headline(Tone::Good, "OK", "the embedded store has this release's schema");
            YES
        }
        Ok(Ok(Migrated::Namespace(done))) if done.from == done.to => {
            output.headline(Tone::Good, "OK", &format!("nothing to do: schema version {}", done.to));
            YES
        }
        Ok(Ok(Migrated::Namespace(done))) => {
            let what = if done.from == 0 {
                "created".to_owned()
            } else {
                format!("migrated from version {}", done.from)
            };
            output.headline(Tone::Good, "OK", &format!("{what}: schema version {}", done.to));
            YES
        }
        Ok(Err(error @ StartError::Server(ServerFault::Unreachable { .. }))) => {
            output.undecided(&app::explain(&error))
        }
        Ok(Err(error)) => output.fault(&app::explain(&error)),
        Err(why) => output.undecided(&why),
    }
}
