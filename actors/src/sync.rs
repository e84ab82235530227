//! The one switch between std's primitives and loom's, for the pure modules here (`slot`, `registry`, `early`).
//!
//! See the module of the same name in `sessile-storage`.

pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, TryLockError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Locks, also when a thread panicked while it held the lock: no critical section here leaves a half-done state behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks where that needs no waiting.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Whether a named step is left out. Only ever true under loom, where a model must then fail.
pub(crate) const fn omitted(_mutant: &str) -> bool {
    false
}
