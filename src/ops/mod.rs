//! Operations: what those who run the sidecar look at. Metrics, health, logs, and the one port that shows them.
//!
//! This is a ground-floor room: every room above counts and logs through it, so it knows none of them. What it shows
//! of theirs (sampled gauges, the public key set) comes in through callbacks the app hands over.
//!
//! Nothing here carries a token, a subject, a key id or a claim: metric labels are constants of ours and the
//! configured issuers, and the port serves no secret.

pub mod health;
pub mod metrics;
mod readiness;
mod routes;
pub mod server;
mod striped;
pub mod telemetry;
pub mod trace;
mod verifications;

pub use health::Health;
pub use metrics::{Metrics, VerifyOk};
pub use readiness::{Gate, Phase, Readiness};
pub use server::{Limits, OpsState};
