//! The steps of a verification, in order.

use crate::clock::Now;
use crate::ops::trace::waiting;
use crate::revocation::{Denial, Draft, Standing};
use crate::token::{Action, Issuer, Reason};
use crate::verify::accept::NotYet;
use crate::verify::cache::AcceptanceCache;
use crate::verify::compact;
use crate::verify::jwt::Signed;
use crate::verify::presented::Presented;
use crate::verify::{
    Acceptance, Consistency, Demands, Freshness, IssuerEntry, IssuerSettings, Kind, LONGEST_WAIT, Parts,
    Possession, RETRY_AFTER, Refusal, Source, Verdict, Verifier,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

impl Verifier {
    /// Builds a verifier.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let entry = |(place, settings): (usize, IssuerSettings)| {
            let issuer = Arc::clone(settings.policy.issuer());
            let counted = Source::ALL.map(|source| parts.metrics.verify_source(&issuer, source.as_str()));
            (issuer, Arc::new(IssuerEntry { settings, place, counted }))
        };
        let issuers: HashMap<_, _> = parts.issuers.into_iter().enumerate().map(entry).collect();
        let having = |has: fn(&IssuerSettings) -> bool| {
            let mut having: Vec<_> =
                issuers.values().filter(|entry| has(&entry.settings)).map(Arc::clone).collect();
            having.sort_by_key(|entry| entry.place);
            having
        };
        let cookies = having(|settings| settings.cookies.is_some());
        let tables = having(|settings| settings.table.is_some());
        let mut opaque = having(|settings| settings.opaque.is_some());
        let prefix =
            |entry: &IssuerEntry| entry.settings.opaque.as_ref().map_or(0, |opaque| opaque.prefix.len());
        opaque.sort_by_key(|entry| std::cmp::Reverse(prefix(entry)));
        Self {
            issuers,
            cookies,
            tables,
            opaque,
            session_tokens: parts.session_tokens,
            sessions: parts.sessions,
            cache: AcceptanceCache::new(parts.cache),
            denylist: parts.denylist,
            feed: parts.feed,
            clock: parts.clock,
            metrics: parts.metrics,
            encode: parts.encode,
            strictest: Arc::new(Freshness::STRICTEST),
            max_token_bytes: parts.max_token_bytes,
        }
    }

    /// The answer where memory alone gives it; `None` where keys, a revision or the store must be waited for.
    pub fn verify_now(&self, token: &str, demands: &Demands<'_>) -> Option<Result<Verdict, Refusal>> {
        let now = self.clock.now();
        let result = self.answer_from_memory(token, demands, &now)?;
        self.count(&result, now.elapsed);
        Some(result)
    }

    /// The answer, waiting for what it needs at most until the deadline.
    ///
    /// # Errors
    /// [`Refusal`]: denied, or undecided.
    pub async fn verify(&self, token: &str, demands: &Demands<'_>) -> Result<Verdict, Refusal> {
        let now = self.clock.now();
        let result = match self.answer_from_memory(token, demands, &now) {
            Some(result) => result,
            None => self.waiting(token, demands).await,
        };
        self.count(&result, now.elapsed);
        result
    }

    /// What the holder of a JWT or cookie may take back by holding it. Its key must be good; it may have expired. A
    /// cookie that names its session stands for all of that.
    ///
    /// # Errors
    /// Undecided, when the issuer's keys can't be had.
    pub async fn possession(&self, token: &str, deadline: Duration) -> Result<Possession, Refusal> {
        match self.presented(token, "") {
            Presented::Handle => return Ok(Possession::Nothing),
            Presented::Row(named) => {
                let tables = named.map_or(self.tables.as_slice(), std::slice::from_ref);
                return self.possession_of_row(tables, token, deadline).await;
            }
            Presented::Opaque(entry) => return self.possession_of_opaque(entry, token, deadline).await,
            Presented::Cookie => return Ok(self.possession_of_cookie(token)),
            Presented::Jwt => {}
        }
        let Ok(decoded) = compact::decode(token, self.max_token_bytes) else {
            return Ok(Possession::Nothing);
        };
        let signed = match self.check_signature(&decoded) {
            Err(NotYet::NeedsKeys(entry)) => match self.seek_keys(&entry, deadline).await {
                Ok(()) => self.check_signature(&decoded),
                Err(refusal @ Refusal::Undecided { .. }) => return Err(refusal),
                Err(Refusal::Denied { .. }) => return Ok(Possession::Nothing),
            },
            other => other,
        };
        let Ok((entry, _, signed)) = signed else { return Ok(Possession::Nothing) };
        Ok(self.own_denial(&signed, &entry))
    }

    /// What takes back a token by itself, unless it is over already.
    pub(super) fn own_denial(&self, signed: &Signed<'_>, entry: &IssuerEntry) -> Possession {
        match signed.denial(&entry.settings.policy) {
            // By the earlier of the clocks: what only a clock that stands ahead takes for dead may live again.
            Some((key, expires_at)) if expires_at > self.clock.now().purging => Possession::Proven {
                draft: Draft::Token { key, expires_at },
                relay: entry.settings.relay.clone(),
            },
            _ => Possession::Nothing,
        }
    }

    /// A configured issuer by its name.
    #[must_use]
    pub fn issuer(&self, name: &str) -> Option<Issuer> {
        self.issuers.get_key_value(name).map(|(issuer, _)| Arc::clone(issuer))
    }

    /// How long anything of an issuer can live.
    #[must_use]
    pub fn longest_life(&self, issuer: &str) -> Option<Duration> {
        self.issuers.get(issuer).map(|entry| entry.settings.longest_life)
    }

    /// How stale answers about an issuer's credentials may be.
    #[must_use]
    pub fn staleness_bound(&self, issuer: &str) -> Option<Duration> {
        self.issuers.get(issuer).map(|entry| entry.settings.freshness.bound)
    }

    /// A larger credential is refused unread.
    #[must_use]
    pub const fn max_token_bytes(&self) -> usize {
        self.max_token_bytes
    }

    /// Acceptances cached.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    fn answer_from_memory(
        &self,
        token: &str,
        demands: &Demands<'_>,
        now: &Now,
    ) -> Option<Result<Verdict, Refusal>> {
        if token.len() > self.max_token_bytes {
            return Some(Err(denied(Reason::TooLarge, Action::None, None)));
        }
        let digest = self.digest(token, demands.credential_name);
        let (acceptance, source) = match self.find(&digest) {
            Some(found) => {
                self.metrics.cache_hit();
                (found, Source::Cache)
            }
            None => match self.accept(token, demands.credential_name, digest) {
                Ok(accepted) => (accepted, Source::Signature),
                Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => return Some(Err(refusal)),
                Err(NotYet::NeedsKeys(_) | NotYet::NeedsStore) => return None,
            },
        };
        // Taken before judging: then all that its revision covers was in force when the credential was judged.
        let standing = self.denylist.standing(now);
        let fresh_enough = match acceptance.freshness.at_least(demands.consistency) {
            Consistency::MinimizeLatency => true,
            Consistency::AtLeastAsFresh(revision) => standing.loaded && standing.revision.covers(&revision),
            Consistency::FullyConsistent => false,
        };
        // What a session's record says can change: nothing is denied by one that is older than was asked for.
        if acceptance.kind.is_read() && !(fresh_enough && self.reading_counts(&acceptance, now)) {
            return None;
        }
        if let Err(refusal) = self.last_step(&acceptance, demands, now) {
            return Some(Err(refusal));
        }
        fresh_enough.then(|| give(acceptance, standing, source, now))
    }

    pub(super) async fn waiting(&self, token: &str, demands: &Demands<'_>) -> Result<Verdict, Refusal> {
        let digest = self.digest(token, demands.credential_name);
        let patience = demands.deadline.min(LONGEST_WAIT);
        let (mut acceptance, mut source) = match self.find(&digest) {
            Some(found) => (found, Source::Cache),
            None => self.accept_waiting(token, digest, demands).await?,
        };
        let asked = acceptance.freshness.at_least(demands.consistency);
        if let Consistency::AtLeastAsFresh(revision) = asked {
            let arrived = waiting("feed.catch_up", self.feed.catch_up(revision, patience)).await;
            arrived.map_err(|_| undecided(Reason::NotFresh, Some(&acceptance)))?;
        }
        let mut over = None;
        if acceptance.kind.is_read() {
            // What was read before waiting for a revision may be over or changed by now.
            let just_read = source != Source::Cache && !matches!(asked, Consistency::AtLeastAsFresh(_));
            let fresh = just_read
                || (asked != Consistency::FullyConsistent
                    && self.reading_counts(&acceptance, &self.clock.now()));
            if !fresh {
                (acceptance, source) = self.read(token, digest, demands).await?;
            }
            if acceptance.kind.is_theirs() && asked == Consistency::FullyConsistent {
                let reached = waiting("feed.reach_head", self.feed.reach_head(patience)).await;
                reached.map_err(|_| undecided(Reason::StoreUnavailable, Some(&acceptance)))?;
            }
        } else if asked == Consistency::FullyConsistent {
            over = waiting("store.read", self.ask_store(&acceptance, patience)).await?;
            source = Source::Store;
        }
        if self.generation(&acceptance.issuer, acceptance.kind) != acceptance.generation {
            // Keys changed while this call waited; a withdrawn one takes its tokens with it.
            (acceptance, _) = self.accept_waiting(token, digest, demands).await?;
        }
        let now = self.clock.now();
        let standing = self.denylist.standing(&now);
        self.last_step(&acceptance, demands, &now)?;
        if let Some((reason, action)) = over {
            return Err(denied(reason, action, Some(&acceptance)));
        }
        give(acceptance, standing, source, &now)
    }

    /// Denials that hold whatever the freshness: time, demands, denylist.
    fn last_step(&self, acceptance: &Acceptance, demands: &Demands<'_>, now: &Now) -> Result<(), Refusal> {
        let by_login = acceptance.kind.is_refreshed_by_login_alone();
        let possible =
            |action| if by_login && action == Action::Refresh { Action::Reauthenticate } else { action };
        if let Err(refusal) = acceptance.check_time(now.judged) {
            if refusal.reason != Reason::NotYetValid {
                self.cache.forget(&acceptance.digest);
            }
            return Err(denied(refusal.reason, possible(refusal.action()), Some(acceptance)));
        }
        // A session token carries no attributes of its own; its record was read, and a change beside that read is not
        // its holder's to mend. What is cached doesn't count once the record has changed.
        let told = |denial: &Denial| acceptance.kind != Kind::SessionToken || *denial != Denial::StaleClaims;
        if let Some(denial) = self.denylist.judge(&acceptance.marks, now.judged).filter(told) {
            // A cut-off ends the session's record, too, and who reads that learns no more than that it is over.
            let over = acceptance.kind == Kind::SessionToken && denial == Denial::CutOff;
            let reason = if over { Reason::SessionEnded } else { denial.reason() };
            return Err(denied(reason, possible(denial.action()), Some(acceptance)));
        }
        acceptance
            .check_demands(demands.audiences, demands.scopes)
            .map_err(|refusal| denied(refusal.reason, refusal.action(), Some(acceptance)))
    }

    fn count(&self, result: &Result<Verdict, Refusal>, started: Duration) {
        let took = self.clock.elapsed().saturating_sub(started);
        match result {
            Ok(verdict) => {
                let [cache, signature, store, introspection] = &verdict.acceptance.issuer.counted;
                match verdict.source {
                    Source::Cache => cache,
                    Source::Signature => signature,
                    Source::Store => store,
                    Source::Introspection => introspection,
                }
                .record(took);
            }
            Err(Refusal::Denied { reason, issuer, .. }) => {
                self.metrics.verify_refused("denied", *reason, issuer.as_deref().unwrap_or_default(), took);
            }
            Err(Refusal::Undecided { reason, issuer, .. }) => {
                self.metrics.verify_refused(
                    "undecided",
                    *reason,
                    issuer.as_deref().unwrap_or_default(),
                    took,
                );
            }
        }
    }
}

fn give(
    acceptance: Arc<Acceptance>,
    mut standing: Standing,
    source: Source,
    now: &Now,
) -> Result<Verdict, Refusal> {
    // What an issuer said is as old as its answer; our own denylist tells nothing of its changes.
    if let Some(read) = acceptance.read.filter(|_| acceptance.kind.is_theirs()) {
        standing.staleness = standing.staleness.max(now.elapsed.saturating_sub(read.at));
    }
    match acceptance.freshness.judge(&standing) {
        Ok(stale) => Ok(Verdict {
            acceptance,
            revision: standing.revision,
            staleness: standing.staleness,
            stale,
            source,
        }),
        Err(reason) => Err(undecided(reason, Some(&acceptance))),
    }
}

pub(super) fn denied(reason: Reason, action: Action, acceptance: Option<&Acceptance>) -> Refusal {
    Refusal::Denied { reason, action, issuer: acceptance.map(|acceptance| Arc::clone(acceptance.issuer())) }
}

pub(super) fn undecided(reason: Reason, acceptance: Option<&Acceptance>) -> Refusal {
    let issuer = acceptance.map(|acceptance| Arc::clone(acceptance.issuer()));
    Refusal::Undecided { reason, retry_after: RETRY_AFTER, issuer }
}
