//! Stands in for crossbeam's unbounded channel: a lock, a condition variable, and the same words and ends.
//!
//! `mailbox_suite` runs on both.

use std::{collections::VecDeque, time::Instant};

use crossbeam_channel::RecvError;
pub(crate) use crossbeam_channel::{RecvTimeoutError, SendError, TryRecvError};

use crate::sync::{Arc, Condvar, Mutex, lock, omitted};

#[derive(Debug)]
struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Channel<T>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, has_receiver: true };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = lock(&self.0.state);
        if !state.has_receiver {
            drop(state);
            return Err(SendError(message));
        }
        state.queue.push_back(message);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.state).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        lock(&self.0.state).senders -= 1;
        if !omitted("channel: the last sender wakes the receiver") {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let mut state = lock(&self.0.state);
        loop {
            match state.queue.pop_front() {
                Some(message) => return Ok(message),
                None if state.senders == 0 => return Err(RecvError),
                None => state = self.0.changed.wait(state).expect("a panic ends the model"),
            }
        }
    }

    /// Time does not pass in a model.
    pub(crate) fn recv_deadline(&self, _: Instant) -> Result<T, RecvTimeoutError> {
        self.recv().map_err(|RecvError| RecvTimeoutError::Disconnected)
    }

    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = lock(&self.0.state);
        match state.queue.pop_front() {
            Some(message) => Ok(message),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.has_receiver = omitted("channel: a send finds the receiver gone");
        let discarded = if omitted("channel: the receiver takes the queue with it") {
            VecDeque::new()
        } else {
            std::mem::take(&mut state.queue)
        };
        drop(state);
        // What a message does when it is dropped may come back here.
        drop(discarded);
    }
}
