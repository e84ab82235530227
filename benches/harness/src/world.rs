//! The sessions as all clients of a store know them, and one client's share of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    payload::Payloads,
    plan::{Op, Plan},
};

/// One operation to do.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// Which session, among all.
    pub session: usize,
    /// Which session, among those of the client that are in use; for the operations on these.
    pub place: usize,
    /// Which save of the session it is.
    pub sequence: u64,
}

/// The sessions that a store was filled with. Session `n` has the id `ids[n]`.
#[derive(Debug)]
pub struct World {
    /// The ids.
    pub ids: Vec<Box<str>>,
    /// Makes their data.
    pub payloads: Arc<Payloads>,
    /// How many are in use. They are spread evenly, so that they share no pages more than others do.
    live: usize,
    /// Those not in use, shuffled: read in turn, each was last read so long ago that it is in no memory of sessions.
    cold: Vec<usize>,
    cold_next: AtomicUsize,
    /// The number for the next session created.
    created_next: AtomicUsize,
}

impl World {
    /// Divides sessions into those in use and others.
    pub fn new(plan: &Plan, ids: Vec<Box<str>>, payloads: Arc<Payloads>) -> Self {
        let live = plan.live();
        let spread = plan.sessions / live;
        let mut cold: Vec<usize> =
            (0..plan.sessions).filter(|session| session % spread != 0 || session / spread >= live).collect();
        if cold.is_empty() {
            cold = (0..plan.sessions).collect();
        }
        fastrand::Rng::with_seed(0).shuffle(&mut cold);
        let created_next = AtomicUsize::new(ids.len());
        Self { ids, payloads, live, cold, cold_next: AtomicUsize::new(0), created_next }
    }

    /// Returns the sessions that are in use and belong to client `client` of `clients`. Only where clients outnumber
    /// sessions do two share one.
    pub fn live_of(&self, client: usize, clients: usize) -> Vec<usize> {
        let spread = self.ids.len() / self.live;
        (client % self.live..self.live).step_by(clients).map(|place| place * spread).collect()
    }

    fn cold(&self) -> usize {
        self.cold[self.cold_next.fetch_add(1, Ordering::Relaxed) % self.cold.len()]
    }

    fn created(&self) -> usize {
        self.created_next.fetch_add(1, Ordering::Relaxed)
    }
}

/// A session that belongs to a client, and what the client did to it.
#[derive(Debug, Clone, Copy)]
pub struct Owned {
    /// Which session, among all.
    pub session: usize,
    /// The number of its last save.
    pub sequence: u64,
    /// Touches since the client began.
    pub touches: u64,
}

/// One client's share of the sessions. It counts what it gives out to do: an operation that fails ends the whole run,
/// so whatever was given out is acknowledged in the end.
#[derive(Debug)]
pub struct Share {
    /// The sessions in use that belong to the client.
    pub owned: Vec<Owned>,
    random: fastrand::Rng,
}

impl Share {
    /// Makes the share of a client; `seed` decides in which order it turns to its sessions.
    pub fn new(owned: Vec<Owned>, seed: u64) -> Self {
        Self { owned, random: fastrand::Rng::with_seed(seed) }
    }

    /// Chooses what to do next.
    pub fn next(&mut self, op: Op, world: &World) -> Item {
        match op {
            Op::Create => Item { session: world.created(), place: 0, sequence: 0 },
            Op::GetCold => Item { session: world.cold(), place: 0, sequence: 0 },
            Op::Get | Op::Save | Op::Touch | Op::TouchCommitted => {
                let place = self.random.usize(..self.owned.len());
                self.of(op, place)
            }
        }
    }

    /// Does an operation to the client's session at `place`.
    pub fn of(&mut self, op: Op, place: usize) -> Item {
        let owned = &mut self.owned[place];
        match op {
            Op::Save => owned.sequence += 1,
            Op::Touch | Op::TouchCommitted => owned.touches += 1,
            Op::Create | Op::Get | Op::GetCold => {}
        }
        Item { session: owned.session, place, sequence: owned.sequence }
    }
}
