//! A watcher that makes the nth call of a kind fail.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Call, CallKind, FileKind, Verdict, Watcher};

/// For how many calls a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Once,
    /// So many calls of its kind.
    Count(u64),
    /// Until [`Breaker::lift`].
    ForEver,
}

/// Makes calls fail, from the nth of a kind on a kind of file.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls seen of each kind.
    seen: BTreeMap<(CallKind, FileKind), u64>,
    faults: Vec<Fault>,
    hits: u64,
}

#[derive(Debug)]
struct Fault {
    call: CallKind,
    file: FileKind,
    /// How many calls of its kind still pass.
    to_pass: u64,
    /// How many then fail; `None` for all.
    left: Option<u64>,
    verdict: Verdict,
}

impl Breaker {
    /// Makes one that lets everything pass.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Orders a fault: the `nth` call of its kind from now on (0 for the next), and then as long as it lasts.
    pub fn order(&self, call: CallKind, file: FileKind, nth: u64, times: Times, verdict: Verdict) {
        let left = match times {
            Times::Once => Some(1),
            Times::Count(count) => Some(count),
            Times::ForEver => None,
        };
        self.state().faults.push(Fault { call, file, to_pass: nth, left, verdict });
    }

    /// Takes all faults back.
    pub fn lift(&self) {
        self.state().faults.clear();
    }

    /// Returns how many calls met a fault.
    pub fn hits(&self) -> u64 {
        self.state().hits
    }

    /// Returns how many calls of a kind there were.
    pub fn seen(&self, call: CallKind, file: FileKind) -> u64 {
        self.state().seen.get(&(call, file)).copied().unwrap_or(0)
    }

    /// Returns how many calls of each kind there were.
    pub fn census(&self) -> BTreeMap<(CallKind, FileKind), u64> {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for Breaker {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut state = self.state();
        *state.seen.entry((call.kind, call.file)).or_default() += 1;
        let mut verdict = Verdict::Pass;
        for fault in state.faults.iter_mut().filter(|fault| (fault.call, fault.file) == (call.kind, call.file)) {
            if fault.to_pass > 0 {
                fault.to_pass -= 1;
            } else if fault.left != Some(0) {
                fault.left = fault.left.map(|left| left - 1);
                verdict = fault.verdict;
            }
        }
        if verdict != Verdict::Pass {
            state.hits += 1;
        }
        verdict
    }
}
