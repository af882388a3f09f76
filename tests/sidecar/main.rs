//! Whole-app tests: the bound app, over real gRPC, on free ports of loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that can't go on fails"
)]

mod admission;
mod alerts;
mod attacks;
mod durability;
mod foreign;
mod house;
mod issuer;
mod level;
mod lifecycle;
mod mint;
mod mutual_tls;
mod orchestrator;
mod proxies;
mod python;
mod reference;
mod revocation;
mod secrecy;
mod sessions;
mod support;
mod tracing;
mod verification;
