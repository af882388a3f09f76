//! `issuers[].session_table`: an issuer whose sessions are rows of an application's table, as Auth.js' strategy `database`
//! keeps them.

use super::authjs::refuse_settings_of_jwts;
use super::reader::{Content, Section};
use super::store::{Url, parse_url};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Of Auth.js and of NextAuth 4. The names without the prefix can be planted over http.
const USUAL_COOKIES: [&str; 2] = ["__Secure-authjs.session-token", "__Secure-next-auth.session-token"];

/// Members of the claims that no column of the users' table may take the place of.
const TAKEN: [&str; 11] =
    ["iss", "sub", "aud", "sid", "exp", "iat", "nbf", "jti", "azp", "auth_time", "client_id"];

/// An application's table of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTable {
    /// Where the database is.
    pub database: Database,
    /// Its schema; of Postgres alone.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns.
    pub columns: Columns,
    /// What is told of a session's user, too.
    pub user: Option<UserTable>,
    /// The cookies that its tokens are kept in; empty for the library's own.
    pub cookies: Vec<String>,
    /// From use to the end that the application writes.
    pub max_age: Duration,
    /// The end is moved at most this often; less than `idle`.
    pub update_age: Duration,
    /// Unused for so long a session is over; at most `max_age`.
    pub idle: Duration,
    /// Over so long after the login; never without `columns.created`.
    pub absolute: Option<Duration>,
    /// How many live sessions a user may have.
    pub max_sessions: Option<u32>,
    /// How often what is over is deleted; `None`: never.
    pub purge_every: Option<Duration>,
}

impl SessionTable {
    /// The cookies that its tokens are kept in: those named, or else the library's own on HTTPS.
    #[must_use]
    pub fn cookie_names(&self) -> Vec<String> {
        if self.cookies.is_empty() { USUAL_COOKIES.map(str::to_owned).to_vec() } else { self.cookies.clone() }
    }
}

/// Where an application's database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file. Not checked: that it is there.
    Sqlite {
        /// Which.
        path: PathBuf,
        /// A call to it is answered within this, or not at all.
        answer_within: Duration,
    },
    /// A server.
    Postgres {
        /// Where; holds no password. Not checked: what comes after the scheme.
        url: String,
        /// Holds the password.
        password_file: Option<PathBuf>,
        /// Authorities for the server's certificate.
        ca_file: Option<PathBuf>,
        /// A call to it is answered within this, or not at all.
        answer_within: Duration,
        /// Connections at most.
        connections: usize,
    },
}

/// The columns of a table of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The token.
    pub token: String,
    /// Whose it is.
    pub user: String,
    /// When it ends.
    pub expires: String,
    /// When the login was, where it tells.
    pub created: Option<String>,
}

/// A table of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTable {
    /// Its name.
    pub table: String,
    /// The column that sessions name a user by.
    pub key: String,
    /// The columns that become claims under their own names.
    pub columns: Vec<String>,
}

