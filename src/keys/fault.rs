//! What can be wrong with one key. A fault costs that key alone, never its set.

/// The longest `kid` that is kept or looked up, in bytes.
pub const LONGEST_KID: usize = 256;

/// Why a key was not taken.
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
