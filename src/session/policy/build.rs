//! From preset and overrides to a policy, or to everything that is wrong with it.

use super::Policy;
use super::preset::{AtLimit, Overrides, Preset, Strategy};
use crate::session::store::Limit;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A policy does not make sense. The message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The name can't be carried in tokens and file names.
    #[error("a policy's name is 1 to 64 letters, digits, `.`, `_` or `-`: rename it")]
    BadName,
    /// An option that the strategy has no use for.
    #[error("`{option}` has no meaning under strategy `{strategy}`: remove it or choose another strategy")]
    NotInStrategy {
        /// As written in the configuration.
        option: &'static str,
        /// The policy's.
        strategy: Strategy,
    },
    /// A time under a second.
    #[error("`{option}` is less than one second: make it at least 1s")]
    TooShort {
        /// As written in the configuration.
        option: &'static str,
    },
    /// One time exceeds another that bounds it.
    #[error(
        "`{option}` ({}) exceeds `{bound}` ({}): shorten `{option}` or lengthen `{bound}`",
        humantime::format_duration(*value), humantime::format_duration(*limit)
    )]
    Exceeds {
        /// The option that is too long.
        option: &'static str,
        /// Its value.
        value: Duration,
        /// The option that bounds it.
        bound: &'static str,
        /// That option's value.
        limit: Duration,
    },
    /// Longer than a session can sensibly live.
    #[error("`absolute` is over ten years: shorten it")]
    AbsoluteTooLong,
    /// Renewal would be due the moment a token is made.
    #[error("`renew_before` must be less than `access_token_life`: shorten it, or leave it out")]
    RenewsAtOnce,
    /// Activity would be written too rarely to keep a session alive.
    #[error("`update_age` must be less than `idle`, or sessions in use go idle: shorten it, or leave it out")]
    UpdatesTooRarely,
    /// Nobody could log in.
    #[error("`max_sessions` must be at least 1: raise it, or leave it out for no limit")]
    NoSessionAllowed,
    /// A behaviour at a limit that is not there.
    #[error("`at_limit` has no meaning without `max_sessions`: set `max_sessions` or remove `at_limit`")]
    NoLimit,
    /// Tokens for nobody.
    #[error(
        "`audience` must name at least one audience of 1 to 256 bytes: add one, or leave it out for our issuer"
    )]
    BadAudience,
}

impl Policy {
    /// Builds a policy from its preset and what is said otherwise. A preset's time yields to a shorter one that bounds
    /// it; a time that is said must fit.
    ///
    /// # Errors
    /// Every [`PolicyError`] there is, not just the first.
    pub fn new(
        name: &str,
        preset: Preset,
        overrides: Overrides,
        own_issuer: &str,
    ) -> Result<Self, Vec<PolicyError>> {
        let policy = Self::combine(name, preset, &overrides, own_issuer);
        let mut faults = policy.misplaced(&overrides);
        faults.extend(policy.contradictions(&overrides));
        if faults.is_empty() { Ok(policy) } else { Err(faults) }
    }

    fn combine(name: &str, preset: Preset, said: &Overrides, own_issuer: &str) -> Self {
        let usual = preset.defaults();
        let strategy = said.strategy.unwrap_or(usual.strategy);
        let absolute = said.absolute.unwrap_or(usual.absolute);
        let idle = match strategy {
            Strategy::Jwt => absolute,
            Strategy::Hybrid | Strategy::Session => said.idle.unwrap_or(usual.idle.min(absolute)),
        };
        let usual_life =
            if strategy == Strategy::Jwt { 30 * DAY } else { usual.access_token_life.min(15 * MINUTE) };
        let access_token_life = said.access_token_life.unwrap_or(usual_life.min(idle));
        let staleness_bound = said.staleness_bound.unwrap_or(usual.staleness_bound);
        let usual_renewal = if access_token_life <= 4 * MINUTE { access_token_life / 2 } else { 2 * MINUTE };
        Self {
            name: name.to_owned(),
            strategy,
            access_token_life,
            idle,
            absolute,
            fully_consistent: said.fully_consistent.unwrap_or(usual.fully_consistent),
            staleness_bound,
            says_stale_after: said
                .says_stale_after
                .or(usual.says_stale_after.filter(|after| *after <= staleness_bound)),
            update_age: said.update_age.unwrap_or((idle / 6).min(DAY)),
            limit: said.max_sessions.map(|sessions| Limit {
                sessions,
                evict_oldest: said.at_limit.unwrap_or_default() == AtLimit::EvictOldest,
            }),
            grace: said.grace.unwrap_or((10 * SECOND).min(access_token_life)),
            access_token_attributes: said
                .access_token_attributes
                .as_ref()
                .map(|names| names.iter().cloned().collect()),
            audience: said.audience.clone().unwrap_or_else(|| vec![own_issuer.to_owned()]),
            renew_before: said.renew_before.unwrap_or(usual_renewal),
        }
    }

