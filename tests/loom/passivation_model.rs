//! Activation against passivation: a session's messages are handled once each and in their sender's order, by one actor
//! at a time, though the session is passivated between them (R13, I2).

use std::{collections::hash_map::DefaultHasher, hash::BuildHasherDefault};

use loom::thread::{self, JoinHandle};

use crate::{
    actor::ActorRef,
    caller::{Answer, Caller, Way, call},
    explore::{Preemptions::AtMost, explore},
    registry::{self, Bounds, Entered},
    reply::Reply,
    slot::{self, ActorPort},
    sync::{Arc, Mutex, lock},
};

type Slot = slot::Slot<ActorRef<Message>, ()>;
type Registry = registry::Registry<u8, ActorRef<Message>, (), BuildHasherDefault<DefaultHasher>>;

/// An update, which needs the actor, or a request that goes straight to storage where that overtakes nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Update,
    Forward,
}

struct Message {
    sender: u8,
    number: u8,
    reply: Reply<Way, Place>,
}

/// A request's place in the slot.
struct Place(Arc<Slot>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

const SESSION: u8 = 1;

/// One session, and what its actors did.
struct Session {
    registry: Registry,
    /// Held while a message is handled: by `try_lock`, so two actors at a time show.
    handling: std::sync::Mutex<()>,
    handled: Mutex<Vec<(u8, u8)>>,
    actors: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Session {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            registry: Registry::new(1, Bounds { slots_max: 9, actors_max: 9 }, BuildHasherDefault::default()),
            handling: std::sync::Mutex::default(),
            handled: Mutex::new(Vec::new()),
            actors: std::sync::Mutex::default(),
        })
    }

    /// Sends a message and does not wait for it.
    fn send(self: &Arc<Self>, kind: Kind, sender: u8, number: u8) -> Caller {
        let Entered { slot, removed } = self.registry.enter(&SESSION, 1, || ());
        let_go(removed);
        let (way, caller) = call();
        let message = Message { sender, number, reply: Reply::new(way, Place(Arc::clone(&slot))) };
        if kind == Kind::Forward && slot.overtakes_nothing() {
            lock(&self.handled).push((sender, number));
            message.reply.answer(Answer::Done);
            return caller;
        }
        let sent = slot.deliver(message, || Some(self.bring_up(&slot)));
        assert!(sent.is_ok(), "no actor dies with a message on its way");
        caller
    }

    fn bring_up(self: &Arc<Self>, slot: &Arc<Slot>) -> ActorRef<Message> {
        let actor = ActorRef::new();
        let (itself, session, slot) = (actor.clone(), Arc::clone(self), Arc::clone(slot));
        let life = thread::spawn(move || {
            while let Some(messages) = itself.receive() {
                for message in messages {
                    session.handle(message);
                }
            }
            drop(slot.die());
            itself.close();
        });
        self.actors.lock().unwrap().push(life);
        actor
    }

    fn handle(&self, message: Message) {
        let alone = self.handling.try_lock().expect("two actors of a session at a time");
        lock(&self.handled).push((message.sender, message.number));
        drop(alone);
        message.reply.answer(Answer::Done);
    }

    fn passivate(&self) {
        let_go(self.registry.evict_idle(2));
    }

    /// Ends all actors, and returns what was handled.
    fn end(&self) -> Vec<(u8, u8)> {
        let_go(self.registry.clear());
        let actors = std::mem::take(&mut *self.actors.lock().unwrap());
        for actor in actors {
            actor.join().expect("a panic ends the model");
        }
        lock(&self.handled).clone()
    }
}

fn let_go(slots: Vec<Arc<Slot>>) {
    for slot in slots {
        if let Some(actor) = slot.take_actor() {
            actor.drain();
        }
    }
}

#[test]
fn messages_around_a_passivation_are_handled_once_and_in_order() {
    explore(AtMost(2), || {
        let session = Session::new();
        let other = {
            let session = Arc::clone(&session);
            thread::spawn(move || {
                session.passivate();
                assert_eq!(session.send(Kind::Forward, 2, 1).hear(), Answer::Done);
            })
        };
        let callers = [session.send(Kind::Update, 1, 1), session.send(Kind::Forward, 1, 2)];
        for caller in callers {
            assert_eq!(caller.hear(), Answer::Done);
        }
        other.join().unwrap();
        let mut handled = session.end();
        // Stable: what one sender sent stays as it was handled.
        handled.sort_by_key(|(sender, _)| *sender);
        assert_eq!(handled, [(1, 1), (1, 2), (2, 1)]);
    });
}

mutant!(overtake_what_is_queued:
    "slot: what is in flight is not overtaken"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
mutant!(passivate_over_messages:
    "slot: it closes at rest only"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
mutant!(passivate_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by messages_around_a_passivation_are_handled_once_and_in_order);
