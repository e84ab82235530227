//! The reply: each request has one outcome, whatever dies, and occupies nothing once its caller has heard (R14, I6).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::thread::{self, JoinHandle};

use crate::{
    actor::NoActor,
    admission::{Admission, Bounds, Permit},
    caller::{Answer, Caller, Way, call},
    explore::{
        Preemptions::{AtMost, Unbounded},
        explore,
    },
    join,
    mailbox::{Inbox, Mailbox, Received, mailbox},
    reply::{Reply, Stage},
    slot,
    sync::Arc,
};

type Slot = slot::Slot<NoActor, ()>;
type Request = Reply<Way, Occupied>;

/// What a request occupies.
struct Occupied {
    slot: Arc<Slot>,
    _permit: Option<Permit>,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

fn slot() -> Arc<Slot> {
    Arc::new(Slot::entered((), 0))
}

fn admission() -> Arc<Admission> {
    Arc::new(Admission::new(Bounds { requests_max: 1, bytes_max: 1, waiters_max: 1 }))
}

fn request(slot: Arc<Slot>, permit: Option<Permit>) -> (Request, Caller) {
    let (way, caller) = call();
    (Reply::new(way, Occupied { slot, _permit: permit }), caller)
}

/// Runs storage on a thread of its own.
fn storage(inbox: Inbox<Request>, serve: fn(Request)) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Received::Command(mut request) = inbox.receive(None) {
            request.receive();
            serve(request);
        }
    })
}

/// A caller asks, hears `answer`, and finds its slot at rest and its room free: it can ask again at once.
fn assert_free_when_answered(serve: fn(Request), answer: Answer) {
    let (slot, admission) = (slot(), admission());
    let (mailbox, inbox) = mailbox();
    let storage = storage(inbox, serve);
    for round in 0..2 {
        assert!(round == 0 || slot.enter());
        let permit = admission.try_acquire(1).expect("there is room for one");
        let (request, caller) = request(Arc::clone(&slot), Some(permit));
        mailbox.send(request);
        assert_eq!(caller.hear(), answer);
        assert!(slot.is_at_rest(), "answered while it counts as in flight");
    }
    drop(mailbox);
    storage.join().unwrap();
}

#[test]
fn an_answered_request_is_free_when_its_caller_hears() {
    explore(Unbounded, || assert_free_when_answered(|request| drop(request.answer(Answer::Done)), Answer::Done));
}

mutant!(answer_before_it_is_free:
    "reply: what it occupied is free before its answer"
    is killed by an_answered_request_is_free_when_its_caller_hears);

#[test]
fn a_prepared_answer_is_sent_with_its_batch() {
    let serve = |mut request: Request| {
        request.prepare(Answer::Done);
        assert!(request.guards().is_some());
        drop(request.send());
    };
    explore(Unbounded, move || assert_free_when_answered(serve, Answer::Done));
}

mutant!(send_before_it_is_free:
    "reply: what it occupied is free before its answer"
    is killed by a_prepared_answer_is_sent_with_its_batch);

#[test]
fn a_request_dropped_in_the_hands_of_storage_is_answered() {
    explore(Unbounded, || assert_free_when_answered(drop, Answer::Lost(Stage::Received)));
}

mutant!(drop_without_an_answer:
    "reply: a dropped reply answers"
    is killed by a_request_dropped_in_the_hands_of_storage_is_answered);

#[test]
fn a_request_given_up_by_storage_did_not_happen() {
    let serve = |mut request: Request| request.give_up();
    explore(Unbounded, move || assert_free_when_answered(serve, Answer::Lost(Stage::Sent)));
}

mutant!(give_up_without_an_answer:
    "reply: a dropped reply answers"
    is killed by a_request_given_up_by_storage_did_not_happen);

#[test]
fn a_panic_of_storage_answers_what_it_has_in_hand() {
    explore(Unbounded, || {
        assert_free_when_answered(
            |request| {
                let serve = AssertUnwindSafe(move || {
                    let _in_hand = request;
                    // A panic without the hook's message.
                    resume_unwind(Box::new("a fault"));
                });
                assert!(catch_unwind(serve).is_err());
            },
            Answer::Lost(Stage::Received),
        );
    });
}

mutant!(panic_without_an_answer:
    "reply: a dropped reply answers"
    is killed by a_panic_of_storage_answers_what_it_has_in_hand);

#[test]
fn every_request_is_answered_when_storage_dies() {
    explore(AtMost(3), || {
        let (slot, other_slot) = (slot(), slot());
        let (mailbox, inbox) = mailbox();
        let ask = |mailbox: Mailbox<Request>, slot: Arc<Slot>| {
            move || {
                let (request, caller) = request(Arc::clone(&slot), None);
                mailbox.send(request);
                let answer = caller.hear();
                assert!(slot.is_at_rest());
                answer
            }
        };
        let callers = [thread::spawn(ask(mailbox.clone(), Arc::clone(&slot))), thread::spawn(ask(mailbox, other_slot))];
        let storage = thread::spawn(move || {
            if let Received::Command(mut request) = inbox.receive(None) {
                request.receive();
            }
            // It dies here: with one request in hand, and the other in its mailbox, or not sent yet.
        });
        let mut answers = join(callers);
        storage.join().unwrap();
        answers.sort_by_key(|answer| *answer == Answer::Lost(Stage::Sent));
        assert_eq!(answers, [Answer::Lost(Stage::Received), Answer::Lost(Stage::Sent)]);
    });
}

mutant!(die_without_an_answer:
    "reply: a dropped reply answers"
    is killed by every_request_is_answered_when_storage_dies);
mutant!(die_and_leave_the_queue:
    "channel: the receiver takes the queue with it"
    is killed by every_request_is_answered_when_storage_dies);

#[test]
fn a_request_whose_caller_goes_is_answered_all_the_same() {
    explore(Unbounded, || {
        let (slot, admission) = (slot(), admission());
        let (mailbox, inbox) = mailbox();
        let permit = admission.try_acquire(1).expect("it is empty");
        let (request, caller) = request(Arc::clone(&slot), Some(permit));
        mailbox.send(request);
        drop(mailbox);
        let goes = thread::spawn(move || {
            caller.go();
            caller
        });
        let storage = storage(inbox, |request| {
            if request.is_abandoned() {
                // A read that nobody waits for is skipped.
                drop(request);
            } else {
                drop(request.answer(Answer::Done));
            }
        });
        let caller = goes.join().unwrap();
        storage.join().unwrap();
        assert!(matches!(caller.hear(), Answer::Done | Answer::Lost(Stage::Received)));
        assert!(slot.is_at_rest());
        assert_eq!(admission.load(), (0, 0, 0));
    });
}

mutant!(skip_without_an_answer:
    "reply: a dropped reply answers"
    is killed by a_request_whose_caller_goes_is_answered_all_the_same);
