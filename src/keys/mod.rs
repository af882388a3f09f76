//! Keys: the sets other issuers publish, our own signing keys, and the keys that authenticate our opaque tokens.

pub mod algorithm;
pub mod content;
pub mod cookie;
mod disk;
pub mod fault;
pub mod fetch;
pub mod handle;
#[cfg(test)]
mod issuer_double;
pub mod jwk;
pub mod key_file;
pub mod key_set;
mod pair;
pub mod pem;
pub mod ring;
mod schedule;
pub mod settings;
pub mod signing;
mod stored;
pub mod url;
pub mod verifying;
mod watched;

pub use algorithm::Algorithm;
pub use content::{ContentEncryption, ContentKey, Sealed};
pub use cookie::{CookieKey, CookieKeyError, CookieKeys, CookieSettings, CookieVersion};
pub use fault::{KeyFault, KeyFileError, LONGEST_KID, Purpose};
pub use fetch::{FetchError, Fetcher, Named};
pub use handle::{Handle, HandleError, HandleKeys, HandleKind};
pub use jwk::Origin;
pub use key_file::{KeyFile, NewKey, RETIREMENT_SLACK};
pub use key_set::{KeySet, KeySetError, LARGEST_SET, MOST_KEYS, NoKey, RejectedKey};
pub use pair::{NoSigningAlgorithm, SigningAlgorithm};
pub use pem::PemFault;
pub use ring::{Counts, KeyRing, KeyRingError, Published};
pub use schedule::Sought;
pub use settings::{Settings, Source};
pub use signing::{SignError, SigningKeys};
pub use stored::StoredKey;
pub use url::{BadUrl, FetchUrl};
pub use verifying::VerifyingKey;
