//! The switch's other side: what `crate::sync` is in `storage` and in `actors`, of loom's types.

pub(crate) use std::sync::Arc;

pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use crate::explore::is_on;

#[path = "channel.rs"]
pub(crate) mod channel;

/// Locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("loom's mutex is not poisoned")
}

/// Locks where that needs no waiting.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// The ordering of a coordinating access; `Relaxed` with its mutant on.
pub(crate) fn ordering(mutant: &str, strong: Ordering) -> Ordering {
    if is_on(mutant) { Ordering::Relaxed } else { strong }
}

/// Whether a named step is left out: with its mutant on.
pub(crate) fn omitted(mutant: &str) -> bool {
    is_on(mutant)
}
