//! The storage thread's mailbox: an unbounded channel behind admission (rule R17).
//!
//! The channel is unbounded on purpose. Admission is the bound; a bounded crossbeam channel would strand the replies
//! queued in it when its receiver dies, and would block a tokio worker when full.

use std::time::Instant;

use crate::sync::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};

/// The sending end; cheap to clone.
#[derive(Debug)]
pub struct Mailbox<C> {
    sender: Sender<C>,
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone() }
    }
}

/// The receiving end; one, owned by the storage thread's outer loop.
#[derive(Debug)]
pub struct Inbox<C> {
    receiver: Receiver<C>,
}

/// What waiting for a command brought.
#[derive(Debug)]
pub enum Received<C> {
    /// A command.
    Command(C),
    /// Nothing by the deadline.
    TimedOut,
    /// No command can come any more.
    Disconnected,
}

/// Makes a mailbox.
pub fn mailbox<C>() -> (Mailbox<C>, Inbox<C>) {
    let (sender, receiver) = channel::unbounded();
    (Mailbox { sender }, Inbox { receiver })
}

impl<C> Mailbox<C> {
    /// Sends a command; never blocks. When the thread is gone the command is dropped, which answers its reply.
    pub fn send(&self, command: C) {
        drop(self.sender.send(command));
    }
}

impl<C> Inbox<C> {
    /// Waits for a command until `deadline`, without end where there is none.
    pub fn receive(&self, deadline: Option<Instant>) -> Received<C> {
        match deadline {
            None => self.receiver.recv().map_or(Received::Disconnected, Received::Command),
            Some(deadline) => match self.receiver.recv_deadline(deadline) {
                Ok(command) => Received::Command(command),
                Err(RecvTimeoutError::Timeout) => Received::TimedOut,
                Err(RecvTimeoutError::Disconnected) => Received::Disconnected,
            },
        }
    }

    /// Takes a command that is there already.
    pub fn try_receive(&self) -> Received<C> {
        match self.receiver.try_recv() {
            Ok(command) => Received::Command(command),
            Err(TryRecvError::Empty) => Received::TimedOut,
            Err(TryRecvError::Disconnected) => Received::Disconnected,
        }
    }
}
