//! Configuration: the YAML file as operators write it, the environment and flags over it, and out of them typed,
//! validated settings. Every fault is told at once, with its line, its column and the nearest known key.
//!
//! The way down: text → `yaml`, a tree that knows its places → `overlay` laid over it → `reader`, section by
//! section, with the reference as the one list of what there is. Rooms have `Settings` of their own; `app` makes
//! them out of a [`Config`], and tells what they find wrong through [`Config::fault_at`].

mod api;
mod authjs;
mod callers;
mod ext_authz;
mod file;
mod freshness;
mod introspection;
mod issuer;
mod nearest;
mod overlay;
mod own;
mod place;
mod reader;
mod reference;
mod scalar;
mod session_table;
mod store;
mod table;
mod tracing;
mod tree;
mod yaml;

#[cfg(test)]
mod tests;

pub use api::{Api, Drain, Group, Ops, Rpc, Tls, UnixSocket};
pub use authjs::{AuthJs, AuthJsVersion};
pub use callers::{Caller, Identity, Right};
pub use ext_authz::ExtAuthz;
pub use file::load;
pub use freshness::{Floor, Freshness, FreshnessOverrides};
pub use introspection::{ClientAuth, Introspection, OAuthClient, RelayedRefresh, Revocation};
pub use issuer::{ClaimPaths, Credentials, Fetch, ForeignIssuer, IssuerPreset, Keys, Source};
pub use overlay::Overlay;
pub use own::{AtLimit, Own, OwnKeys, PolicySettings, Preset, Strategy};
pub use place::{Fault, Faults, Place};
pub use reference::{Absent, Key, Kind, markdown, reference};
pub use session_table::{Columns, Database, SessionTable, UserTable};
pub use store::{Engine, Store};
pub use tracing::Tracing;

use crate::token::Issuer;
use callers::Listeners;
use reader::{Content, NeededFile, Reader, Section};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// Everything an operator can say, valid in itself.
///
/// Not checked yet: that files are there ([`Config::check_files`]), what is in them, and what only rooms know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers reach this sidecar.
    pub api: Api,
    /// The second listener.
    pub ops: Ops,
    /// From SIGTERM to exit.
    pub drain: Drain,
    /// Where revocations and sessions are kept.
    pub store: Store,
    /// Our own tokens. Here or in `issuers` is at least one issuer.
    pub own: Option<Own>,
    /// Whose tokens are accepted beside them.
    pub issuers: Vec<ForeignIssuer>,
    /// Denylist entries at most.
    pub denylist_entries: usize,
    /// Cached acceptances at most; 0 for no cache.
    pub cache_entries: u64,
    /// Who may do more.
    pub callers: Vec<Caller>,
    /// How proxies are answered.
    pub ext_authz: ExtAuthz,
    /// Logs.
    pub log: Log,
    /// Traces, where they are wanted.
    pub tracing: Option<Tracing>,
    files: Vec<NeededFile>,
    places: BTreeMap<String, Place>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe level written.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs somebody.
    Error,
    /// What may soon.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Each step.
    Trace,
}

impl LogLevel {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Config {
    /// A fault at the setting of this path, or at the nearest section around it that was written: how rooms' faults
    /// get their line and column.
    #[must_use]
    pub fn fault_at(&self, path: &str, message: impl Into<String>) -> Fault {
        let mut around = path;
        let place = loop {
            if let Some(place) = self.places.get(around) {
                break place.clone();
            }
            match around.rfind(['.', '[']) {
                Some(end) => around = around.get(..end).unwrap_or_default(),
                None => break self.places.get("").cloned().unwrap_or(Place::Nowhere),
            }
        };
        Fault::new(place, path, message)
    }

