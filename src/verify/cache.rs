//! Acceptances that passed signature and issuer policy, kept by the token's digest; and, in a small space of their
//! own, denials that no later moment can change.
//!
//! What is kept is never an answer: time, demands and the denylist are checked on every call. An acceptance counts
//! only under the key-set generation it was verified under, so a withdrawn key takes its tokens with it.
//!
//! Acceptances stand in a table of eight-way buckets, as a processor's cache does: a lookup is one short lock and eight
//! tags, an entry costs no more than itself, and what falls out is the bucket's least recently kept.

use crate::token::{Reason, TokenDigest};
use crate::verify::acceptance::Acceptance;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Acceptances that surely fit; there are twice as many places, so that few buckets overflow. In memory they take
    /// at most a kilobyte each on the average.
    pub max_entries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_entries: 100_000 }
    }
}

/// Denials kept.
const MAX_DENIALS: u64 = 4096;
/// Memory for each of the configured entries, on the average.
const BYTES_AN_ENTRY: usize = 1024;

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
    table: Table,
    denials: Cache<TokenDigest, KnownBad>,
}

impl AcceptanceCache {
    pub(super) fn new(settings: Settings) -> Self {
        let denials = if settings.max_entries == 0 { 0 } else { MAX_DENIALS };
        Self {
            table: Table::new(settings.max_entries),
            denials: Cache::builder().max_capacity(denials).eviction_policy(EvictionPolicy::lru()).build(),
        }
    }

    pub(super) fn find(&self, digest: &TokenDigest) -> Option<Arc<Acceptance>> {
        self.table.find(digest)
    }

    pub(super) fn keep(&self, acceptance: &Arc<Acceptance>) {
        self.table.keep(acceptance);
    }

    /// Drops what can't be accepted again, such as an expired token.
    pub(super) fn forget(&self, digest: &TokenDigest) {
        self.table.forget(digest);
    }

    pub(super) fn known_bad(&self, digest: &TokenDigest) -> Option<KnownBad> {
        self.denials.get(digest)
    }

    pub(super) fn keep_denial(&self, digest: TokenDigest, denial: KnownBad) {
        self.denials.insert(digest, denial);
    }

    pub(super) fn len(&self) -> usize {
        self.table.count.load(Ordering::Relaxed)
    }
}

const WAYS: usize = 8;

#[derive(Debug, Default)]
struct Bucket {
    tags: [u32; WAYS],
    kept: [Option<Arc<Acceptance>>; WAYS],
}

#[derive(Debug)]
struct Table {
    /// Made when the first acceptance comes: an idle sidecar needs no table.
    buckets: OnceLock<Box<[Mutex<Bucket>]>>,
    bucket_count: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    max_bytes: usize,
    /// The bucket to be emptied next, where entries are so large that memory runs out before places do.
    hand: AtomicUsize,
}

impl Table {
    fn new(max_entries: usize) -> Self {
        Self {
            buckets: OnceLock::new(),
            bucket_count: max_entries.saturating_mul(2).div_ceil(WAYS),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes: max_entries.saturating_mul(BYTES_AN_ENTRY),
            hand: AtomicUsize::new(0),
        }
    }

    /// A digest's bucket, and the tag that tells it from most others there.
    fn place(&self, digest: &TokenDigest) -> (Option<&Mutex<Bucket>>, u32) {
        let word = |from: usize| {
            digest.as_bytes().iter().skip(from).take(4).fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        // The digest's bits are even: scaled to the number of buckets they fill them evenly.
        let index = (u64::from(word(0)) * self.bucket_count as u64) >> 32;
        let bucket = self.buckets.get().and_then(|buckets| buckets.get(usize::try_from(index).ok()?));
        (bucket, word(4))
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

    /// Puts it first in its bucket, in the place of the same token or of the one that was kept longest ago.
    fn keep(&self, acceptance: &Arc<Acceptance>) {
        self.buckets.get_or_init(|| (0..self.bucket_count).map(|_| Mutex::default()).collect());
        let (bucket, tag) = self.place(&acceptance.digest);
        let Some(bucket) = bucket else { return };
        let weight = acceptance.weight();
        // Counted before it can be seen, so that nobody takes it out of sums it is not in.
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.fetch_add(weight, Ordering::Relaxed).saturating_add(weight);
        let mut left = {
            let Bucket { tags, kept } = &mut *bucket.lock();
            let same = |one: &Option<Arc<Acceptance>>| {
                one.as_ref().is_some_and(|one| one.digest == acceptance.digest)
            };
            let last = kept.iter().position(same).or_else(|| kept.iter().position(Option::is_none));
            let last = last.unwrap_or(WAYS - 1);
            if let (Some(tags), Some(kept)) = (tags.get_mut(..=last), kept.get_mut(..=last)) {
                tags.rotate_right(1);
                kept.rotate_right(1);
            }
            let (Some(first_tag), Some(first)) = (tags.first_mut(), kept.first_mut()) else { return };
            *first_tag = tag;
            first.replace(Arc::clone(acceptance))
        };
        self.account_for(left.take().as_slice());
        while bytes > self.max_bytes && self.len_is_not_zero() {
            bytes = self.empty_next();
        }
    }

    fn len_is_not_zero(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Empties the bucket the hand points at, and moves the hand on.
    fn empty_next(&self) -> usize {
        let index = self.hand.fetch_add(1, Ordering::Relaxed) % self.bucket_count.max(1);
        let bucket = self.buckets.get().and_then(|buckets| buckets.get(index));
        let taken = bucket.map(|bucket| std::mem::take(&mut bucket.lock().kept)).unwrap_or_default();
        let taken: Vec<_> = taken.into_iter().flatten().collect();
        self.account_for(&taken);
        self.bytes.load(Ordering::Relaxed)
    }

    fn forget(&self, digest: &TokenDigest) {
        let (bucket, _) = self.place(digest);
        let Some(bucket) = bucket else { return };
        let same = |kept: &mut Arc<Acceptance>| kept.digest == *digest;
        let taken = bucket.lock().kept.iter_mut().find_map(|kept| kept.take_if(same));
        self.account_for(taken.as_slice());
    }

    /// Takes what left out of the sums.
    fn account_for(&self, left: &[Arc<Acceptance>]) {
        for acceptance in left {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(acceptance.weight(), Ordering::Relaxed);
        }
    }
}
