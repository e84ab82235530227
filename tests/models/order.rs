//! The order of one session: what its sender asked for first took effect first, whichever way the requests went; nobody
//! reads a version after its successor (R4, I2).

use crate::{
    actor::NoActor,
    caller::{Answer, Caller, Way, call},
    cell::{Activity, Cell, Deadlines, NEVER},
    explorer::thread::{self, JoinHandle},
    held::{Held, Weigh},
    mailbox::{Inbox, Mailbox, Received, mailbox},
    reply::Reply,
    slot,
    sync::{Arc, AtomicUsize, Ordering, omitted},
};

/// A record, which is but its version.
struct Record(usize);

impl Weigh for Record {
    fn bytes(&self) -> usize {
        1
    }
}

type Slot = slot::Slot<NoActor, Held<Record>>;

/// A request's place in the slot.
struct InFlight(Arc<Slot>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A save, or a get; and where the version goes that it left, or saw.
struct Command {
    saves: bool,
    version: Arc<AtomicUsize>,
    reply: Reply<Way, InFlight>,
}

const GENERATION: u64 = 1;

/// Leads to a session, whose requests go straight to storage.
#[derive(Clone)]
pub(crate) struct Session {
    slot: Arc<Slot>,
    mailbox: Mailbox<Command>,
}

impl Session {
    /// A session of version 1, and the storage thread, which returns the last version.
    pub(crate) fn new() -> (Self, JoinHandle<usize>) {
        let activity = Activity { last_active: 0, count: 0 };
        let cell = Arc::new(Cell::new(1, activity, Deadlines { idle_timeout: NEVER, expires_at: NEVER }));
        let slot = Arc::new(Slot::entered(Held::new(Arc::new(AtomicUsize::new(0))), 0));
        slot.held().bind(&cell);
        slot.held().publish(GENERATION, &cell, Arc::new(Record(1)));
        slot.leave();
        let (mailbox, inbox) = mailbox();
        let storage = storage(&slot, cell, inbox);
        (Self { slot, mailbox }, storage)
    }

    /// Does something `times` on a thread of its own.
    pub(crate) fn spawn(&self, times: usize, body: fn(&Self)) -> JoinHandle<()> {
        let session = self.clone();
        thread::spawn(move || (0..times).for_each(|_| body(&session)))
    }

    /// Asks storage, and does not wait.
    fn ask(&self, saves: bool) -> (Arc<AtomicUsize>, Caller) {
        assert!(self.slot.enter(), "nobody closes it");
        let (way, caller) = call();
        let version = Arc::new(AtomicUsize::new(0));
        let reply = Reply::new(way, InFlight(Arc::clone(&self.slot)));
        self.mailbox.send(Command { saves, version: Arc::clone(&version), reply });
        (version, caller)
    }

    /// Reads the record in memory where nothing is in flight, and asks storage otherwise; returns the version.
    fn get(&self) -> usize {
        if self.slot.is_at_rest()
            && let Some(version) = self.slot.held().read(GENERATION, |record, _| record.0)
        {
            return version;
        }
        let (version, caller) = self.ask(false);
        assert_eq!(caller.hear(), Answer::Done);
        version.load(Ordering::Acquire)
    }

    pub(crate) fn save_and_get(&self) {
        let (saved, caller) = self.ask(true);
        let seen = self.get();
        assert_eq!(caller.hear(), Answer::Done);
        let saved = saved.load(Ordering::Acquire);
        assert!(seen >= saved, "its own save, not waited for: {seen} after {saved}");
        assert!(self.get() >= seen, "a version after its successor");
    }

    pub(crate) fn save_then_get(&self) {
        let (saved, caller) = self.ask(true);
        assert_eq!(caller.hear(), Answer::Done);
        assert!(self.get() >= saved.load(Ordering::Acquire), "its own save, acknowledged");
    }

    pub(crate) fn get_twice(&self) {
        let seen = self.get();
        assert!(self.get() >= seen, "a version after its successor");
    }

    /// Waits until all others are gone and storage with them; `saves` were asked for.
    pub(crate) fn end(self, storage: JoinHandle<usize>, saves: usize) {
        drop(self);
        assert_eq!(storage.join().expect("a panic ends the model"), 1 + saves);
    }
}

/// Takes what is there as one batch, makes it visible, then answers, as the storage thread does.
fn storage(slot: &Arc<Slot>, cell: Arc<Cell>, inbox: Inbox<Command>) -> JoinHandle<usize> {
    let slot = Arc::clone(slot);
    thread::spawn(move || {
        let mut stored = 1;
        while let Received::Command(first) = inbox.receive(None) {
            let mut batch = vec![first];
            while let Received::Command(next) = inbox.try_receive() {
                batch.push(next);
            }
            let writes = batch.iter().any(|command| command.saves);
            let mut replies = Vec::new();
            for Command { saves, version, mut reply } in batch {
                stored += usize::from(saves);
                version.store(stored, Ordering::Release);
                reply.receive();
                reply.prepare(Answer::Done);
                replies.push(reply);
            }
            if omitted("storage: a batch is visible before its replies") {
                for reply in replies.drain(..) {
                    drop(reply.send());
                }
            }
            if writes {
                slot.held().publish(GENERATION, &cell, Arc::new(Record(stored)));
            }
            for reply in replies {
                drop(reply.send());
            }
        }
        assert!(slot.is_at_rest());
        stored
    })
}
