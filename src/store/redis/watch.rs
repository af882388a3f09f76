//! Listens for changes on a connection of its own: a read of the log that blocks until there is something after the
//! head. Never from `$`, which would miss what came between two reads.

use super::dial::{Dialler, Link};
use super::reply::Reply;
use crate::revocation::StoreError;
use crate::token::{Revision, random_bytes};
use redis::{Cmd, RedisError, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A blocked read lasts at most this long; a log that began anew is noticed by then.
const BLOCK: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The head that was seen last.
pub(super) struct Watch {
    head: watch::Sender<Option<Revision>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { head: watch::Sender::new(None) }
    }

    /// Resolves when the head is seen to have moved from `cursor`, or after `at_most`. A reader can be ahead of what
    /// was seen last, so only a later head counts at once; any other only when it is seen anew.
    pub(super) async fn moved_from(&self, cursor: Revision, at_most: Duration) {
        let mut head = self.head.subscribe();
        let moved = async {
            let seen = *head.borrow_and_update();
            if seen.is_some_and(|seen| seen != cursor && seen.covers(&cursor)) {
                return;
            }
            while head.changed().await.is_ok() {
                if *head.borrow_and_update() != Some(cursor) {
                    return;
                }
            }
        };
        // Either way it was a hint.
        let _ = tokio::time::timeout(at_most, moved).await;
    }

    /// Listens for ever, whatever fails: the readers report it.
    pub(super) async fn listen(&self, dialler: &Arc<Dialler>, key: &str) {
        let mut failures = 0_u32;
        loop {
            if let Ok(mut link) = dialler.dial().await
                && let Err(error) = self.follow(dialler, &mut link, key, &mut failures).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "the store's hints stopped");
            }
            let pause = SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            failures = failures.saturating_add(1);
            let [drawn] = random_bytes::<1>().unwrap_or([0]);
            tokio::time::sleep(pause.mul_f64(1.0 - f64::from(drawn) / 512.0)).await;
        }
    }

    async fn follow(
        &self,
        dialler: &Dialler,
        link: &mut Link,
        key: &str,
        failures: &mut u32,
    ) -> Result<(), RedisError> {
        let within = BLOCK + dialler.access.answer_within;
        let late = |_| RedisError::from((redis::ErrorKind::Io, "no answer in time"));
        let mut look = Cmd::new();
        look.arg("HMGET").arg(format!("{key}head")).arg(&["epoch", "seq"]);
        loop {
            let looked = tokio::time::timeout(within, link.connection.send_packed_command(&look));
            let head = read_head(looked.await.map_err(late)??.extract_error()?).ok();
            if let Some(head) = head {
                self.head.send_if_modified(|before| before.replace(head) != Some(head));
            }
            let mut wait = Cmd::new();
            wait.arg("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK.as_millis().to_string());
            wait.arg("STREAMS").arg(format!("{key}log"));
            wait.arg(format!("{}-0", head.map_or(0, |head| head.seq)));
            let waited = tokio::time::timeout(within, link.connection.send_packed_command(&wait));
            waited.await.map_err(late)??.extract_error()?;
            *failures = 0;
        }
    }
}

fn read_head(value: Value) -> Result<Revision, StoreError> {
    Reply::new(value, "the head")?.revision()
}
