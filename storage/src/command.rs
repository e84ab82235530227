//! What the storage thread is asked, and the replies that go with it.

use std::{fmt, sync::Arc};

use crate::{
    admission::Permit,
    change::Change,
    error::{Cause, CauseKind, Error, InterruptedBy, Result},
    held::Held,
    id::{SessionId, Version},
    oneshot::Sender,
    panic::contain,
    query::{Filter, Page, Query},
    record::{Durability, Record, Stored},
    reply::{Port, Reply, Stage},
    wake::Wake,
};

/// What a live session holds in memory.
pub type HeldRecord = Held<Stored>;

/// Where an answer goes other than to a caller: to a ractor reply port, to a session actor.
pub trait Sink<T>: Send {
    /// Sends the answer; the receiver may be gone.
    fn send(self: Box<Self>, answer: Result<T>);

    /// Returns whether the receiver is gone.
    fn is_closed(&self) -> bool;
}

/// A port to anywhere.
pub enum AnyPort<T> {
    /// To a caller who awaits the answer.
    Caller(Sender<Result<T>>),
    /// To anybody else.
    Sink(Box<dyn Sink<T>>),
}

impl<T> AnyPort<T> {
    /// Wraps a sink.
    pub fn new(sink: impl Sink<T> + 'static) -> Self {
        Self::Sink(Box::new(sink))
    }
}

impl<T> fmt::Debug for AnyPort<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AnyPort")
    }
}

impl<T> Port for AnyPort<T> {
    type Answer = Result<T>;

    fn send(self, answer: Result<T>) -> Wake {
        match self {
            Self::Caller(sender) => sender.send(answer),
            Self::Sink(sink) => {
                // It may wake somebody, which is an executor's code.
                drop(contain(|| sink.send(answer)));
                Wake::nobody()
            }
        }
    }

    fn lost(&self, stage: Stage) -> Result<T> {
        Err(match stage {
            Stage::Sent => {
                Error::Unavailable { cause: Cause::new(CauseKind::Other, "the request was dropped unserved") }
            }
            Stage::Received => Error::Interrupted { by: InterruptedBy::StorageDied },
        })
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Caller(sender) => sender.is_closed(),
            Self::Sink(sink) => sink.is_closed(),
        }
    }
}

/// A session's place in which a request counts as in flight.
pub trait InFlight: Send + Sync {
    /// Counts one request less.
    fn leave(&self);
}

/// What a request occupies until it is answered.
pub struct Occupied {
    /// Room in admission; internal requests need none.
    permit: Option<Permit>,
    /// Its place in the session's slot.
    slot: Option<Arc<dyn InFlight>>,
    /// Monotonic microseconds past which it is not worth beginning.
    deadline: i64,
}

impl Occupied {
    /// For a request that goes straight to storage.
    pub fn by_permit(permit: Permit, deadline: i64) -> Self {
        Self { permit: Some(permit), slot: None, deadline }
    }

    /// For a request of the engine itself.
    pub fn nothing() -> Self {
        Self { permit: None, slot: None, deadline: i64::MAX }
    }

    /// Adds a place in a slot, which [`InFlight::leave`] gives back.
    #[must_use]
    pub fn in_slot(mut self, slot: Arc<dyn InFlight>) -> Self {
        self.slot = Some(slot);
        self
    }
}

impl Occupied {
    /// Moves the request's place to another slot, which was entered for it.
    fn move_to(&mut self, slot: Arc<dyn InFlight>) {
        if let Some(left) = self.slot.replace(slot) {
            left.leave();
        }
    }
}

impl fmt::Debug for Occupied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Occupied").field("permit", &self.permit).finish_non_exhaustive()
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.leave();
        }
    }
}

/// The reply of a request.
pub type ReplyTo<T> = Reply<AnyPort<T>, Occupied>;

/// A reply whatever its answer's type.
pub trait AnyReply {
    /// Notes that the storage thread has the request.
    fn receive(&mut self);
    /// Keeps an error back as the answer.
    fn prepare_error(&mut self, error: Error);
    /// Returns whether nobody waits any more.
    fn is_abandoned(&self) -> bool;
    /// Returns the monotonic microseconds past which the request is not worth beginning.
    fn deadline(&self) -> i64;
    /// Moves the request's place to another slot, which was entered for it.
    fn move_to(&mut self, slot: Arc<dyn InFlight>);
    /// Notes that the request has come to carry `bytes` of payload.
    fn weigh(&mut self, bytes: usize);
}

impl<T> AnyReply for ReplyTo<T> {
    fn receive(&mut self) {
        Reply::receive(self);
    }

