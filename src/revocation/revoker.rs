//! Revoke, straight down: durably into the log, then in force here, then the revision.

use crate::revocation::denylist::Denylist;
use crate::revocation::log::{Draft, RevocationLog, StoreError};
use crate::token::Revision;
use std::sync::Arc;

/// Takes credentials back.
pub struct Revoker {
    log: Arc<dyn RevocationLog>,
    denylist: Arc<Denylist>,
}

impl Revoker {
    /// Appends to `log` and puts in force in `denylist`.
    #[must_use]
    pub fn new(log: Arc<dyn RevocationLog>, denylist: Arc<Denylist>) -> Self {
        Self { log, denylist }
    }

    /// Takes back what the draft names. `Ok` means durable in the log, within the engine's durability class, and in
    /// force in this sidecar; it is idempotent.
    ///
    /// A full denylist is still `Ok`: it marks itself incomplete, and while it is, nothing is accepted here.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was written, or it can't be known, and the caller should try again.
    pub async fn revoke(&self, draft: Draft) -> Result<Revision, StoreError> {
        let appended = self.log.append(draft).await?;
        if self.denylist.insert_own(&appended.entry, appended.revision).is_err() {
            tracing::error!(revision = %appended.revision, "the denylist is full: nothing is accepted until it drains");
        }
        Ok(appended.revision)
    }
}
