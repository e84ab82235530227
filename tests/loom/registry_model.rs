//! The registry: never two open slots for a session, and each slot taken out is handed out once (R13, I2).

use std::{
    collections::hash_map::DefaultHasher,
    hash::BuildHasherDefault,
    sync::{Mutex, PoisonError},
};

use loom::thread::{self, JoinHandle};

use crate::{
    actor::NoActor,
    explore::{
        Preemptions::{AtMost, Unbounded},
        explore,
    },
    join,
    registry::{self, Bounds},
    slot,
    sync::Arc,
};

type Slot = slot::Slot<NoActor, ()>;
// Loom needs each run to be the same: no random seed.
type Registry = registry::Registry<u8, NoActor, (), BuildHasherDefault<DefaultHasher>>;

/// A registry, and what the model saw of it.
struct Seen {
    registry: Registry,
    /// Every slot that was ever entered, with its session. Not loom's: it is the model that looks, not the code.
    known: Mutex<Vec<(u8, Arc<Slot>)>>,
    /// Every slot that was handed out to be let go.
    removed: Mutex<Vec<Arc<Slot>>>,
}

impl Seen {
    fn new(slots_max: usize) -> Arc<Self> {
        let registry = Registry::new(1, Bounds { slots_max, actors_max: 9 }, BuildHasherDefault::default());
        Arc::new(Self { registry, known: Mutex::default(), removed: Mutex::default() })
    }

    /// Enters a session. While its slot is in flight, no other slot of the session can be entered.
    fn enter(&self, session: u8) -> Arc<Slot> {
        let entered = self.registry.enter(&session, 1, || ());
        let slot = entered.slot;
        self.let_go(entered.removed);
        let others = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let others: Vec<_> =
                known.iter().filter(|(of, other)| *of == session && !Arc::ptr_eq(other, &slot)).cloned().collect();
            if !known.iter().any(|(_, other)| Arc::ptr_eq(other, &slot)) {
                known.push((session, Arc::clone(&slot)));
            }
            others
        };
        for (_, other) in others {
            assert!(!other.enter(), "two slots of a session are open");
        }
        slot
    }

    fn let_go(&self, slots: impl IntoIterator<Item = Arc<Slot>>) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots {
            assert!(!removed.iter().any(|other| Arc::ptr_eq(other, &slot)), "handed out twice");
            removed.push(slot);
        }
    }

    fn removed(&self) -> usize {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The end of the engine takes out what is left; then all that were known have been handed out.
    fn end(&self) {
        assert_eq!(self.registry.len() + self.removed(), self.known.lock().unwrap().len());
        self.let_go(self.registry.clear());
        assert!(self.registry.is_empty());
        let known = std::mem::take(&mut *self.known.lock().unwrap());
        let removed = std::mem::take(&mut *self.removed.lock().unwrap());
        assert_eq!(known.len(), removed.len());
        for (_, slot) in known {
            assert!(removed.iter().any(|other| Arc::ptr_eq(other, &slot)), "never handed out");
        }
    }
}

fn spawn(seen: &Arc<Seen>, body: impl FnOnce(&Seen) + 'static) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    thread::spawn(move || body(&seen))
}

#[test]
fn a_session_has_one_open_slot_while_it_is_evicted() {
    explore(Unbounded, || {
        let seen = Seen::new(9);
        let request = |seen: &Seen| seen.enter(1).leave();
        let threads =
            [spawn(&seen, request), spawn(&seen, request), spawn(&seen, |seen| seen.let_go(seen.registry.evict(&1)))];
        join(threads);
        seen.end();
    });
}

mutant!(evict_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by a_session_has_one_open_slot_while_it_is_evicted);
mutant!(forget_slots_at_the_end:
    "registry: the end takes every slot out"
    is killed by a_session_has_one_open_slot_while_it_is_evicted);

#[test]
fn a_session_has_one_open_slot_while_idle_ones_are_evicted() {
    explore(Unbounded, || {
        let seen = Seen::new(9);
        let request = |seen: &Seen| seen.enter(1).leave();
        let threads = [
            spawn(&seen, request),
            spawn(&seen, request),
            spawn(&seen, |seen| seen.let_go(seen.registry.evict_idle(2))),
        ];
        join(threads);
        for slot in &*seen.removed.lock().unwrap() {
            assert!(!slot.is_open());
        }
        seen.end();
    });
}

mutant!(evict_idle_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by a_session_has_one_open_slot_while_idle_ones_are_evicted);

#[test]
fn idle_eviction_leaves_what_is_in_flight() {
    explore(Unbounded, || {
        let seen = Seen::new(9);
        let evictor = spawn(&seen, |seen| seen.let_go(seen.registry.evict_idle(2)));
        let slot = seen.enter(1);
        assert!(slot.is_open(), "evicted in flight");
        slot.leave();
        evictor.join().unwrap();
        seen.end();
    });
}

mutant!(evict_in_flight:
    "slot: it closes at rest only"
    is killed by idle_eviction_leaves_what_is_in_flight);

#[test]
fn a_dead_slot_is_replaced_once_and_its_successor_stays() {
    explore(AtMost(3), || {
        let seen = Seen::new(9);
        let dead = seen.enter(1);
        assert!(dead.die().is_none(), "it had no actor");
        // As a sender does whose message came back: takes the dead slot out, and enters the session anew.
        let again = |slot: Arc<Slot>| {
            move |seen: &Seen| {
                if seen.registry.remove(&1, &slot) {
                    seen.let_go([slot]);
                }
                let successor = seen.enter(1);
                assert!(successor.is_open());
                successor.leave();
            }
        };
        let threads = [spawn(&seen, again(Arc::clone(&dead))), spawn(&seen, again(dead))];
        join(threads);
        assert_eq!((seen.removed(), seen.registry.len()), (1, 1));
        seen.end();
    });
}

mutant!(take_the_successor_out:
    "registry: only the slot itself is taken out"
    is killed by a_dead_slot_is_replaced_once_and_its_successor_stays);

#[test]
fn too_many_slots_drive_out_those_at_rest() {
    explore(AtMost(3), || {
        let seen = Seen::new(1);
        let request = |session: u8| move |seen: &Seen| seen.enter(session).leave();
        let threads = [spawn(&seen, request(1)), spawn(&seen, request(2)), spawn(&seen, request(1))];
        join(threads);
        seen.end();
    });
}

mutant!(drive_out_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by too_many_slots_drive_out_those_at_rest);