    /// Checks that every file which must be there is there and can be read. Blocks on the file system.
    ///
    /// # Errors
    /// One fault for each that can't.
    pub fn check_files(&self) -> Result<(), Faults> {
        let unreadable = |file: &NeededFile| {
            let why = match std::fs::File::open(&file.path).and_then(|open| open.metadata()) {
                Ok(is) if is.is_dir() => "a directory, not a file".to_owned(),
                Ok(_) => return None,
                Err(why) => format!("can't be read: {why}"),
            };
            let message = match file.content {
                Content::Public => format!("{}: {why}", file.path.display()),
                Content::Secret => format!("the file {why}"),
            };
            Some(Fault::new(file.place.clone(), file.setting.clone(), message))
        };
        Faults::new(self.files.iter().filter_map(unreadable).collect()).unless(())
    }
}

/// Reads a whole tree; relative paths in the file start at `base`.
fn read(root: &tree::Node, base: PathBuf, mut faults: Vec<Fault>) -> Result<Config, Faults> {
    let reader = Reader::new(base);
    let top = reader.root(root);
    let own = top.section("own").map(|section| (own::read_own(&section), section));
    let api_section = top.section_or_empty("api");
    let issuers = read_issuers(&top, own.as_ref().map(|(own, _)| &own.issuer));
    // Cookies, and sessions of others, are renewed without keys of our own.
    let renews_foreign = issuers
        .iter()
        .any(|issuer| matches!(issuer.credentials, Credentials::Cookies(_)) || issuer.refresh.is_some());
    let can_refresh = renews_foreign || own.as_ref().is_some_and(|(own, _)| own.can_refresh());
    let also: Vec<_> = [(Rpc::Refresh, can_refresh), (Rpc::Check, top.has("ext_authz"))]
        .into_iter()
        .filter_map(|(rpc, is_served)| is_served.then_some(rpc))
        .collect();
    let api = api::read_api(&api_section, &also);
    let listeners = Listeners {
        unix: api_section.has("unix"),
        mutual_tls: api.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
    };
    let callers = callers::read_callers(&top.sections("callers"), listeners);
    judge_served(&api_section, &api, own.as_ref(), renews_foreign, &callers);
    if !top.has("own") && !top.has("issuers") {
        top.fault("", "neither `own` nor `issuers`: no token could be accepted");
    }
    let config = Config {
        ops: api::read_ops(&top.section_or_empty("ops"), api.tcp),
        drain: api::read_drain(&top.section_or_empty("drain")),
        store: store::read_store(&top.section_or_empty("store")),
        denylist_entries: top
            .section_or_empty("denylist")
            .count("max_entries", 1000..=100_000_000)
            .unwrap_or_default(),
        cache_entries: top.section_or_empty("cache").count("max_entries", 0..=10_000_000).unwrap_or_default(),
        log: read_log(&top.section_or_empty("log")),
        tracing: top.section("tracing").map(|section| tracing::read_tracing(&section)),
        own: own.map(|(own, _)| own),
        ext_authz: read_proxies(&top, &api),
        api,
        issuers,
        callers,
        files: Vec::new(),
        places: tree::places(root),
    };
    let (more, files) = reader.finish();
    faults.extend(more);
    Faults::new(faults).unless(Config { files, ..config })
}

fn read_issuers(top: &Section<'_>, own: Option<&Issuer>) -> Vec<ForeignIssuer> {
    let mut seen: HashSet<Issuer> = own.filter(|own| !own.is_empty()).cloned().into_iter().collect();
    let read = |section: &Section<'_>| {
        let issuer = issuer::read_issuer(section);
        if !issuer.issuer.is_empty() && !seen.insert(issuer.issuer.clone()) {
            section.fault("issuer", "this issuer is there twice");
        }
        issuer
    };
    let sections = top.sections("issuers");
    let issuers: Vec<_> = sections.iter().map(read).collect();
    judge_tables(&sections, &issuers);
    let mut prefixes = HashSet::new();
    for (section, issuer) in sections.iter().zip(&issuers) {
        let Some(introspection) = &issuer.introspection else { continue };
        if !prefixes.insert(introspection.token_prefix.clone()) {
            section.fault_hinting(
                "introspection",
                "another issuer's opaque tokens look the same: nobody could tell whose one is",
                "give them a `token_prefix`",
            );
        }
    }
    issuers
}

/// A session's token says nothing by itself: whose it is must follow from where it was found.
fn judge_tables(sections: &[Section<'_>], issuers: &[ForeignIssuer]) {
    let mut taken = HashSet::new();
    let mut tables = 0;
    for (section, issuer) in sections.iter().zip(issuers) {
        let Credentials::Table(table) = &issuer.credentials else { continue };
        tables += 1;
        for cookie in table.cookie_names() {
            if !taken.insert(cookie.clone()) {
                let message = format!(
                    "another issuer's sessions are in `{cookie}`, too: nobody could tell whose one is"
                );
                section.fault_hinting("session_table", message, "name their `cookies`");
            }
        }
    }
    for (section, issuer) in sections.iter().zip(issuers) {
        if tables > 0 && issuer.introspection.as_ref().is_some_and(|one| one.token_prefix.is_empty()) {
            section.fault_hinting(
                "introspection",
                "another issuer's `session_table` has tokens that look the same: they would be shown to this one",
                "give these a `token_prefix`",
            );
        }
    }
}

/// What is served must be possible, and nobody may do everything for want of a rule.
fn judge_served(
    section: &Section<'_>,
    api: &Api,
    own: Option<&(Own, Section<'_>)>,
    renews_foreign: bool,
    callers: &[Caller],
) {
    let sessions = api.serve.contains(&Rpc::Sessions);
    let refresh = api.serve.contains(&Rpc::Refresh) && !renews_foreign;
    match own {
        Some((own, own_section)) => own::judge_served(own_section, own, sessions, refresh),
        None if sessions || refresh => {
            section.fault("serve", "`sessions` and `refresh` need a section `own`");
        }
        None => {}
    }
    let named = callers.iter().any(|caller| caller.may.iter().any(|right| right.is_of_sessions()));
    if sessions && !named {
        section.fault_hinting(
            "serve",
            "`sessions` is served, but no caller may use it",
            "add one to `callers` with `may: [sessions]`",
        );
    }
}

fn read_proxies(top: &Section<'_>, api: &Api) -> ExtAuthz {
    if top.is_null("ext_authz") {
        top.fault_hinting("ext_authz", "says nothing", "write `ext_authz: {}` for the defaults");
    }
    if top.has("ext_authz") && !api.serve.contains(&Rpc::Check) {
        top.fault_hinting(
            "ext_authz",
            "says how Check is answered, which is not served",
            "add `check` to `api.serve`",
        );
    }
    ext_authz::read_ext_authz(&top.section_or_empty("ext_authz"))
}

fn read_log(section: &Section<'_>) -> Log {
    let format = section.choice("format", |word| match word {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let level = section.choice("level", |word| match word {
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        "trace" => Some(LogLevel::Trace),
        _ => None,
    });
    Log { format: format.unwrap_or(LogFormat::Human), level: level.unwrap_or(LogLevel::Info) }
}
