//! Follows `log.level` in the configuration file. All else there counts from the next start on.

use crate::app::reload::{EVERY, digests};
use crate::config::{self, Faults, LogLevel, Overlay};
use crate::ops::telemetry::Handle;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Where the level is written, and what changes it.
#[derive(Debug)]
pub struct LevelSource {
    /// The configuration file.
    pub file: PathBuf,
    /// What goes over it; a level that the environment or a flag names stays.
    pub overlay: Overlay,
    /// The process's logging.
    pub logging: Handle,
}

impl LevelSource {
    /// Looks every few seconds; `in_force` is the level of the start.
    pub(super) async fn follow(self, mut in_force: LogLevel, cancel: CancellationToken) {
        let files = [self.file.clone()];
        // Looked into at once, too: it may have changed since it was read to start from.
        let (mut seen, mut understood) = (None, false);
        loop {
            let now = digests(&files).await;
            let changed = seen.as_ref() != Some(&now);
            // What can't be used is tried again, told once: the fault may be in a file that it names.
            if changed || !understood {
                let level = self.read_again(in_force, changed).await;
                understood = level.is_some();
                in_force = level.unwrap_or(in_force);
                seen = Some(now);
            }
            if cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// The level in force now; `None` where the file can't be used.
    async fn read_again(&self, in_force: LogLevel, tell: bool) -> Option<LogLevel> {
        match self.written().await {
            Ok(level) if level == in_force => Some(in_force),
            Ok(level) => Some(self.change(in_force, level)),
            Err(faults) => {
                if let Some(fault) = faults.as_slice().first().filter(|_| tell) {
                    tracing::warn!(%fault, "the configuration file changed and can't be used; the old log level stays");
                }
                None
            }
        }
    }

    async fn written(&self) -> Result<LogLevel, Faults> {
        let (file, overlay) = (self.file.clone(), self.overlay.clone());
        let read = tokio::task::spawn_blocking(move || config::load(Some(&file), &overlay));
        match read.await {
            Ok(config) => config.map(|config| config.log.level),
            Err(_) => Err(Faults::new(Vec::new())),
        }
    }

    /// Told while it can be seen: before a change that hides it, after one that shows it.
    fn change(&self, from: LogLevel, to: LogLevel) -> LogLevel {
        let tell = || {
            tracing::info!(from = from.as_str(), to = to.as_str(), "the log level was changed by its file")
        };
        if to < from {
            tell();
        }
        if let Err(error) = self.logging.set_level(to.as_str()) {
            tracing::warn!(%error, "the log level can't be changed");
            return from;
        }
        if to > from {
            tell();
        }
        to
    }
}
