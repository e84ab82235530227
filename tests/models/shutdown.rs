//! Shutdown among senders: whoever is admitted is served, whoever is not is refused, and then storage ends (R18, I8).

use crate::{
    admission::{Admission, Bounds, Permit, Refused},
    caller::{Answer, Way, call},
    explorer::{
        future::block_on,
        thread::{self, JoinHandle},
    },
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

/// One that asks some times: by which way, and for each time whether it waits for room.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) through_actor: bool,
    pub(crate) waits: &'static [bool],
}

/// Senders and so many that close, each on a thread of its own.
pub(crate) fn shutdown<const N: usize>(requests_max: usize, senders: [Sender; N], closers: usize) {
    let admission = Arc::new(Admission::new(Bounds { requests_max, bytes_max: 8, waiters_max: 8 }));
    let (to_storage, inbox) = mailbox();
    let may_be_full = N > requests_max;
    let has_actor = senders.iter().any(|sender| sender.through_actor);
    let (to_actor, actor) = has_actor.then(|| actor(to_storage.clone())).unzip();
    let senders = senders.map(|Sender { through_actor, waits }| {
        let admission = Arc::clone(&admission);
        let mailbox = to_actor.as_ref().filter(|_| through_actor).unwrap_or(&to_storage).clone();
        thread::spawn(move || waits.iter().for_each(|waits| ask(&admission, &mailbox, *waits, may_be_full)))
    });
    drop(to_actor);
    let closers = (0..closers).map(|_| {
        let (admission, to_storage) = (Arc::clone(&admission), to_storage.clone());
        thread::spawn(move || admission.close(move || to_storage.send(Command::Shutdown)))
    });
    let closers: Vec<_> = closers.collect();
    let storage = storage(inbox);
    join(senders);
    join(closers);
    join(actor);
    // The mailbox itself stays: only the word ends the thread.
    join([storage]);
    drop(to_storage);
    assert_eq!(admission.load(), (0, 0, 0));
}

/// Asks once; who is admitted is served.
fn ask(admission: &Arc<Admission>, mailbox: &Mailbox<Command>, waits: bool, may_be_full: bool) {
    match if waits { block_on(admission.acquire(1)) } else { admission.try_acquire(1) } {
        Ok(permit) => {
            let (way, caller) = call();
            mailbox.send(Command::Request(Reply::new(way, permit)));
            assert_eq!(caller.hear(), Answer::Done, "admitted and not served");
        }
        Err(Refused::Full) => assert!(!waits && may_be_full, "there is room"),
        Err(Refused::Closed) => {}
    }
}

/// Serves until it is told to end, as the storage thread does.
fn storage(inbox: Inbox<Command>) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Received::Command(Command::Request(mut request)) = inbox.receive(None) {
            request.receive();
            drop(request.answer(Answer::Done));
        }
    })
}

/// Leads to storage by a thread between.
fn actor(to_storage: Mailbox<Command>) -> (Mailbox<Command>, JoinHandle<()>) {
    let (mailbox, inbox) = mailbox();
    let forwards = move || {
        while let Received::Command(command) = inbox.receive(None) {
            to_storage.send(command);
        }
    };
    (mailbox, thread::spawn(forwards))
}
