//! Sessions that an application keeps in a table of its own, as Auth.js does with the strategy `database`. The token is
//! the row's name; the row says whose it is and when it ends.
//!
//! A row answers from memory no longer than the policy's staleness bound, and its age is the answer's staleness: what the
//! application deletes is refused by then, or at once where a caller asks for full consistency. What is taken back here is
//! deleted there.

use crate::clock::{Clock, Timestamp};
use crate::revocation::{DenialKey, Draft};
use crate::token::{Action, Issuer, Reason, TokenDigest, random_bytes};
use crate::verify::accept::plain;
use crate::verify::acceptance::Read;
use crate::verify::json;
use crate::verify::jwt::Signed;
use crate::verify::table_rules::{Bounds, Fate, RowTimes, TableRules};
use crate::verify::{
    Acceptance, IssuerEntry, IssuerFailed, Possession, RETRY_AFTER, Refusal, RevocationRelay, Verifier,
};
use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After an end that could not be moved it is tried again: each try is a read and a write.
const EXTEND_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// After an end that somebody else is moving the row is read again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Rows that one statement of a purge deletes at most.
const PURGE_BATCH: u32 = 500;
/// Kept this much longer than the clock asks, because the application's clock differs.
const PURGE_SLACK: Duration = Duration::from_secs(120);
/// Members of the claims that are not the application's to set.
pub const TABLE_CLAIMS: [&str; 6] = ["iss", "sub", "aud", "sid", "exp", "auth_time"];

/// A row, and what goes with it.
#[derive(Clone)]
pub struct SessionRow {
    /// Whose it is.
    pub subject: String,
    /// When.
    pub times: RowTimes,
    /// Further claims about its subject, each by name with its JSON text.
    pub claims: Vec<(String, String)>,
}

/// Which rows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// The one of this token.
    Token(crate::token::Secret),
    /// The one with this id: [`session_id`] of its token.
    Session(String),
    /// Those of a subject's that were listed before.
    Listed {
        /// Whose.
        subject: String,
        /// Their ids.
        sessions: Vec<String>,
    },
    /// All of them.
    All,
}

/// The table does not answer.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not reached, not in time, or not now.
    #[error("the session table could not be reached: {0}")]
    Unreachable(String),
    /// Not as the configuration says. Names settings, tables and columns, never what is in a row.
    #[error("the session table is not as configured: {0}")]
    Malformed(String),
}

/// A table of sessions in somebody else's database.
#[tonic::async_trait]
pub trait SessionTable: Send + Sync + std::fmt::Debug + 'static {
    /// The row of a token, from the primary, now. Rows within the bounds don't count as a subject's live ones.
    ///
    /// # Errors
    /// [`TableError`].
    async fn find(&self, token: &str, not_counted: Bounds) -> Result<Option<SessionRow>, TableError>;

    /// Moves the end of a token's row, if by now it is after `live` and not after `due`: of several who try at once one
    /// writes. A row that somebody else holds is left to them. Whether it was moved.
    ///
    /// # Errors
    /// [`TableError`].
    async fn extend(
        &self,
        token: &str,
        to: Timestamp,
        live: Timestamp,
        due: Timestamp,
    ) -> Result<bool, TableError>;

    /// The ids of at most so many of a subject's sessions, but for the one with the id `except`.
    ///
    /// # Errors
    /// [`TableError`].
    async fn list(
        &self,
        subject: &str,
        except: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, TableError>;

    /// Deletes those of them that are there.
    ///
    /// # Errors
    /// [`TableError`]; some may be gone.
    async fn delete(&self, rows: &Rows) -> Result<(), TableError>;

    /// Deletes at most so many that are over; by the earlier of our clock and the database's where that has one. What is no
    /// instant stays. Returns how many.
    ///
    /// # Errors
    /// [`TableError`].
    async fn purge(&self, over: Bounds, now: Timestamp, limit: u32) -> Result<u32, TableError>;

    /// Whether the table is there and as configured, and may be read and written.
    ///
    /// # Errors
    /// [`TableError`].
    async fn look(&self) -> Result<(), TableError>;
}

/// A table of sessions as this sidecar judges them.
#[derive(Debug)]
pub struct TableSettings {
    /// The table.
    pub table: Arc<dyn SessionTable>,
    /// How its sessions live.
    pub rules: TableRules,
    /// The cookies that its tokens are kept in.
    pub cookies: Vec<String>,
    /// Whether its rows tell their login.
    pub tells_logins: bool,
    /// How often what is over is deleted; `None`: never.
    pub purge_every: Option<Duration>,
}

/// A table, and how often all of it was taken back here.
#[derive(Debug)]
pub struct SessionRows {
    settings: TableSettings,
    generation: AtomicU64,
}

impl SessionRows {
    /// Of these settings.
    #[must_use]
    pub const fn new(settings: TableSettings) -> Self {
        Self { settings, generation: AtomicU64::new(1) }
    }

