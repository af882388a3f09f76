//! What was taken back, and how every sidecar comes to know: entries, the log they are appended to, the denylist that
//! holds them in memory, and the feed that tails the one into the other.

pub mod entry;
pub mod log;

pub use entry::{DenialKey, Entry, EntryKind};
pub use log::{Appended, Draft, Page, RevocationLog, StoreError};
