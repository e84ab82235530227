//! The switch's third side: what `crate::sync` is in `storage` and in `actors`, of shuttle's types.

pub(crate) use std::sync::Arc;

pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
};

use crate::explore::is_on;

#[allow(dead_code, unused_imports, reason = "shared with loom's models")]
#[path = "../loom/channel.rs"]
pub(crate) mod channel;

/// Locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the model")
}

/// Locks where that needs no waiting.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// The ordering of a coordinating access: of no account here.
pub(crate) const fn ordering(_mutant: &str, strong: Ordering) -> Ordering {
    strong
}

/// Whether a named step is left out: with its mutant on.
pub(crate) fn omitted(mutant: &str) -> bool {
    is_on(mutant)
}
