//! Keys: the sets other issuers publish, our own signing keys, and the keys that authenticate our opaque tokens.

pub mod algorithm;
pub mod fault;
pub mod jwk;
pub mod key_set;
pub mod pem;
pub mod verifying;

pub use algorithm::Algorithm;
pub use fault::{KeyFault, LONGEST_KID};
pub use jwk::Origin;
pub use key_set::{KeySet, KeySetError, LARGEST_SET, MOST_KEYS, NoKey, RejectedKey};
pub use pem::PemFault;
pub use verifying::VerifyingKey;
