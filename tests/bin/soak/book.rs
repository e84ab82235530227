//! The journal of a soak: a ledger in the same process, and how long requests took.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use sessile_tests::load::{Entry, Journal, Ledger, Step};

/// Latencies are kept to two digits: windows differ by more.
const LATENCY_DIGITS: u8 = 2;
/// The longest latency told apart, in nanoseconds: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Latencies by what was asked.
pub(crate) type Latencies = BTreeMap<&'static str, Histogram<u64>>;

/// Follows the load.
pub(crate) struct Book {
    ledger: Mutex<Ledger>,
    /// Of all the run.
    all: Mutex<Latencies>,
    /// Since the last sample.
    window: Mutex<Latencies>,
}

impl Book {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger: Mutex::new(ledger), all: Mutex::default(), window: Mutex::default() }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Takes the latencies since it was last asked.
    pub(crate) fn take_window(&self) -> Latencies {
        std::mem::take(&mut lock(&self.window))
    }

    pub(crate) fn latencies(&self) -> Latencies {
        lock(&self.all).clone()
    }
}

impl Journal for Book {
    fn enter(&self, entry: Entry) {
        self.ledger().enter(entry);
    }

    fn took(&self, step: &Step, took: Duration) {
        let what = match step {
            Step::Touch { committed: false, .. } => "touch",
            Step::Touch { committed: true, .. } => "touch, committed",
            Step::Get { .. } => "get",
            Step::Create { .. } => "create",
            Step::Save { synced: true, .. } => "save, synced",
            Step::Save { .. } | Step::SaveIf { .. } | Step::SaveStale { .. } | Step::Apply { .. } => "save",
            Step::Update { .. } => "update",
            Step::Rotate { .. } => "rotate",
            Step::Delete { .. } => "delete",
            Step::DeleteWhere { .. } => "delete where",
            Step::Flush => "flush",
        };
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).clamp(1, LATENCY_MAX_NS);
        for latencies in [&self.all, &self.window] {
            lock(latencies)
                .entry(what)
                .or_insert_with(|| {
                    Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS).expect("the bounds are sound")
                })
                .saturating_record(nanoseconds);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
