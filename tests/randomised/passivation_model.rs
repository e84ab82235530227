//! Actors among many senders: each message is handled once or is told to be lost, in its sender's order, by one actor at a
//! time (R13, I2, I6).

use shuttle::thread;

use crate::{
    caller::Answer,
    explore::explore,
    join,
    passivation::{Engine, Kind, Registry, SESSIONS, Slot, let_go, session_of},
    reply::Stage,
    sync::Arc,
};

const SENDERS: u8 = 3;
const MESSAGES: u8 = 4;

/// Three senders, two that passivate, and the actors: eight threads and more.
fn crowd(lives: usize) {
    // The second slot is one too many: entering one session passivates the other.
    let engine = Engine::new(1, lives);
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
