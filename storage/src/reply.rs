//! The reply of one request: answered exactly once, whatever dies (rule R14, invariant I6).
//!
//! A reply moves with its request from the caller through the session actor to the storage thread. It carries the port
//! that leads back to the caller and the guards of what the request occupies. Dropped unanswered, it answers by the
//! stage that the request had reached: before the storage thread took it, it did not happen; after that, it may have.

use crate::{sync::omitted, wake::Wake};

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On its way: nothing happened yet.
    Sent,
    /// In the hands of the storage thread.
    Received,
}

/// Leads an answer back to its caller.
pub trait Port {
    /// The answer.
    type Answer;

    /// Sends the answer; the caller may be gone. Returns whom to wake for it.
    fn send(self, answer: Self::Answer) -> Wake;

    /// Returns the answer for a request that was lost at `stage`.
    fn lost(&self, stage: Stage) -> Self::Answer;

    /// Returns whether nobody waits any more.
    fn is_closed(&self) -> bool;
}

/// The reply of one request. `G` is what the request occupies until it is answered: its permit, its place in the slot.
#[derive(Debug)]
pub struct Reply<P: Port, G> {
    port: Option<P>,
    guards: Option<G>,
    stage: Stage,
    /// The answer that a batch has worked out and that its COMMIT will make true.
    prepared: Option<P::Answer>,
}

impl<P: Port, G> Reply<P, G> {
    /// Wraps the port.
    pub fn new(port: P, guards: G) -> Self {
        Self { port: Some(port), guards: Some(guards), stage: Stage::Sent, prepared: None }
    }

    /// Notes that the storage thread has taken the request.
    pub fn receive(&mut self) {
        self.stage = Stage::Received;
    }

    /// Notes that the request was given up before anything was done for it.
    pub fn give_up(&mut self) {
        self.stage = Stage::Sent;
    }

    /// Keeps the answer back until [`Reply::send`].
    pub fn prepare(&mut self, answer: P::Answer) {
        self.prepared = Some(answer);
    }

    /// Sends the answer that was kept back; returns whom to wake.
    pub fn send(mut self) -> Wake {
        let answer = self.prepared.take();
        self.finish(answer)
    }

    /// Answers at once; returns whom to wake.
    pub fn answer(mut self, answer: P::Answer) -> Wake {
        self.finish(Some(answer))
    }

    /// Returns what the request occupies, until it is answered.
    pub fn guards(&self) -> Option<&G> {
        self.guards.as_ref()
    }

    /// Returns what the request occupies, to change it.
    pub fn guards_mut(&mut self) -> Option<&mut G> {
        self.guards.as_mut()
    }

    /// Returns whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.port.as_ref().is_none_or(P::is_closed)
    }

    fn finish(&mut self, answer: Option<P::Answer>) -> Wake {
        // What the request occupied is free before its caller hears: a next request finds the slot at rest.
        if !omitted("reply: what it occupied is free before its answer") {
            drop(self.guards.take());
        }
        let Some(port) = self.port.take() else { return Wake::nobody() };
        let answer = answer.unwrap_or_else(|| port.lost(self.stage));
        port.send(answer)
    }
}

impl<P: Port, G> Drop for Reply<P, G> {
    fn drop(&mut self) {
        if !omitted("reply: a dropped reply answers") {
            drop(self.finish(None));
        }
    }
}
