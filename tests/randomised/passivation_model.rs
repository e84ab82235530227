//! Activation, passivation and death of actors among many senders: each message is handled once or is told to be lost, in
//! its sender's order, by one actor at a time (R13, I2, I6).

use std::{collections::hash_map::DefaultHasher, hash::BuildHasherDefault};

use shuttle::thread::{self, JoinHandle};

use crate::{
    actor::ActorRef,
    caller::{Answer, Caller, Way, call},
    explore::explore,
    join,
    registry::{self, Bounds, Entered},
    reply::{Reply, Stage},
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

/// Sessions, to which messages go in turn, two by two.
const SESSIONS: u8 = 2;
const SENDERS: u8 = 3;
const MESSAGES: u8 = 4;
/// Deliveries tried, as the router does.
const DELIVERIES_MAX: usize = 3;

fn session_of(number: u8) -> u8 {
    number / 2 % SESSIONS
}

struct Engine {
    registry: Registry,
    /// Held while a message of a session is handled: by `try_lock`, so two actors at a time show.
    handling: [std::sync::Mutex<()>; SESSIONS as usize],
    handled: Mutex<Vec<(u8, u8)>>,
    actors: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// Batches after which an actor dies by itself; 0 for never.
    lives: usize,
}

impl Engine {
    fn new(lives: usize) -> Arc<Self> {
        Arc::new(Self {
            // The second slot is one too many: entering one session passivates the other.
            registry: Registry::new(1, Bounds { slots_max: 1, actors_max: 1 }, BuildHasherDefault::default()),
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
    fn send(self: &Arc<Self>, kind: Kind, sender: u8, number: u8) -> Caller {
        let session = session_of(number);
        let mut slot = self.enter(session);
        let (way, caller) = call();
        let mut message = Message { sender, number, reply: Reply::new(way, Place(Arc::clone(&slot))) };
        if kind == Kind::Forward && slot.overtakes_nothing() {
            lock(&self.handled).push((sender, number));
            message.reply.answer(Answer::Done);
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
        message.reply.answer(Answer::Done);
    }

    /// Ends all actors, and returns what was handled.
    fn end(&self) -> Vec<(u8, u8)> {
        let_go(self.registry.clear());
        join(std::mem::take(&mut *self.actors.lock().unwrap()));
        lock(&self.handled).clone()
    }
}

fn let_go(slots: impl IntoIterator<Item = Arc<Slot>>) {
    for slot in slots {
        if let Some(actor) = slot.take_actor() {
            actor.drain();
        }
    }
}

/// Three senders, two that passivate, and the actors: eight threads and more.
fn crowd(lives: usize) {
    let engine = Engine::new(lives);
    let answers: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
    let senders = (0..SENDERS).map(|sender| {
        let (engine, answers) = (Arc::clone(&engine), Arc::clone(&answers));
        thread::spawn(move || {
            // Two at a time: the second does not wait for the first.
            for pair in 0..MESSAGES / 2 {
                let callers = [(Kind::Update, 2 * pair), (Kind::Forward, 2 * pair + 1)]
                    .map(|(kind, number)| (number, engine.send(kind, sender, number)));
                for (number, caller) in callers {
                    let answer = caller.hear();
                    answers.lock().unwrap().push(((sender, number), answer));
                }
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let evictor = |evict: fn(&Registry) -> Vec<Arc<Slot>>| {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            for _ in 0..3 {
                let_go(evict(&engine.registry));
            }
        })
    };
    let evictors =
        [evictor(|registry| registry.evict_idle(2)), evictor(|registry| registry.evict(&0).into_iter().collect())];
    join(senders);
    join(evictors);
    let handled = engine.end();
    for (message, answer) in answers.lock().unwrap().iter() {
        let times = handled.iter().filter(|other| *other == message).count();
        assert_eq!((times, answer), if times == 0 { (0, &Answer::Lost(Stage::Sent)) } else { (1, &Answer::Done) });
    }
    if lives == 0 {
        assert_eq!(handled.len(), usize::from(SENDERS * MESSAGES), "lost, though no actor died");
    }
    for (sender, session) in (0..SENDERS).flat_map(|sender| (0..SESSIONS).map(move |session| (sender, session))) {
        let own = handled.iter().filter(|(of, number)| *of == sender && session_of(*number) == session);
        assert!(own.is_sorted(), "out of order: {handled:?}");
    }
}

#[test]
fn messages_of_many_senders_are_handled_once_and_in_order() {
    explore(|| crowd(0));
}

#[test]
fn messages_of_many_senders_are_answered_though_actors_die() {
    explore(|| crowd(1));
}

mutant!(overtake_what_is_queued:
    "slot: what is in flight is not overtaken"
    is killed by messages_of_many_senders_are_handled_once_and_in_order);
mutant!(passivate_over_messages:
    "slot: it closes at rest only"
    is killed by messages_of_many_senders_are_handled_once_and_in_order);
mutant!(passivate_without_closing:
    "registry: a slot is closed before it is taken out"
    is killed by messages_of_many_senders_are_handled_once_and_in_order);
mutant!(strand_the_actor:
    "slot: a death while delivering is noticed"
    is killed by messages_of_many_senders_are_answered_though_actors_die);
mutant!(take_the_successor_out:
    "registry: only the slot itself is taken out"
    is killed by messages_of_many_senders_are_answered_though_actors_die);
mutant!(drop_without_a_word:
    "reply: a dropped reply answers"
    is killed by messages_of_many_senders_are_answered_though_actors_die);
