//! Issuers' endpoints that a sidecar calls as a client of theirs: introspection (RFC 7662). Implements the trait of the
//! room that asks.

pub mod client;
pub mod introspection;

pub use client::{Authentication, Client, ClientSettings, Endpoint, SetupError};
pub use introspection::Introspector;
