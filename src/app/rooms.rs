//! Single rooms from their sections; a fault of a room gets the place of its setting.

use crate::config::{self, Config, Fault, Floor, OwnKeys};
use crate::grpc::callers::{Caller, Proof, Right, SecretDigest};
use crate::grpc::tls::{Files, TlsSource};
use crate::keys::{HandleKeys, SigningKeys};
use crate::session::policy::{AtLimit, Overrides, Preset, Strategy};
use crate::session::{Policies, Policy};
use crate::token::Secret;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Our own keys, policies and sessions, where there are any.
pub(super) struct OwnRooms {
    pub(super) signing: Option<Arc<SigningKeys>>,
    pub(super) handles: Option<Arc<HandleKeys>>,
    pub(super) policies: Policies,
}

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
pub(super) fn noted<T, E: Error + 'static>(
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
