//! The generated messages, clients and services of `countersign.v1`, and a `Debug` that shows no credential.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; the proto files document every message and field"
)]
#![allow(
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

tonic::include_proto!("countersign.v1");

/// The compiled protos, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/countersign.bin"));

redacted!(VerifyRequest, VerifyResponse, RefreshRequest, RevokeRequest, Tokens, Cookie);
