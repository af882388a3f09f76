//! `own`: tokens that this sidecar or a sibling mints, and the policies they live under.

use super::freshness::{FreshnessOverrides, read_overrides};
use super::issuer::{Keys, LEEWAY, algorithm, read_keys};
use super::nearest::nearest;
use super::reader::{Content, Section};
use super::reference::listed;
use super::scalar;
use crate::keys::Algorithm;
use crate::token::Issuer;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DECADE: Duration = Duration::from_secs(3650 * 86_400);

/// Our own tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// `iss` of our tokens; no foreign issuer shares it.
    pub issuer: Issuer,
    /// What verifies our JWTs; `None` where no policy has any.
    pub keys: Option<OwnKeys>,
    /// What authenticates refresh and session tokens; there where a policy's sessions need it here.
    pub handle_keys: Option<PathBuf>,
    /// How far siblings' clocks may stand apart; at most a minute.
    pub leeway: Duration,
    /// One of `policies`.
    pub default_policy: String,
    /// At least one, by distinct names.
    pub policies: Vec<PolicySettings>,
}

/// What verifies our JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnKeys {
    /// The private key-set file, which signs too.
    Signing(PathBuf),
    /// What a sibling publishes, which only verifies.
    Published {
        /// Where it is found; never a secret.
        keys: Keys,
        /// Accepted algorithms; never symmetric ones.
        algorithms: Vec<Algorithm>,
    },
}

impl Own {
    /// Whether access tokens can be signed here.
    #[must_use]
    pub const fn signs(&self) -> bool {
        matches!(self.keys, Some(OwnKeys::Signing(_)))
    }

    /// Whether what Refresh needs is there.
    #[must_use]
    pub const fn can_refresh(&self) -> bool {
        self.signs() && self.handle_keys.is_some()
    }
}

/// The usual decision, by risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Blog, content.
    Low,
    /// Shop, social.
    Medium,
    /// Finance, medical, back office.
    High,
}

impl Preset {
    fn named(name: &str) -> Option<Self> {
        match name {
            "low" => Some(Self::Low),
            "medium" => Some(Self::Medium),
            "high" => Some(Self::High),
            _ => None,
        }
    }

    const fn strategy(self) -> Strategy {
        match self {
            Self::Low => Strategy::Jwt,
            Self::Medium => Strategy::Hybrid,
            Self::High => Strategy::Session,
        }
    }
}

/// What a login gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One long access token.
    Jwt,
    /// A short access token, a refresh token and a record.
    Hybrid,
    /// An opaque token and a record.
    Session,
}

impl Strategy {
    const fn has_jwts(self) -> bool {
        matches!(self, Self::Jwt | Self::Hybrid)
    }

    const fn has_handles(self) -> bool {
        matches!(self, Self::Hybrid | Self::Session)
    }
}

/// What happens to a login at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    /// The subject's oldest session ends.
    EvictOldest,
    /// The login is refused.
    Reject,
}

/// A policy as written: its preset, and what is said otherwise; `None` is the preset's.
///
/// Not checked here but where policies are built: that the times agree with each other and with the strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// 1 to 64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// Where it starts from.
    pub preset: Preset,
    /// What a login gets; the preset's where nothing is said.
    pub strategy: Strategy,
    /// How long an access token lives.
    pub access_token_life: Option<Duration>,
    /// How long a session lives unused.
    pub idle: Option<Duration>,
    /// How long a session lives in all.
    pub absolute: Option<Duration>,
    /// How fresh a verification must be.
    pub freshness: FreshnessOverrides,
    /// Activity is written at most this often.
    pub update_age: Option<Duration>,
    /// Live sessions at most.
    pub max_sessions: Option<u32>,
    /// What happens to a login then; never without `max_sessions`.
    pub at_limit: Option<AtLimit>,
    /// How long a refresh token may be repeated.
    pub grace: Option<Duration>,
    /// Which attributes go into access tokens.
    pub access_token_attributes: Option<Vec<String>>,
    /// `aud` of access tokens.
    pub audience: Option<Vec<String>>,
    /// How long before its end an access token should be renewed.
    pub renew_before: Option<Duration>,
}

/// Reads `own`.
pub(super) fn read_own(section: &Section<'_>) -> Own {
    let issuer = section.text("issuer").unwrap_or_default();
    let handle_keys = section.file("handle_keys", Content::Public);
    let policies = read_policies(section);
    Own {
        keys: read_own_keys(section, &issuer, &policies),
        issuer: issuer.into(),
        handle_keys,
        leeway: section.duration("leeway", Duration::ZERO..=LEEWAY).unwrap_or_default(),
        default_policy: read_default_policy(section, &policies),
        policies,
    }
}

fn read_own_keys(section: &Section<'_>, issuer: &str, policies: &[PolicySettings]) -> Option<OwnKeys> {
    let signing = section.file("signing_keys", Content::Public);
    let algorithms = section.choices("algorithms", algorithm);
    let published = section.section("keys").map(|keys| read_keys(&keys, issuer));
    if algorithms.as_ref().is_some_and(Vec::is_empty) {
        section.fault("algorithms", "names no algorithm: no token would be accepted");
    }
    if section.has("signing_keys") {
        for option in ["keys", "algorithms"].into_iter().filter(|option| section.has(option)) {
            section.fault(option, "has no meaning beside `signing_keys`, which verifies too");
        }
        return signing.map(OwnKeys::Signing);
    }
    if published.is_none() && policies.iter().any(|policy| policy.strategy.has_jwts()) {
        section.fault_hinting(
            "signing_keys",
            "our tokens can't be verified without keys",
            "set `own.signing_keys`, or `own.keys` where a sibling signs",
        );
    }
    published.map(|keys| OwnKeys::Published { keys, algorithms: algorithms.unwrap_or_default() })
}

