//! The way of one answer to the task that waits for it.
//!
//! ```text
//!   WAITING ──send──▶ SENT ──poll──▶ OVER
//!      └── the receiver goes, or the sender without an answer ──▶ OVER
//! ```
//!
//! Unlike others of its name, to send is not to wake: that is the [`Wake`] which it returns.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    sync::{Arc, Mutex, lock, omitted},
    wake::Wake,
};

#[derive(Debug)]
enum State<T> {
    /// By this waker, once the receiver was polled.
    Waiting(Option<Waker>),
    Sent(T),
    Over,
}

#[derive(Debug)]
struct Line<T>(Mutex<State<T>>);

impl<T> Line<T> {
    /// Ends it, and returns as what.
    fn end(&self) -> State<T> {
        std::mem::replace(&mut *lock(&self.0), State::Over)
    }
}

/// Sends the answer.
#[derive(Debug)]
pub struct Sender<T>(Option<Arc<Line<T>>>);

/// Waits for the answer; `None` if none can come any more.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Receiver<T>(Arc<Line<T>>);

/// Makes both ends.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let line = Arc::new(Line(Mutex::new(State::Waiting(None))));
    (Sender(Some(Arc::clone(&line))), Receiver(line))
}

impl<T> Sender<T> {
    /// Sends. The receiver may be gone.
    pub fn send(mut self, answer: T) -> Wake {
        let Some(line) = self.0.take() else { return Wake::nobody() };
        let mut state = lock(&line.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Sent(answer);
            drop(state);
            return if omitted("oneshot: who waits is woken") { Wake::nobody() } else { Wake::from(waker) };
        }
        drop(state);
        // Only now: its drop is the application's code.
        drop(answer);
        Wake::nobody()
    }

    /// Returns whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|line| matches!(*lock(&line.0), State::Over))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(line) = self.0.take()
            && let State::Waiting(waker) = line.end()
        {
            drop(Wake::from(waker));
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0.0);
        match &mut *state {
            State::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                let old = waker.replace(context.waker().clone());
                drop(state);
                // A waker's drop is the caller's code, which may come back here.
                drop(old);
                Poll::Pending
            }
            State::Sent(_) | State::Over => {
                drop(state);
                Poll::Ready(match self.0.end() {
                    State::Sent(answer) => Some(answer),
                    State::Waiting(_) | State::Over => None,
                })
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if !omitted("oneshot: a receiver that goes is seen") {
            drop(self.0.end());
        }
    }
}
