//! What was taken back, and how every sidecar comes to know: entries, the log they are appended to, the denylist that
//! holds them in memory, the feed that tails the one into the other, and the revoker that writes.

pub mod denylist;
pub mod entry;
pub mod feed;
pub mod log;
pub mod revoker;

pub use denylist::{Denial, Denylist, Full, Marks, Standing};
pub use entry::{DenialKey, Entry, EntryKind};
pub use feed::{Feed, NotFresh, ResyncCause};
pub use log::{Appended, Draft, Page, RevocationLog, StoreError};
pub use revoker::Revoker;