    fn prepare_error(&mut self, error: Error) {
        self.prepare(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        Reply::is_abandoned(self)
    }

    fn deadline(&self) -> i64 {
        self.guards().map_or(i64::MAX, |occupied| occupied.deadline)
    }

    fn move_to(&mut self, slot: Arc<dyn InFlight>) {
        if let Some(occupied) = self.guards_mut() {
            occupied.move_to(slot);
        }
    }

    fn weigh(&mut self, bytes: usize) {
        if let Some(permit) = self.guards_mut().and_then(|occupied| occupied.permit.as_mut()) {
            permit.raise(bytes);
        }
    }
}

/// The session that a command is for.
#[derive(Debug)]
pub struct Target {
    /// Its id.
    pub id: SessionId,
    /// The memory to bind and to publish to, if the session is live.
    pub held: Option<Arc<HeldRecord>>,
}

/// A command to the storage thread.
#[derive(Debug)]
pub enum Command {
    /// Creates a session, or finds the one that has the id.
    Create {
        /// Its id.
        id: SessionId,
        /// All else.
        change: Arc<Change>,
        /// Whether one that is there will do.
        or_existing: bool,
        /// When it was asked for, in engine time.
        at: i64,
        /// What the acknowledgement promises.
        durability: Durability,
        /// Whether it was created.
        reply: ReplyTo<bool>,
    },
    /// Reads a session.
    Get {
        /// The session.
        target: Target,
        /// Its record, if it is there.
        reply: ReplyTo<Option<Record>>,
    },
    /// Counts a touch that found no live cell, or one to be committed.
    Touch {
        /// The session.
        target: Target,
        /// When it came, in engine time.
        at: i64,
        /// What the acknowledgement promises; `None` for what lazy touches promise.
        durability: Option<Durability>,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Changes a session.
    Write {
        /// The session.
        target: Target,
        /// What changes.
        change: Arc<Change>,
        /// The new id, for a rotation.
        rotate_to: Option<SessionId>,
        /// When it was asked for, in engine time.
        at: i64,
        /// What the acknowledgement promises.
        durability: Durability,
        /// The version after it.
        reply: ReplyTo<Version>,
    },
    /// Deletes a session.
    Delete {
        /// The session.
        target: Target,
        /// What the acknowledgement promises.
        durability: Durability,
        /// Whether it was there.
        reply: ReplyTo<bool>,
    },
    /// Lists sessions.
    List {
        /// Which.
        query: Box<Query>,
        /// The page.
        reply: ReplyTo<Page>,
    },
    /// Counts sessions.
    Count {
        /// Which.
        filter: Box<Filter>,
        /// How many.
        reply: ReplyTo<u64>,
    },
    /// Deletes sessions, in bounded steps. A sweep is one with [`Filter::over`].
    DeleteWhere {
        /// Which.
        filter: Box<Filter>,
        /// What the acknowledgement promises.
        durability: Durability,
        /// How many there were.
        reply: ReplyTo<u64>,
    },
    /// Writes all touches, and syncs.
    Flush {
        /// Done.
        reply: ReplyTo<()>,
    },
    /// A hint that cells have touches to flush: [`crate::dirty`].
    Dirty,
    /// A live session was passivated: its memory is not to be written any more.
    Retire(Arc<HeldRecord>),
    /// Asks to look for foreign writes.
    CheckForeign,
    /// Asks to finish: sent once admission is closed.
    Shutdown,
    /// Asks for a fault.
    #[cfg(feature = "testing")]
    Fault(crate::testing::Fault),
}

impl Command {
    /// Returns the reply, if the command has one.
    pub fn reply_mut(&mut self) -> Option<&mut dyn AnyReply> {
        match self {
            Self::Get { reply, .. } => Some(reply),
            Self::Create { reply, .. } | Self::Delete { reply, .. } => Some(reply),
            Self::Touch { reply, .. } | Self::Flush { reply } => Some(reply),
            Self::Write { reply, .. } => Some(reply),
            Self::List { reply, .. } => Some(reply),
            Self::Count { reply, .. } | Self::DeleteWhere { reply, .. } => Some(reply),
            _ => None,
        }
    }

    /// Moves a command for one session to another slot and the memory there.
    pub fn move_to(&mut self, slot: Arc<dyn InFlight>, held: &Arc<HeldRecord>) {
        if let Self::Get { target, .. }
        | Self::Touch { target, .. }
        | Self::Write { target, .. }
        | Self::Delete { target, .. } = self
        {
            target.held = Some(Arc::clone(held));
        }
        if let Some(reply) = self.reply_mut() {
            reply.move_to(slot);
        }
    }

    /// Returns the session that the command is for, if it is for one.
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Create { id, .. } => Some(id),
            Self::Get { target, .. }
            | Self::Touch { target, .. }
            | Self::Write { target, .. }
            | Self::Delete { target, .. } => Some(&target.id),
            _ => None,
        }
    }

    /// Returns the bytes of payload that the command carries.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Create { change, .. } | Self::Write { change, .. } => change.payload_bytes(),
            _ => 0,
        }
    }

    /// Sends the answer that was prepared; returns whom to wake.
    pub fn complete(self) -> Wake {
        match self {
            Self::Get { reply, .. } => reply.send(),
            // Before the answer: so the caller, who keeps one too, is the last to let go of it. Memory that is freed by the
            // thread that asked for it is cheaper by far.
            Self::Create { change, reply, .. } => {
                drop(change);
                reply.send()
            }
            Self::Write { change, reply, .. } => {
                drop(change);
                reply.send()
            }
            Self::Delete { reply, .. } => reply.send(),
            Self::Touch { reply, .. } | Self::Flush { reply } => reply.send(),
            Self::List { reply, .. } => reply.send(),
            Self::Count { reply, .. } | Self::DeleteWhere { reply, .. } => reply.send(),
            _ => Wake::nobody(),
        }
    }

    /// Answers with an error.
    pub fn refuse(mut self, error: Error) {
        if let Some(reply) = self.reply_mut() {
            reply.prepare_error(error);
        }
        drop(self.complete());
    }

    /// Returns what the acknowledgement promises, for a command that writes.
    pub fn durability(&self) -> Option<Durability> {
        match self {
            Self::Create { durability, .. }
            | Self::Write { durability, .. }
            | Self::Delete { durability, .. }
            | Self::DeleteWhere { durability, .. } => Some(*durability),
            Self::Touch { durability, .. } => *durability,
            Self::Flush { .. } => Some(Durability::Synced),
            _ => None,
        }
    }

    /// Returns whether the command stands alone in its transaction: it acts on more than one session.
    pub fn is_engine_wide(&self) -> bool {
        matches!(self, Self::List { .. } | Self::Count { .. } | Self::DeleteWhere { .. } | Self::Flush { .. })
    }
}
