//! Single rooms from their sections; a fault of a room gets the place of its setting.

use crate::clock::Clock;
use crate::config::{self, Config, Credentials, Fault, Floor, IssuerPreset, OwnKeys};
use crate::grpc::callers::{Caller, Proof, Right, SecretDigest};
use crate::grpc::tls::{Files, TlsSource};
use crate::keys::{
    self, Algorithm, CookieKeys, CookieSettings, CookieVersion, FetchUrl, HandleKeys, KeyRing, SigningKeys,
};
use crate::session::policy::{AtLimit, Overrides, Preset, Strategy};
use crate::session::{Policies, Policy};
use crate::token::{Issuer, Secret};
use crate::verify::claims::ClaimPath;
use crate::verify::policy::{ClaimPaths, Dialect, MAX_LEEWAY, PolicySettings};
use crate::verify::{Freshness, IssuerPolicy, IssuerSettings};
use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Our own keys, policies and sessions, where there are any.
pub(super) struct OwnRooms {
    pub(super) signing: Option<Arc<SigningKeys>>,
    pub(super) handles: Option<Arc<HandleKeys>>,
    pub(super) policies: Policies,
}

/// What our own signing keys can be.
const OWN_ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

/// How long a login at a foreign issuer is taken to last, which a denial of it has to outlast: as long as the longest
/// of our presets. Its tokens live shorter, but are renewed without a new login.
const FOREIGN_SESSION: Duration = Duration::from_secs(90 * 86_400);

/// An error with everything that led to it.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String can't fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Takes a result's value, or notes its error at the setting of this path.
fn noted<T, E: Error + 'static>(
    result: Result<T, E>,
    config: &Config,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    result.map_err(|error| faults.push(config.fault_at(path, chain(&error)))).ok()
}

pub(super) fn build_own(config: &Config, faults: &mut Vec<Fault>) -> Option<OwnRooms> {
    let own = config.own.as_ref()?;
    let signing = match &own.keys {
        Some(OwnKeys::Signing(path)) => {
            noted(SigningKeys::load(path.clone()), config, "own.signing_keys", faults).map(Arc::new)
        }
        Some(OwnKeys::Published { .. }) | None => None,
    };
    let handles = own.handle_keys.as_ref().and_then(|path| {
        noted(HandleKeys::load(path.clone()), config, "own.handle_keys", faults).map(Arc::new)
    });
    let mut policies = Vec::new();
    for settings in &own.policies {
        match build_policy(settings, &own.issuer) {
            Ok(policy) => policies.push(policy),
            Err(errors) => {
                let path = format!("own.policies.{}", settings.name);
                faults.extend(errors.into_iter().map(|error| config.fault_at(&path, error)));
            }
        }
    }
    if policies.len() < own.policies.len() {
        return None;
    }
    let policies = noted(Policies::new(policies, &own.default_policy), config, "own.default_policy", faults)?;
    Some(OwnRooms { signing, handles, policies })
}

