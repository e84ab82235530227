//! The one switch between std's primitives and loom's.
//!
//! The *pure* modules (`cell`, `dirty`, `held`, `admission`, `reply`, `oneshot`, `wake`, `mailbox`, `health`) take every primitive from here and
//! import nothing else but each other, and `panic`. The test crate compiles the very same files beside a `sync` of its own made of
//! loom's types, so what loom explores is the code that ships (invariant I11).

pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

/// The channel under the mailbox.
pub(crate) use crossbeam_channel as channel;

/// Locks, also when a thread panicked while it held the lock: no critical section here leaves a half-done state behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The ordering of a coordinating access. Under loom a mutant of this name weakens it to `Relaxed`, and the model must
/// then fail.
pub(crate) const fn ordering(_mutant: &str, strong: Ordering) -> Ordering {
    strong
}

/// Whether a named step is left out. Only ever true under loom, where a model must then fail.
pub(crate) const fn omitted(_mutant: &str) -> bool {
    false
}
