//! A sharded hash table from denial keys to what is held under them, small and quick to miss.
//!
//! Keys are digests already, so hashing them is one multiplication under a secret seed: the seed keeps whoever can pick
//! token ids from filling one bucket. Keys are kept as `[u32; 4]`, which packs with a `u32` expiry without padding.

use crate::revocation::entry::DenialKey;
use hashbrown::HashTable;
use parking_lot::RwLock;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many shards every table has; a power of two.
pub(super) const SHARDS: usize = 64;

/// Something held under a key. Two of one key merge; nothing held is ever taken back but by expiry.
pub(super) trait Held: Copy {
    fn key(&self) -> &DenialKey;
    /// Seconds since the Unix epoch; `u32::MAX` never expires.
    fn expiry_secs(&self) -> u32;
    /// Unites with `other`, held under the same key; whether that changed anything.
    fn merge(&mut self, other: &Self) -> bool;
}

/// The secret that hashing is mixed with.
pub(super) struct Seed([u64; 2]);

impl Seed {
    pub(super) fn random() -> Self {
        let draw = || RandomState::new().build_hasher().finish();
        Self([draw(), draw()])
    }

    pub(super) fn fixed(seed: u64) -> Self {
        Self([seed, !seed])
    }

    pub(super) fn hash(&self, key: &DenialKey) -> u64 {
        let [a, b, c, d] = key.words().map(u64::from);
        let [left, right] = self.0;
        let (low, high) = ((a << 32 | b) ^ left).carrying_mul((c << 32 | d) ^ right, 0);
        low ^ high
    }
}

/// How many entries may be held, counted over all tables.
pub(super) struct Room {
    taken: AtomicUsize,
    cap: usize,
}

impl Room {
    pub(super) fn new(cap: usize) -> Self {
        Self { taken: AtomicUsize::new(0), cap }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn cap(&self) -> usize {
        self.cap
    }

    fn take(&self) -> bool {
        let more = |taken| (taken < self.cap).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Aligned to a cache line, so that readers of neighbouring shards don't slow each other.
#[repr(align(64))]
struct Shard<T>(RwLock<HashTable<T>>);

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self(RwLock::new(HashTable::new()))
    }
}

pub(super) struct Table<T> {
    shards: Box<[Shard<T>]>,
    last: Shard<T>,
    len: AtomicUsize,
}

/// No room for another key.
pub(super) struct NoRoom;

impl<T: Held> Table<T> {
    pub(super) fn new() -> Self {
        let shards = (1..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, last: Shard::default(), len: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether something under the key satisfies `test`. Costs one load while the table is empty.
    pub(super) fn any(&self, seed: &Seed, key: &DenialKey, test: impl FnOnce(&T) -> bool) -> bool {
        if self.len() == 0 {
            return false;
        }
        let hash = seed.hash(key);
        let shard = self.shard_of(hash).0.read();
        shard.find(hash, |held| held.key() == key).is_some_and(test)
    }

    /// Unites with what is held. A key already held is always taken; a new one needs room.
    pub(super) fn insert(&self, seed: &Seed, room: &Room, held: T) -> Result<(), NoRoom> {
        let hash = seed.hash(held.key());
        let mut shard = self.shard_of(hash).0.write();
        if let Some(there) = shard.find_mut(hash, |there| there.key() == held.key()) {
            there.merge(&held);
            return Ok(());
        }
        if !room.take() {
            return Err(NoRoom);
        }
        shard.insert_unique(hash, held, |there| seed.hash(there.key()));
        self.len.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Forgets what expired by `now_secs` in one shard, and gives its memory back when most of it is empty.
    pub(super) fn purge(&self, seed: &Seed, room: &Room, shard: usize, now_secs: u32) -> usize {
        let mut shard = self.shard(shard).0.write();
        let before = shard.len();
        shard.retain(|held| live(held.expiry_secs(), now_secs));
        let gone = before - shard.len();
        if gone > 0 && shard.len() < shard.capacity() / 4 {
            let roomy = shard.len().saturating_mul(2);
            shard.shrink_to(roomy, |held| seed.hash(held.key()));
        }
        self.len.fetch_sub(gone, Ordering::Release);
        room.give(gone);
        gone
    }

    pub(super) fn read_shard(&self, shard: usize, mut each: impl FnMut(&T)) {
        self.shard(shard).0.read().iter().for_each(&mut each);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let shards = self.shards.iter().chain([&self.last]);
        shards.map(|shard| size_of::<Shard<T>>() + shard.0.read().allocation_size()).sum()
    }

    fn shard_of(&self, hash: u64) -> &Shard<T> {
        // The table itself uses the lowest bits and the topmost seven.
        self.shard(usize::try_from(hash >> 40 & (SHARDS as u64 - 1)).unwrap_or(0))
    }

    fn shard(&self, index: usize) -> &Shard<T> {
        self.shards.get(index).unwrap_or(&self.last)
    }
}

/// Whether something that expires at `expiry_secs` still counts.
pub(super) fn live(expiry_secs: u32, now_secs: u32) -> bool {
    expiry_secs > now_secs || expiry_secs == u32::MAX
}
