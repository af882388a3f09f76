//! countersign: a gRPC token-verification sidecar.
//!
//! The house, top floor first; imports go downward only (a test reads them):
//! `cli` → `app` → `config` → {`grpc`, `store`} → {`verify`, `session`} → {`keys`, `revocation`} → {`token`, `clock`, `ops`}.

pub mod clock;
pub mod keys;
pub mod revocation;
pub mod session;
pub mod store;
pub mod token;
