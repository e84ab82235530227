//! Shutdown among many senders: whoever is admitted is served, whoever waits is refused, and then storage ends (R18, I8).

use shuttle::{
    future::block_on,
    thread::{self, JoinHandle},
};

use crate::{
    admission::{Admission, Bounds, Permit, Refused},
    caller::{Answer, Way, call},
    explore::explore,
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

#[derive(Clone)]
struct Router {
    admission: Arc<Admission>,
    storage: Mailbox<Command>,
    /// Leads to storage by a thread between.
    actor: Mailbox<Command>,
}

impl Router {
    /// Asks by either way; who is admitted is served.
    fn ask(&self, number: usize) {
        let admitted =
            if number.is_multiple_of(2) { self.admission.try_acquire(1) } else { block_on(self.admission.acquire(1)) };
        match admitted {
            Ok(permit) => {
                let (way, caller) = call();
                let mailbox = if number.is_multiple_of(3) { &self.actor } else { &self.storage };
                mailbox.send(Command::Request(Reply::new(way, permit)));
                assert_eq!(caller.hear(), Answer::Done, "admitted and not served");
            }
            Err(Refused::Full) => assert!(number.is_multiple_of(2), "there is room to wait"),
            Err(Refused::Closed) => {}
        }
    }

    fn close(&self) {
        let mailbox = self.storage.clone();
        self.admission.close(move || mailbox.send(Command::Shutdown));
    }
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

#[test]
fn a_crowd_is_served_or_refused_at_a_shutdown() {
    explore(|| {
        let admission = Arc::new(Admission::new(Bounds { requests_max: 2, bytes_max: 8, waiters_max: 8 }));
        let ((to_storage, storage_inbox), (to_actor, actor_inbox)) = (mailbox(), mailbox());
        let on_its_way = to_storage.clone();
        let actor = thread::spawn(move || {
            while let Received::Command(command) = actor_inbox.receive(None) {
                on_its_way.send(command);
            }
        });
        let storage = storage(storage_inbox);
        let router = Router { admission, storage: to_storage, actor: to_actor };
        let senders = [1, 2, 3].map(|number| {
            let router = router.clone();
            thread::spawn(move || (0..2).for_each(|again| router.ask(number + again)))
        });
        let closers = [(); 2].map(|()| {
            let router = router.clone();
            thread::spawn(move || router.close())
        });
        join(senders);
        join(closers);
        // The mailbox itself stays: only the word ends the thread.
        join([storage]);
        assert_eq!(router.admission.load(), (0, 0, 0));
        drop(router);
        join([actor]);
    });
}

mutant!(shut_down_over_requests:
    "admission: the end waits for what is in flight"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
mutant!(never_end:
    "admission: the last permit tells of the end"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
mutant!(let_them_wait:
    "admission: closing wakes those who wait"
    is killed by a_crowd_is_served_or_refused_at_a_shutdown);
