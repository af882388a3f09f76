//! Sessions: opened, renewed, listed, changed and ended. The rules of rotation are a pure state machine; the store
//! applies them in one atomic write.

mod claims;
mod create;
pub mod error;
pub mod extra;
mod live;
pub mod login;
pub mod mint;
pub mod policy;
mod purge;
pub mod reading;
pub mod record;
mod refresh;
pub mod rotation;
pub mod sessions;
pub mod store;

pub use claims::session_claims;
pub use create::Opened;
pub use error::SessionError;
pub use live::SessionPage;
pub use login::Login;
pub use mint::Tokens;
pub use policy::{Policies, Policy};
pub use purge::Purge;
pub use reading::{Found, Live, Reader};
pub use record::{Attributes, Device, SessionRecord};
pub use refresh::Renewed;
pub use sessions::{Foundation, Sessions};
pub use store::{CreateOutcome, Created, Limit, NewSession, SessionStore};
