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
    /// Acceptances that fit, but for one in a hundred: there are twice as many places. In memory they take
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
        let (left, mut bytes) = {
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
            // Counted before anybody else can displace it: else the sums could run below zero.
            self.count.fetch_add(1, Ordering::Relaxed);
            let bytes = self.bytes.fetch_add(weight, Ordering::Relaxed).saturating_add(weight);
            (first.replace(Arc::clone(acceptance)), bytes)
        };
        self.account_for(left.as_slice());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::minting::{CLAIMS, Signer, acceptance, entry, policy};
    use std::sync::Weak;

    /// Acceptances of made-up tokens, all with the same answer.
    struct Tokens {
        signer: Signer,
        token: String,
    }

    impl Tokens {
        fn with(claims: &str) -> Self {
            let signer = Signer::new(crate::keys::Algorithm::Hs256);
            let token = signer.token(signer.header(), claims);
            Self { signer, token }
        }

        fn acceptance(&self, number: usize) -> Arc<Acceptance> {
            let kept =
                |accepted: crate::verify::Accepted<'_>| acceptance(&accepted, digest(number), &entry());
            Arc::new(self.signer.accept(&self.token, &policy(), kept).unwrap())
        }
    }

    fn digest(number: usize) -> TokenDigest {
        TokenDigest::of(&number.to_be_bytes())
    }

    fn cache(max_entries: usize) -> AcceptanceCache {
        AcceptanceCache::new(Settings { max_entries })
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten() {
        let (cache, tokens) = (cache(100), Tokens::with(CLAIMS));
        assert!(cache.find(&digest(1)).is_none(), "before there is a table");
        for number in [1, 2, 1] {
            cache.keep(&tokens.acceptance(number));
        }
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.find(&digest(1)).unwrap().digest, digest(1));
        cache.forget(&digest(1));
        cache.forget(&digest(3));
        assert!(cache.find(&digest(1)).is_none() && cache.find(&digest(2)).is_some());
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_latest_acceptance_of_a_token_is_the_one_found() {
        let (cache, tokens) = (cache(100), Tokens::with(CLAIMS));
        let (first, second) = (tokens.acceptance(1), tokens.acceptance(1));
        cache.keep(&first);
        cache.keep(&second);
        assert!(Arc::ptr_eq(&cache.find(&digest(1)).unwrap(), &second));
        drop(first);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_cache_of_no_entries_keeps_nothing_and_no_denial() {
        let (cache, tokens) = (cache(0), Tokens::with(CLAIMS));
        cache.keep(&tokens.acceptance(1));
        assert!(cache.find(&digest(1)).is_none());
        cache.keep_denial(digest(1), KnownBad { reason: Reason::Malformed, under: None });
        cache.denials.run_pending_tasks();
        assert!(cache.known_bad(&digest(1)).is_none());
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn of_as_many_as_are_configured_all_but_a_few_stay() {
        let (cache, tokens) = (cache(1000), Tokens::with(CLAIMS));
        for number in 0..1000 {
            cache.keep(&tokens.acceptance(number));
        }
        let found = (0..1000).filter(|number| cache.find(&digest(*number)).is_some()).count();
        assert!(found >= 980, "{found} of 1000");
        assert_eq!(cache.len(), found);
    }

    #[test]
    fn a_flood_of_tokens_takes_no_more_places_and_memory_than_there_are() {
        for size in [10, 12_000] {
            let claims = CLAIMS.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(size)), 1);
            let (cache, tokens) = (cache(100), Tokens::with(&claims));
            let mut alive: Vec<Weak<Acceptance>> = Vec::new();
            for number in 0..2000 {
                let acceptance = tokens.acceptance(number);
                cache.keep(&acceptance);
                alive.push(Arc::downgrade(&acceptance));
            }
            let alive: Vec<_> = alive.iter().filter_map(Weak::upgrade).collect();
            let bytes: usize = alive.iter().map(|kept| kept.weight()).sum();
            assert_eq!(alive.len(), cache.len());
            assert!(alive.len() <= 200, "{} of {size} bytes", alive.len());
            assert!(bytes <= 100 * BYTES_AN_ENTRY, "{bytes}");
            assert_eq!(bytes, cache.table.bytes.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_flood_of_bad_tokens_crowds_out_no_acceptance_and_not_itself_beyond_its_space() {
        let (cache, tokens) = (cache(100), Tokens::with(CLAIMS));
        cache.keep(&tokens.acceptance(0));
        for number in 0..10_000 {
            let denial = KnownBad { reason: Reason::BadSignature, under: Some((0, 1)) };
            cache.keep_denial(digest(number), denial);
        }
        cache.denials.run_pending_tasks();
        assert!(cache.find(&digest(0)).is_some());
        assert!(cache.denials.entry_count() <= MAX_DENIALS);
    }

    #[test]
    fn many_at_once_leave_the_sums_right() {
        let (cache, tokens) = (cache(1), Tokens::with(CLAIMS));
        let acceptances: Vec<_> = (0..40).map(|number| tokens.acceptance(number)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (cache, acceptances) = (&cache, &acceptances);
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let acceptance = &acceptances[(round * 7 + thread * 11) % acceptances.len()];
                        cache.keep(acceptance);
                        if round % 3 == 0 {
                            cache.forget(&acceptance.digest);
                        }
                    }
                });
            }
        });
        let found: Vec<_> = acceptances.iter().filter_map(|kept| cache.find(&kept.digest)).collect();
        assert_eq!(cache.len(), found.len());
        let bytes: usize = found.iter().map(|kept| kept.weight()).sum();
        assert_eq!(cache.table.bytes.load(Ordering::Relaxed), bytes);
    }
}