fn build_policy(settings: &config::PolicySettings, issuer: &str) -> Result<Policy, Vec<String>> {
    let preset = match settings.preset {
        config::Preset::Low => Preset::Low,
        config::Preset::Medium => Preset::Medium,
        config::Preset::High => Preset::High,
    };
    let strategy = match settings.strategy {
        config::Strategy::Jwt => Strategy::Jwt,
        config::Strategy::Hybrid => Strategy::Hybrid,
        config::Strategy::Session => Strategy::Session,
    };
    let overrides = Overrides {
        strategy: Some(strategy),
        access_token_life: settings.access_token_life,
        idle: settings.idle,
        absolute: settings.absolute,
        fully_consistent: settings.freshness.floor.map(|floor| floor == Floor::FullyConsistent),
        staleness_bound: settings.freshness.staleness_bound,
        says_stale_after: settings.freshness.says_stale_after,
        update_age: settings.update_age,
        max_sessions: settings.max_sessions,
        at_limit: settings.at_limit.map(|at_limit| match at_limit {
            config::AtLimit::EvictOldest => AtLimit::EvictOldest,
            config::AtLimit::Reject => AtLimit::Reject,
        }),
        grace: settings.grace,
        access_token_attributes: settings.access_token_attributes.clone(),
        audience: settings.audience.clone(),
        renew_before: settings.renew_before,
    };
    Policy::new(&settings.name, preset, overrides, issuer)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Every issuer, our own first.
pub(super) fn build_issuers(
    config: &Config,
    own: Option<&OwnRooms>,
    clock: &Clock,
    faults: &mut Vec<Fault>,
) -> Vec<IssuerSettings> {
    let mut issuers = Vec::new();
    if let (Some(settings), Some(own)) = (&config.own, own) {
        issuers.extend(build_own_issuer(config, settings, own, clock, faults));
    }
    for (index, settings) in config.issuers.iter().enumerate() {
        issuers.extend(build_foreign(config, index, settings, clock, faults));
    }
    refuse_shared_cookies(config, &issuers, faults);
    issuers
}

fn build_own_issuer(
    config: &Config,
    settings: &config::Own,
    own: &OwnRooms,
    clock: &Clock,
    faults: &mut Vec<Fault>,
) -> Option<IssuerSettings> {
    let default = own.policies.default_policy();
    let mut audiences: Vec<String> =
        own.policies.iter().flat_map(|policy| policy.audience().to_vec()).collect();
    audiences.sort();
    audiences.dedup();
    let (algorithms, ring) = match (&settings.keys, &own.signing) {
        (Some(OwnKeys::Signing(_)), Some(signing)) => {
            let algorithms = OWN_ALGORITHMS.to_vec();
            let source = keys::Source::Own(Arc::clone(signing));
            let ring = keys::Settings::new(Arc::clone(&settings.issuer), source, algorithms.clone());
            (
                algorithms,
                noted(KeyRing::open(ring, clock.clone()), config, "own.signing_keys", faults).map(Arc::new),
            )
        }
        (Some(OwnKeys::Published { keys, algorithms }), _) => {
            let ring = build_ring(config, "own.keys", &settings.issuer, keys, algorithms, clock, faults);
            (algorithms.clone(), ring)
        }
        (Some(OwnKeys::Signing(_)) | None, _) => (OWN_ALGORITHMS.to_vec(), None),
    };
    let lives = own.policies.iter().filter_map(|policy| policy.access_token_life());
    let policy = IssuerPolicy::new(PolicySettings {
        issuer: Arc::clone(&settings.issuer),
        algorithms,
        audiences,
        types: vec!["at+jwt".to_owned()],
        allow_missing_type: false,
        leeway: settings.leeway,
        max_lifetime: lives.max().unwrap_or(Duration::from_secs(900)),
        required: ["iat", "jti", "client_id", "pol", "sct"].map(str::to_owned).to_vec(),
        paths: ClaimPaths::default(),
        dialect: Dialect::Plain,
        allow_missing_audience: false,
        authorized_parties: Vec::new(),
        renew_before: default.renew_before(),
        own: true,
    });
    let by_policy = own.policies.iter().map(|policy| (policy.name().to_owned(), own_freshness(policy)));
    Some(IssuerSettings {
        policy: noted(policy, config, "own", faults)?,
        ring,
        cookies: None,
        freshness: own_freshness(default),
        by_policy: by_policy.collect(),
        longest_life: own.policies.longest_life() + MAX_LEEWAY,
    })
}

fn own_freshness(policy: &Policy) -> Arc<Freshness> {
    Arc::new(Freshness {
        fully_consistent: policy.fully_consistent(),
        bound: policy.staleness_bound(),
        says_stale_after: policy.says_stale_after().unwrap_or(Duration::MAX),
        renew_before: Some(policy.renew_before()),
    })
}

fn build_foreign(
    config: &Config,
    index: usize,
    settings: &config::ForeignIssuer,
    clock: &Clock,
    faults: &mut Vec<Fault>,
) -> Option<IssuerSettings> {
    let at = |key: &str| format!("issuers[{index}].{key}");
    let (ring, cookies) = match &settings.credentials {
        Credentials::Jwts(keys) => {
            let (issuer, algorithms) = (&settings.issuer, &settings.algorithms);
            (build_ring(config, &at("keys"), issuer, keys, algorithms, clock, faults), None)
        }
        Credentials::Cookies(cookies) => {
            (None, build_cookies(config, &at("authjs.secret_files"), cookies, faults))
        }
    };
    let mut path = |key: &str, text: &str| {
        noted(ClaimPath::parse(text), config, &at(&format!("claims.{key}")), faults)
            .unwrap_or_else(|| ClaimPath::member(text))
    };
    let claims = &settings.claims;
    let mut all = |key: &str, texts: &[String]| texts.iter().map(|text| path(key, text)).collect::<Vec<_>>();
    let (client, roles, scopes) =
        (all("client", &claims.client), all("roles", &claims.roles), all("scopes", &claims.scopes));
    let paths = ClaimPaths {
        subject: path("subject", &claims.subject),
        session: path("session", &claims.session),
        client,
        roles,
        scopes,
        login: Some(path("login", &claims.login)),
    };
    let is_clerk = settings.preset == Some(IssuerPreset::Clerk);
    let (max_lifetime, renew_before) = match &settings.credentials {
        Credentials::Jwts(_) => (settings.max_lifetime, settings.renew_before),
        // Auth.js reads the clock twice, for `iat` and for `exp`.
        Credentials::Cookies(cookies) => {
            (cookies.max_age + MAX_LEEWAY, cookies.max_age.saturating_sub(cookies.update_age))
        }
    };
    let policy = IssuerPolicy::new(PolicySettings {
        issuer: Arc::clone(&settings.issuer),
        algorithms: settings.algorithms.clone(),
        audiences: settings.audiences.clone(),
        types: settings.types.clone(),
        allow_missing_type: settings.allow_missing_type,
        leeway: settings.leeway,
        max_lifetime,
        required: settings.require.clone(),
        paths,
        dialect: if is_clerk { Dialect::Clerk } else { Dialect::Plain },
        allow_missing_audience: is_clerk,
        authorized_parties: settings.authorized_parties.clone(),
        renew_before,
        own: false,
    });
    let policy = noted(policy, config, &format!("issuers[{index}]"), faults)?;
    if ring.is_none() && cookies.is_none() {
        return None;
    }
    Some(IssuerSettings {
        policy,
        ring,
        cookies,
        freshness: Arc::new(Freshness {
            fully_consistent: settings.freshness.floor == Floor::FullyConsistent,
            bound: settings.freshness.staleness_bound,
            says_stale_after: settings.freshness.says_stale_after.unwrap_or(Duration::MAX),
            renew_before: None,
        }),
        by_policy: HashMap::new(),
        longest_life: max_lifetime.max(FOREIGN_SESSION) + MAX_LEEWAY,
    })
}

fn build_cookies(
    config: &Config,
    path: &str,
    settings: &config::AuthJs,
    faults: &mut Vec<Fault>,
) -> Option<Arc<CookieKeys>> {
    let version = match settings.version {
        config::AuthJsVersion::V5 => CookieVersion::AuthJs5,
        config::AuthJsVersion::V4 => CookieVersion::NextAuth4,
    };
    let names = if settings.cookies.is_empty() {
        version.usual_names().map(str::to_owned).to_vec()
    } else {
        settings.cookies.clone()
    };
    let secret_files = settings.secret_files.clone();
    let loaded = CookieKeys::load(CookieSettings { version, names, secret_files, max_age: settings.max_age });
    match loaded {
        Ok(keys) => Some(Arc::new(keys)),
        Err((place, error)) => {
            let at = format!("{path}[{place}]");
            let fault = config.fault_at(&at, chain(&error));
            faults.push(fault);
            None
        }
    }
}

/// A cookie that two issuers' keys open would be one's or the other's by chance.
fn refuse_shared_cookies(config: &Config, issuers: &[IssuerSettings], faults: &mut Vec<Fault>) {
    let with_cookies: Vec<_> = issuers.iter().filter_map(|issuer| issuer.cookies.as_ref()).collect();
    for (at, keys) in with_cookies.iter().enumerate() {
        if with_cookies.iter().take(at).any(|other| keys.overlaps(other)) {
            let message =
                "two issuers share a secret and a cookie's name: nobody could tell whose a cookie is";
            faults.push(config.fault_at("issuers", message));
        }
    }
}

fn build_ring(
    config: &Config,
    path: &str,
    issuer: &Issuer,
    settings: &config::Keys,
    algorithms: &[Algorithm],
    clock: &Clock,
    faults: &mut Vec<Fault>,
) -> Option<Arc<KeyRing>> {
    let source = match &settings.source {
        config::Source::JwksFile(file) => keys::Source::JwksFile(file.clone()),
        config::Source::PemFile(file) => keys::Source::PemFile(file.clone()),
        config::Source::SecretFile(file) => {
            keys::Source::SecretFile { path: file.clone(), algorithm: *algorithms.first()? }
        }
        config::Source::JwksUrl(url) => keys::Source::JwksUrl(noted(
            url.parse::<FetchUrl>(),
            config,
            &format!("{path}.jwks_url"),
            faults,
        )?),
        config::Source::Discovery => keys::Source::Discovery,
    };
    let fetch = &settings.fetch;
    let ring = keys::Settings {
        refresh_every: fetch.refresh_every,
        cool_down: fetch.cool_down,
        max_age: fetch.max_age,
        fetch_timeout: fetch.timeout,
        ca_file: fetch.ca_file.clone(),
        required: fetch.required,
        ..keys::Settings::new(Arc::clone(issuer), source, algorithms.to_vec())
    };
    noted(KeyRing::open(ring, clock.clone()), config, path, faults).map(Arc::new)
}

pub(super) fn build_tls(config: &Config, faults: &mut Vec<Fault>) -> Option<Arc<TlsSource>> {
    let tls = config.api.tls.as_ref()?;
    let files = Files {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_authority: tls.client_ca.clone(),
    };
    noted(TlsSource::load(files), config, "api.tls", faults).map(Arc::new)
}

pub(super) fn build_callers(config: &Config, faults: &mut Vec<Fault>) -> Vec<Caller> {
    let mut callers = Vec::new();
    for (index, settings) in config.callers.iter().enumerate() {
        let path = format!("callers[{index}].secret_file");
        let proof = match &settings.identity {
            config::Identity::Uid(uid) => Some(Proof::Uid(*uid)),
            config::Identity::Certificate(name) => Some(Proof::Certificate(name.clone())),
            config::Identity::SecretFile(file) => {
                noted(read_secret(file), config, &path, faults).map(Proof::Secret)
            }
        };
        let rights = settings.may.iter().map(|right| match right {
            config::Right::CreateSessions => Right::CreateSessions,
            config::Right::ReadSessions => Right::ReadSessions,
            config::Right::UpdateSessions => Right::UpdateSessions,
            config::Right::RevokeSession => Right::RevokeSession,
            config::Right::RevokeSubject => Right::RevokeSubject,
            config::Right::RevokeIssuer => Right::RevokeIssuer,
        });
        let name = settings.name.as_str().into();
        callers.extend(proof.map(|proof| Caller { name, proof, rights: rights.collect() }));
    }
    callers
}

/// A caller's secret is compared without the newline its file ends with; an empty one is none.
fn read_secret(file: &Path) -> io::Result<SecretDigest> {
    let secret = Secret::new(std::fs::read(file)?);
    if secret.expose().trim_ascii_end().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file holds no secret"));
    }
    Ok(SecretDigest::of(&secret))
}

/// A group's number; by name as `/etc/group` has it.
pub(super) fn group_id(group: &config::Group) -> io::Result<u32> {
    match group {
        config::Group::Id(id) => Ok(*id),
        config::Group::Name(name) => std::fs::read_to_string("/etc/group")?
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name.as_str())).then(|| fields.nth(1)?.parse().ok()).flatten()
            })
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such group on this machine")),
    }
}
