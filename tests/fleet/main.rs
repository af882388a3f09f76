//! Sidecars over one Redis or Postgres: the real app, over real gRPC, on real servers that the tests start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test that can't go on fails"
)]

#[path = "../engines/mod.rs"]
mod engines;
#[allow(dead_code, reason = "shared with the tests of one sidecar")]
#[path = "../sidecar/support.rs"]
mod support;

mod command_line;
mod outage;
mod servers;
mod together;

/// Makes of each case one test per engine.
macro_rules! on_each_engine {
    ($($case:ident),+ $(,)?) => {
        mod on_redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::servers::Store::redis()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                super::$case(crate::servers::Store::postgres()).await;
            })+
        }
    };
}
pub(crate) use on_each_engine;
