//! Whole-app tests: the bound app, over real gRPC, on free ports of loopback.

mod admission;
mod attacks;
mod durability;
mod foreign;
mod house;
mod issuer;
mod lifecycle;
mod mint;
mod python;
mod revocation;
mod secrecy;
mod sessions;
mod support;
mod verification;
