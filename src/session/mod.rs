//! Sessions: opened, renewed, listed, changed and ended. The rules of rotation are a pure state machine; the store
//! applies them in one atomic write.

mod claims;
mod create;
pub mod error;
pub mod extra;
pub mod lease;
mod live;
pub mod login;
pub mod mint;
pub mod policy;
mod purge;
pub mod reading;
pub mod record;
mod refresh;
mod relay;
pub mod rotation;
pub mod sessions;
pub mod store;

pub use claims::session_claims;
pub use create::Opened;
pub use error::SessionError;
pub use lease::LeaseStore;
pub use live::SessionPage;
pub use login::{Login, is_scope_token};
pub use mint::Tokens;
pub use policy::{Policies, Policy};
pub use purge::Purge;
pub use reading::{Found, Live, Reader};
pub use record::{Attributes, Device, SessionRecord};
pub use refresh::Renewed;
pub use relay::{Granting, Issued, Relay, RelayError, RelaySettings, TokenEndpoint};
pub use sessions::{Foundation, Sessions};
pub use store::{CreateOutcome, Created, Limit, NewSession, SessionStore};
