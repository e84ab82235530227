//! ractor's actors: the order of messages, the ways to end, and that no message and no state outlives an actor unnoticed.
//!
//! What rests on it: a session's order is its mailbox's; a send that fails hands the request to the next slot; the guard in
//! a session actor's state marks the slot dead; a request that is dropped answers. A slot is closed only with nothing in
//! flight, so it does not matter that a drain before the start drops the queue (rule R13, `models/actor.rs`).

use std::thread;

use ractor::{ActorRuntime, MessagingErr, RpcReplyPort, concurrency::oneshot};
use sessile_tests::{eventually, soon};
use tokio::runtime::{Builder, Runtime};

use crate::witness::{End, Message, Subject, Witness, answers, gives_back};

/// Often, where threads meet: they do so in different ways.
const RUNS: usize = 100;
const SENDERS: usize = 3;
const NOTES: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_sender_are_handled_in_their_order_from_the_spawn_on() {
    for _ in 0..RUNS {
        let witness = Witness::default();
        // It may start at any time from here on.
        let actor = witness.spawn();
        let senders = (0..SENDERS).map(|sender| {
            let (witness, actor) = (witness.clone(), actor.clone());
            thread::spawn(move || {
                for number in 0..NOTES {
                    assert!(actor.cast(witness.note(sender, number)).is_ok(), "it lives");
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        for sender in senders {
            sender.join().expect("no panic");
        }
        answers(&actor).await;
        let mut handled = witness.handled();
        // Stable: what one sender sent stays as it was handled.
        handled.sort_by_key(|(sender, _)| *sender);
        let sent: Vec<_> = (0..SENDERS).flat_map(|sender| (0..NOTES).map(move |number| (sender, number))).collect();
        assert_eq!(handled, sent);
        actor.stop(None);
    }
}

#[tokio::test]
async fn an_actor_that_is_drained_handles_what_is_queued_and_gives_back_what_comes_later() {
    let witness = Witness::default();
    let actor = witness.spawn_running().await;
    witness.send(&actor, 3);
    actor.drain().expect("it lives");
    gives_back(&actor, witness.note(0, 3));
    witness.all_ended(4).await;
    assert_eq!(witness.handled(), [(0, 0), (0, 1), (0, 2)]);
    gives_back(&actor, witness.note(0, 4));
}

#[tokio::test]
async fn an_actor_that_is_drained_before_its_start_drops_what_is_queued() {
    let witness = Witness::default();
    // On a runtime of one thread nothing starts before this test awaits.
    let actor = witness.spawn();
    witness.send(&actor, 3);
    actor.drain().expect("its mailbox is open");
    gives_back(&actor, witness.note(0, 3));
    witness.all_ended(4).await;
    // Were they handled one day, the better: rule R13 would have a caution too many, and `models/actor.rs` a weakness.
    assert_eq!(witness.handled(), []);
}

/// When an actor is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    BeforeItsStart,
    AtRest,
    /// By itself, while it handles a message.
    Handling,
}

#[tokio::test]
async fn however_an_actor_ends_its_queue_and_its_state_end_and_what_comes_later_is_given_back() {
    for when in [When::BeforeItsStart, When::AtRest, When::Handling] {
        for end in End::ALL {
            let witness = Witness::default();
            let actor = if when == When::BeforeItsStart { witness.spawn() } else { witness.spawn_running().await };
            // This one is handled where the end comes in its turn, and else not: only that it ends is assumed.
            witness.send(&actor, 1);
            match when {
                When::Handling => drop(actor.cast(Message::End(end))),
                When::BeforeItsStart | When::AtRest => end.order(&actor),
            }
            for number in 1..4 {
                // Taken or given back, for nothing has run yet.
                drop(actor.cast(witness.note(0, number)));
            }
            // This test has a reference all the while.
            soon("the end", actor.wait(None)).await.expect("it ends");
            witness.all_ended(4).await;
            let handled = witness.handled();
            assert!(handled.is_empty() || handled[0] == (0, 0), "{when:?} {end:?}: {handled:?}");
            gives_back(&actor, witness.note(0, 4));
            assert_eq!((witness.states_ended(), witness.notes_ended()), (1, 5), "{when:?} {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_meets_the_end_is_handled_or_given_back_or_goes_with_the_last_reference() {
    for end in End::ALL {
        for _ in 0..RUNS {
            let witness = Witness::default();
            let actor = witness.spawn_running().await;
            let senders = (0..SENDERS).map(|sender| {
                let (witness, actor) = (witness.clone(), actor.clone());
                thread::spawn(move || {
                    let cast = |number| match actor.cast(witness.note(sender, number)) {
                        Ok(()) => false,
                        Err(MessagingErr::SendErr(Message::Note(note))) => {
                            (note.sender, note.number) == (sender, number)
                        }
                        Err(error) => panic!("the message is not in {error}"),
                    };
                    (0..NOTES).filter(|number| cast(*number)).count()
                })
            });
            let senders: Vec<_> = senders.collect();
            eventually("some are handled", async || witness.handled().len() > 1).await;
            end.order(&actor);
            let given_back: usize = senders.into_iter().map(|sender| sender.join().expect("no panic")).sum();
            // As a slot does that is dead: the reference is taken out of it.
            drop(actor);
            witness.all_ended(SENDERS * NOTES).await;
            let handled = witness.handled();
            for sender in 0..SENDERS {
                let of_sender = handled.iter().filter(|(from, _)| *from == sender).map(|(_, number)| *number);
                // None twice, none left out before another.
                assert!(of_sender.clone().eq(0..of_sender.count()), "{end:?}: {handled:?}");
            }
            assert!(handled.len() + given_back <= SENDERS * NOTES, "{end:?}");
            if end == End::Drain {
                assert_eq!(handled.len() + given_back, SENDERS * NOTES, "what was taken is handled");
            }
        }
    }
}

fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.worker_threads(1).enable_time().build().expect("a runtime"))
}

#[test]
fn an_actor_ends_with_its_runtime_and_keeps_no_message() {
    for has_started in [false, true] {
        for runtime in runtimes() {
            let witness = Witness::default();
            let actor =
                runtime.block_on(async { if has_started { witness.spawn_running().await } else { witness.spawn() } });
            // Handled, if the runtime still has the time.
            witness.send(&actor, 3);
            drop(runtime);
            assert_eq!(witness.states_ended(), 1, "it outlives its runtime");
            assert_eq!(witness.notes_ended(), 3, "a message lies in a mailbox that nobody reads");
            drop(actor.cast(witness.note(0, 3)));
            assert_eq!(witness.notes_ended(), 4, "a message is sent to nobody, and kept");
        }
    }
}

#[test]
fn an_actor_spawned_on_a_runtime_that_is_gone_ends_at_once() {
    for runtime in runtimes() {
        let handle = runtime.handle().clone();
        drop(runtime);
        let witness = Witness::default();
        let _context = handle.enter();
        match ActorRuntime::spawn_instant(None, Subject, witness.arguments()) {
            Ok((actor, _)) => {
                assert_eq!(witness.states_ended(), 1, "it was neither spawned nor refused");
                drop(actor.cast(witness.note(0, 0)));
            }
            Err(error) => panic!("the router would log this, and refuse: {error}"),
        }
        assert_eq!(witness.notes_ended(), 1, "a message is sent to nobody, and kept");
    }
}

#[tokio::test]
async fn a_reply_port_answers_from_any_thread_and_tells_each_side_of_the_end_of_the_other() {
    let port = || {
        let (reply, answer) = oneshot::<u8>();
        (RpcReplyPort::from(reply), answer)
    };
    // As the storage thread does, which has no runtime.
    let (reply, answer) = port();
    assert!(!reply.is_closed());
    let storage = thread::spawn(move || reply.send(7));
    assert_eq!(soon("the answer", answer).await, Ok(7));
    storage.join().expect("no panic").expect("it was awaited");
    let (reply, answer) = port();
    thread::spawn(move || drop(reply));
    soon("the end of the reply", answer).await.expect_err("nobody answers");
    let (reply, answer) = port();
    drop(answer);
    assert!(reply.is_closed(), "work would be done for nobody");
    reply.send(7).expect_err("nobody hears");
}