    fn misplaced(&self, said: &Overrides) -> Vec<PolicyError> {
        let (jwt, session) = (self.strategy == Strategy::Jwt, self.strategy == Strategy::Session);
        [
            ("access_token_life", said.access_token_life.is_some() && session),
            ("access_token_attributes", said.access_token_attributes.is_some() && session),
            ("idle", said.idle.is_some() && jwt),
            ("update_age", said.update_age.is_some() && jwt),
            ("max_sessions", said.max_sessions.is_some() && jwt),
            ("grace", said.grace.is_some() && (jwt || session)),
            ("renew_before", said.renew_before.is_some() && (jwt || session)),
        ]
        .into_iter()
        .filter(|(_, misplaced)| *misplaced)
        .map(|(option, _)| PolicyError::NotInStrategy { option, strategy: self.strategy })
        .collect()
    }

    fn contradictions(&self, said: &Overrides) -> Vec<PolicyError> {
        let mut faults = Vec::new();
        let mut refuse_if = |refused: bool, fault: PolicyError| {
            if refused {
                faults.push(fault);
            }
        };
        let mut in_alphabet = self.name.bytes().map(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        refuse_if(
            self.name.is_empty() || self.name.len() > 64 || !in_alphabet.all(|good| good),
            PolicyError::BadName,
        );
        for (option, value) in [
            ("access_token_life", said.access_token_life),
            ("idle", said.idle),
            ("absolute", said.absolute),
            ("staleness_bound", said.staleness_bound),
        ] {
            refuse_if(value.is_some_and(|value| value < SECOND), PolicyError::TooShort { option });
        }
        for (option, value, bound, limit) in [
            ("idle", self.idle, "absolute", self.absolute),
            ("access_token_life", self.access_token_life, self.bound_of_life(), self.idle),
            ("grace", self.grace, "access_token_life", self.access_token_life),
            (
                "says_stale_after",
                self.says_stale_after.unwrap_or_default(),
                "staleness_bound",
                self.staleness_bound,
            ),
        ] {
            refuse_if(value > limit, PolicyError::Exceeds { option, value, bound, limit });
        }
        refuse_if(self.absolute > 3653 * DAY, PolicyError::AbsoluteTooLong);
        refuse_if(self.renew_before >= self.access_token_life, PolicyError::RenewsAtOnce);
        refuse_if(self.update_age >= self.idle, PolicyError::UpdatesTooRarely);
        refuse_if(said.max_sessions == Some(0), PolicyError::NoSessionAllowed);
        refuse_if(said.at_limit.is_some() && said.max_sessions.is_none(), PolicyError::NoLimit);
        let nameless = |audience: &String| audience.is_empty() || audience.len() > 256;
        refuse_if(self.audience.is_empty() || self.audience.iter().any(nameless), PolicyError::BadAudience);
        faults
    }

    fn bound_of_life(&self) -> &'static str {
        if self.strategy == Strategy::Jwt { "absolute" } else { "idle" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://auth.example.com";
    const HOUR: Duration = Duration::from_secs(3600);

    fn build(preset: Preset, said: Overrides) -> Result<Policy, Vec<PolicyError>> {
        Policy::new("p", preset, said, ISSUER)
    }

    fn faults(preset: Preset, said: Overrides) -> Vec<PolicyError> {
        build(preset, said).expect_err("must be refused")
    }

    #[test]
    fn low_is_one_jwt_for_thirty_days() {
        let policy = build(Preset::Low, Overrides::default()).unwrap();
        assert_eq!(policy.strategy(), Strategy::Jwt);
        assert!(!policy.keeps_records());
        assert_eq!(policy.access_token_life(), Some(30 * DAY));
        assert_eq!(policy.absolute(), 30 * DAY);
        assert!(!policy.fully_consistent());
        assert_eq!(policy.staleness_bound(), DAY);
        assert_eq!(policy.says_stale_after(), Some(5 * MINUTE));
    }

    #[test]
    fn medium_is_hybrid_and_the_default() {
        let policy = build(Preset::default(), Overrides::default()).unwrap();
        assert_eq!(policy.strategy(), Strategy::Hybrid);
        assert_eq!(policy.access_token_life(), Some(15 * MINUTE));
        assert_eq!((policy.idle(), policy.absolute()), (30 * DAY, 90 * DAY));
        assert!(!policy.fully_consistent());
        assert_eq!(policy.staleness_bound(), 30 * SECOND);
        assert_eq!(policy.says_stale_after(), None);
        assert_eq!(policy.grace(), 10 * SECOND);
        assert_eq!(policy.update_age(), DAY);
        assert_eq!(policy.renew_before(), 2 * MINUTE);
        assert_eq!(policy.audience(), [ISSUER]);
        assert_eq!(policy.limit(), None);
        assert!(policy.carries("roles") && policy.carries("anything"));
    }

    #[test]
    fn high_is_a_stored_session_asked_every_time() {
        let policy = build(Preset::High, Overrides::default()).unwrap();
        assert_eq!(policy.strategy(), Strategy::Session);
        assert_eq!(policy.access_token_life(), None);
        assert_eq!((policy.idle(), policy.absolute()), (30 * MINUTE, 2 * HOUR));
        assert!(policy.fully_consistent());
        assert_eq!(policy.staleness_bound(), 10 * SECOND);
        assert_eq!(policy.update_age(), 5 * MINUTE);
        assert_eq!(policy.longest_life(), 2 * HOUR + MINUTE);
    }

    #[test]
    fn a_preset_s_time_yields_to_a_shorter_one_that_bounds_it() {
        let said = Overrides { absolute: Some(5 * MINUTE), ..Overrides::default() };
        let policy = build(Preset::Medium, said.clone()).unwrap();
        assert_eq!(policy.idle(), 5 * MINUTE);
        assert_eq!(policy.access_token_life(), Some(5 * MINUTE));
        assert_eq!(build(Preset::Low, said).unwrap().access_token_life(), Some(5 * MINUTE));
    }

    #[test]
    fn another_strategy_than_the_preset_s_keeps_short_access_tokens_short() {
        let said = Overrides { strategy: Some(Strategy::Hybrid), ..Overrides::default() };
        assert_eq!(build(Preset::Low, said).unwrap().access_token_life(), Some(15 * MINUTE));
    }

    #[test]
    fn a_short_access_token_is_renewed_at_half_its_life() {
        let said = Overrides { access_token_life: Some(4 * MINUTE), ..Overrides::default() };
        assert_eq!(build(Preset::Medium, said).unwrap().renew_before(), 2 * MINUTE);
        let said = Overrides { access_token_life: Some(MINUTE), ..Overrides::default() };
        assert_eq!(build(Preset::Medium, said).unwrap().renew_before(), 30 * SECOND);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let said = Overrides {
            idle: Some(100 * DAY),
            max_sessions: Some(0),
            audience: Some(vec![]),
            ..Overrides::default()
        };
        assert_eq!(faults(Preset::Medium, said).len(), 3);
    }

    #[test]
    fn idle_beyond_absolute_is_refused_and_both_are_named() {
        let said = Overrides { idle: Some(100 * DAY), ..Overrides::default() };
        let told = faults(Preset::Medium, said).first().unwrap().to_string();
        assert!(told.contains("`idle` (3months") && told.contains("`absolute` (2months"), "{told}");
    }

    #[test]
    fn an_access_token_that_outlives_idle_or_absolute_is_refused() {
        let said = Overrides { access_token_life: Some(31 * DAY), ..Overrides::default() };
        let bound = |preset| match faults(preset, said.clone()).first() {
            Some(PolicyError::Exceeds { option: "access_token_life", bound, .. }) => *bound,
            other => panic!("{other:?}"),
        };
        assert_eq!(bound(Preset::Medium), "idle");
        assert_eq!(bound(Preset::Low), "absolute");
    }

    #[test]
    fn grace_longer_than_an_access_token_is_refused() {
        let said = Overrides { grace: Some(16 * MINUTE), ..Overrides::default() };
        assert!(matches!(faults(Preset::Medium, said)[..], [PolicyError::Exceeds { option: "grace", .. }]));
    }

    #[test]
    fn renewal_at_birth_is_refused() {
        let said = Overrides { renew_before: Some(15 * MINUTE), ..Overrides::default() };
        assert_eq!(faults(Preset::Medium, said), [PolicyError::RenewsAtOnce]);
    }

    #[test]
    fn activity_written_too_rarely_is_refused() {
        let said = Overrides { update_age: Some(30 * MINUTE), ..Overrides::default() };
        assert_eq!(faults(Preset::High, said), [PolicyError::UpdatesTooRarely]);
    }

    #[test]
    fn no_session_allowed_is_refused() {
        let said = Overrides { max_sessions: Some(0), ..Overrides::default() };
        assert_eq!(faults(Preset::Medium, said), [PolicyError::NoSessionAllowed]);
    }

    #[test]
    fn a_behaviour_without_a_limit_is_refused() {
        let said = Overrides { at_limit: Some(AtLimit::Reject), ..Overrides::default() };
        assert_eq!(faults(Preset::Medium, said), [PolicyError::NoLimit]);
    }

    #[test]
    fn an_option_the_strategy_can_t_honour_is_refused() {
        let said = Overrides { max_sessions: Some(3), ..Overrides::default() };
        let fault = PolicyError::NotInStrategy { option: "max_sessions", strategy: Strategy::Jwt };
        assert_eq!(faults(Preset::Low, said), [fault]);
        let said = Overrides { grace: Some(SECOND), ..Overrides::default() };
        let fault = PolicyError::NotInStrategy { option: "grace", strategy: Strategy::Session };
        assert_eq!(faults(Preset::High, said), [fault]);
    }

    #[test]
    fn tokens_for_nobody_are_refused() {
        for audience in [vec![], vec![String::new()], vec!["a".repeat(257)]] {
            let said = Overrides { audience: Some(audience), ..Overrides::default() };
            assert_eq!(faults(Preset::Medium, said), [PolicyError::BadAudience]);
        }
    }

    #[test]
    fn zero_is_no_lifetime() {
        let said = Overrides { absolute: Some(Duration::ZERO), ..Overrides::default() };
        let faults = faults(Preset::High, said);
        assert!(faults.contains(&PolicyError::TooShort { option: "absolute" }), "{faults:?}");
    }

    #[test]
    fn eleven_years_are_too_long() {
        let said = Overrides { absolute: Some(4018 * DAY), ..Overrides::default() };
        assert_eq!(faults(Preset::Medium, said), [PolicyError::AbsoluteTooLong]);
    }

    #[test]
    fn a_name_that_can_t_be_carried_is_refused() {
        for name in ["", "a b", "é", &"a".repeat(65)] {
            let refused = Policy::new(name, Preset::Medium, Overrides::default(), ISSUER);
            assert_eq!(refused, Err(vec![PolicyError::BadName]), "{name:?}");
        }
    }

    #[test]
    fn only_the_attributes_listed_go_into_access_tokens() {
        let said =
            Overrides { access_token_attributes: Some(vec!["scope".to_owned()]), ..Overrides::default() };
        let policy = build(Preset::Medium, said).unwrap();
        assert!(policy.carries("scope") && !policy.carries("roles"));
    }
}
