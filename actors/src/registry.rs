//! The live sessions: a sharded map from id to slot, and who is passivated when there are too many.
//!
//! A slot is put in, replaced and taken out under its shard's lock only, so there is never more than one that is open
//! for an id (invariant I2). Which one goes is a sampled least-recently-used: a few slots at random, the one longest
//! unused of those at rest.

use std::hash::{BuildHasher, Hash};

use indexmap::IndexMap;

use crate::{
    slot::{ActorPort, Slot},
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock, omitted},
};

/// Slots looked at for one to passivate. Ten are within a few percent of exact LRU (the figure is from Redis, which does
/// the same); more, because those without an actor do not count where actors are too many.
const SAMPLE: usize = 32;

type Map<K, A, H, S> = IndexMap<K, Arc<Slot<A, H>>, S>;
type Shard<K, A, H, S> = Mutex<Map<K, A, H, S>>;

/// The slots of all live sessions.
#[derive(Debug)]
pub struct Registry<K, A, H, S> {
    shards: Box<[Shard<K, A, H, S>]>,
    hasher: S,
    slots: AtomicUsize,
    slots_max: usize,
    /// Where the next sample begins.
    cursor: AtomicUsize,
}

/// What entering brought.
#[derive(Debug)]
pub struct Entered<A, H> {
    /// The slot, entered.
    pub slot: Arc<Slot<A, H>>,
    /// Slots taken out meanwhile: the caller drains their actors and tells storage.
    pub removed: Vec<Arc<Slot<A, H>>>,
}

impl<K: Hash + Eq + Clone, A: ActorPort, H, S: BuildHasher + Clone> Registry<K, A, H, S> {
    /// Makes a registry for about `slots_max` slots; what is in flight can exceed it.
    pub fn new(shards: usize, slots_max: usize, hasher: S) -> Self {
        let shard = || Mutex::new(IndexMap::with_hasher(hasher.clone()));
        Self {
            shards: std::iter::repeat_with(shard).take(shards.next_power_of_two()).collect(),
            slots: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            slots_max,
            hasher,
        }
    }

    fn shard(&self, key: &K) -> &Shard<K, A, H, S> {
        // The map inside uses the low bits of the same hash.
        let hash = self.hasher.hash_one(key) >> 40;
        &self.shards[hash as usize & (self.shards.len() - 1)]
    }

    /// Returns how many slots there are.
    pub fn len(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the slot of a session, if it is live.
    pub fn find(&self, key: &K) -> Option<Arc<Slot<A, H>>> {
        lock(self.shard(key)).get(key).cloned()
    }

    /// Enters the slot of a session; makes it where there is none, or only one that is closed.
    pub fn enter(&self, key: &K, now: u64, make: impl FnOnce() -> H) -> Entered<A, H> {
        let mut removed = Vec::new();
        let mut shard = lock(self.shard(key));
        if let Some(slot) = shard.get(key) {
            if slot.enter() {
                slot.note_use(now);
                return Entered { slot: Arc::clone(slot), removed };
            }
            removed.push(Arc::clone(slot));
            self.slots.fetch_sub(1, Ordering::Relaxed);
        }
        let slot = Arc::new(Slot::entered(make(), now));
        shard.insert(key.clone(), Arc::clone(&slot));
        self.slots.fetch_add(1, Ordering::Relaxed);
        // Two, where there are two too many: so what a burst has exceeded is made good.
        for _ in 0..2 {
            if self.len() > self.slots_max {
                removed.extend(self.evict(&mut shard, |_| true));
            }
        }
        Entered { slot, removed }
    }

    /// Takes out a slot that died, if it is still the one of this session.
    pub fn remove(&self, key: &K, slot: &Arc<Slot<A, H>>) -> bool {
        let mut shard = lock(self.shard(key));
        let is_itself = |there| Arc::ptr_eq(there, slot) || omitted("registry: only the slot itself is taken out");
        let is_there = shard.get(key).is_some_and(is_itself);
        if is_there {
            shard.swap_remove(key);
            self.slots.fetch_sub(1, Ordering::Relaxed);
        }
        is_there
    }

    /// Takes out one slot at rest that `may_go`, from the shard of `key`.
    pub fn evict_near(&self, key: &K, may_go: impl Fn(&Slot<A, H>) -> bool) -> Option<Arc<Slot<A, H>>> {
        self.evict(&mut lock(self.shard(key)), may_go)
    }

    fn evict(&self, shard: &mut Map<K, A, H, S>, may_go: impl Fn(&Slot<A, H>) -> bool) -> Option<Arc<Slot<A, H>>> {
        let len = shard.len();
        // A stride that is prime to most lengths, from a place that moves on: no two samples alike, no generator.
        let start = self.cursor.fetch_add(SAMPLE * 7_919, Ordering::Relaxed);
        let at = (0..SAMPLE.min(len))
            .map(|n| (start + n * 7_919) % len)
            .filter(|at| shard.get_index(*at).is_some_and(|(_, slot)| slot.is_at_rest() && may_go(slot)))
            .min_by_key(|at| shard.get_index(*at).map(|(_, slot)| slot.used()))?;
        let (_, slot) = shard.get_index(at)?;
        if !omitted("registry: a slot is closed before it is taken out") && !slot.close() {
            return None;
        }
        let (_, slot) = shard.swap_remove_index(at)?;
        self.slots.fetch_sub(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Takes out every slot at rest that was not used since `before`.
    pub fn evict_idle(&self, before: u64) -> Vec<Arc<Slot<A, H>>> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|_, slot| {
                let is_closed = || omitted("registry: a slot is closed before it is taken out") || slot.close();
                let goes = slot.used() < before && is_closed();
                if goes {
                    removed.push(Arc::clone(slot));
                }
                !goes
            });
        }
        self.slots.fetch_sub(removed.len(), Ordering::Relaxed);
        removed
    }

    /// Takes out all slots, whatever is in flight: the engine is closed.
    pub fn clear(&self) -> Vec<Arc<Slot<A, H>>> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            if omitted("registry: the end takes every slot out") {
                break;
            }
            removed.extend(lock(shard).drain(..).map(|(_, slot)| slot));
        }
        self.slots.fetch_sub(removed.len(), Ordering::Relaxed);
        removed
    }
}
