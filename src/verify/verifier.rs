//! The steps of a verification, in order.

use crate::clock::Now;
use crate::keys::{NoKey, Sought};
use crate::revocation::{Draft, Standing};
use crate::token::{Action, Issuer, Reason, TokenDigest};
use crate::verify::cache::{AcceptanceCache, KnownBad};
use crate::verify::compact::{self, Decoded};
use crate::verify::jwt::{Signed, Unverified};
use crate::verify::refusal::Denied;
use crate::verify::{
    Acceptance, Accepted, Consistency, Demands, Freshness, IssuerEntry, IssuerSettings, Kind, LONGEST_WAIT,
    Parts, Possession, RETRY_AFTER, Read, Refusal, Source, Verdict, Verifier,
};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Why a credential has no acceptance yet.
enum NotYet {
    /// It never will.
    Refused(Refusal),
    /// It never will, and that can be remembered.
    KnownBad(Refusal, KnownBad),
    /// The issuer's keys have to be fetched, or fetched again.
    NeedsKeys(Arc<IssuerEntry>),
    /// The session's record has to be read.
    NeedsStore,
}

impl Verifier {
    /// Builds a verifier.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let entry = |(place, settings): (usize, IssuerSettings)| {
            let issuer = Arc::clone(settings.policy.issuer());
            let counted = Source::ALL.map(|(_, name)| parts.metrics.verify_source(&issuer, name));
            (issuer, Arc::new(IssuerEntry { settings, place, counted }))
        };
        Self {
            issuers: parts.issuers.into_iter().enumerate().map(entry).collect::<HashMap<_, _>>(),
            session_tokens: parts.session_tokens,
            sessions: parts.sessions,
            cache: AcceptanceCache::new(parts.cache),
            denylist: parts.denylist,
            feed: parts.feed,
            clock: parts.clock,
            metrics: parts.metrics,
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

    /// What the holder of a JWT may take back by holding it. The signature must be good; the token may have expired.
    ///
    /// # Errors
    /// Undecided, when the issuer's keys can't be had.
    pub async fn possession(&self, token: &str, deadline: Duration) -> Result<Possession, Refusal> {
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
        match signed.denial(&entry.settings.policy) {
            Some((key, expires_at)) if expires_at > self.clock.now().judged => {
                Ok(Possession::Proven(Draft::Token { key, expires_at }))
            }
            _ => Ok(Possession::Nothing),
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

    /// Acceptances cached.
    #[must_use]
    pub fn cached(&self) -> u64 {
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
        let digest = TokenDigest::of(token.as_bytes());
        let (acceptance, source) = match self.find(&digest) {
            Some(found) => {
                self.metrics.cache_hit();
                (found, Source::Cache)
            }
            None => match self.accept(token, digest, now) {
                Ok(accepted) => (accepted, Source::Signature),
                Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => return Some(Err(refusal)),
                Err(NotYet::NeedsKeys(_) | NotYet::NeedsStore) => return None,
            },
        };
        if acceptance.kind() == Kind::SessionToken && !self.reading_counts(&acceptance, now) {
            return None;
        }
        // Taken before judging: then all that its revision covers was in force when the credential was judged.
        let standing = self.denylist.standing(now);
        if let Err(refusal) = self.last_step(&acceptance, demands, now) {
            return Some(Err(refusal));
        }
        match acceptance.freshness.at_least(demands.consistency) {
            Consistency::MinimizeLatency => {}
            Consistency::AtLeastAsFresh(revision)
                if standing.loaded && standing.revision.covers(&revision) => {}
            Consistency::AtLeastAsFresh(_) | Consistency::FullyConsistent => return None,
        }
        Some(give(acceptance, &standing, source))
    }

    async fn waiting(&self, token: &str, demands: &Demands<'_>) -> Result<Verdict, Refusal> {
        let digest = TokenDigest::of(token.as_bytes());
        let patience = demands.deadline.min(LONGEST_WAIT);
        let (mut acceptance, mut source) = match self.find(&digest) {
            Some(found) => (found, Source::Cache),
            None => self.accept_waiting(token, digest, demands.deadline).await?,
        };
        let asked = acceptance.freshness.at_least(demands.consistency);
        let mut over = None;
        if acceptance.kind() == Kind::SessionToken {
            let fresh = source == Source::Store
                || (asked != Consistency::FullyConsistent
                    && self.reading_counts(&acceptance, &self.clock.now()));
            if !fresh {
                acceptance = self.read_session(token, digest, patience).await?;
                source = Source::Store;
            }
        } else if asked == Consistency::FullyConsistent {
            over = self.ask_store(&acceptance, patience).await?;
            source = Source::Store;
        }
        if let Consistency::AtLeastAsFresh(revision) = asked {
            let arrived = self.feed.catch_up(revision, patience).await;
            arrived.map_err(|_| undecided(Reason::NotFresh, Some(&acceptance)))?;
        }
        let now = self.clock.now();
        let standing = self.denylist.standing(&now);
        self.last_step(&acceptance, demands, &now)?;
        if let Some((reason, action)) = over {
            return Err(denied(reason, action, Some(&acceptance)));
        }
        give(acceptance, &standing, source)
    }

    /// A cached acceptance, if what it was accepted under still stands.
    fn find(&self, digest: &TokenDigest) -> Option<Arc<Acceptance>> {
        let found = self.cache.find(digest)?;
        (self.generation(&found.issuer, found.kind()) == found.generation).then_some(found)
    }

    /// What an acceptance is bound to: the issuer's key set, or the keys session tokens are authenticated by.
    fn generation(&self, entry: &IssuerEntry, kind: Kind) -> u64 {
        match kind {
            Kind::Jwt => entry.settings.generation(),
            Kind::SessionToken => {
                self.session_tokens.as_ref().map_or(0, |tokens| tokens.handles.generation())
            }
        }
    }

    /// Parses, checks signature and issuer policy, and keeps the acceptance.
    fn accept(&self, token: &str, digest: TokenDigest, now: &Now) -> Result<Arc<Acceptance>, NotYet> {
        if let Some(bad) = self.cache.known_bad(&digest) {
            let entry =
                bad.under.and_then(|(place, _)| self.issuers.values().find(|entry| entry.place == place));
            let stands = bad.under.is_none_or(|(_, generation)| {
                entry.is_some_and(|entry| entry.settings.generation() == generation)
            });
            if stands {
                let issuer = entry.map(|entry| Arc::clone(entry.settings.policy.issuer()));
                return Err(NotYet::Refused(Refusal::Denied {
                    reason: bad.reason,
                    action: Action::None,
                    issuer,
                }));
            }
        }
        if let Some(tokens) = &self.session_tokens
            && let Some(opened) = tokens.session_of(token)
        {
            return match opened {
                Ok(_) => Err(NotYet::NeedsStore),
                Err(denied) => Err(NotYet::Refused(plain(denied, Some(&tokens.issuer)))),
            };
        }
        let keeping = |not_yet: NotYet| {
            if let NotYet::Refused(Refusal::Denied { reason, issuer, .. }) = &not_yet {
                self.keep_denial(digest, *reason, issuer.as_ref());
            }
            not_yet
        };
        let decoded = compact::decode(token, self.max_token_bytes)
            .map_err(|denied| keeping(NotYet::Refused(plain(denied, None))))?;
        let (entry, generation, signed) = self.check_signature(&decoded).map_err(keeping)?;
        let accepted =
            signed.judge(&entry.settings.policy, now.judged).map_err(|denied| refused(denied, &entry))?;
        Ok(self.keep(accepted, digest, &entry, generation, None))
    }

    fn check_signature<'d>(
        &self,
        decoded: &'d Decoded<'d>,
    ) -> Result<(Arc<IssuerEntry>, u64, Signed<'d>), NotYet> {
        let unverified = Unverified::parse(decoded).map_err(malformed)?;
        let issuer = unverified.issuer().map_err(|denied| NotYet::Refused(plain(denied, None)))?;
        let Some(entry) = self.issuers.get(issuer) else {
            let unknown = Denied::new(Reason::UnknownIssuer, "iss is none of the configured issuers");
            return Err(NotYet::Refused(plain(unknown, None)));
        };
        unverified.check_header(&entry.settings.policy).map_err(|denied| refused(denied, entry))?;
        let no_key = |reason, detail| Err(refused(Denied::new(reason, detail), entry));
        let Some(ring) = &entry.settings.ring else {
            return no_key(Reason::UnknownKey, "this issuer has no JWTs here");
        };
        let published = ring.snapshot();
        let Some(published) = published.as_ref() else { return Err(NotYet::NeedsKeys(Arc::clone(entry))) };
        let key = match published.set.find(unverified.key_id(), unverified.algorithm()) {
            Ok(key) => key,
            Err(NoKey::Unknown) => return Err(NotYet::NeedsKeys(Arc::clone(entry))),
            Err(NoKey::Ambiguous) => {
                ring.count_ambiguous();
                return no_key(Reason::UnknownKey, "more than one key fits");
            }
            Err(NoKey::WrongAlgorithm) => {
                return no_key(Reason::UnsupportedAlgorithm, "alg is not the key's own");
            }
        };
        let signed = unverified.check_signature(key).map_err(|denied| match denied.reason {
            Reason::BadSignature => {
                // Under the set it was checked with: another may have come by now.
                let under = Some((entry.place, published.generation));
                let issuer = Some(entry.settings.policy.issuer());
                NotYet::KnownBad(plain(denied, issuer), KnownBad { reason: denied.reason, under })
            }
            _ => refused(denied, entry),
        })?;
        Ok((Arc::clone(entry), published.generation, signed))
    }

    /// Keeps a denial that no later moment changes: a malformed token, or a bad signature under this key set.
    fn keep_denial(&self, digest: TokenDigest, reason: Reason, issuer: Option<&Issuer>) {
        let under = if reason == Reason::Malformed {
            None
        } else if reason == Reason::BadSignature {
            let Some(entry) = issuer.and_then(|issuer| self.issuers.get(issuer)) else { return };
            Some((entry.place, entry.settings.generation()))
        } else {
            return;
        };
        self.cache.keep_denial(digest, KnownBad { reason, under });
    }

    pub(super) fn keep(
        &self,
        mut accepted: Accepted,
        digest: TokenDigest,
        entry: &Arc<IssuerEntry>,
        generation: u64,
        read: Option<Read>,
    ) -> Arc<Acceptance> {
        let settings = &entry.settings;
        let freshness = match accepted.policy() {
            _ if settings.by_policy.is_empty() => settings.freshness,
            Some(policy) => settings.by_policy.get(policy).copied().unwrap_or(Freshness::STRICTEST),
            None => settings.freshness,
        };
        if let (Kind::Jwt, Some(before)) = (accepted.kind, freshness.renew_before) {
            let renews = accepted.session_id.is_some();
            accepted.refresh_after = renews.then(|| accepted.expires_at.before(before));
        }
        self.metrics.cache_miss();
        let acceptance = Arc::new(Acceptance {
            accepted,
            digest,
            issuer: Arc::clone(entry),
            generation,
            freshness,
            read,
            wire: OnceLock::new(),
        });
        self.cache.keep(&acceptance);
        acceptance
    }

    async fn accept_waiting(
        &self,
        token: &str,
        digest: TokenDigest,
        deadline: Duration,
    ) -> Result<(Arc<Acceptance>, Source), Refusal> {
        match self.accept(token, digest, &self.clock.now()) {
            Ok(acceptance) => return Ok((acceptance, Source::Signature)),
            Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => return Err(refusal),
            Err(NotYet::NeedsStore) => {
                let patience = deadline.min(LONGEST_WAIT);
                return Ok((self.read_session(token, digest, patience).await?, Source::Store));
            }
            Err(NotYet::NeedsKeys(entry)) => self.seek_keys(&entry, deadline).await?,
        }
        match self.accept(token, digest, &self.clock.now()) {
            Ok(acceptance) => Ok((acceptance, Source::Signature)),
            Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => Err(refusal),
            Err(NotYet::NeedsKeys(entry)) => Err(unknown_key(&entry)),
            Err(NotYet::NeedsStore) => Err(undecided(Reason::StoreUnavailable, None)),
        }
    }

    /// Has the issuer's keys fetched, unless they just were.
    async fn seek_keys(&self, entry: &IssuerEntry, deadline: Duration) -> Result<(), Refusal> {
        let issuer = entry.settings.policy.issuer();
        let unavailable = || Refusal::Undecided {
            reason: Reason::KeysUnavailable,
            retry_after: RETRY_AFTER,
            issuer: Some(Arc::clone(issuer)),
        };
        let Some(ring) = &entry.settings.ring else { return Err(unknown_key(entry)) };
        match tokio::time::timeout(deadline, ring.seek()).await {
            // Fresh enough: the set may have come between the look into it and now, so it is looked into once more.
            Ok(Sought::Fetched | Sought::FreshEnough) => Ok(()),
            Ok(Sought::NotFetchable) => Err(unknown_key(entry)),
            Ok(Sought::Failed) | Err(_) => Err(unavailable()),
        }
    }

    /// Denials that hold whatever the freshness: time, demands, denylist.
    fn last_step(&self, acceptance: &Acceptance, demands: &Demands<'_>, now: &Now) -> Result<(), Refusal> {
        let accepted = &acceptance.accepted;
        let policy = &acceptance.issuer.settings.policy;
        if let Err(refusal) = accepted.check_time(policy, now.judged) {
            if refusal.reason == Reason::Expired {
                self.cache.forget(&acceptance.digest);
            }
            return Err(denied(refusal.reason, refusal.action(), Some(acceptance)));
        }
        if let Some(denial) = self.denylist.judge(accepted.marks(), now.judged) {
            return Err(denied(denial.reason(), denial.action(), Some(acceptance)));
        }
        accepted
            .check_demands(demands.audiences, demands.scopes)
            .map_err(|refusal| denied(refusal.reason, refusal.action(), Some(acceptance)))
    }

    fn count(&self, result: &Result<Verdict, Refusal>, started: Duration) {
        let took = self.clock.elapsed().saturating_sub(started);
        match result {
            Ok(verdict) => {
                let [cache, signature, store] = &verdict.acceptance.issuer.counted;
                match verdict.source {
                    Source::Cache => cache,
                    Source::Signature => signature,
                    Source::Store => store,
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

fn give(acceptance: Arc<Acceptance>, standing: &Standing, source: Source) -> Result<Verdict, Refusal> {
    match acceptance.freshness.judge(standing) {
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

/// What is wrong with a token before any key is looked at; a malformed one stays so.
fn malformed(denied: Denied) -> NotYet {
    if denied.reason == Reason::Malformed {
        NotYet::KnownBad(plain(denied, None), KnownBad { reason: denied.reason, under: None })
    } else {
        NotYet::Refused(plain(denied, None))
    }
}

fn refused(denied: Denied, entry: &IssuerEntry) -> NotYet {
    NotYet::Refused(plain(denied, Some(entry.settings.policy.issuer())))
}

fn plain(denied: Denied, issuer: Option<&Issuer>) -> Refusal {
    Refusal::Denied { reason: denied.reason, action: denied.action(), issuer: issuer.map(Arc::clone) }
}

/// Without any usable set nobody can tell; with one, the key is not in it.
fn unknown_key(entry: &IssuerEntry) -> Refusal {
    let issuer = Some(Arc::clone(entry.settings.policy.issuer()));
    if entry.settings.generation() == 0 {
        Refusal::Undecided { reason: Reason::KeysUnavailable, retry_after: RETRY_AFTER, issuer }
    } else {
        Refusal::Denied { reason: Reason::UnknownKey, action: Action::None, issuer }
    }
}

pub(super) fn denied(reason: Reason, action: Action, acceptance: Option<&Acceptance>) -> Refusal {
    Refusal::Denied { reason, action, issuer: acceptance.map(|acceptance| Arc::clone(acceptance.issuer())) }
}

pub(super) fn undecided(reason: Reason, acceptance: Option<&Acceptance>) -> Refusal {
    let issuer = acceptance.map(|acceptance| Arc::clone(acceptance.issuer()));
    Refusal::Undecided { reason, retry_after: RETRY_AFTER, issuer }
}
