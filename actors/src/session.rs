//! The session actor: the mailbox of one live session.
//!
//! Its order is the session's order. It hands each request on to storage by moving the reply along, and awaits nothing;
//! storage's own mailbox keeps the order from there. What would find this mailbox empty need not pass through it
//! ([`Slot::overtakes_nothing`]). Only an `update` makes it wait: the closures that stand next in the mailbox are applied to
//! the record, the result is written on condition that the record is still of that version, and what comes meanwhile is
//! stashed. On a conflict the closures run again on what is there now (rule R4).
//!
//! Unnamed, unlinked, without `post_stop`; ended only by the drain of a closed slot (rule R13).

use std::{collections::VecDeque, sync::Arc};

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use sessile_storage::{
    change::Change,
    command::{AnyPort, AnyReply, Command, HeldRecord, InFlight, Occupied, ReplyTo, Sink, Target},
    error::{Error, Result},
    id::{Serial, SessionId, Version},
    panic::contain,
    record::{Data, Durability, Record, payload_bytes},
    reply::Reply,
};

use crate::{
    router::{Router, Slot},
    slot::ActorPort,
};

/// Closures applied together as one write: bounds how much is decided by one commit.
const UPDATES_TOGETHER_MAX: usize = 256;

/// A change by a function.
pub trait Edit: Send {
    /// Works out the data after it; `bytes_beside` is the payload beside the data. `None`: nothing is to be written for it.
    /// May be called again, for other data.
    fn apply(&mut self, data: &Data, bytes_beside: usize) -> Result<Option<Data>>;

    /// Answers the caller: with the function's own answer if all is well.
    fn finish(self: Box<Self>, outcome: Result<Version>);

    /// Returns the reply, whatever its type.
    fn reply_mut(&mut self) -> &mut dyn AnyReply;
}

/// What a session's mailbox takes.
pub enum SessionMessage {
    /// A request to hand on.
    Forward(Command),
    /// A change by a function.
    Update {
        /// The function and its reply.
        edit: Box<dyn Edit>,
        /// When it was asked for, in engine time.
        at: i64,
        /// What the acknowledgement promises.
        durability: Durability,
    },
    /// The actor's own question after the record is answered.
    Loaded(Result<Option<Record>>),
    /// The actor's own write is answered.
    Written(Result<Version>),
}

impl SessionMessage {
    /// Moves the request to another slot, which was entered for it.
    pub(crate) fn move_to(&mut self, slot: &Arc<Slot>) {
        let place = Arc::clone(slot) as Arc<dyn InFlight>;
        match self {
            Self::Forward(command) => command.move_to(place, slot.held()),
            Self::Update { edit, .. } => edit.reply_mut().move_to(place),
            Self::Loaded(_) | Self::Written(_) => {}
        }
    }

    /// Answers with an error.
    pub(crate) fn refuse(self, error: Error) {
        match self {
            Self::Forward(command) => command.refuse(error),
            Self::Update { edit, .. } => edit.finish(Err(error)),
            Self::Loaded(_) | Self::Written(_) => {}
        }
    }
}

/// Leads to a session actor.
#[derive(Debug, Clone)]
pub struct SessionRef(ActorRef<SessionMessage>);

impl ActorPort for SessionRef {
    type Message = SessionMessage;

    fn send(&self, message: SessionMessage) -> Result<(), SessionMessage> {
        match self.0.cast(message) {
            Ok(()) => Ok(()),
            Err(MessagingErr::SendErr(message)) => Err(message),
            Err(error) => unreachable!("a typed reference takes its own message type: {error}"),
        }
    }

    fn drain(&self) {
        // An error means that it has ended already.
        drop(self.0.drain());
    }
}

/// The behaviour; all state is in [`Session`].
pub(crate) struct SessionActor;

