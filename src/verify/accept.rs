//! From a credential to an acceptance: out of the cache, or by parsing, key, signature and issuer policy.

use crate::keys::{NoKey, Sought};
use crate::ops::trace::waiting;
use crate::token::{Action, Issuer, Reason, TokenDigest};
use crate::verify::acceptance::Read;
use crate::verify::cache::KnownBad;
use crate::verify::compact::{self, Decoded};
use crate::verify::jwt::{Signed, Unverified};
use crate::verify::presented::Presented;
use crate::verify::refusal::Denied;
use crate::verify::verifier::undecided;
use crate::verify::{
    Acceptance, Accepted, Demands, IssuerEntry, Kind, LONGEST_WAIT, RETRY_AFTER, Refusal, Source, Verifier,
};
use std::sync::Arc;
use std::time::Duration;

/// Why a credential has no acceptance yet.
pub(super) enum NotYet {
    /// It never will.
    Refused(Refusal),
    /// It never will, and that can be remembered.
    KnownBad(Refusal, KnownBad),
    /// The issuer's keys have to be fetched, or fetched again.
    NeedsKeys(Arc<IssuerEntry>),
    /// The session's record has to be read, or its issuer asked.
    NeedsStore,
}

impl Verifier {
    /// A cached acceptance, if what it was accepted under still stands.
    pub(super) fn find(&self, digest: &TokenDigest) -> Option<Arc<Acceptance>> {
        let found = self.cache.find(digest)?;
        (self.generation(&found.issuer, found.kind) == found.generation).then_some(found)
    }

    /// What an acceptance is bound to: the issuer's key set, or the keys session tokens are authenticated by.
    pub(super) fn generation(&self, entry: &IssuerEntry, kind: Kind) -> u64 {
        match kind {
            Kind::Jwt | Kind::AuthJsCookie => entry.settings.generation(),
            Kind::OpaqueToken => 0,
            Kind::AuthJsSession => entry.settings.table.as_ref().map_or(0, |rows| rows.generation()),
            Kind::SessionToken => {
                self.session_tokens.as_ref().map_or(0, |tokens| tokens.handles.generation())
            }
        }
    }

    /// Parses, checks signature and issuer policy, and keeps the acceptance.
    pub(super) fn accept(
        &self,
        token: &str,
        name: &str,
        digest: TokenDigest,
    ) -> Result<Arc<Acceptance>, NotYet> {
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
        match self.presented(token, name) {
            Presented::Handle => return Err(self.open_handle(token)),
            Presented::Opaque(_) | Presented::Row(Some(_)) => return Err(NotYet::NeedsStore),
            Presented::Row(None) => {
                let unclaimed =
                    Denied::new(Reason::UnknownIssuer, "no session table has cookies of this name");
                return Err(NotYet::Refused(plain(unclaimed, None)));
            }
            Presented::Cookie => return self.accept_cookie(token, name, digest),
            Presented::Jwt => {}
        }
        let remembering = |not_yet: NotYet| {
            if let NotYet::KnownBad(_, denial) = &not_yet {
                self.cache.keep_denial(digest, *denial);
            }
            not_yet
        };
        let decoded =
            compact::decode(token, self.max_token_bytes).map_err(|denied| remembering(malformed(denied)))?;
        let (entry, generation, signed) = self.check_signature(&decoded).map_err(remembering)?;
        let accepted = signed.judge(&entry.settings.policy).map_err(|denied| refused(denied, &entry))?;
        Ok(self.keep(accepted, digest, &entry, generation, None))
    }

    /// A session token says nothing by itself: once its key is good, its session has to be read.
    fn open_handle(&self, token: &str) -> NotYet {
        let opened = self.session_tokens.as_ref().and_then(|tokens| {
            tokens
                .session_of(token)
                .map(|opened| opened.map_err(|denied| plain(denied, Some(&tokens.issuer))))
        });
        match opened {
            Some(Ok(_)) => NotYet::NeedsStore,
            Some(Err(refusal)) => NotYet::Refused(refusal),
            None => {
                let unknown =
                    Denied::new(Reason::UnsupportedType, "this sidecar has no keys for opaque tokens");
                NotYet::Refused(plain(unknown, None))
            }
        }
    }