/// Reads `session_table` in an issuer's section.
pub(super) fn read_session_table(issuer: &Section<'_>, section: &Section<'_>) -> SessionTable {
    refuse_settings_of_jwts(issuer, "session_table");
    let claims = issuer.section_or_empty("claims");
    for claim in ["subject", "session", "login"] {
        if claims.has(claim) {
            claims.fault(claim, "has no meaning beside `session_table`: its columns say it");
        }
    }
    for setting in ["authjs", "leeway", "renew_before"] {
        if issuer.has(setting) {
            issuer.fault(setting, "has no meaning beside `session_table`");
        }
    }
    let columns = read_columns(&section.section_or_empty("columns"));
    let max_age = section.duration("max_age", MINUTE..=400 * DAY).unwrap_or_default();
    let idle = section.duration("idle", MINUTE..=400 * DAY).unwrap_or(max_age);
    if idle > max_age {
        section.fault("idle", "must be at most `max_age`: the application ends its sessions by then");
    }
    let update_age = section.duration("update_age", SECOND..=400 * DAY);
    let update_age = update_age.unwrap_or_else(|| DAY.min(idle / 6));
    if update_age >= idle {
        section.fault("update_age", "must be less than `idle` and `max_age`: a session would end in use");
    }
    let absolute = section.duration("absolute", MINUTE..=3650 * DAY);
    if absolute.is_some() && columns.created.is_none() {
        section.fault_hinting(
            "absolute",
            "nothing tells when a login was",
            "name the column as `columns.created`, such as Prisma's `createdAt`",
        );
    }
    let cookies = section.texts("cookies").unwrap_or_default();
    if section.has("cookies") && cookies.is_empty() {
        section.fault("cookies", "names no cookie: leave it out for the library's own names");
    }
    let purge_every = section.duration("purge_every", Duration::ZERO..=30 * DAY).unwrap_or_default();
    SessionTable {
        database: read_database(section),
        schema: named(section, "schema").unwrap_or_default(),
        table: named(section, "table").unwrap_or_default(),
        user: section.section("user").map(|user| read_user(&user)),
        max_sessions: section.count("max_sessions", 1..=10_000),
        purge_every: Some(purge_every).filter(|every| !every.is_zero()),
        columns,
        cookies,
        max_age,
        update_age,
        idle,
        absolute,
    }
}

fn read_columns(section: &Section<'_>) -> Columns {
    Columns {
        token: named(section, "token").unwrap_or_default(),
        user: named(section, "user").unwrap_or_default(),
        expires: named(section, "expires").unwrap_or_default(),
        created: named(section, "created"),
    }
}

fn read_user(section: &Section<'_>) -> UserTable {
    let columns = section.texts("columns").unwrap_or_default();
    if section.has("columns") && columns.is_empty() {
        section.fault("columns", "names no column: leave out `user`");
    }
    for column in &columns {
        if TAKEN.contains(&column.as_str()) {
            section.fault("columns", format!("`{column}` is a claim of the session's own"));
        } else if let Err(why) = identifier(column) {
            section.fault("columns", why);
        }
    }
    UserTable {
        table: named(section, "table").unwrap_or_default(),
        key: named(section, "key").unwrap_or_default(),
        columns,
    }
}

const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);
const OF_SERVERS: [&str; 4] = ["password_file", "ca_file", "connections", "schema"];

fn read_database(section: &Section<'_>) -> Database {
    let answer_within = section.duration("answer_within", PATIENCE).unwrap_or_default();
    let url = section.parsed("url", |text| match parse_url(text)? {
        Url::Server(super::Engine::Redis, _) => {
            Err("expected `postgres://USER@HOST/DATABASE` or `sqlite:PATH`".to_owned())
        }
        url @ (Url::Sqlite(_) | Url::Server(..)) => Ok(url),
    });
    match url {
        Some(Url::Server(_, url)) => Database::Postgres {
            url,
            password_file: section.file("password_file", Content::Secret),
            ca_file: section.file("ca_file", Content::Public),
            answer_within,
            connections: section.count("connections", 1..=100).unwrap_or_default(),
        },
        Some(Url::Sqlite(path)) => {
            for key in OF_SERVERS.iter().filter(|key| section.has(key)) {
                section.fault(key, "has no meaning for `sqlite:`");
            }
            Database::Sqlite { path: section.resolve(&path), answer_within }
        }
        // Noted as a fault.
        None => Database::Sqlite { path: PathBuf::new(), answer_within },
    }
}

fn named(section: &Section<'_>, key: &str) -> Option<String> {
    section.parsed(key, |text| identifier(text).map(|()| text.to_owned()))
}

/// What a database takes for a name once it is quoted: 63 bytes are Postgres' limit.
fn identifier(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 63 || text.chars().any(char::is_control) {
        return Err("expected a table's or column's name of 1 to 63 bytes".to_owned());
    }
    Ok(())
}
