//! The edge: gRPC in, rooms below, gRPC out. One file per service; `status` is the one table from outcomes to the wire.

/// A `Debug` of messages that shows nothing of what is in them.
macro_rules! redacted {
    ($($message:ty),+ $(,)?) => {$(
        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(…)"))
            }
        }
    )+};
}

pub mod callers;
pub mod check;
pub mod codec;
pub mod cookies;
pub mod envoy;
mod key;
pub mod limits;
pub mod listener;
mod relay;
mod revoke;
mod router;
pub mod serve;
mod session;
pub mod status;
mod stream;
pub mod tls;
mod token;
mod traced;
pub mod v1;
mod wire;

pub use router::{Api, Parts, Rpc, Settings};
pub use token::encode;

/// An instant as protobuf has it.
fn timestamp(at: crate::clock::Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.as_millis() % 1000 * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX), nanos }
}
