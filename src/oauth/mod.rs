//! Issuers' endpoints that a sidecar calls as a client of theirs: introspection (RFC 7662) and revocation
//! (RFC 7009). Implements the traits of the room that asks.

pub mod client;
pub mod introspection;
pub mod revocation;

pub use client::{Authentication, Client, ClientSettings, Endpoint, SetupError};
pub use introspection::Introspector;
pub use revocation::Relay;
