//! Against real counterparts: what other people's libraries write is read here, and what we write there. `make interop`
//! installs them and names their place; without it each test says aloud that it did not run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that can't go on fails"
)]
#![allow(dead_code, reason = "the support of other tests is shared whole")]

mod authjs;
mod clerk;
mod clients;
mod differential;
#[path = "../engines/mod.rs"]
mod engines;
mod envoy;
#[path = "../sidecar/mint.rs"]
mod mint;
mod oidc;
mod peer;
mod sessions;
#[path = "../sidecar/support.rs"]
mod support;
