//! The order of one session: what its sender asked for first took effect first, whichever way the requests went (R4, I2).

use loom::thread::{self, JoinHandle};

use crate::{
    actor::NoActor,
    caller::{Answer, Caller, Way, call},
    cell::{Activity, Cell, Deadlines, NEVER},
    explore::{Preemptions::AtMost, explore},
    held::{Held, Weigh},
    join,
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

enum Command {
    Save { version: usize, reply: Reply<Way, InFlight> },
    Get { seen: Arc<AtomicUsize>, reply: Reply<Way, InFlight> },
}

const GENERATION: u64 = 1;

fn session() -> (Arc<Slot>, Arc<Cell>) {
    let activity = Activity { last_active: 0, count: 0 };
    let cell = Arc::new(Cell::new(1, activity, Deadlines { idle_timeout: NEVER, expires_at: NEVER }));
    let slot = Arc::new(Slot::entered(Held::new(Arc::new(AtomicUsize::new(0))), 0));
    slot.held().bind(&cell);
    slot.held().publish(GENERATION, &cell, Arc::new(Record(1)));
    slot.leave();
    (slot, cell)
}

/// Takes what is there as one batch, makes it visible, then answers, as the storage thread does.
fn storage(slot: &Arc<Slot>, cell: Arc<Cell>, inbox: Inbox<Command>) -> JoinHandle<()> {
    let slot = Arc::clone(slot);
    thread::spawn(move || {
        let mut stored = 1;
        while let Received::Command(first) = inbox.receive(None) {
            let mut batch = vec![first];
            while let Received::Command(next) = inbox.try_receive() {
                batch.push(next);
            }
            let mut replies = Vec::new();
            let mut writes = false;
            for command in batch {
                let mut reply = match command {
                    Command::Save { version, reply } => {
                        (stored, writes) = (version, true);
                        reply
                    }
                    Command::Get { seen, reply } => {
                        seen.store(stored, Ordering::Release);
                        reply
                    }
                };
                reply.receive();
                reply.prepare(Answer::Done);
                replies.push(reply);
            }
            if omitted("storage: a batch is visible before its replies") {
                replies.drain(..).for_each(Reply::send);
            }
            if writes {
                slot.held().publish(GENERATION, &cell, Arc::new(Record(stored)));
            }
            replies.into_iter().for_each(Reply::send);
        }
    })
}

fn ask(slot: &Arc<Slot>) -> (Reply<Way, InFlight>, Caller) {
    assert!(slot.enter(), "nobody closes it");
    let (way, caller) = call();
    (Reply::new(way, InFlight(Arc::clone(slot))), caller)
}

/// Sends a save and does not wait for it.
fn save(slot: &Arc<Slot>, mailbox: &Mailbox<Command>, version: usize) -> Caller {
    let (reply, caller) = ask(slot);
    mailbox.send(Command::Save { version, reply });
    caller
}

/// Reads the record in memory where nothing is in flight, and asks storage otherwise; returns the version.
fn get(slot: &Arc<Slot>, mailbox: &Mailbox<Command>) -> usize {
    if slot.is_at_rest()
        && let Some(version) = slot.held().read(GENERATION, |record, _| record.0)
    {
        return version;
    }
    let (reply, caller) = ask(slot);
    let seen = Arc::new(AtomicUsize::new(0));
    mailbox.send(Command::Get { seen: Arc::clone(&seen), reply });
    assert_eq!(caller.hear(), Answer::Done);
    seen.load(Ordering::Acquire)
}

#[test]
fn a_get_sees_the_save_that_its_task_sent_before() {
    explore(AtMost(3), || {
        let (slot, cell) = session();
        let (mailbox, inbox) = mailbox();
        let storage = storage(&slot, cell, inbox);
        let saving = save(&slot, &mailbox, 2);
        assert_eq!(get(&slot, &mailbox), 2, "its own save, not waited for");
        assert_eq!(saving.hear(), Answer::Done);
        assert_eq!(get(&slot, &mailbox), 2, "its own save, acknowledged");
        drop(mailbox);
        join([storage]);
    });
}

mutant!(read_past_what_is_in_flight:
    "slot: at rest nothing is in flight"
    is killed by a_get_sees_the_save_that_its_task_sent_before);

#[test]
fn nobody_reads_a_version_after_its_successor() {
    explore(AtMost(2), || {
        let (slot, cell) = session();
        let (mailbox, inbox) = mailbox();
        let storage = storage(&slot, cell, inbox);
        let saving = thread::spawn({
            let (slot, mailbox) = (Arc::clone(&slot), mailbox.clone());
            move || {
                assert_eq!(save(&slot, &mailbox, 2).hear(), Answer::Done);
                assert_eq!(get(&slot, &mailbox), 2, "its own save, acknowledged");
            }
        });
        let versions = [get(&slot, &mailbox), get(&slot, &mailbox)];
        assert!(versions[0] <= versions[1], "a version after its successor: {versions:?}");
        drop(mailbox);
        join([saving, storage]);
    });
}

mutant!(answer_before_it_is_visible:
    "storage: a batch is visible before its replies"
    is killed by nobody_reads_a_version_after_its_successor);
