//! Stands in for a ractor actor: a mailbox with the weaknesses of the real one, and the reference that leads to it.

use crate::{
    slot::ActorPort,
    sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, lock},
};

/// A session actor's mailbox. It may be closed between a sender's look and its push: a message that comes so late lies
/// there until the last reference to the actor goes. A drain before the actor has started drops what is queued. What the
/// real one does is told by `contracts/actors.rs`.
struct Mailbox<M> {
    inbox: Mutex<Inbox<M>>,
    changed: Condvar,
    is_closed: AtomicBool,
}

struct Inbox<M> {
    queue: Vec<M>,
    has_started: bool,
    is_draining: bool,
}

/// Leads to an actor; the actor itself has one too.
pub(crate) struct ActorRef<M>(Arc<Mailbox<M>>);

impl<M> ActorRef<M> {
    pub(crate) fn new() -> Self {
        let inbox = Mutex::new(Inbox { queue: Vec::new(), has_started: false, is_draining: false });
        Self(Arc::new(Mailbox { inbox, changed: Condvar::new(), is_closed: AtomicBool::new(false) }))
    }

    /// Waits for what comes; `None` once drained. The first call is the actor's start.
    pub(crate) fn receive(&self) -> Option<Vec<M>> {
        let mut inbox = lock(&self.0.inbox);
        let starts = !std::mem::replace(&mut inbox.has_started, true);
        if starts && inbox.is_draining {
            return None;
        }
        while inbox.queue.is_empty() && !inbox.is_draining {
            inbox = self.0.changed.wait(inbox).expect("a panic ends the model");
        }
        let messages = std::mem::take(&mut inbox.queue);
        (!messages.is_empty()).then_some(messages)
    }

    /// Takes nothing any more, and drops what is queued.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        let discarded = std::mem::take(&mut lock(&self.0.inbox).queue);
        drop(discarded);
    }

    pub(crate) fn has_queued(&self) -> bool {
        !lock(&self.0.inbox).queue.is_empty()
    }
}

impl<M> Clone for ActorRef<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> ActorPort for ActorRef<M> {
    type Message = M;

    fn send(&self, message: M) -> Result<(), M> {
        if self.0.is_closed.load(Ordering::Acquire) {
            return Err(message);
        }
        lock(&self.0.inbox).queue.push(message);
        self.0.changed.notify_one();
        Ok(())
    }

    fn drain(&self) {
        lock(&self.0.inbox).is_draining = true;
        self.0.changed.notify_one();
    }
}

/// Where requests go straight to storage, or no actor is brought up.
#[derive(Debug)]
pub(crate) struct NoActor;

impl ActorPort for NoActor {
    type Message = ();

    fn send(&self, (): ()) -> Result<(), ()> {
        Err(())
    }

    fn drain(&self) {}
}