    /// The table itself.
    #[must_use]
    pub fn table(&self) -> &Arc<dyn SessionTable> {
        &self.settings.table
    }

    /// Whether its rows tell their login.
    #[must_use]
    pub const fn tells_logins(&self) -> bool {
        self.settings.tells_logins
    }

    pub(super) fn cookies(&self) -> &[String] {
        &self.settings.cookies
    }

    /// What acceptances are bound to.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Deletes rows of many sessions. What this sidecar read of the table before, or reads beside it, is not answered from
    /// memory any more: it may be of a row that the application deleted itself.
    ///
    /// # Errors
    /// [`TableError`]; some may be gone.
    pub async fn end(&self, rows: &Rows) -> Result<(), TableError> {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let deleted = self.settings.table.delete(rows).await;
        self.generation.fetch_add(1, Ordering::SeqCst);
        deleted
    }

    /// Deletes what is over, as often as the settings say, until cancelled. Several sidecars may do so at once.
    pub async fn run(self: Arc<Self>, clock: Clock, cancel: CancellationToken) {
        let Some(every) = self.settings.purge_every else { return };
        let mut failing = false;
        loop {
            let [byte] = random_bytes::<1>().unwrap_or([128]);
            let pause = every.mul_f64(0.75 + f64::from(byte) / 512.0);
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let Some(purged) = cancel.run_until_cancelled(self.purge_now(&clock)).await else { return };
            match purged {
                Ok(rows) => {
                    failing = false;
                    tracing::debug!(rows, "purged sessions that are over from their table");
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(error = &error as &dyn Error, "a session table can't be purged");
                }
                Err(_) => {}
            }
        }
    }

