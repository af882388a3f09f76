//! What is known of the log's head: hints for whoever waits for it to move, and what this process has seen of it, which
//! proves that the log went back in time when it is not there any more.

use crate::revocation::Entry;
use crate::token::Revision;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;

/// Of the log's reader there is one; somebody else may read beside it.
const MOST_ENDS: usize = 8;

/// Shared by a store's connections.
#[derive(Debug)]
pub(super) struct Heads {
    hint: watch::Sender<Option<Revision>>,
    seen: Mutex<Seen>,
}

/// What this process has seen, committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The furthest head.
    pub(super) head: Option<Revision>,
    /// The ends of the last pages that were read, and the entries there.
    ends: VecDeque<(Revision, Entry)>,
    hinted: Option<Revision>,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self { hint: watch::Sender::new(None), seen: Mutex::default() }
    }

    /// What was seen until now. Whatever is read from here on has to have it.
    pub(super) fn seen(&self) -> Seen {
        Seen { hinted: *self.hint.borrow(), ..self.seen.lock().clone() }
    }

    /// A page that was read after `before` was taken.
    pub(super) fn page_read(&self, before: &Seen, head: Revision, end: Option<(Revision, Entry)>) {
        self.saw(head);
        if let Some((at, entry)) = end {
            let ends = &mut self.seen.lock().ends;
            ends.retain(|(other, _)| *other != at);
            ends.push_back((at, entry));
            if ends.len() > MOST_ENDS {
                ends.pop_front();
            }
        }
        // Anyone who may connect to the database may notify: a head that isn't there must not wake readers for ever.
        if before.hinted.is_some_and(|hinted| hinted.covers(&head) && hinted != head) {
            self.hint.send_if_modified(|hint| {
                if *hint == before.hinted {
                    *hint = Some(head);
                }
                false
            });
        }
    }

    /// An entry of this process was committed.
    pub(super) fn appended(&self, revision: Revision) {
        self.saw(revision);
        self.hint.send_if_modified(|hint| {
            let later = !hint.is_some_and(|hint| hint.covers(&revision));
            if later {
                *hint = Some(revision);
            }
            later
        });
    }

    /// The head may be there now.
    pub(super) fn hinted(&self, head: Revision) {
        self.hint.send_if_modified(|before| before.replace(head) != Some(head));
    }

    /// Resolves when the head is hinted to have moved from `cursor`, or after `at_most`. A reader can be ahead of the last
    /// hint, so only a later head counts at once; any other only when it is hinted anew.
    pub(super) async fn moved_from(&self, cursor: Revision, at_most: Duration) {
        let mut hint = self.hint.subscribe();
        let moved = async {
            let hinted = *hint.borrow_and_update();
            if hinted.is_some_and(|hinted| hinted != cursor && hinted.covers(&cursor)) {
                return;
            }
            while hint.changed().await.is_ok() {
                if *hint.borrow_and_update() != Some(cursor) {
                    return;
                }
            }
        };
        // Either way it was a hint.
        let _ = tokio::time::timeout(at_most, moved).await;
    }

    fn saw(&self, head: Revision) {
        let mut seen = self.seen.lock();
        if !seen.head.is_some_and(|before| before.covers(&head)) {
            seen.head = Some(head);
        }
    }
}

impl Seen {
    /// The log has had more than it has now, although it says to be the same.
    pub(super) fn is_ahead_of(&self, head: Revision) -> bool {
        self.head.is_some_and(|seen| seen.epoch == head.epoch && seen.seq > head.seq)
    }

    /// At a position where a page ended there is something else now.
    pub(super) fn differs_at(&self, position: Revision, there: &Entry) -> bool {
        self.ends.iter().any(|(end, entry)| *end == position && entry != there)
    }
}
