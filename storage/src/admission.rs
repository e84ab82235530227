//! Admission: the bound on what is in flight between callers and the storage thread (rule R16).
//!
//! A first-in-first-out semaphore over two quantities at once, requests and their bytes. ractor's mailboxes and the
//! storage channel have no bound of their own; this one stands before them all, so neither can a queue grow without end
//! nor does a tokio worker ever block on a full one.
//!
//! ```text
//!   OPEN ──close──▶ CLOSED ──the last permit is dropped──▶ DRAINED   then the closer's word is passed on, once
//! ```
//!
//! A waiter is granted its permit by the release that makes room, under the lock; wakers are called after unlocking. A
//! waiter that is dropped takes itself out of the queue or, when it had been granted already, gives the room back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    sync::{Arc, Mutex, lock, omitted},
    wake::Wake,
};

/// Why no permit was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room now, or too many wait for it already.
    Full,
    /// Admission is closed for good.
    Closed,
}

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests in flight.
    pub requests_max: usize,
    /// Their bytes. One request larger than this is granted when it is alone; one that grows when it is in
    /// ([`Permit::raise`]) may exceed it.
    pub bytes_max: usize,
    /// Callers that wait for room.
    pub waiters_max: usize,
}

/// The door to the mailboxes.
pub struct Admission {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: usize,
    bytes: usize,
    closed: bool,
    next_ticket: u64,
    /// Who waits, by ticket: in the order in which they came. There may be a quarter of a million, who leave all at once
    /// when the database stands still, and the lock is in everybody's way: each goes in logarithmic time.
    queue: BTreeMap<u64, Waiter>,
    /// Granted and not yet collected by the future that waits.
    granted: BTreeSet<u64>,
    /// Called when admission is closed and nothing is in flight any more.
    on_drained: Option<OnDrained>,
}

type OnDrained = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    waker: Waker,
}

impl Admission {
    /// Opens admission.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default() }
    }

    /// Waits for room for one request of `bytes`. Dropping the future leaves the queue.
    pub fn acquire(self: &Arc<Self>, bytes: usize) -> Acquire {
        Acquire { admission: Arc::clone(self), bytes, ticket: None }
    }

    /// Takes room for one request of `bytes` if there is some and nobody waits for it.
    pub fn try_acquire(self: &Arc<Self>, bytes: usize) -> Result<Permit, Refused> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Refused::Closed);
        }
        if !self.admits(&state, bytes) {
            return Err(Refused::Full);
        }
        state.take(bytes);
        drop(state);
        Ok(Permit { admission: Arc::clone(self), bytes })
    }

    /// Refuses everything from now on; those who wait are refused too. `on_drained` is called when nothing is in flight
    /// any more: here, or by who gives the last permit back. Idempotent: what a second close brings is dropped.
    pub fn close(&self, on_drained: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.state);
        if !state.closed {
            state.closed = true;
            state.on_drained = Some(Box::new(on_drained));
        }
        let waiting = std::mem::take(&mut state.queue);
        let drained = state.take_drained();
        drop(state);
        if !omitted("admission: closing wakes those who wait") {
            wake(waiting.into_values().map(|waiter| waiter.waker));
        }
        if let Some(on_drained) = drained {
            on_drained();
        }
    }

    /// Returns whether admission is closed.
    pub fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Returns requests and bytes in flight, and how many callers wait.
    pub fn load(&self) -> (usize, usize, usize) {
        let state = lock(&self.state);
        (state.requests, state.bytes, state.queue.len())
    }

    /// Whether a newcomer goes in: there is room, and nobody waits for it.
    fn admits(&self, state: &State, bytes: usize) -> bool {
        (state.queue.is_empty() || omitted("admission: nobody overtakes the queue")) && self.has_room(state, bytes)
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.requests < self.bounds.requests_max
            && (state.requests == 0 || state.bytes + bytes <= self.bounds.bytes_max)
    }

    fn release(&self, bytes: usize) {
        let mut woken = Vec::new();
        let mut state = lock(&self.state);
        state.requests -= 1;
        state.bytes -= bytes;
        self.grant(&mut state, &mut woken);
        let drained = if omitted("admission: the last permit tells of the end") { None } else { state.take_drained() };
        drop(state);
        wake(woken);
        if let Some(on_drained) = drained {
            on_drained();
        }
    }

    /// Grants the heads of the queue for which there is room.
    fn grant(&self, state: &mut State, woken: &mut Vec<Waker>) {
        if omitted("admission: a release grants the head of the queue") {
            return;
        }
        while let Some((_, head)) = state.queue.first_key_value()
            && self.has_room(state, head.bytes)
        {
            if let Some((ticket, head)) = state.queue.pop_first() {
                state.take(head.bytes);
                state.granted.insert(ticket);
                woken.push(head.waker);
            }
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Admission").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    /// Takes what is to be called now, if the end has come.
    fn take_drained(&mut self) -> Option<OnDrained> {
        let in_flight = self.requests > 0 && !omitted("admission: the end waits for what is in flight");
        if self.closed && !in_flight { self.on_drained.take() } else { None }
    }
}

/// Waits for a permit; see [`Admission::acquire`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    admission: Arc<Admission>,
    bytes: usize,
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = Result<Permit, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = lock(&this.admission.state);
        if let Some(ticket) = this.ticket {
            if state.granted.remove(&ticket) {
                this.ticket = None;
            } else if let Some(Waiter { waker, .. }) = state.queue.get_mut(&ticket) {
                let old = if waker.will_wake(context.waker()) {
                    None
                } else {
                    Some(std::mem::replace(waker, context.waker().clone()))
                };
                // A waker's drop is the caller's code, which may come back here.
                drop(state);
                drop(old);
                return Poll::Pending;
            } else {
                this.ticket = None;
                return Poll::Ready(Err(Refused::Closed));
            }
        } else if state.closed {
            return Poll::Ready(Err(Refused::Closed));
        } else if this.admission.admits(&state, this.bytes) {
            state.take(this.bytes);
        } else if state.queue.len() >= this.admission.bounds.waiters_max {
            return Poll::Ready(Err(Refused::Full));
        } else {
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.queue.insert(ticket, Waiter { bytes: this.bytes, waker: context.waker().clone() });
            this.ticket = Some(ticket);
            return Poll::Pending;
        }
        drop(state);
        Poll::Ready(Ok(Permit { admission: Arc::clone(&this.admission), bytes: this.bytes }))
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = lock(&self.admission.state);
        if state.granted.remove(&ticket) {
            drop(state);
            if !omitted("admission: a granted waiter that is dropped gives its room back") {
                self.admission.release(self.bytes);
            }
            return;
        }
        let waiter = state.queue.remove(&ticket);
        // It may have been the head, too large for the room there is, with smaller ones behind it.
        let mut woken = Vec::new();
        self.admission.grant(&mut state, &mut woken);
        drop(state);
        // A waker's drop is the caller's code, which may come back here.
        drop(waiter);
        wake(woken);
    }
}

/// Wakes them all, whatever one of them does.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(|waker| drop(Wake::from(Some(waker))));
}

/// Room for one request; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Permit {
    /// Takes room for `bytes` in all, now that the request is known to have so many. It does not wait, for it is in
    /// already: those who come next do.
    pub fn raise(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        lock(&self.admission.state).bytes += more;
        self.bytes += more;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.release(self.bytes);
    }
}