    async fn purge_now(&self, clock: &Clock) -> Result<u64, TableError> {
        let now = clock.now().purging.before(PURGE_SLACK);
        let over = self.settings.rules.over_by(now);
        let mut purged = 0_u64;
        loop {
            let batch = self.settings.table.purge(over, now, PURGE_BATCH).await?;
            purged += u64::from(batch);
            if batch < PURGE_BATCH {
                return Ok(purged);
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tonic::async_trait]
impl RevocationRelay for SessionRows {
    async fn revoke(&self, token: &str) -> Result<(), IssuerFailed> {
        let rows = Rows::Token(crate::token::Secret::new(token.as_bytes().to_vec()));
        self.settings.table.delete(&rows).await.map_err(|error| {
            tracing::warn!(
                error = &error as &dyn Error,
                "a session that was taken back could not be deleted"
            );
            IssuerFailed
        })
    }

    fn failure(&self) -> Reason {
        Reason::StoreUnavailable
    }
}

impl Verifier {
    /// The session table of an issuer, where it has one.
    #[must_use]
    pub fn session_rows(&self, issuer: &str) -> Option<&Arc<SessionRows>> {
        self.issuers.get(issuer)?.settings.table.as_ref()
    }

    /// Reads a token's row, moves its end where that is due, and keeps what it says.
    pub(super) async fn read_row(
        &self,
        entry: &Arc<IssuerEntry>,
        token: &str,
        digest: TokenDigest,
        patience: Duration,
    ) -> Result<Arc<Acceptance>, Refusal> {
        let issuer = entry.settings.policy.issuer();
        let Some(rows) = &entry.settings.table else { return Err(failed(issuer)) };
        let TableSettings { table, rules, .. } = &rows.settings;
        let (generation, asked) = (rows.generation(), self.clock.now());
        let session = session_id(token);
        let revoked =
            || self.denylist.denies_session(DenialKey::session(issuer, &session), self.clock.now().judged);
        let finding = table.find(token, rules.counts_after(asked.judged));
        let found = tokio::time::timeout(patience, finding).await.map_err(|_| failed(issuer))?;
        let found = found.map_err(|error| told(&error, issuer))?;
        // Whatever it says now, what it said before is over.
        self.cache.forget(&digest);
        let Some(row) = found else {
            return Err(over(if revoked() { Reason::Revoked } else { Reason::SessionEnded }, issuer));
        };
        let fate = rules.judge(&row.times, asked.judged);
        if revoked() || fate == Fate::Crowded {
            // So that the application refuses it, too; a backup may have brought it back.
            let _told = tokio::time::timeout(patience, rows.revoke(token)).await;
            return Err(over(if revoked() { Reason::Revoked } else { Reason::SessionEnded }, issuer));
        }
        let (ends_at, touch_at) = match fate {
            Fate::Ended | Fate::Crowded => return Err(over(Reason::SessionEnded, issuer)),
            Fate::Idle => return Err(over(Reason::SessionIdle, issuer)),
            Fate::Live { ends_at, touch_at, extend_to: None } => (ends_at, touch_at),
            Fate::Live { ends_at, touch_at, extend_to: Some(to) } => {
                let due = to.before(rules.update_age);
                let extending = table.extend(token, to, asked.judged, due);
                match tokio::time::timeout(patience, extending).await {
                    Ok(Ok(true)) => (ends_at, touch_at),
                    // Somebody else holds it, or moved it just now: the next read sees it.
                    Ok(Ok(false)) => {
                        (row.times.expires_at.min(ends_at), asked.judged.after(LOOK_AGAIN_AFTER))
                    }
                    failed => {
                        let error = failed.ok().and_then(Result::err);
                        tracing::warn!(
                            %issuer,
                            error = error.as_ref().map(|error| error as &dyn Error),
                            "a session's end could not be moved; it is answered by what was written last"
                        );
                        (row.times.expires_at.min(ends_at), asked.judged.after(EXTEND_AGAIN_AFTER))
                    }
                }
            }
        };
        let claims = claims(issuer, entry.settings.policy.audiences(), &session, &row, ends_at);
        let odd = |_| told(&TableError::Malformed("a row's columns make no claims".to_owned()), issuer);
        let parsed = json::parse(claims.as_bytes()).map_err(odd)?;
        let judged = Signed::of_row(token, claims.as_bytes(), parsed).judge(&entry.settings.policy);
        let mut accepted = judged.map_err(|denied| plain(denied, Some(issuer)))?;
        accepted.expires_at = ends_at;
        accepted.logged_in_at = row.times.created_at;
        accepted.refresh_after = None;
        let read = Read { at: asked.elapsed, touch_at, lasts: Duration::MAX };
        Ok(self.keep(accepted, digest, entry, generation, Some(read)))
    }

    /// What the holder of a session's token may take back: the session, whatever is left of it, in whichever of these tables
    /// it is; also where its row is gone and this sidecar still answers for it from memory.
    pub(super) async fn possession_of_row(
        &self,
        tables: &[Arc<IssuerEntry>],
        token: &str,
        deadline: Duration,
    ) -> Result<Possession, Refusal> {
        if token.len() > self.max_token_bytes {
            return Ok(Possession::Nothing);
        }
        let now = self.clock.now().judged;
        for entry in tables {
            let issuer = entry.settings.policy.issuer();
            let Some(rows) = &entry.settings.table else { continue };
            let finding = rows.settings.table.find(token, rows.settings.rules.counts_after(now));
            let found = tokio::time::timeout(deadline, finding).await.map_err(|_| failed(issuer))?;
            let found = found.map_err(|error| told(&error, issuer))?;
            let named = rows.cookies().iter().map(|name| TokenDigest::of_named(name, token.as_bytes()));
            let mut kept =
                named.chain([TokenDigest::of(token.as_bytes())]).filter_map(|digest| self.find(&digest));
            if found.is_some() || kept.any(|kept| Arc::ptr_eq(&kept.issuer, entry)) {
                let key = DenialKey::session(issuer, &session_id(token));
                let expires_at = now.after(entry.settings.longest_life);
                let relay = Some(Arc::clone(rows) as Arc<dyn RevocationRelay>);
                return Ok(Possession::Proven { draft: Draft::Session { key, expires_at }, relay });
            }
        }
        Ok(Possession::Nothing)
    }
}

/// The id of a session in a table: its token's SHA-256, in hexadecimal. A column's could be given to another row once this one
/// is gone.
#[must_use]
pub fn session_id(token: &str) -> String {
    let mut id = String::with_capacity(64);
    for byte in TokenDigest::of(token.as_bytes()).as_bytes() {
        // Writing to a String can't fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// What a row says, as the claims of a token.
fn claims(issuer: &str, audiences: &[String], session: &str, row: &SessionRow, ends_at: Timestamp) -> String {
    let text = |text: &str| serde_json::Value::from(text);
    let mut claims = format!(
        r#"{{"iss":{},"sub":{},"aud":{},"sid":{},"exp":{}"#,
        text(issuer),
        text(&row.subject),
        serde_json::Value::from(audiences),
        text(session),
        ends_at.as_secs()
    );
    // Writing to a String can't fail.
    if let Some(created_at) = row.times.created_at {
        let _ = write!(claims, r#","auth_time":{}"#, created_at.as_secs());
    }
    for (name, value) in &row.claims {
        let _ = write!(claims, ",{}:{value}", text(name));
    }
    claims.push('}');
    claims
}

fn over(reason: Reason, issuer: &Issuer) -> Refusal {
    Refusal::Denied { reason, action: Action::Reauthenticate, issuer: Some(Arc::clone(issuer)) }
}

fn failed(issuer: &Issuer) -> Refusal {
    Refusal::Undecided {
        reason: Reason::StoreUnavailable,
        retry_after: RETRY_AFTER,
        issuer: Some(Arc::clone(issuer)),
    }
}

fn told(error: &TableError, issuer: &Issuer) -> Refusal {
    tracing::warn!(%issuer, error = error as &dyn Error, "a session could not be read");
    failed(issuer)
}
