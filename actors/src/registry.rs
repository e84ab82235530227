//! The live sessions: a sharded map from id to slot, and who is passivated when there are too many.
//!
//! A slot is put in, replaced and taken out under its shard's lock only, so there is never more than one that is open
//! for an id (invariant I2). Which one goes is a sampled least-recently-used: a few slots at random, the one longest
//! unused of those at rest. Those with an actor are kept in a map of their own as well, for they have a bound of their own
//! and may be few among many.

use std::hash::{BuildHasher, Hash};

use indexmap::IndexMap;

use crate::{
    slot::{ActorPort, Slot},
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock, omitted},
};

/// Slots looked at for one to passivate: with so many it is within a few percent of exact LRU (the figure is from Redis,
/// which does the same with ten).
const SAMPLE: usize = 16;

/// How many there are to be; what is in flight can exceed it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Slots.
    pub slots_max: usize,
    /// Slots with an actor.
    pub actors_max: usize,
}

type Map<K, A, H, S> = IndexMap<K, Arc<Slot<A, H>>, S>;
type Locked<K, A, H, S> = Mutex<Shard<K, A, H, S>>;

/// The slots of all live sessions.
#[derive(Debug)]
pub struct Registry<K, A, H, S> {
    shards: Box<[Locked<K, A, H, S>]>,
    hasher: S,
    slots: AtomicUsize,
    with_actor: AtomicUsize,
    bounds: Bounds,
    /// Where the next sample begins.
    cursor: AtomicUsize,
}

#[derive(Debug)]
struct Shard<K, A, H, S> {
    slots: Map<K, A, H, S>,
    /// Those of them with an actor.
    with_actor: Map<K, A, H, S>,
}

/// Which slots are too many.
#[derive(Debug, Clone, Copy)]
enum Excess {
    Slots,
    Actors,
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
    /// Makes a registry.
    pub fn new(shards: usize, bounds: Bounds, hasher: S) -> Self {
        let map = || IndexMap::with_hasher(hasher.clone());
        let shard = || Mutex::new(Shard { slots: map(), with_actor: map() });
        Self {
            shards: std::iter::repeat_with(shard).take(shards.next_power_of_two()).collect(),
            slots: AtomicUsize::new(0),
            with_actor: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            bounds,
            hasher,
        }
    }

    fn at(&self, key: &K) -> usize {
        // The map inside uses the low bits of the same hash.
        (self.hasher.hash_one(key) >> 40) as usize & (self.shards.len() - 1)
    }

    fn shard(&self, key: &K) -> &Locked<K, A, H, S> {
        &self.shards[self.at(key)]
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
        lock(self.shard(key)).slots.get(key).cloned()
    }

    /// Enters the slot of a session; makes it where there is none, or only one that is closed.
    pub fn enter(&self, key: &K, now: u64, make: impl FnOnce() -> H) -> Entered<A, H> {
        let mut removed = Vec::new();
        let mut shard = lock(self.shard(key));
        if let Some(slot) = shard.slots.get(key) {
            if slot.enter() {
                slot.note_use(now);
                return Entered { slot: Arc::clone(slot), removed };
            }
            removed.extend(self.take(&mut shard, key));
        }
        let slot = Arc::new(Slot::entered(make(), now));
        shard.slots.insert(key.clone(), Arc::clone(&slot));
        self.slots.fetch_add(1, Ordering::Relaxed);
        drop(shard);
        removed.extend(self.evict_excess(key, Excess::Slots));
        Entered { slot, removed }
    }

    /// Notes that a slot has an actor now. Returns slots taken out because there are too many of them.
    pub fn note_actor(&self, key: &K, slot: &Arc<Slot<A, H>>) -> Vec<Arc<Slot<A, H>>> {
        let mut shard = lock(self.shard(key));
        // It may have been taken out already, its one request answered.
        if shard.slots.get(key).is_some_and(|there| Arc::ptr_eq(there, slot))
            && shard.with_actor.insert(key.clone(), Arc::clone(slot)).is_none()
        {
            self.with_actor.fetch_add(1, Ordering::Relaxed);
        }
        drop(shard);
        self.evict_excess(key, Excess::Actors)
    }

    /// Takes out a slot that died, if it is still the one of this session.
    pub fn remove(&self, key: &K, slot: &Arc<Slot<A, H>>) -> bool {
        self.take_if(key, slot, |_| true)
    }

