//! Acceptances that passed signature and issuer policy, kept by the token's digest; and, in a small space of their
//! own, denials that no later moment can change.
//!
//! What is kept is never an answer: time, demands and the denylist are checked on every call. An acceptance counts
//! only under the key-set generation it was verified under, so a withdrawn key takes its tokens with it.
//!
//! A table of four-way buckets stands before the cache proper and answers a warm lookup with one short lock; the cache
//! behind it keeps the order of use and evicts.

use crate::token::{Reason, TokenDigest};
use crate::verify::Acceptance;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::sync::Arc;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Acceptances; about 800 bytes each with 300 bytes of claims.
    pub max_entries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_entries: 100_000 }
    }
}

/// Denials kept.
const MAX_DENIALS: u64 = 4096;
/// Claims larger than this take more than one place.
const WEIGHT_UNIT: usize = 1024;

/// A denial that stays true: of a malformed token for ever, of a bad signature while the key set stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBad {
    pub(super) reason: Reason,
    /// The issuer's place in the verifier's list, and its generation at the time.
    pub(super) under: Option<(usize, u64)>,
}

/// The cache.
#[derive(Debug)]
pub(super) struct AcceptanceCache {
    front: Front,
    acceptances: Cache<TokenDigest, Arc<Acceptance>>,
    denials: Cache<TokenDigest, KnownBad>,
}

impl AcceptanceCache {
    pub(super) fn new(settings: Settings) -> Self {
        let weight = |_: &TokenDigest, kept: &Arc<Acceptance>| {
            u32::try_from(1 + kept.claims_json().len() / WEIGHT_UNIT).unwrap_or(u32::MAX)
        };
        Self {
            front: Front::new(settings.max_entries),
            acceptances: Cache::builder()
                .max_capacity(settings.max_entries as u64)
                .weigher(weight)
                // Frequency-based admission turned every new token away from a full, hot cache.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            denials: Cache::builder()
                .max_capacity(MAX_DENIALS)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    pub(super) fn find(&self, digest: &TokenDigest) -> Option<Arc<Acceptance>> {
        if let Some(found) = self.front.find(digest) {
            return Some(found);
        }
        let found = self.acceptances.get(digest)?;
        self.front.keep(&found);
        Some(found)
    }

    pub(super) fn keep(&self, acceptance: &Arc<Acceptance>) {
        self.acceptances.insert(acceptance.digest, Arc::clone(acceptance));
        self.front.keep(acceptance);
    }

    /// Drops what can't be accepted again, such as an expired token.
    pub(super) fn forget(&self, digest: &TokenDigest) {
        self.acceptances.invalidate(digest);
        self.front.forget(digest);
    }

    pub(super) fn known_bad(&self, digest: &TokenDigest) -> Option<KnownBad> {
        self.denials.get(digest)
    }

    pub(super) fn keep_denial(&self, digest: TokenDigest, denial: KnownBad) {
        self.denials.insert(digest, denial);
    }

    pub(super) fn len(&self) -> u64 {
        self.acceptances.entry_count()
    }
}

const WAYS: usize = 4;

#[derive(Debug, Default)]
struct Bucket {
    tags: [u32; WAYS],
    kept: [Option<Arc<Acceptance>>; WAYS],
}

/// The table of buckets: a place for twice as many acceptances as the cache keeps, so that few buckets overflow.
#[derive(Debug)]
struct Front {
    buckets: Box<[Mutex<Bucket>]>,
    mask: usize,
}

impl Front {
    fn new(max_entries: usize) -> Self {
        if max_entries == 0 {
            return Self { buckets: Box::default(), mask: 0 };
        }
        let count = (max_entries * 2).div_ceil(WAYS).next_power_of_two();
        Self { buckets: (0..count).map(|_| Mutex::default()).collect(), mask: count - 1 }
    }

    /// A digest's bucket, and the tag that tells it from most others there.
    fn place(&self, digest: &TokenDigest) -> (Option<&Mutex<Bucket>>, u32) {
        let word = |from: usize| {
            digest.as_bytes().iter().skip(from).take(4).fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        (self.buckets.get(word(0) as usize & self.mask), word(4))
    }

    fn find(&self, digest: &TokenDigest) -> Option<Arc<Acceptance>> {
        let (bucket, tag) = self.place(digest);
        let bucket = bucket?.lock();
        bucket
            .tags
            .iter()
            .zip(&bucket.kept)
            .filter(|(one, _)| **one == tag)
            .find_map(|(_, kept)| kept.as_ref().filter(|kept| kept.digest == *digest).map(Arc::clone))
    }

    /// Puts it first; the one that was longest there without being put again falls out.
    fn keep(&self, acceptance: &Arc<Acceptance>) {
        let (bucket, tag) = self.place(&acceptance.digest);
        let Some(bucket) = bucket else { return };
        let Bucket { tags, kept } = &mut *bucket.lock();
        let same =
            kept.iter().position(|one| one.as_ref().is_some_and(|one| one.digest == acceptance.digest));
        let last = same.unwrap_or(WAYS - 1);
        if let Some(tags) = tags.get_mut(..=last) {
            tags.rotate_right(1);
        }
        if let Some(kept) = kept.get_mut(..=last) {
            kept.rotate_right(1);
        }
        if let (Some(first_tag), Some(first)) = (tags.first_mut(), kept.first_mut()) {
            *first_tag = tag;
            *first = Some(Arc::clone(acceptance));
        }
    }

    fn forget(&self, digest: &TokenDigest) {
        let (bucket, _) = self.place(digest);
        let Some(bucket) = bucket else { return };
        for kept in &mut bucket.lock().kept {
            if kept.as_ref().is_some_and(|kept| kept.digest == *digest) {
                *kept = None;
            }
        }
    }
}
