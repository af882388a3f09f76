//! Listens for other sidecars' commits, on a connection of its own, and survives everything.

use super::failed::Failed;
use super::link::{Link, channel};
use super::pause::Pause;
use super::pool::Pool;
use super::rows;
use crate::revocation::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// A connection on which nothing is heard is asked this often whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Never returns; each time around is one connection.
pub(super) async fn listen(pool: Arc<Pool>) {
    let mut pause = Pause::default();
    loop {
        let dialed = Arc::clone(&pool);
        // The connection lives in the store's runtime, whichever this one is.
        let dialed = pool.runtime.spawn(async move { dialed.dial().await }).await;
        let fault = match dialed {
            Ok(Ok(link)) => {
                pause = Pause::default();
                let ended = follow(&pool, &link).await;
                tracing::debug!(error = ?ended, "no longer listening to the store");
                continue_after(&mut pause, &crate::store::ServerFault::Odd("stopped listening".into()))
            }
            Ok(Err(fault)) => continue_after(&mut pause, &fault),
            Err(error) => continue_after(&mut pause, &crate::store::ServerFault::Odd(error.into())),
        };
        tokio::time::sleep(fault).await;
    }
}

fn continue_after(pause: &mut Pause, fault: &crate::store::ServerFault) -> Duration {
    pause.grow(fault)
}

/// Listens first and looks then, so that nothing falls in between.
async fn follow(pool: &Pool, link: &Link) -> Result<(), Failed> {
    let listen = format!("LISTEN \"{}\"", channel(&pool.access));
    within(pool, link.client.batch_execute(&listen)).await??;
    loop {
        let read = within(pool, link.query("SELECT epoch, seq FROM head", &[])).await??;
        if let Some(row) = read.first() {
            pool.heads.hinted(rows::revision(row)?);
        }
        if tokio::time::timeout(ASK_EVERY, link.ended()).await.is_ok() {
            return Ok(());
        }
    }
}

async fn within<T>(pool: &Pool, asked: impl Future<Output = T>) -> Result<T, Failed> {
    let late = |_| Failed::Store(StoreError::Unavailable("the store did not answer in time".into()));
    tokio::time::timeout(pool.access.answer_within, asked).await.map_err(late)
}