    /// Closes a slot with nothing in flight and takes it out, if it is still the one of this session.
    pub fn close(&self, key: &K, slot: &Arc<Slot<A, H>>) -> bool {
        self.take_if(key, slot, Self::closes)
    }

    fn take_if(&self, key: &K, slot: &Arc<Slot<A, H>>, goes: impl FnOnce(&Slot<A, H>) -> bool) -> bool {
        let mut shard = lock(self.shard(key));
        let is_itself = |there| Arc::ptr_eq(there, slot) || omitted("registry: only the slot itself is taken out");
        shard.slots.get(key).is_some_and(is_itself) && goes(slot) && self.take(&mut shard, key).is_some()
    }

    /// Takes a slot out, whatever its state.
    fn take(&self, shard: &mut Shard<K, A, H, S>, key: &K) -> Option<Arc<Slot<A, H>>> {
        let slot = shard.slots.swap_remove(key)?;
        self.slots.fetch_sub(1, Ordering::Relaxed);
        if shard.with_actor.swap_remove(key).is_some() {
            self.with_actor.fetch_sub(1, Ordering::Relaxed);
        }
        Some(slot)
    }

    fn closes(slot: &Slot<A, H>) -> bool {
        omitted("registry: a slot is closed before it is taken out") || slot.close()
    }

    /// Takes out one slot at rest, of the shard of `key` if there is one, else of the next.
    pub fn evict(&self, key: &K) -> Option<Arc<Slot<A, H>>> {
        self.evict_one(key, Excess::Slots)
    }

    /// Takes out slots at rest while there are too many. Two at most, so that a burst is made good little by little.
    fn evict_excess(&self, key: &K, excess: Excess) -> Vec<Arc<Slot<A, H>>> {
        let too_many = || match excess {
            Excess::Slots => self.len() > self.bounds.slots_max,
            Excess::Actors => self.with_actor.load(Ordering::Relaxed) > self.bounds.actors_max,
        };
        std::iter::from_fn(|| if too_many() { self.evict_one(key, excess) } else { None }).take(2).collect()
    }

    fn evict_one(&self, key: &K, excess: Excess) -> Option<Arc<Slot<A, H>>> {
        let first = self.at(key);
        let shards = self.shards[first..].iter().chain(&self.shards[..first]);
        shards.into_iter().find_map(|shard| self.evict_from(&mut lock(shard), excess))
    }

    fn evict_from(&self, shard: &mut Shard<K, A, H, S>, excess: Excess) -> Option<Arc<Slot<A, H>>> {
        let map = match excess {
            Excess::Slots => &shard.slots,
            Excess::Actors => &shard.with_actor,
        };
        // A stride that is prime to most lengths, from a place that moves on: no two samples alike, no generator.
        let start = self.cursor.fetch_add(SAMPLE * 7_919, Ordering::Relaxed);
        let (key, _) = (0..SAMPLE.min(map.len()))
            .filter_map(|n| map.get_index((start + n * 7_919) % map.len()))
            .filter(|(_, slot)| slot.is_at_rest())
            .min_by_key(|(_, slot)| slot.used())
            .filter(|(_, slot)| Self::closes(slot))?;
        let key = key.clone();
        self.take(shard, &key)
    }

    /// Takes out every slot at rest that was not used since `before`.
    pub fn evict_idle(&self, before: u64) -> Vec<Arc<Slot<A, H>>> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            let goes = |(_, slot): &(&K, &Arc<Slot<A, H>>)| slot.used() < before && Self::closes(slot);
            let gone: Vec<K> = shard.slots.iter().filter(goes).map(|(key, _)| key.clone()).collect();
            removed.extend(gone.iter().filter_map(|key| self.take(&mut shard, key)));
        }
        removed
    }

    /// Takes out all slots, whatever is in flight: the engine is closed.
    pub fn clear(&self) -> Vec<Arc<Slot<A, H>>> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            if omitted("registry: the end takes every slot out") {
                break;
            }
            let mut shard = lock(shard);
            let all: Vec<K> = shard.slots.keys().cloned().collect();
            removed.extend(all.iter().filter_map(|key| self.take(&mut shard, key)));
        }
        removed
    }
}
