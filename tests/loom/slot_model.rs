//! The slot: no message is lost between a sender, an eviction and the death of the actor (R13, I2).

use loom::thread::{self, JoinHandle};

use crate::{
    actor,
    caller::{Answer, Way, call},
    explore::{Preemptions::AtMost, explore},
    reply::{Reply, Stage},
    slot::{self, ActorPort},
    sync::{Arc, Ordering},
};

type Slot = slot::Slot<ActorRef, Held>;
type Message = Reply<Way, Place>;
type ActorRef = actor::ActorRef<Message>;

/// What a slot holds in these models.
struct Held {
    /// How many requests their senders believe to be in flight.
    in_flight: std::sync::atomic::AtomicUsize,
    /// The threads of the actors brought up.
    actors: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Held {
    fn keep(&self, actor: JoinHandle<()>) {
        self.actors.lock().unwrap().push(actor);
    }

    fn join_actors(&self) {
        let actors = std::mem::take(&mut *self.actors.lock().unwrap());
        for actor in actors {
            actor.join().unwrap();
        }
    }
}

/// A request's place in the slot.
struct Place(Arc<Slot>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.held().in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.leave();
    }
}

/// Answers what comes, until drained.
fn serve(actor: &ActorRef, slot: &Slot) {
    while let Some(messages) = actor.receive() {
        for message in messages {
            drop(message.answer(Answer::Done));
        }
    }
    end(actor, slot);
}

/// Ends an actor: the guard in its state goes, then the mailbox with all that is in it.
fn end(actor: &ActorRef, slot: &Slot) {
    drop(slot.die());
    actor.close();
}

/// Ends it the other way round: a runtime that shuts down drops a task's parts in any order.
fn end_mailbox_first(actor: &ActorRef, slot: &Slot) {
    actor.close();
    drop(slot.die());
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The slot was closed or dead already.
    NotEntered,
    /// It came back from a slot that died.
    NotDelivered,
    Answered(Answer),
}

/// A slot, entered once by its maker as all are.
fn slot() -> Arc<Slot> {
    Arc::new(Slot::entered(Held { in_flight: 1.into(), actors: Vec::new().into() }, 0))
}

/// Sends a request, whose sender has entered the slot, and hears what becomes of it.
fn deliver(slot: &Arc<Slot>, spawn: impl FnOnce() -> Option<ActorRef>) -> Outcome {
    let (way, caller) = call();
    match slot.deliver(Reply::new(way, Place(Arc::clone(slot))), spawn) {
        Ok(()) => Outcome::Answered(caller.hear()),
        Err(message) => {
            drop(message);
            assert_eq!(caller.hear(), Answer::Lost(Stage::Sent));
            Outcome::NotDelivered
        }
    }
}

/// Sends a request from a thread of its own; `live` is the actor's life, if this brings it up.
fn sender(slot: &Arc<Slot>, live: fn(&ActorRef, &Slot)) -> JoinHandle<Outcome> {
    let slot = Arc::clone(slot);
    thread::spawn(move || {
        if !slot.enter() {
            return Outcome::NotEntered;
        }
        slot.held().in_flight.fetch_add(1, Ordering::Relaxed);
        deliver(&slot, || Some(bring_up(&slot, live)))
    })
}

fn bring_up(slot: &Arc<Slot>, live: fn(&ActorRef, &Slot)) -> ActorRef {
    let actor = ActorRef::new();
    let (itself, its_slot) = (actor.clone(), Arc::clone(slot));
    slot.held().keep(thread::spawn(move || live(&itself, &its_slot)));
    actor
}

#[test]
fn it_closes_only_with_nothing_in_flight() {
    explore(AtMost(2), || {
        let slot = slot();
        let other = sender(&slot, serve);
        let evictor = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || evict(&slot))
        };
        let first = deliver(&slot, || Some(bring_up(&slot, serve)));
        assert_eq!(first, Outcome::Answered(Answer::Done));
        let other = other.join().unwrap();
        if evictor.join().unwrap() {
            assert!(matches!(other, Outcome::NotEntered | Outcome::Answered(Answer::Done)), "{other:?}");
        } else {
            assert_eq!(other, Outcome::Answered(Answer::Done));
            assert!(evict(&slot), "all is answered, so it is at rest");
        }
        assert!(!slot.enter());
        assert!(slot.take_actor().is_none());
    });
}

/// Passivates the slot, if nothing is in flight.
fn evict(slot: &Slot) -> bool {
    if !slot.close() {
        return false;
    }
    assert_eq!(slot.held().in_flight.load(Ordering::Relaxed), 0, "closed with requests in flight");
    if let Some(actor) = slot.take_actor() {
        assert!(!actor.has_queued(), "closed with messages queued");
        actor.drain();
    }
    true
}

mutant!(close_over_requests:
    "slot: it closes at rest only"
    is killed by it_closes_only_with_nothing_in_flight);

#[test]
fn every_request_is_answered_though_the_actor_dies() {
    explore(AtMost(3), || death(end));
}

#[test]
fn every_request_is_answered_though_the_mailbox_goes_first() {
    explore(AtMost(3), || death(end_mailbox_first));
}

/// Two requests, and an actor that answers none. Each hears of it, or there is a deadlock: a stranded message keeps the
/// slot, the slot the actor, and the actor the message.
fn death(end: fn(&ActorRef, &Slot)) {
    let slot = slot();
    let other = sender(&slot, end);
    let first = deliver(&slot, || Some(bring_up(&slot, end)));
    assert!(matches!(first, Outcome::NotDelivered | Outcome::Answered(Answer::Lost(Stage::Sent))), "{first:?}");
    let other = other.join().unwrap();
    assert_ne!(other, Outcome::Answered(Answer::Done));
    slot.held().join_actors();
    assert!(!slot.is_open());
    assert!(slot.take_actor().is_none(), "a dead slot keeps its actor");
}

#[test]
fn an_actor_may_die_while_it_is_brought_up() {
    explore(AtMost(3), || {
        let slot = slot();
        let other = {
            let slot = Arc::clone(&slot);
            // Its runtime takes nothing any more.
            thread::spawn(move || {
                let entered = slot.enter();
                slot.held().in_flight.fetch_add(usize::from(entered), Ordering::Relaxed);
                entered.then(|| deliver(&slot, || None))
            })
        };
        let spawn = || {
            let actor = ActorRef::new();
            assert!(slot.die().is_none(), "the reference is not in the slot yet");
            let itself = actor.clone();
            slot.held().keep(thread::spawn(move || itself.close()));
            Some(actor)
        };
        let first = deliver(&slot, spawn);
        assert!(matches!(first, Outcome::NotDelivered | Outcome::Answered(Answer::Lost(Stage::Sent))), "{first:?}");
        assert!(matches!(other.join().unwrap(), None | Some(Outcome::NotDelivered)));
        slot.held().join_actors();
        assert!(!slot.is_open());
        assert!(slot.take_actor().is_none(), "a dead slot keeps its actor");
    });
}

mutant!(strand_an_actor_that_never_lived:
    "slot: a death while delivering is noticed"
    is killed by an_actor_may_die_while_it_is_brought_up);
mutant!(strand_the_actor:
    "slot: a death while delivering is noticed"
    is killed by every_request_is_answered_though_the_actor_dies);
mutant!(strand_the_actor_behind_its_mailbox:
    "slot: a death while delivering is noticed"
    is killed by every_request_is_answered_though_the_mailbox_goes_first);
mutant!(look_for_a_death_by_a_load:
    "slot: the look for a death is a read-modify-write"
    is killed by every_request_is_answered_though_the_actor_dies);
