//! Keys: the sets other issuers publish, our own signing keys, and the keys that authenticate our opaque tokens.

pub mod algorithm;

pub use algorithm::Algorithm;
