//! The engine actor: the engine's face for actors.
//!
//! It holds no state of the engine and takes room for a message at once or not at all, so it never waits; its death
//! leaves the engine running (rule R22). Linked to a supervisor, its end closes the engine: ractor kills the children of
//! an actor that dies, and what is in memory must then be written by itself.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use sessile_storage::{
    change::{Change, NewSession},
    command::Sink,
    error::Result,
    id::{SessionId, Version},
    query::{Filter, Page, Query},
    record::{Data, Durability, Record},
};

use crate::{
    edit::{Decision, TypedEdit},
    router::Router,
};

/// A change by a function over the session's JSON.
pub type UpdateJson = Box<dyn FnMut(&mut serde_json::Value) + Send>;

/// What the engine does for actors. The functions of the same names make the messages, so that
/// `call!(engine.actor(), EngineMessage::get, id)` reads well.
///
/// Messages and handles are not ordered against each other; the messages of one sender are ordered for each session. But a
/// lazy touch of a session in memory takes effect at once, before what is still in flight.
/// When too much is in flight a message is answered `Error::Overloaded` at once.
pub enum EngineMessage {
    /// Creates a session.
    Create {
        /// The session.
        new: NewSession,
        /// Its id.
        reply: RpcReplyPort<Result<SessionId>>,
    },
    /// Creates a session, or finds the one that has the id.
    GetOrCreate {
        /// The session.
        new: NewSession,
        /// Its id, and whether it was created.
        reply: RpcReplyPort<Result<(SessionId, bool)>>,
    },
    /// Reads a session.
    Get {
        /// The session.
        id: SessionId,
        /// Its record.
        reply: RpcReplyPort<Result<Option<Record>>>,
    },
    /// Replaces a session's data.
    Save {
        /// The session.
        id: SessionId,
        /// The data.
        data: Data,
        /// The version after it.
        reply: RpcReplyPort<Result<Version>>,
    },
    /// Changes a session.
    Apply {
        /// The session.
        id: SessionId,
        /// The change.
        change: Change,
        /// The version after it.
        reply: RpcReplyPort<Result<Version>>,
    },
    /// Changes a session's JSON by a function, which may run more than once.
    Update {
        /// The session.
        id: SessionId,
        /// The function.
        change: UpdateJson,
        /// Done.
        reply: RpcReplyPort<Result<()>>,
    },
    /// Counts a touch.
    Touch {
        /// The session.
        id: SessionId,
        /// Counted.
        reply: RpcReplyPort<Result<()>>,
    },
    /// Counts a touch, and answers when it is durable.
    TouchWith {
        /// The session.
        id: SessionId,
        /// How durable.
        durability: Durability,
        /// Done.
        reply: RpcReplyPort<Result<()>>,
    },
    /// Counts a touch; a failure shows only in the engine's stats.
    CastTouch {
        /// The session.
        id: SessionId,
    },
    /// Gives a session a new id.
    Rotate {
        /// The session.
        id: SessionId,
        /// What else changes.
        change: Change,
        /// The new id.
        reply: RpcReplyPort<Result<SessionId>>,
    },
    /// Deletes a session.
    Delete {
        /// The session.
        id: SessionId,
        /// Whether it was there.
        reply: RpcReplyPort<Result<bool>>,
    },
    /// Lists sessions.
    List {
        /// Which.
        query: Query,
        /// The page.
        reply: RpcReplyPort<Result<Page>>,
    },
    /// Counts sessions.
    Count {
        /// Which.
        filter: Filter,
        /// How many.
        reply: RpcReplyPort<Result<u64>>,
    },
    /// Deletes sessions.
    DeleteWhere {
        /// Which.
        filter: Filter,
        /// How many there were.
        reply: RpcReplyPort<Result<u64>>,
    },
    /// Deletes the expired sessions.
    Sweep {
        /// How many there were.
        reply: RpcReplyPort<Result<u64>>,
    },
    /// Writes all touches, and syncs.
    Flush {
        /// Done.
        reply: RpcReplyPort<Result<()>>,
    },
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $variant:ident($($field:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl EngineMessage {
            $($(#[$doc])*
            pub fn $name($($field: $kind,)* reply: RpcReplyPort<Result<$answer>>) -> Self {
                Self::$variant { $($field,)* reply }
            })*

            /// Makes the message that counts a touch and is not answered.
            pub fn cast_touch(id: SessionId) -> Self {
                Self::CastTouch { id }
            }
        }
    };
}

constructors! {
    /// Makes the message that creates a session.
    create => Create(new: NewSession) -> SessionId;
    /// Makes the message that creates or finds a session.
    get_or_create => GetOrCreate(new: NewSession) -> (SessionId, bool);
    /// Makes the message that reads a session.
    get => Get(id: SessionId) -> Option<Record>;
    /// Makes the message that replaces a session's data.
    save => Save(id: SessionId, data: Data) -> Version;
    /// Makes the message that changes a session.
    apply => Apply(id: SessionId, change: Change) -> Version;
    /// Makes the message that changes a session by a function.
    update => Update(id: SessionId, change: UpdateJson) -> ();
    /// Makes the message that counts a touch.
    touch => Touch(id: SessionId) -> ();
    /// Makes the message that counts a touch durably.
    touch_with => TouchWith(id: SessionId, durability: Durability) -> ();
    /// Makes the message that gives a session a new id.
    rotate => Rotate(id: SessionId, change: Change) -> SessionId;
    /// Makes the message that deletes a session.
    delete => Delete(id: SessionId) -> bool;
    /// Makes the message that lists sessions.
    list => List(query: Query) -> Page;
    /// Makes the message that counts sessions.
    count => Count(filter: Filter) -> u64;
    /// Makes the message that deletes sessions.
    delete_where => DeleteWhere(filter: Filter) -> u64;
    /// Makes the message that deletes expired sessions.
    sweep => Sweep() -> u64;
    /// Makes the message that writes all touches.
    flush => Flush() -> ();
}

/// Leads an answer to a ractor port, through a function.
struct Rpc<T, A> {
    port: RpcReplyPort<Result<A>>,
    map: Box<dyn FnOnce(T) -> A + Send>,
}

impl<T: Send, A: Send> Sink<T> for Rpc<T, A> {
    fn send(self: Box<Self>, answer: Result<T>) {
        // The caller may be gone.
        drop(self.port.send(answer.map(self.map)));
    }

    fn is_closed(&self) -> bool {
        self.port.is_closed()
    }
}

/// A port that takes the answer as it is.
fn plain<T: Send + 'static>(port: RpcReplyPort<Result<T>>) -> Rpc<T, T> {
    Rpc { port, map: Box::new(|answer| answer) }
}

/// Leads the answer of a fire-and-forget touch to the counter of failures.
struct CountFailure(Arc<Router>);

impl Sink<()> for CountFailure {
    fn send(self: Box<Self>, answer: Result<()>) {
        if answer.is_err() {
            self.0.shared().counters.casts_failed.add(1);
        }
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// The behaviour.
pub(crate) struct EngineActor;

/// What the actor is given.
pub(crate) struct EngineArguments {
    pub(crate) router: Arc<Router>,
    pub(crate) durability: Durability,
    /// Whether the actor's end is the engine's end.
    pub(crate) closes: bool,
}

/// Closes the engine with the actor, where that is linked; also one that is ended before it has started.
impl Drop for EngineArguments {
    fn drop(&mut self) {
        if self.closes {
            self.router.close();
        }
    }
}

impl Actor for EngineActor {
    type Msg = EngineMessage;
    type State = EngineArguments;
    type Arguments = EngineArguments;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        arguments: EngineArguments,
    ) -> Result<EngineArguments, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: EngineMessage,
        state: &mut EngineArguments,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(message);
        Ok(())
    }

