//! Activation, passivation and death of actors among many senders: each message is handled once or is told to be lost, in
//! its sender's order, by one actor at a time (R13, I2, I6).

use std::{collections::hash_map::DefaultHasher, hash::BuildHasherDefault};

use crate::{
    actor::ActorRef,
    caller::{Answer, Caller, Way, call},
    explorer::thread::{self, JoinHandle},
    join,
    registry::{self, Bounds, Entered},
    reply::Reply,
    slot::{self, ActorPort},
    sync::{Arc, Mutex, lock},
};

pub(crate) type Slot = slot::Slot<ActorRef<Message>, ()>;
pub(crate) type Registry = registry::Registry<u8, ActorRef<Message>, (), BuildHasherDefault<DefaultHasher>>;

/// An update, which needs the actor, or a request that goes straight to storage where that overtakes nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    Forward,
}

pub(crate) struct Message {
    sender: u8,
    number: u8,
    reply: Reply<Way, Place>,
}

/// A request's place in the slot.
pub(crate) struct Place(Arc<Slot>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Sessions, to which messages go in turn, two by two.
pub(crate) const SESSIONS: u8 = 2;
/// Deliveries tried, as the router does.
const DELIVERIES_MAX: usize = 3;

pub(crate) fn session_of(number: u8) -> u8 {
    number / 2 % SESSIONS
}

/// A registry of sessions, and what their actors did.
pub(crate) struct Engine {
    pub(crate) registry: Registry,
    /// Held while a message of a session is handled: by `try_lock`, so two actors at a time show.
    handling: [std::sync::Mutex<()>; SESSIONS as usize],
    handled: Mutex<Vec<(u8, u8)>>,
    actors: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// Batches after which an actor dies by itself; 0 for never.
    lives: usize,
}

impl Engine {
    /// With room for so many live sessions, whose actors have so many `lives`.
    pub(crate) fn new(live_max: usize, lives: usize) -> Arc<Self> {
        let bounds = Bounds { slots_max: live_max, actors_max: live_max };
        Arc::new(Self {
            registry: Registry::new(1, bounds, BuildHasherDefault::default()),
            handling: std::array::from_fn(|_| std::sync::Mutex::new(())),
            handled: Mutex::new(Vec::new()),
            actors: std::sync::Mutex::default(),
            lives,
        })
    }

    fn enter(&self, session: u8) -> Arc<Slot> {
        let Entered { slot, removed } = self.registry.enter(&session, 1, || ());
        let_go(removed);
        slot
    }

    /// Sends a message and does not wait for it.
    pub(crate) fn send(self: &Arc<Self>, kind: Kind, sender: u8, number: u8) -> Caller {
        let session = session_of(number);
        let mut slot = self.enter(session);
        let (way, caller) = call();
        let mut message = Message { sender, number, reply: Reply::new(way, Place(Arc::clone(&slot))) };
        if kind == Kind::Forward && slot.overtakes_nothing() {
            lock(&self.handled).push((sender, number));
            drop(message.reply.answer(Answer::Done));
            return caller;
        }
        for _ in 0..DELIVERIES_MAX {
            let mut is_new = false;
            let delivered = slot.deliver(message, || {
                is_new = true;
                Some(self.bring_up(session, &slot))
            });
            if is_new {
                let_go(self.registry.note_actor(&session, &slot));
            }
            match delivered {
                Ok(()) => return caller,
                Err(back) => message = back,
            }
            assert!(self.lives > 0, "no actor dies with a message on its way");
            if self.registry.remove(&session, &slot) {
                let_go([slot]);
            }
            slot = self.enter(session);
            *message.reply.guards_mut().expect("it is not answered") = Place(Arc::clone(&slot));
        }
        drop(message);
        caller
    }

    fn bring_up(self: &Arc<Self>, session: u8, slot: &Arc<Slot>) -> ActorRef<Message> {
        let actor = ActorRef::new();
        let (itself, engine, slot) = (actor.clone(), Arc::clone(self), Arc::clone(slot));
        let life = thread::spawn(move || {
            let mut batches = 0;
            while let Some(messages) = itself.receive() {
                for message in messages {
                    engine.handle(session, message);
                }
                batches += 1;
                if batches == engine.lives {
                    break;
                }
            }
            drop(slot.die());
            itself.close();
        });
        self.actors.lock().unwrap().push(life);
        actor
    }

    fn handle(&self, session: u8, message: Message) {
        let alone = self.handling[usize::from(session)].try_lock().expect("two actors of a session at a time");
        lock(&self.handled).push((message.sender, message.number));
        drop(alone);
        drop(message.reply.answer(Answer::Done));
    }

    /// Ends all actors, and returns what was handled.
    pub(crate) fn end(&self) -> Vec<(u8, u8)> {
        let_go(self.registry.clear());
        join(std::mem::take(&mut *self.actors.lock().unwrap()));
        lock(&self.handled).clone()
    }
}

pub(crate) fn let_go(slots: impl IntoIterator<Item = Arc<Slot>>) {
    for slot in slots {
        if let Some(actor) = slot.take_actor() {
            actor.drain();
        }
    }
}
