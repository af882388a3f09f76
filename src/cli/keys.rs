//! `countersign keys`.

use crate::cli::output::{Output, Tone};
use crate::cli::{KeysCommand, YES};
use crate::clock::{Clock, Timestamp};
use crate::keys::{self, KeyFile, KeyFileError, NewKey, StoredKey};
use clap::ValueEnum;
use std::path::Path;

/// What a file's keys are for, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Purpose {
    Signing,
    Handles,
}

pub(crate) fn run(command: &KeysCommand, output: &Output) -> u8 {
    let now = Clock::system().now().judged;
    let done = match command {
        KeysCommand::New { file, purpose, algorithm } => new(file, *purpose, algorithm, now),
        KeysCommand::Rotate { file, publish_ahead, longest_life } => purpose_of(file).and_then(|purpose| {
            let rotated =
                KeyFile::change(file, purpose, |keys| keys.rotate(now, *publish_ahead, *longest_life));
            rotated.map_err(told).map(|_| format!("rotated {}", file.display()))
        }),
        KeysCommand::List { file } => Ok(format!("keys of {}", file.display())),
    };
    let listed = done.and_then(|done| Ok((done, read(command.file())?)));
    match listed {
        Ok((done, file)) => {
            output.headline(Tone::Good, "OK", &done);
            list(file.keys(), now, output);
            YES
        }
        Err(why) => output.fault(&why),
    }
}

impl KeysCommand {
    fn file(&self) -> &Path {
        match self {
            Self::New { file, .. } | Self::Rotate { file, .. } | Self::List { file } => file,
        }
    }
}

fn new(file: &Path, purpose: Purpose, algorithm: &str, now: Timestamp) -> Result<String, String> {
    let new = match purpose {
        Purpose::Signing => {
            NewKey::Signing(algorithm.parse().map_err(|error| format!("{algorithm}: {error}"))?)
        }
        Purpose::Handles => NewKey::Handles,
    };
    KeyFile::generate(new, now).and_then(|keys| keys.create(file)).map_err(told)?;
    Ok(format!("made {}", file.display()))
}

/// Which purpose a file has is in the file.
fn purpose_of(file: &Path) -> Result<keys::Purpose, String> {
    match KeyFile::read(file, keys::Purpose::Signing) {
        Ok(_) => Ok(keys::Purpose::Signing),
        Err(error) => match KeyFile::read(file, keys::Purpose::Handles) {
            Ok(_) => Ok(keys::Purpose::Handles),
            Err(_) => Err(told(error)),
        },
    }
}

fn read(file: &Path) -> Result<KeyFile, String> {
    KeyFile::read(file, purpose_of(file)?).map_err(told)
}

fn told(error: KeyFileError) -> String {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn list(keys: &[StoredKey], now: Timestamp, output: &Output) {
    let signing = keys.iter().filter(|key| key.signs_from <= now).map(|key| key.signs_from).max();
    for key in keys {
        let state = match signing {
            _ if key.signs_from > now => format!("next, signs from {:?}", key.signs_from),
            Some(current) if key.signs_from == current => format!("signs since {:?}", key.signs_from),
            _ => "retiring, still verifies".to_owned(),
        };
        output.line(&format!("  {}  {}  {state}", key.kid, key.algorithm));
    }
}
