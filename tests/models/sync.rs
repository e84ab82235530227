//! The switch's other side: what `crate::sync` is in `storage` and in `actors`, of the explorer's types.

pub(crate) use std::sync::Arc;

pub(crate) use crate::explorer::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};
pub(crate) use crate::mutants::is_on as omitted;

#[path = "channel.rs"]
pub(crate) mod channel;

/// Locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the model")
}

/// Locks where that needs no waiting.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// The ordering of a coordinating access; `Relaxed` with its mutant on, which only loom takes account of.
pub(crate) fn ordering(mutant: &str, strong: Ordering) -> Ordering {
    if omitted(mutant) { Ordering::Relaxed } else { strong }
}
