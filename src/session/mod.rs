//! Sessions: opened, renewed, listed, changed and ended. The rules of rotation are a pure state machine; the store
//! applies them in one atomic write.

mod claims;
pub mod error;
pub mod extra;
pub mod login;
pub mod policy;
pub mod record;
pub mod rotation;
pub mod store;

pub use record::{Attributes, Device, SessionRecord};
pub use store::{CreateOutcome, Created, Limit, NewSession, SessionStore};
