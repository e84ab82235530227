//! Reads from memory among many writers: nobody misses a save of its own, nobody reads a version after its successor
//! (R4, I2).

use shuttle::thread::{self, JoinHandle};

use crate::{
    actor::NoActor,
    caller::{Answer, Caller, Way, call},
    cell::{Activity, Cell, Deadlines, NEVER},
    explore::explore,
    held::{Held, Weigh},
    join,
    mailbox::{Inbox, Mailbox, Received, mailbox},
    reply::Reply,
    slot,
    sync::{Arc, AtomicUsize, Ordering},
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
const SAVERS: usize = 3;
const GETTERS: usize = 3;
const TIMES: usize = 2;

#[derive(Clone)]
struct Session {
    slot: Arc<Slot>,
    mailbox: Mailbox<Command>,
}

impl Session {
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

    fn save_and_get(&self) {
        let (saved, caller) = self.ask(true);
        let seen = self.get();
        assert_eq!(caller.hear(), Answer::Done);
        let saved = saved.load(Ordering::Acquire);
        assert!(seen >= saved, "its own save, not waited for: {seen} after {saved}");
        assert!(self.get() >= seen, "a version after its successor");
    }

    fn get_twice(&self) {
        let seen = self.get();
        assert!(self.get() >= seen, "a version after its successor");
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
            for Command { saves, version, reply } in &mut batch {
                stored += usize::from(*saves);
                version.store(stored, Ordering::Release);
                reply.receive();
                reply.prepare(Answer::Done);
            }
            if writes {
                slot.held().publish(GENERATION, &cell, Arc::new(Record(stored)));
            }
            for Command { reply, .. } in batch {
                reply.send();
            }
        }
        stored
    })
}

#[test]
fn a_crowd_reads_what_was_saved_before() {
    explore(|| {
        let activity = Activity { last_active: 0, count: 0 };
        let cell = Arc::new(Cell::new(1, activity, Deadlines { idle_timeout: NEVER, expires_at: NEVER }));
        let slot = Arc::new(Slot::entered(Held::new(Arc::new(AtomicUsize::new(0))), 0));
        slot.held().bind(&cell);
        slot.held().publish(GENERATION, &cell, Arc::new(Record(1)));
        slot.leave();
        let (mailbox, inbox) = mailbox();
        let storage = storage(&slot, cell, inbox);
        let session = Session { slot, mailbox };
        let spawn = |body: fn(&Session)| {
            let session = session.clone();
            thread::spawn(move || (0..TIMES).for_each(|_| body(&session)))
        };
        let savers = [(); SAVERS].map(|()| spawn(Session::save_and_get));
        let getters = [(); GETTERS].map(|()| spawn(Session::get_twice));
        join(savers);
        join(getters);
        assert!(session.slot.is_at_rest());
        drop(session);
        assert_eq!(storage.join().expect("a panic ends the model"), 1 + SAVERS * TIMES);
    });
}

mutant!(read_past_what_is_in_flight:
    "slot: at rest nothing is in flight"
    is killed by a_crowd_reads_what_was_saved_before);