    pub(super) fn check_signature<'d>(
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
        let signed = unverified.check_signature(key).map_err(|denied| {
            if denied.reason != Reason::BadSignature {
                return refused(denied, entry);
            }
            // Under the set it was checked with: another may have come by now.
            let under = Some((entry.place, published.generation));
            let issuer = Some(entry.settings.policy.issuer());
            NotYet::KnownBad(plain(denied, issuer), KnownBad { reason: denied.reason, under })
        })?;
        Ok((Arc::clone(entry), published.generation, signed))
    }

    pub(super) fn keep(
        &self,
        mut accepted: Accepted<'_>,
        digest: TokenDigest,
        entry: &Arc<IssuerEntry>,
        generation: u64,
        read: Option<Read>,
    ) -> Arc<Acceptance> {
        let settings = &entry.settings;
        let freshness = match accepted.policy() {
            Some(policy) if !settings.by_policy.is_empty() => {
                settings.by_policy.get(policy).unwrap_or(&self.strictest)
            }
            Some(_) | None => &settings.freshness,
        };
        if let (Kind::Jwt, Some(before)) = (accepted.kind, freshness.renew_before) {
            let renews = accepted.session_id.is_some();
            accepted.refresh_after = renews.then(|| accepted.expires_at.before(before));
        }
        self.metrics.cache_miss();
        let acceptance = Acceptance::new(&accepted, &self.encode, digest, entry, generation, freshness, read);
        let acceptance = Arc::new(acceptance);
        self.cache.keep(&acceptance);
        acceptance
    }

    pub(super) async fn accept_waiting(
        &self,
        token: &str,
        digest: TokenDigest,
        demands: &Demands<'_>,
    ) -> Result<(Arc<Acceptance>, Source), Refusal> {
        let Demands { deadline, credential_name: name, .. } = *demands;
        match self.accept(token, name, digest) {
            Ok(acceptance) => return Ok((acceptance, Source::Signature)),
            Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => return Err(refusal),
            Err(NotYet::NeedsStore) => return self.read(token, digest, demands).await,
            Err(NotYet::NeedsKeys(entry)) => self.seek_keys(&entry, deadline).await?,
        }
        match self.accept(token, name, digest) {
            Ok(acceptance) => Ok((acceptance, Source::Signature)),
            Err(NotYet::Refused(refusal) | NotYet::KnownBad(refusal, _)) => Err(refusal),
            Err(NotYet::NeedsKeys(entry)) => Err(unknown_key(&entry)),
            Err(NotYet::NeedsStore) => Err(undecided(Reason::StoreUnavailable, None)),
        }
    }

    /// Reads what a credential stands for: its session's record, or its issuer's word.
    pub(super) async fn read(
        &self,
        token: &str,
        digest: TokenDigest,
        demands: &Demands<'_>,
    ) -> Result<(Arc<Acceptance>, Source), Refusal> {
        let patience = demands.deadline.min(LONGEST_WAIT);
        match self.presented(token, demands.credential_name) {
            Presented::Opaque(entry) => {
                return Ok((
                    waiting("issuer.introspect", self.introspect(entry, token, digest, demands)).await?,
                    Source::Introspection,
                ));
            }
            Presented::Row(Some(entry)) => {
                return Ok((
                    waiting("table.read", self.read_row(entry, token, digest, patience)).await?,
                    Source::Store,
                ));
            }
            Presented::Row(None) | Presented::Handle | Presented::Cookie | Presented::Jwt => {}
        }
        Ok((waiting("store.read", self.read_session(token, digest, patience)).await?, Source::Store))
    }

    /// Has the issuer's keys fetched, unless they just were.
    pub(super) async fn seek_keys(&self, entry: &IssuerEntry, deadline: Duration) -> Result<(), Refusal> {
        let issuer = entry.settings.policy.issuer();
        let unavailable = || Refusal::Undecided {
            reason: Reason::KeysUnavailable,
            retry_after: RETRY_AFTER,
            issuer: Some(Arc::clone(issuer)),
        };
        let Some(ring) = &entry.settings.ring else { return Err(unknown_key(entry)) };
        match waiting("keys.fetch", tokio::time::timeout(deadline, ring.seek())).await {
            // Fresh enough: the set may have come between the look into it and now, so it is looked into once more.
            Ok(Sought::Fetched | Sought::FreshEnough) => Ok(()),
            Ok(Sought::NotFetchable) => Err(unknown_key(entry)),
            Ok(Sought::Failed) | Err(_) => Err(unavailable()),
        }
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

pub(super) fn refused(denied: Denied, entry: &IssuerEntry) -> NotYet {
    NotYet::Refused(plain(denied, Some(entry.settings.policy.issuer())))
}

pub(super) fn plain(denied: Denied, issuer: Option<&Issuer>) -> Refusal {
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
