//! The configured policies, by name.

use super::{Policy, Strategy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The policies there are, and which one a login takes that names none. Never empty.
#[derive(Clone, Debug)]
pub struct Policies {
    by_name: BTreeMap<String, Arc<Policy>>,
    default: Arc<Policy>,
}

/// The policies don't go together. The message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoliciesError {
    /// Two have one name.
    #[error("two policies are named `{0}`: rename one")]
    Twice(String),
    /// The default is not among them.
    #[error("the default policy `{0}` is not configured: add it, or name another as the default")]
    NoDefault(String),
}

impl Policies {
    /// Puts policies together.
    ///
    /// # Errors
    /// [`PoliciesError`].
    pub fn new(policies: Vec<Policy>, default: &str) -> Result<Self, PoliciesError> {
        let mut by_name = BTreeMap::new();
        for policy in policies {
            let name = policy.name().to_owned();
            if by_name.insert(name.clone(), Arc::new(policy)).is_some() {
                return Err(PoliciesError::Twice(name));
            }
        }
        let missing = || PoliciesError::NoDefault(default.to_owned());
        let default = by_name.get(default).map(Arc::clone).ok_or_else(missing)?;
        Ok(Self { by_name, default })
    }

    /// The policy of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Policy>> {
        self.by_name.get(name)
    }

    /// What a login takes that names none.
    #[must_use]
    pub fn default_policy(&self) -> &Arc<Policy> {
        &self.default
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_name.values()
    }

    /// Whether any of them keeps session records.
    #[must_use]
    pub fn keep_records(&self) -> bool {
        self.iter().any(|policy| policy.keeps_records())
    }

    /// The longest that anything minted under any of them can be accepted, leeway included: how long a denial must be
    /// kept that could hit any.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.iter().map(|policy| policy.longest_life()).max().unwrap_or_default()
    }

    /// The refresh grace, where all policies with refresh tokens have the same. Then a refresh can be decided without
    /// knowing its session's policy first.
    #[must_use]
    pub fn shared_grace(&self) -> Option<Duration> {
        let mut graces =
            self.iter().filter(|policy| policy.strategy() == Strategy::Hybrid).map(|policy| policy.grace());
        let first = graces.next()?;
        graces.all(|grace| grace == first).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Preset};
    use super::*;

    fn policy(name: &str, preset: Preset) -> Policy {
        Policy::new(name, preset, Overrides::default(), "https://auth.example.com").unwrap()
    }

    fn with_grace(name: &str, seconds: u64) -> Policy {
        let said = Overrides { grace: Some(Duration::from_secs(seconds)), ..Overrides::default() };
        Policy::new(name, Preset::Medium, said, "https://auth.example.com").unwrap()
    }

    #[test]
    fn policies_are_found_by_name_and_by_default() {
        let both = vec![policy("shop", Preset::Medium), policy("bank", Preset::High)];
        let policies = Policies::new(both, "shop").unwrap();
        assert_eq!(policies.find("bank").unwrap().strategy(), Strategy::Session);
        assert_eq!(policies.default_policy().name(), "shop");
        assert!(policies.find("blog").is_none());
        assert_eq!(policies.longest_life(), policies.find("shop").unwrap().longest_life());
    }

    #[test]
    fn a_name_used_twice_is_refused() {
        let both = vec![policy("shop", Preset::Medium), policy("shop", Preset::High)];
        assert_eq!(Policies::new(both, "shop").err(), Some(PoliciesError::Twice("shop".to_owned())));
    }

    #[test]
    fn a_default_that_is_not_there_is_refused() {
        let one = vec![policy("shop", Preset::Medium)];
        assert_eq!(Policies::new(one, "bank").err(), Some(PoliciesError::NoDefault("bank".to_owned())));
        assert_eq!(Policies::new(vec![], "").err(), Some(PoliciesError::NoDefault(String::new())));
    }

    #[test]
    fn jwt_policies_keep_no_records() {
        assert!(!Policies::new(vec![policy("blog", Preset::Low)], "blog").unwrap().keep_records());
    }

    #[test]
    fn grace_is_shared_only_where_all_agree() {
        let high = || policy("bank", Preset::High);
        let shared = |policies: Vec<Policy>| {
            Policies::new(policies, "bank").unwrap().shared_grace().map(|d| d.as_secs())
        };
        assert_eq!(shared(vec![high(), with_grace("a", 5), with_grace("b", 5)]), Some(5));
        assert_eq!(shared(vec![high(), with_grace("a", 5), with_grace("b", 6)]), None);
        assert_eq!(shared(vec![high()]), None);
    }
}