impl SessionActor {
    /// Brings an actor up; its first message may be sent at once.
    pub(crate) fn spawn(id: SessionId, slot: Arc<Slot>, router: &Arc<Router>) -> Option<SessionRef> {
        let _context = router.runtime().enter();
        let life = Life { slot, router: Arc::clone(router) };
        let session = Session { id, life, stash: VecDeque::new(), updating: None };
        match ractor::ActorRuntime::spawn_instant(None, Self, session) {
            Ok((actor, _)) => Some(SessionRef(actor)),
            Err(error) => {
                tracing::error!(%error, "a session actor cannot be spawned");
                None
            }
        }
    }
}

/// Ends the slot with the actor, however the actor ends.
struct Life {
    slot: Arc<Slot>,
    router: Arc<Router>,
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.slot.die());
        self.router.actor_ended();
    }
}

/// The state of a session actor.
pub(crate) struct Session {
    id: SessionId,
    life: Life,
    /// What came behind an update in work, and the updates that wait for their turn.
    stash: VecDeque<SessionMessage>,
    updating: Option<Updating>,
}

/// Updates in work.
struct Updating {
    edits: Vec<Pending>,
    at: i64,
    durability: Durability,
    /// The row that they are for: the session's when storage first said, in mailbox order.
    serial: Option<Serial>,
}

/// Where the record that closures are applied to comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// What storage published last; it may be behind what was handed on since.
    Memory,
    /// Storage's own answer, in mailbox order.
    Storage,
}

struct Pending {
    edit: Box<dyn Edit>,
    /// What became of it in the last application.
    applied: Result<()>,
}

impl Actor for SessionActor {
    type Msg = SessionMessage;
    type State = Session;
    type Arguments = Session;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, session: Session) -> Result<Session, ActorProcessingErr> {
        Ok(session)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: SessionMessage,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        session.handle(&myself, message);
        Ok(())
    }
}

impl Session {
    fn handle(&mut self, myself: &ActorRef<SessionMessage>, message: SessionMessage) {
        match message {
            SessionMessage::Loaded(record) => self.loaded(myself, record),
            SessionMessage::Written(outcome) => self.written(myself, outcome),
            SessionMessage::Forward(command) if self.updating.is_none() => self.forward(command),
            message => self.stash.push_back(message),
        }
        while self.updating.is_none()
            && let Some(message) = self.stash.pop_front()
        {
            match message {
                SessionMessage::Forward(command) => self.forward(command),
                update => self.begin(myself, update),
            }
        }
    }

    fn forward(&self, command: Command) {
        self.life.router.mailbox().send(command);
    }

    fn held(&self) -> &Arc<HeldRecord> {
        self.life.slot.held()
    }

    fn target(&self) -> Target {
        Target { id: self.id.clone(), held: Some(Arc::clone(self.held())) }
    }

