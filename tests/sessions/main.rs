//! Sessions over a real store: opened, renewed, changed, listed, limited and ended, one test per refusal.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that finds otherwise shall fail"
)]

mod create;
mod live;
mod refresh;
mod relay;
mod revoked;
mod store;
mod world;
