//! countersign: a gRPC token-verification sidecar.
//!
//! The house, top floor first; imports go downward only (a test reads them):
//! `cli` → `app` → `config` → {`grpc`, `store`} → {`verify`, `session`} → {`keys`, `revocation`} → {`token`, `clock`, `ops`}.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod grpc;
pub mod keys;
pub mod members;
pub mod oauth;
pub mod ops;
pub mod revocation;
pub mod session;
pub mod store;
pub mod token;
pub mod verify;
