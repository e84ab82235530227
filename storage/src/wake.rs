//! Waking those whose answers are there.
//!
//! A batch answers many at once. To wake a task of a sleeping runtime takes a call to the kernel, which may well give the
//! processor to the woken thread at once; that serves its one task, finds no other, and sleeps again: a switch there and back
//! for every answer. So who is woken first helps to wake the others, for which its own runtime needs no kernel.
//!
//! ```text
//!   storage thread   all answers are there ──add──▶ [ wake, wake, wake … ] ──▶ wakes one after another, until none is left
//!   who was woken                                          └──────help───────▶ the same
//! ```
//!
//! The storage thread depends on nobody's help: a runtime that stands still delays only its own tasks.

use std::{collections::VecDeque, task::Waker};

use crate::{
    panic::contain,
    sync::{AtomicUsize, Mutex, Ordering, lock, omitted},
};

/// Someone to wake, or nobody: done when this is dropped.
#[derive(Debug)]
#[must_use = "to drop it is to wake"]
pub struct Wake(Option<Waker>);

impl Wake {
    /// Wakes nobody.
    pub fn nobody() -> Self {
        Self(None)
    }
}

impl From<Option<Waker>> for Wake {
    fn from(waker: Option<Waker>) -> Self {
        Self(waker)
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            // The code of some executor, whose panic is no business of whoever wakes.
            drop(contain(|| waker.wake()));
        }
    }
}

/// How many one caller helps to wake: a few microseconds. Each of them helps in its turn.
const HELP_MAX: usize = 32;

/// Those to wake whose answers are there.
#[derive(Debug, Default)]
pub struct Wakes {
    waiting: Mutex<VecDeque<Wake>>,
    /// How many they are: a hint by which helpers look.
    count: AtomicUsize,
}

impl Wakes {
    /// Wakes them all, in order; with the help of those woken first.
    pub fn wake_all(&self, wakes: Vec<Wake>) {
        if wakes.len() < 2 {
            return drop(wakes);
        }
        let mut waiting = lock(&self.waiting);
        waiting.extend(wakes);
        self.count.store(waiting.len(), Ordering::Relaxed);
        drop(waiting);
        while self.wake_one() && !omitted("wakes: the storage thread goes on to the end") {}
    }

    /// Wakes some of those that wait, if there are any.
    pub fn help(&self) {
        for _ in 0..HELP_MAX {
            if self.count.load(Ordering::Relaxed) == 0 || !self.wake_one() {
                break;
            }
        }
    }

    fn wake_one(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        let next = waiting.pop_front();
        self.count.store(waiting.len(), Ordering::Relaxed);
        drop(waiting);
        // Woken without the lock: it may come back here.
        next.is_some()
    }
}
