//! Issuers from their sections: our own, and each foreign one with what judges its credentials.

use crate::app::rooms::{OwnRooms, chain, noted};
use crate::app::tables::build_table;
use crate::clock::Clock;
use crate::config::{self, Config, Credentials, Fault, Floor, IssuerPreset, OwnKeys};
use crate::keys::{self, Algorithm, CookieKeys, CookieSettings, CookieVersion, FetchUrl, KeyRing, Named};
use crate::oauth::{Authentication, Client, ClientSettings, Endpoint, Introspector, Relay, TokenClient};
use crate::session::Policy;
use crate::token::Issuer;
use crate::verify::claims::ClaimPath;
use crate::verify::policy::{ClaimPaths, Dialect, MAX_LEEWAY, PolicySettings};
use crate::verify::{
    Freshness, Introspection, IssuerPolicy, IssuerSettings, OpaqueTokenSettings, RevocationRelay,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What our own signing keys can be.
const OWN_ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

/// How long a login at a foreign issuer is taken to last, which a denial of it has to outlast: as long as the longest
/// of our presets. Its tokens live shorter, but are renewed without a new login.
const FOREIGN_SESSION: Duration = Duration::from_secs(90 * 86_400);

/// Every issuer, and what has to run for some of them.
#[derive(Default)]
pub(super) struct Issuers {
    pub(super) settings: Vec<IssuerSettings>,
    pub(super) introspectors: Vec<Arc<Introspector>>,
    pub(super) token_endpoints: Vec<TokenAt>,
}

/// A token endpoint, and who presents refresh tokens there.
pub(super) struct TokenAt {
    pub(super) issuer: Issuer,
    pub(super) client_id: String,
    pub(super) endpoint: Arc<TokenClient>,
    /// How long an attempt holds off others.
    pub(super) grace: Duration,
}

/// Every issuer, our own first.
pub(super) fn build_issuers(
    config: &Config,
    own: Option<&OwnRooms>,
    clock: &Clock,
    faults: &mut Vec<Fault>,
) -> Issuers {
    let mut issuers = Issuers::default();
    if let (Some(settings), Some(own)) = (&config.own, own) {
        issuers.settings.extend(build_own_issuer(config, settings, own, clock, faults));
    }
    for (index, settings) in config.issuers.iter().enumerate() {
        let mut client = |section: &str, url: Option<&String>, named| {
            let of = settings.client.as_ref()?;
            let at = format!("issuers[{index}].{section}");
            build_client(config, &at, &settings.issuer, of, url, named, faults)
        };
        let introspector = settings.introspection.as_ref().and_then(|introspection| {
            client("introspection", introspection.url.as_ref(), Named::Introspection)
        });
        let introspector = introspector.map(|client| Arc::new(Introspector::new(client, clock.clone())));
        let relay = settings
            .revocation
            .as_ref()
            .and_then(|revocation| client("revocation", revocation.url.as_ref(), Named::Revocation));
        let relay = relay.map(|client| Arc::new(Relay::new(client)) as Arc<dyn RevocationRelay>);
        let refresh = settings.refresh.as_ref();
        let token = refresh.and_then(|refresh| client("refresh", refresh.url.as_ref(), Named::Token));
        issuers.token_endpoints.extend(refresh.zip(token).map(|(refresh, client)| TokenAt {
            issuer: Arc::clone(&settings.issuer),
            client_id: settings.client.as_ref().map(|client| client.id.clone()).unwrap_or_default(),
            endpoint: Arc::new(TokenClient::new(client, clock.clone())),
            grace: refresh.grace,
        }));
        let opaque = settings.introspection.as_ref().zip(introspector.as_ref());
        let opaque = opaque.map(|(introspection, introspector)| OpaqueTokenSettings {
            introspection: Arc::clone(introspector) as Arc<dyn Introspection>,
            lasts: introspection.max_cache,
            prefix: introspection.token_prefix.clone(),
        });
        let built = build_foreign(config, index, settings, clock, faults);
        issuers.settings.extend(built.map(|built| IssuerSettings { opaque, relay, ..built }));
        issuers.introspectors.extend(introspector);
    }
    refuse_shared_cookies(config, &issuers.settings, faults);
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
        table: None,
        opaque: None,
        relay: None,
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
        Credentials::Table(_) => (None, None),
    };
    let table = match &settings.credentials {
        Credentials::Table(table) => build_table(config, &at("session_table"), table, faults),
        Credentials::Jwts(_) | Credentials::Cookies(_) => None,
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
        Credentials::Table(table) => (table.max_age, Duration::ZERO),
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
    if ring.is_none() && cookies.is_none() && table.is_none() {
        return None;
    }
    Some(IssuerSettings {
        policy,
        ring,
        cookies,
        table,
        opaque: None,
        relay: None,
        freshness: Arc::new(Freshness {
            fully_consistent: settings.freshness.floor == Floor::FullyConsistent,
            bound: settings.freshness.staleness_bound,
            says_stale_after: settings.freshness.says_stale_after.unwrap_or(Duration::MAX),
            renew_before: None,
        }),
        by_policy: HashMap::new(),
        // A row that a backup brings back ends by then.
        longest_life: match &settings.credentials {
            Credentials::Table(table) => table.max_age + MAX_LEEWAY,
            Credentials::Jwts(_) | Credentials::Cookies(_) => max_lifetime.max(FOREIGN_SESSION) + MAX_LEEWAY,
        },
    })
}

fn build_client(
    config: &Config,
    at: &str,
    issuer: &Issuer,
    settings: &config::OAuthClient,
    url: Option<&String>,
    named: Named,
    faults: &mut Vec<Fault>,
) -> Option<Client> {
    let endpoint = match url {
        Some(url) => Endpoint::At(noted(url.parse::<FetchUrl>(), config, &format!("{at}.url"), faults)?),
        None => Endpoint::Discovered(named),
    };
    let client = Client::new(ClientSettings {
        issuer: Arc::clone(issuer),
        endpoint,
        client_id: settings.id.clone(),
        secret_file: settings.secret_file.clone(),
        authentication: match settings.auth {
            config::ClientAuth::Basic => Authentication::Basic,
            config::ClientAuth::Post => Authentication::Post,
        },
        ca_file: settings.ca_file.clone(),
        timeout: settings.timeout,
        keep_connections: named != Named::Token,
    });
    noted(client, config, at, faults)
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
        let [secure, _] = version.usual_names();
        vec![secure.to_owned()]
    } else {
        settings.cookies.clone()
    };
    let secret_files = settings.secret_files.clone();
    let loaded = CookieKeys::load(CookieSettings {
        version,
        names,
        secret_files,
        max_age: settings.max_age,
        withhold: settings.withhold.clone(),
    });
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
