//! What an issuer's tokens must be. Every field is settled when the sidecar starts.

use crate::keys::Algorithm;
use crate::revocation::DenialKey;
use crate::token::Issuer;
use crate::verify::claims::ClaimPath;
use crate::verify::header::same_type;
use std::borrow::Cow;
use std::time::Duration;

/// The largest leeway: more would make a short life long.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// Where an issuer keeps what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths {
    /// Whose it is.
    pub subject: ClaimPath,
    /// The session it belongs to.
    pub session: ClaimPath,
    /// The client it was made for, at the first of these that is there; failing that `azp`.
    pub client: Vec<ClaimPath>,
    /// Roles: text or an array of texts, of all of these together.
    pub roles: Vec<ClaimPath>,
    /// Scopes: text separated by spaces, or an array of texts, of all of these together.
    pub scopes: Vec<ClaimPath>,
    /// The instant of the login, as a NumericDate. Without it `auth_time` counts, and failing that `iat`.
    pub login: Option<ClaimPath>,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        Self {
            subject: ClaimPath::member("sub"),
            session: ClaimPath::member("sid"),
            client: vec![ClaimPath::member("client_id")],
            roles: vec![ClaimPath::member("roles")],
            scopes: vec![ClaimPath::member("scope")],
            login: None,
        }
    }
}

/// How an issuer writes what claim paths alone can't reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Plainly.
    #[default]
    Plain,
    /// As Clerk does: role and permissions of the active organisation.
    Clerk,
}

/// What is configured for an issuer.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `iss`, to the letter.
    pub issuer: Issuer,
    /// The algorithms its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// A token must name one of these in `aud`.
    pub audiences: Vec<String>,
    /// The `typ` values accepted; empty accepts any.
    pub types: Vec<String>,
    /// Whether a token without `typ` is accepted where `types` are set.
    pub allow_missing_type: bool,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// A token that lives longer, from `iat` to `exp`, is refused; one without `iat` is valid for as long before `exp`.
    pub max_lifetime: Duration,
    /// Claims that must be there, beside `iss`, `aud`, `exp` and the subject.
    pub required: Vec<String>,
    /// Where an issuer keeps what it says.
    pub paths: ClaimPaths,
    /// How it writes what is not at one place.
    pub dialect: Dialect,
    /// Whether a token that names nobody in `aud` is for `audiences`.
    pub allow_missing_audience: bool,
    /// `azp` must be one of these; empty: it is not looked at.
    pub authorized_parties: Vec<String>,
    /// How long before expiry a client should renew.
    pub renew_before: Duration,
    /// Our own tokens: they also name their policy, login instant and attribute version.
    pub own: bool,
}

/// Why settings are no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nothing could be signed.
    #[error("name at least one algorithm")]
    NoAlgorithm,
    /// A token meant for nobody in particular is meant for an attacker, too.
    #[error("name at least one audience that these tokens are meant for")]
    NoAudience,
    /// Too large.
    #[error("use a leeway of at most 60s")]
    Leeway,
    /// None at all.
    #[error("use a longest lifetime above zero")]
    Lifetime,
}

/// What an issuer's tokens must be.
#[derive(Clone, Debug)]
pub struct IssuerPolicy(PolicySettings, DenialKey);

impl IssuerPolicy {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(settings: PolicySettings) -> Result<Self, PolicyError> {
        if settings.algorithms.is_empty() {
            return Err(PolicyError::NoAlgorithm);
        }
        if settings.audiences.is_empty() {
            return Err(PolicyError::NoAudience);
        }
        if settings.leeway > MAX_LEEWAY {
            return Err(PolicyError::Leeway);
        }
        if settings.max_lifetime.is_zero() {
            return Err(PolicyError::Lifetime);
        }
        let key = DenialKey::issuer(&settings.issuer);
        Ok(Self(settings, key))
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// What denies the issuer.
    pub(super) fn issuer_key(&self) -> DenialKey {
        self.1
    }

