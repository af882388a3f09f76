//! What is read again while running, beside keys, which follow their own files: callers' secrets, TLS files and, in
//! `level`, the log level. Read by path every few seconds, so that a swapped directory link is seen; what was good stays until better is read.

use crate::app::rooms::{build_callers, chain};
use crate::config::Config;
use crate::grpc::callers::Callers;
use crate::grpc::tls::TlsSource;
use crate::token::TokenDigest;
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Follows the files.
pub(super) struct Reload {
    config: Arc<Config>,
    callers: Arc<ArcSwap<Callers>>,
    tls: Option<Arc<TlsSource>>,
    caller_files: Vec<PathBuf>,
    tls_files: Vec<PathBuf>,
}

impl Reload {
    pub(super) fn new(config: &Config, callers: Arc<ArcSwap<Callers>>, tls: Option<Arc<TlsSource>>) -> Self {
        let secrets = config.callers.iter().filter_map(|caller| match &caller.identity {
            crate::config::Identity::SecretFile(file) => Some(file.clone()),
            crate::config::Identity::Uid(_) | crate::config::Identity::Certificate(_) => None,
        });
        let tls_files = tls.as_ref().map(|tls| {
            let files = tls.files();
            [Some(&files.certificate), Some(&files.key), files.client_authority.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        });
        Self {
            caller_files: secrets.collect(),
            tls_files: tls_files.unwrap_or_default(),
            config: Arc::new(config.clone()),
            callers,
            tls,
        }
    }

    pub(super) async fn run(self, cancel: CancellationToken) {
        if self.caller_files.is_empty() && self.tls_files.is_empty() {
            return;
        }
        let mut seen = (digests(&self.caller_files).await, digests(&self.tls_files).await);
        while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let now = (digests(&self.caller_files).await, digests(&self.tls_files).await);
            if now.0 != seen.0 {
                self.reload_callers();
            }
            if now.1 != seen.1 {
                self.reload_tls();
            }
            seen = now;
        }
    }

    fn reload_callers(&self) {
        let mut faults = Vec::new();
        let callers = build_callers(&self.config, &mut faults);
        if let Some(fault) = faults.first() {
            tracing::warn!(%fault, "callers' secrets changed and can't be used; the old ones stay");
            return;
        }
        self.callers.store(Arc::new(Callers::new(callers)));
        tracing::info!("callers' secrets were read again");
    }

    fn reload_tls(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Ok(()) => tracing::info!("TLS files were read again"),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "TLS files changed and can't be used; the old ones stay"
                );
            }
        }
    }
}

/// What the files hold now, as digests; unreadable ones as `None`.
pub(super) async fn digests(files: &[PathBuf]) -> Vec<Option<TokenDigest>> {
    let files = files.to_vec();
    let read = tokio::task::spawn_blocking(move || {
        files.iter().map(|file| std::fs::read(file).ok().map(|content| TokenDigest::of(&content))).collect()
    });
    read.await.unwrap_or_default()
}
