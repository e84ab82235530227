//! Shutdown among senders: whoever was admitted is served, and then storage ends (R18, I8).

use loom::thread::{self, JoinHandle};

use crate::{
    admission::{Admission, Bounds, Permit, Refused},
    caller::{Answer, Way, call},
    explore::{Preemptions::AtMost, explore},
    join,
    mailbox::{Inbox, Mailbox, Received, mailbox},
    reply::Reply,
    sync::Arc,
};

type Request = Reply<Way, Permit>;

enum Command {
    Request(Request),
    Shutdown,
}

fn admission() -> Arc<Admission> {
    Arc::new(Admission::new(Bounds { requests_max: 8, bytes_max: 8, waiters_max: 8 }))
}

/// Serves until it is told to end, as the storage thread does.
fn storage(inbox: Inbox<Command>) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Received::Command(Command::Request(mut request)) = inbox.receive(None) {
            request.receive();
            request.answer(Answer::Done);
        }
    })
}

/// Asks once; who is admitted is served.
fn sender(admission: &Arc<Admission>, mailbox: Mailbox<Command>) -> JoinHandle<()> {
    let admission = Arc::clone(admission);
    thread::spawn(move || match admission.try_acquire(1) {
        Ok(permit) => {
            let (way, caller) = call();
            mailbox.send(Command::Request(Reply::new(way, permit)));
            assert_eq!(caller.hear(), Answer::Done, "admitted and not served");
        }
        Err(refused) => assert_eq!(refused, Refused::Closed),
    })
}

fn close(admission: &Arc<Admission>, mailbox: Mailbox<Command>) -> JoinHandle<()> {
    let admission = Arc::clone(admission);
    thread::spawn(move || admission.close(move || mailbox.send(Command::Shutdown)))
}

#[test]
fn who_is_admitted_before_a_shutdown_is_served() {
    explore(AtMost(3), || {
        let admission = admission();
        let (mailbox, inbox) = mailbox();
        let senders = [sender(&admission, mailbox.clone())];
        // The mailbox itself stays: only the word ends the thread.
        let threads = [close(&admission, mailbox.clone()), storage(inbox)];
        join(senders);
        join(threads);
        drop(mailbox);
        assert_eq!(admission.load(), (0, 0, 0));
    });
}

mutant!(shut_down_over_requests:
    "admission: the end waits for what is in flight"
    is killed by who_is_admitted_before_a_shutdown_is_served);
mutant!(never_end:
    "admission: the last permit tells of the end"
    is killed by who_is_admitted_before_a_shutdown_is_served);

#[test]
fn a_shutdown_waits_for_what_is_on_its_way_through_an_actor() {
    explore(AtMost(2), || {
        let admission = admission();
        let (storage_mailbox, inbox) = mailbox();
        let (actor_mailbox, actor_inbox) = mailbox();
        let on_its_way = storage_mailbox.clone();
        let actor = thread::spawn(move || {
            while let Received::Command(command) = actor_inbox.receive(None) {
                on_its_way.send(command);
            }
        });
        let sender = sender(&admission, actor_mailbox);
        join([sender, actor, close(&admission, storage_mailbox), storage(inbox)]);
    });
}

mutant!(shut_down_over_actors:
    "admission: the end waits for what is in flight"
    is killed by a_shutdown_waits_for_what_is_on_its_way_through_an_actor);