    /// Takes up an update and those right behind it.
    fn begin(&mut self, myself: &ActorRef<SessionMessage>, first: SessionMessage) {
        let mut together =
            Updating { edits: Vec::new(), at: i64::MIN, durability: Durability::Committed, serial: None };
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                SessionMessage::Update { edit, at, durability } => {
                    together.edits.push(Pending { edit, applied: Ok(()) });
                    together.at = together.at.max(at);
                    together.durability = together.durability.max(durability);
                }
                other => {
                    self.stash.push_front(other);
                    break;
                }
            }
            if together.edits.len() < UPDATES_TOGETHER_MAX {
                next = self.stash.pop_front();
            }
        }
        self.updating = Some(together);
        // The record in memory may be behind what was handed on before; then the write's condition says so.
        match self.life.router.record_in_memory(&self.life.slot) {
            Some(record) => self.apply(myself, &record, Base::Memory),
            None => self.load(myself),
        }
    }

    fn load(&self, myself: &ActorRef<SessionMessage>) {
        let reply = own_reply(myself, SessionMessage::Loaded);
        self.forward(Command::Get { target: self.target(), reply });
    }

    /// Applies the closures to the record that storage has, and writes the result.
    fn loaded(&mut self, myself: &ActorRef<SessionMessage>, record: Result<Option<Record>>) {
        let Some(updating) = &self.updating else { return };
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => return self.finish(&Err(Error::NotFound)),
            Err(error) => return self.finish(&Err(error)),
        };
        if updating.serial.is_some_and(|serial| serial != record.serial()) {
            // The session that was to be changed is gone; this is its successor.
            return self.finish(&Err(Error::NotFound));
        }
        self.apply(myself, &record, Base::Storage);
    }

    fn apply(&mut self, myself: &ActorRef<SessionMessage>, record: &Record, base: Base) {
        let Some(updating) = &mut self.updating else { return };
        if base == Base::Storage {
            updating.serial = Some(record.serial());
        }
        let stored = record.stored();
        let mut data = stored.data.clone();
        let bytes_beside = payload_bytes(&data, &stored.metadata, stored.user.as_deref()) - data.bytes().len();
        let mut writes = false;
        for Pending { edit, applied } in &mut updating.edits {
            *applied = match contain(|| edit.apply(&data, bytes_beside)) {
                Ok(Ok(Some(changed))) => {
                    data = changed;
                    writes = true;
                    Ok(())
                }
                Ok(Ok(None)) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::Panicked),
            };
        }
        let refused = updating.edits.iter().any(|pending| pending.applied.is_err());
        if base == Base::Memory && (!writes || refused) {
            // No write will tell whether the record was of today: decide on what storage has.
            return self.load(myself);
        }
        if !writes {
            return self.finish(&Ok(record.version()));
        }
        for Pending { edit, .. } in &mut updating.edits {
            // From here on the write may happen although this actor dies.
            edit.reply_mut().receive();
        }
        // One of them stands for what all have come to.
        updating.edits[0].edit.reply_mut().weigh(data.bytes().len() + bytes_beside);
        let change = Arc::new(Change::new().encoded_here(data).if_version(record.version()));
        let (at, durability) = (updating.at, updating.durability);
        let reply = own_reply(myself, SessionMessage::Written);
        self.forward(Command::Write { target: self.target(), change, rotate_to: None, at, durability, reply });
    }

    fn written(&mut self, myself: &ActorRef<SessionMessage>, outcome: Result<Version>) {
        match outcome {
            // Something else was written first: once more, on what is there now. Only what was on its way to storage
            // before the update can still be in between; all that comes later is stashed.
            Err(Error::Conflict { .. }) => self.load(myself),
            outcome => self.finish(&outcome),
        }
    }

    fn finish(&mut self, outcome: &Result<Version>) {
        let Some(updating) = self.updating.take() else { return };
        for Pending { edit, applied } in updating.edits {
            let outcome = match (outcome, applied) {
                (Err(error), _) => Err(error.clone()),
                (Ok(_), Err(error)) => Err(error),
                (Ok(version), Ok(())) => Ok(*version),
            };
            // What the closure holds may panic when it is dropped: the actor, and those behind, have no part in it.
            drop(contain(|| edit.finish(outcome)));
        }
    }
}

/// Leads an answer back into the actor's own mailbox.
struct Own<T> {
    actor: ActorRef<SessionMessage>,
    wrap: fn(Result<T>) -> SessionMessage,
}

impl<T: Send> Sink<T> for Own<T> {
    fn send(self: Box<Self>, answer: Result<T>) {
        // An error means that the actor is gone, and with it the requests that wait for this.
        drop(self.actor.cast((self.wrap)(answer)));
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn own_reply<T: Send + 'static>(actor: &ActorRef<SessionMessage>, wrap: fn(Result<T>) -> SessionMessage) -> ReplyTo<T> {
    // No permit: those of the updates that wait for it are held meanwhile.
    Reply::new(AnyPort::new(Own { actor: actor.clone(), wrap }), Occupied::nothing())
}
