//! Verification: a credential and a caller's demands in, acceptance, denial or "can't tell" out.
//!
//! The steps, in order: size cap → digest → cache, and on a miss: strict parsing → the issuer's key by kid and
//! algorithm → signature → issuer policy → cached. Then always, hit or miss: time, demands, denylist, freshness. Only
//! where the freshness asked for needs it is anything awaited; from memory an answer never waits.

mod accept;
pub mod acceptance;
pub mod accepted;
mod authjs;
mod cache;
pub mod claims;
mod clerk;
pub mod compact;
pub mod freshness;
pub mod header;
pub mod json;
pub mod jwt;
#[cfg(test)]
mod minting;
mod opaque;
pub mod policy;
mod presented;
pub mod refusal;
mod session_table;
pub mod session_token;
mod table_rules;
mod verifier;

pub use acceptance::{Acceptance, Encode, EncodeForProxies};
pub use accepted::{Accepted, Kind};
pub use authjs::RenewedCookie;
pub use cache::Settings as CacheSettings;
pub use freshness::{Consistency, Freshness};
pub use opaque::{
    Introspection, IssuerFailed, OpaqueTokenSettings, RevocationRelay, Said, Since, says_active,
};
pub use policy::IssuerPolicy;
pub use refusal::Refusal;
pub use session_table::{
    Rows, SessionRow, SessionRows, SessionTable, TABLE_CLAIMS, TableError, TableSettings, session_id,
};
pub use session_token::{LiveSession, Reading, SessionReader, SessionState};
pub use table_rules::{Bounds, Fate, RowTimes, TableRules};

use crate::clock::Clock;
use crate::keys::{CookieKeys, HandleKeys, KeyRing};
use crate::ops::metrics::{Metrics, VerifyOk};
use crate::revocation::{Denylist, Draft, Feed};
use crate::token::Issuer;
use cache::AcceptanceCache;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a caller demands of a credential.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Any of these; empty: the issuer's configured audiences alone.
    pub audiences: &'a [String],
    /// All of these.
    pub scopes: &'a [String],
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// How long it may take.
    pub deadline: Duration,
    /// Where the credential was found, such as a cookie's name; empty where that was not said. Only applications' cookies
    /// are judged by it.
    pub credential_name: &'a str,
}

/// Waiting for a revision ends after this even if the caller has more time.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// When to try again where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A cached acceptance.
    Cache,
    /// A signature checked on this call.
    Signature,
    /// The session's record, read on this call.
    Store,
    /// The issuer's introspection endpoint, asked on this call.
    Introspection,
}

impl Source {
    /// Its name in metrics and spans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Signature => "signature",
            Self::Store => "store",
            Self::Introspection => "introspection",
        }
    }

    const ALL: [Self; 4] = [Self::Cache, Self::Signature, Self::Store, Self::Introspection];
}

/// An issuer as this sidecar judges it.
#[derive(Debug)]
pub struct IssuerSettings {
    /// What its tokens must be.
    pub policy: IssuerPolicy,
    /// The keys its JWTs verify under; `None` where it has none, only other credentials.
    pub ring: Option<Arc<KeyRing>>,
    /// The keys its encrypted session cookies open under; then it has no JWTs.
    pub cookies: Option<Arc<CookieKeys>>,
    /// Where its application keeps its sessions; then it has no JWTs.
    pub table: Option<Arc<SessionRows>>,
    /// How its opaque tokens are judged, where it has any.
    pub opaque: Option<OpaqueTokenSettings>,
    /// Who tells the issuer what is taken back here, where it is told.
    pub relay: Option<Arc<dyn RevocationRelay>>,
    /// How fresh answers about them must be; for our own tokens where they name no policy known here.
    pub freshness: Arc<Freshness>,
    /// Our own tokens name their policy.
    pub by_policy: HashMap<String, Arc<Freshness>>,
    /// How long anything of this issuer can live.
    pub longest_life: Duration,
}

/// Session tokens as this sidecar judges them.
#[derive(Debug)]
pub struct SessionTokenSettings {
    /// The keys they are authenticated by.
    pub handles: Arc<HandleKeys>,
    /// Where sessions are read.
    pub reader: Arc<dyn SessionReader>,
    /// Our own issuer; one of the issuers.
    pub issuer: Issuer,
}

/// What a verifier is built from.
pub struct Parts {
    /// Each issuer once.
    pub issuers: Vec<IssuerSettings>,
    /// Where sessions of our own are read for a fully consistent answer, and session tokens judged.
    pub session_tokens: Option<SessionTokenSettings>,
    /// Where sessions of our own JWTs are read, also where no session tokens are judged.
    pub sessions: Option<Arc<dyn SessionReader>>,
    /// What was taken back.
    pub denylist: Arc<Denylist>,
    /// Who brings the denylist up to date.
    pub feed: Arc<Feed>,
    /// What time it is.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Makes answers.
    pub encode: Encode,
    /// How much is cached.
    pub cache: CacheSettings,
    /// A larger credential is refused unread.
    pub max_token_bytes: usize,
}

impl IssuerSettings {
    /// What acceptances of its JWTs or cookies are bound to; 0 where no key can be used.
    fn generation(&self) -> u64 {
        match (&self.ring, &self.cookies) {
            (Some(ring), _) => ring.generation(),
            (None, Some(cookies)) => cookies.generation(),
            (None, None) => 0,
        }
    }
}

struct IssuerEntry {
    settings: IssuerSettings,
    place: usize,
    counted: [VerifyOk; 4],
}

/// Accepted, and what the answer stands on.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What the credential says.
    pub acceptance: Arc<Acceptance>,
    /// The position in the revocation log.
    pub revision: crate::token::Revision,
    /// How long ago that was confirmed.
    pub staleness: Duration,
    /// Staler than the policy calls fresh.
    pub stale: bool,
    /// Where the answer came from.
    pub source: Source,
}

/// What the holder of a token may take back.
#[derive(Clone, Debug)]
pub enum Possession {
    /// A good signature, expired or not.
    Proven {
        /// This.
        draft: Draft,
        /// Who is to be told, too.
        relay: Option<Arc<dyn RevocationRelay>>,
    },
    /// No good signature: nothing.
    Nothing,
}

/// Judges credentials.
pub struct Verifier {
    issuers: HashMap<Issuer, Arc<IssuerEntry>>,
    /// Those of the issuers that have encrypted session cookies.
    cookies: Vec<Arc<IssuerEntry>>,
    /// Those that have a table of sessions.
    tables: Vec<Arc<IssuerEntry>>,
    /// Those that have opaque tokens; one without a prefix last.
    opaque: Vec<Arc<IssuerEntry>>,
    session_tokens: Option<SessionTokenSettings>,
    sessions: Option<Arc<dyn SessionReader>>,
    cache: AcceptanceCache,
    denylist: Arc<Denylist>,
    feed: Arc<Feed>,
    clock: Clock,
    metrics: Arc<Metrics>,
    encode: Encode,
    strictest: Arc<Freshness>,
    max_token_bytes: usize,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}
