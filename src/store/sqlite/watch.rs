//! Notices commits, this process's and others', by `PRAGMA data_version`: SQLite has no other way to tell.

use super::file::{Link, OpenError};
use super::lane::spawn;
use super::log;
use crate::token::Revision;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// The watching thread, and the head it saw last.
pub(super) struct Watch {
    head: watch::Receiver<Option<Revision>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(link: Link, poll_every: Duration) -> Result<Self, OpenError> {
        let (stop, stopped) = sync_channel(1);
        let (seen, head) = watch::channel(None);
        let thread = spawn("store-watch", move || poll(link, poll_every, &stopped, &seen))?;
        Ok(Self { head, stop: Some(stop), thread: Some(thread) })
    }

    /// Resolves when the head is seen to have moved from `cursor`, or after `at_most`. A reader can be ahead of what
    /// was seen last, so only a later head counts at once; any other only when it is seen anew.
    pub(super) async fn moved_from(&self, cursor: Revision, at_most: Duration) {
        let mut head = self.head.clone();
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
            // Nobody watches any more; the hint then comes by time alone.
            std::future::pending().await
        };
        // Either way it was a hint.
        let _ = tokio::time::timeout(at_most, moved).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn poll(mut link: Link, every: Duration, stopped: &Receiver<()>, seen: &watch::Sender<Option<Revision>>) {
    let mut last = None;
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        // A failure is the readers' to report. The head is read anew once there is a file again.
        let Ok(connection) = link.fresh() else {
            last = None;
            continue;
        };
        let version = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
        let version = version.ok();
        if version.is_some() && version == last {
            continue;
        }
        let Ok(head) = log::head(connection) else { continue };
        last = version;
        seen.send_if_modified(|before| before.replace(head) != Some(head));
    }
}