fn read_default_policy(section: &Section<'_>, policies: &[PolicySettings]) -> String {
    let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    match (section.text("default_policy"), names.as_slice()) {
        (Some(name), names) => {
            if !names.contains(&name.as_str()) {
                let hint = match nearest(&name, names.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", listed(names)),
                };
                section.fault_hinting("default_policy", "no policy of this name", hint);
            }
            name
        }
        (None, [only]) => (*only).to_owned(),
        (None, names) => {
            if !names.contains(&"medium") {
                section.fault("default_policy", "required where several policies are, and none is `medium`");
            }
            "medium".to_owned()
        }
    }
}

fn read_policies(section: &Section<'_>) -> Vec<PolicySettings> {
    let named = section.named("policies");
    if section.has("policies") && named.is_empty() {
        section.fault("policies", "names no policy; leave it out for `medium`");
    }
    if named.is_empty() {
        return vec![usual_policy()];
    }
    let read = |(name, policy): &(&str, Section<'_>)| {
        let settings = read_policy(name, policy);
        if settings.strategy == Strategy::Session && !section.has("handle_keys") {
            policy.fault("", "its session tokens can't be verified without `own.handle_keys`");
        }
        settings
    };
    named.iter().map(read).collect()
}

fn usual_policy() -> PolicySettings {
    PolicySettings {
        name: "medium".to_owned(),
        preset: Preset::Medium,
        strategy: Strategy::Hybrid,
        access_token_life: None,
        idle: None,
        absolute: None,
        freshness: FreshnessOverrides::default(),
        update_age: None,
        max_sessions: None,
        at_limit: None,
        grace: None,
        access_token_attributes: None,
        audience: None,
        renew_before: None,
    }
}

fn read_policy(name: &str, section: &Section<'_>) -> PolicySettings {
    if let Err(why) = scalar::name(name) {
        section.fault("", why);
    }
    let preset = section.choice("preset", Preset::named);
    let preset = preset.or_else(|| Preset::named(name)).unwrap_or(Preset::Medium);
    let life = |key| section.duration(key, SECOND..=DECADE);
    let policy = PolicySettings {
        name: name.to_owned(),
        preset,
        strategy: section
            .choice("strategy", |word| match word {
                "jwt" => Some(Strategy::Jwt),
                "hybrid" => Some(Strategy::Hybrid),
                "session" => Some(Strategy::Session),
                _ => None,
            })
            .unwrap_or_else(|| preset.strategy()),
        access_token_life: life("access_token_life"),
        idle: life("idle"),
        absolute: life("absolute"),
        freshness: read_overrides(section),
        update_age: life("update_age"),
        max_sessions: section.count("max_sessions", 1..=10_000),
        at_limit: section.choice("at_limit", |word| match word {
            "evict_oldest" => Some(AtLimit::EvictOldest),
            "reject" => Some(AtLimit::Reject),
            _ => None,
        }),
        grace: section.duration("grace", Duration::ZERO..=5 * MINUTE),
        access_token_attributes: section.texts("access_token_attributes"),
        audience: section.texts("audience"),
        renew_before: life("renew_before"),
    };
    judge_policy(section, &policy);
    policy
}

/// What can be told from the text alone; the rest is for whoever knows the presets' times.
fn judge_policy(section: &Section<'_>, policy: &PolicySettings) {
    if policy.at_limit.is_some() && !section.has("max_sessions") {
        section.fault("at_limit", "has no meaning without `max_sessions`");
    }
    if policy.audience.as_ref().is_some_and(Vec::is_empty) {
        section.fault("audience", "names no audience; leave it out for our issuer");
    }
    let times = [
        ("access_token_life", policy.access_token_life),
        ("update_age", policy.update_age),
        ("idle", policy.idle),
        ("absolute", policy.absolute),
    ];
    for (at, (shorter, less)) in times.iter().enumerate() {
        let longer = times.iter().skip(at + 1).find(|(_, more)| more.is_some() && less > more);
        if let Some((longer, _)) = longer {
            section.fault(shorter, format!("must not exceed `{longer}`"));
        }
    }
    if policy.renew_before.is_some_and(|before| policy.access_token_life.is_some_and(|life| before >= life)) {
        section.fault("renew_before", "must be less than `access_token_life`");
    }
}

/// Faults of `own` that come from what is served here.
pub(super) fn judge_served(section: &Section<'_>, own: &Own, sessions: bool, refresh: bool) {
    let jwts = own.policies.iter().any(|policy| policy.strategy.has_jwts());
    let handles = own.policies.iter().any(|policy| policy.strategy.has_handles());
    let what = match (sessions, refresh) {
        (true, _) => "`sessions`",
        (false, true) => "`refresh`",
        (false, false) => return,
    };
    if jwts && !own.signs() && !section.has("signing_keys") {
        section
            .fault("signing_keys", format!("required to serve {what}: access tokens are signed with them"));
    }
    if handles && own.handle_keys.is_none() && !section.has("handle_keys") {
        section.fault("handle_keys", format!("required to serve {what}: refresh tokens are made with them"));
    }
    if refresh && !handles {
        let message = "`refresh` is served, but no policy has refresh tokens: choose `hybrid` for one";
        section.fault("policies", message);
    }
}