    /// How far clocks may differ.
    #[must_use]
    pub fn leeway(&self) -> Duration {
        self.0.leeway
    }

    /// How long a token may live.
    #[must_use]
    pub fn max_lifetime(&self) -> Duration {
        self.0.max_lifetime
    }

    /// Whether these are our own tokens.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.own
    }

    /// How long before expiry a client should renew.
    #[must_use]
    pub fn renew_before(&self) -> Duration {
        self.0.renew_before
    }

    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.0.algorithms.contains(&algorithm)
    }

    pub(super) fn allows_type(&self, token_type: Option<&str>) -> bool {
        match token_type {
            _ if self.0.types.is_empty() => true,
            None => self.0.allow_missing_type,
            Some(name) => self.0.types.iter().any(|allowed| same_type(allowed, name)),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    pub(super) fn allows_missing_audience(&self) -> bool {
        self.0.allow_missing_audience
    }

    pub(super) fn authorized_parties(&self) -> &[String] {
        &self.0.authorized_parties
    }

    pub(super) fn accepts_audience(&self, audiences: &[Cow<'_, str>]) -> bool {
        audiences.iter().any(|audience| self.0.audiences.iter().any(|accepted| **accepted == **audience))
    }

    pub(super) fn audiences(&self) -> &[String] {
        &self.0.audiences
    }

    pub(super) fn required(&self) -> &[String] {
        &self.0.required
    }

    pub(super) fn paths(&self) -> &ClaimPaths {
        &self.0.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::minting::{policy, settings};

    fn fault(change: impl FnOnce(&mut PolicySettings)) -> Option<PolicyError> {
        let mut settings = settings();
        change(&mut settings);
        IssuerPolicy::new(settings).err()
    }

    #[test]
    fn a_policy_that_bounds_nothing_is_refused() {
        assert_eq!(fault(|_| ()), None);
        assert_eq!(fault(|settings| settings.algorithms.clear()), Some(PolicyError::NoAlgorithm));
        assert_eq!(fault(|settings| settings.audiences.clear()), Some(PolicyError::NoAudience));
        assert_eq!(fault(|settings| settings.max_lifetime = Duration::ZERO), Some(PolicyError::Lifetime));
    }

    #[test]
    fn a_leeway_beyond_a_minute_is_refused() {
        assert_eq!(fault(|settings| settings.leeway = MAX_LEEWAY), None);
        let longer = MAX_LEEWAY + Duration::from_millis(1);
        assert_eq!(fault(|settings| settings.leeway = longer), Some(PolicyError::Leeway));
        assert_eq!(fault(|settings| settings.leeway = Duration::MAX), Some(PolicyError::Leeway));
    }

    #[test]
    fn a_missing_type_is_accepted_only_where_it_may_miss() {
        let with = |types: &[&str], allow_missing_type| {
            let mut settings = settings();
            settings.types = types.iter().map(|name| (*name).to_owned()).collect();
            settings.allow_missing_type = allow_missing_type;
            IssuerPolicy::new(settings).unwrap()
        };
        assert!(with(&["at+jwt"], true).allows_type(None));
        assert!(!with(&["at+jwt"], false).allows_type(None));
        assert!(!with(&["at+jwt"], true).allows_type(Some("JWT")), "one that is there has to be right");
        assert!(!with(&["at+jwt"], true).allows_type(Some("")));
        assert!(with(&["at+jwt", "JWT"], false).allows_type(Some("application/jwt")));
    }

    #[test]
    fn an_audience_is_one_of_the_configured_to_the_letter() {
        let accepts = |names: &[&'static str]| {
            policy().accepts_audience(&names.iter().copied().map(Into::into).collect::<Vec<_>>())
        };
        assert!(accepts(&["other", "bank"]));
        for names in [&[][..], &["Shop"], &["shop "], &["sho", "p"], &[""]] {
            assert!(!accepts(names), "{names:?}");
        }
    }
}
