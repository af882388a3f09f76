//! Issuers' endpoints that a sidecar calls as a client of theirs: introspection (RFC 7662), revocation (RFC 7009) and the
//! token endpoint (RFC 6749). Implements the traits of the rooms that ask.

pub mod client;
pub mod introspection;
pub mod revocation;
pub mod token;

pub use client::{Authentication, Client, ClientSettings, Endpoint, SetupError};
pub use introspection::Introspector;
pub use revocation::Relay;
pub use token::TokenClient;