    /// Ends with the storage actor, as it ended.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut EngineArguments,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => return Err(error),
            SupervisionEvent::ActorTerminated(..) => {
                state.router.end_actors();
                myself.stop(Some("the engine is closed".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

impl EngineArguments {
    fn handle(&self, message: EngineMessage) {
        let Self { router, durability, .. } = self;
        let durability = *durability;
        match message {
            EngineMessage::Create { new, reply } => {
                self.create(new, false, Rpc { port: reply, map: Box::new(|(id, _)| id) });
            }
            EngineMessage::GetOrCreate { new, reply } => self.create(new, true, plain(reply)),
            EngineMessage::Get { id, reply } => match router.find(&id).and_then(|slot| router.read_in_memory(&slot)) {
                Some(record) => drop(reply.send(Ok(Some(record)))),
                None => router.ask_at_once(0, plain(reply), |asking| drop(router.get(&id, asking))),
            },
            EngineMessage::Save { id, data, reply } => self.write(&id, Change::new().encoded(data), reply),
            EngineMessage::Apply { id, change, reply } => self.write(&id, change, reply),
            EngineMessage::Update { id, mut change, reply } => {
                let bytes_max = router.limits().payload_bytes_max;
                router.ask_at_once(0, plain(reply), |asking| {
                    drop(router.update(&id, durability, asking, |reply| {
                        let change = move |value: &mut serde_json::Value| {
                            change(value);
                            Decision::Write(())
                        };
                        TypedEdit::boxed(change, bytes_max, reply)
                    }));
                });
            }
            EngineMessage::Touch { id, reply } => self.touch(&id, None, plain(reply)),
            EngineMessage::TouchWith { id, durability, reply } => self.touch(&id, Some(durability), plain(reply)),
            EngineMessage::CastTouch { id } => self.touch(&id, None, CountFailure(Arc::clone(router))),
            EngineMessage::Rotate { id, change, reply } => {
                if let Err(error) = router.check(&change) {
                    return drop(reply.send(Err(error)));
                }
                let new_id = SessionId::generate_at(sessile_storage::clock::Timestamp::from_micros(router.now()));
                let answer = new_id.clone();
                let sink = Rpc { port: reply, map: Box::new(move |_| answer) };
                router.ask_at_once(change.payload_bytes(), sink, |asking| {
                    drop(router.write(&id, Arc::new(change), Some(new_id), durability, asking));
                });
            }
            EngineMessage::Delete { id, reply } => {
                router.ask_at_once(0, plain(reply), |asking| drop(router.delete(&id, durability, asking)));
            }
            EngineMessage::List { query, reply } => match query.check() {
                Ok(()) => router.ask_at_once(0, plain(reply), |asking| router.list(query, asking)),
                Err(error) => drop(reply.send(Err(error))),
            },
            EngineMessage::Count { filter, reply } => match filter.check() {
                Ok(()) => router.ask_at_once(0, plain(reply), |asking| router.count(filter, asking)),
                Err(error) => drop(reply.send(Err(error))),
            },
            EngineMessage::DeleteWhere { filter, reply } => match filter.check() {
                Ok(()) => {
                    router.ask_at_once(0, plain(reply), |asking| router.delete_where(filter, durability, asking));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            EngineMessage::Sweep { reply } => {
                router.ask_at_once(0, plain(reply), |asking| router.delete_where(Filter::over(), durability, asking));
            }
            EngineMessage::Flush { reply } => router.ask_at_once(0, plain(reply), |asking| router.flush(asking)),
        }
    }

    fn create<A: Send + 'static>(&self, new: NewSession, or_existing: bool, sink: Rpc<(SessionId, bool), A>) {
        let Self { router, durability, .. } = self;
        let (id, change) = new.into_parts();
        if let Err(error) = router.check(&change) {
            return drop(sink.port.send(Err(error)));
        }
        let id =
            id.unwrap_or_else(|| SessionId::generate_at(sessile_storage::clock::Timestamp::from_micros(router.now())));
        let answer = id.clone();
        let map = sink.map;
        let sink = Rpc { port: sink.port, map: Box::new(move |created| map((answer, created))) };
        router.ask_at_once(change.payload_bytes(), sink, |asking| {
            router.create(id, Arc::new(change), or_existing, *durability, asking);
        });
    }

    fn write(&self, id: &SessionId, change: Change, reply: RpcReplyPort<Result<Version>>) {
        if let Err(error) = self.router.check(&change) {
            return drop(reply.send(Err(error)));
        }
        self.router.ask_at_once(change.payload_bytes(), plain(reply), |asking| {
            drop(self.router.write(id, Arc::new(change), None, self.durability, asking));
        });
    }

    fn touch(&self, id: &SessionId, durability: Option<Durability>, sink: impl Sink<()> + 'static) {
        let counted = match durability {
            None => self.router.find(id).and_then(|slot| self.router.touch_in_memory(&slot, &slot.held().cell()?)),
            Some(_) => None,
        };
        match counted {
            Some(answer) => Box::new(sink).send(answer),
            None => self.router.ask_at_once(0, sink, |asking| drop(self.router.touch(id, durability, asking))),
        }
    }
}
