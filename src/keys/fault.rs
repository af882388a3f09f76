//! What can be wrong with one key of a set, and with a file of our own keys.

use crate::clock::Timestamp;
use crate::keys::key_set::MOST_KEYS;
use crate::token::NoRandomness;
use std::io;
use std::path::PathBuf;

/// The longest `kid` that is kept or looked up, in bytes.
pub const LONGEST_KID: usize = 256;

/// Why a key was not taken. A fault costs that key alone, never its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not a JSON object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member that the key needs is absent.
    #[error("member {0} is missing")]
    Missing(&'static str),
    /// A member has the wrong JSON type.
    #[error("member {0} has the wrong type")]
    Mistyped(&'static str),
    /// A member is not strict base64url, or has the wrong length.
    #[error("member {0} is not the base64url of a proper length")]
    Misencoded(&'static str),
    /// `kid` is empty or longer than [`LONGEST_KID`].
    #[error("the kid is empty or longer than {LONGEST_KID} bytes")]
    Kid,
    /// A key type countersign has no algorithm for.
    #[error("unsupported key type")]
    KeyType,
    /// A curve countersign has no algorithm for.
    #[error("unsupported curve")]
    Curve,
    /// `use` or `key_ops` reserves the key for something else (RFC 7517 §4.2, §4.3).
    #[error("not for verifying signatures")]
    Purpose,
    /// An `alg` countersign does not know.
    #[error("unknown algorithm")]
    UnknownAlgorithm,
    /// An `alg` that belongs to another key type.
    #[error("the algorithm belongs to another type of key")]
    ForeignAlgorithm,
    /// None of the key's algorithms is allowed for the issuer.
    #[error("no algorithm of this key is allowed")]
    NotAllowed,
    /// A shared secret among keys that come over the network.
    #[error("a shared secret among remote keys")]
    RemoteSecret,
    /// A remote set that publishes the private half: whoever reads it can sign.
    #[error("the private half of the key is published")]
    PrivatePublished,
    /// An RSA modulus below 2048 or above 8192 bits, or an even one.
    #[error("the RSA modulus is not an odd number of 2048 to 8192 bits")]
    Modulus,
    /// An RSA exponent that is even, below 3 or beyond 33 bits.
    #[error("the RSA exponent is not an odd number of at least 3")]
    Exponent,
    /// Not a point on the curve.
    #[error("not a point on the curve")]
    Point,
    /// A secret shorter than its hash (RFC 7518 §3.2).
    #[error("the secret is shorter than the hash it keys")]
    ShortSecret,
}

/// What a file's keys are for. A file of one purpose is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Signing access tokens.
    Signing,
    /// Authenticating refresh and session tokens (HMAC-SHA-256).
    Handles,
}

impl Purpose {
    /// The name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Handles => "handles",
        }
    }
}

/// Why a key file can't be read, written or rotated. It never quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or writing failed.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a key file.
    #[error("not a key file: line {line}, column {column}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A file of the other purpose.
    #[error("the file's keys are not for {}", wanted.as_str())]
    WrongPurpose {
        /// What was asked for.
        wanted: Purpose,
    },
    /// No key, or too many.
    #[error("a key file has between 1 and {MOST_KEYS} keys")]
    Count,
    /// Two keys of one name, or whose names share a digest's first four bytes.
    #[error("key {index} has the name of an earlier one")]
    Duplicate {
        /// Counted from 0.
        index: usize,
    },
    /// A key that can't be used.
    #[error("key {index} can't be used")]
    BadKey {
        /// Counted from 0.
        index: usize,
    },
    /// A rotation is under way: the newest key does not sign yet.
    #[error("the newest key starts to sign only at {signs_from:?}")]
    RotationPending {
        /// When it starts.
        signs_from: Timestamp,
    },
    /// No key of that name, or the only one that signs now.
    #[error("no such key, or no other key could sign in its place")]
    Needed,
    /// Somebody else is changing the file.
    #[error("another process is changing the file")]
    Busy,
    /// AWS-LC could not make a key.
    #[error("a key could not be generated")]
    Generate,
    /// The system gave no randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}
