//! The order of one session: what its sender asked for first took effect first, whichever way the requests went; nobody
//! reads a version after its successor (R4, I2).
//!
//! The worker is the one that ships, and so are its batches, its table of cells and what it publishes; below it is a
//! database of one row.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    actor::NoActor,
    batch::Batch,
    cell::Touch,
    change::Change,
    clock::{Clock, EngineClock, Timestamp},
    command::{AnyPort, Command, HeldRecord, InFlight, Occupied, ReplyTo, Sink, Target},
    error::Result,
    explorer::thread::{self, JoinHandle},
    id::{SessionId, Version},
    mailbox::{Inbox, Mailbox, Received, mailbox},
    one_row::OneRow,
    record::{Durability, ExpiryDefaults, Record},
    reply::Reply,
    shared::Shared,
    slot,
    sync::{Arc, AtomicUsize},
    worker::{Settings, Worker},
};

type Slot = slot::Slot<NoActor, Arc<HeldRecord>>;

const NOW: i64 = 1_000_000;

/// A clock that stands.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(NOW)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Answers go to a mailbox.
struct Way<T>(Mailbox<Result<T>>);

impl<T: Send> Sink<T> for Way<T> {
    fn send(self: Box<Self>, answer: Result<T>) {
        self.0.send(answer);
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// The caller's end.
struct Caller<T>(Inbox<Result<T>>);

impl<T> Caller<T> {
    fn hear(self) -> T {
        match self.0.receive(None) {
            Received::Command(Ok(answer)) => answer,
            Received::Command(Err(error)) => panic!("{error:?}"),
            _ => panic!("not answered"),
        }
    }
}

/// A request's place in the slot.
struct Place(Arc<Slot>);

impl InFlight for Place {
    fn leave(&self) {
        self.0.leave();
    }
}

/// Leads to a session, whose requests go straight to storage.
#[derive(Clone)]
pub(crate) struct Session {
    id: SessionId,
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    mailbox: Mailbox<Command>,
    /// How many saves there were, and how many touches were committed. No part of the model, so std's.
    saves: Arc<AtomicU64>,
    touches_committed: Arc<AtomicU64>,
}

impl Session {
    /// A session of version 1, which is in memory, and the storage thread, which ends when nobody leads to it any more.
    pub(crate) fn new() -> (Self, JoinHandle<()>) {
        let id = SessionId::try_from("a").expect("an id");
        let slot = Arc::new(Slot::entered(Arc::new(HeldRecord::new(Arc::new(AtomicUsize::new(0)))), 0));
        slot.leave();
        let shared = Arc::new(Shared::default());
        let (mailbox, inbox) = mailbox();
        let settings = Settings {
            expiry: ExpiryDefaults { idle_timeout: None, lifetime: None },
            flush_interval: i64::MAX,
            sweep_interval: i64::MAX,
            sweep_grace: 0,
            payload_bytes_max: 1_000,
            sessions_max: None,
            sessions_per_user_max: None,
        };
        let clock = Arc::new(EngineClock::new(Arc::new(Still)));
        let touches_committed = Arc::default();
        let row = OneRow::new(&id, NOW, Arc::clone(&touches_committed));
        let mut worker = Worker::new(row, settings, clock, Arc::clone(&shared)).expect("it begins");
        let this = Self { id, slot, shared, mailbox, saves: Arc::default(), touches_committed };
        // As after a first get.
        let (command, caller) = this.command(|target, reply| Command::Get { target, reply });
        worker.run(&mut vec![command]).expect("it runs");
        caller.hear();
        (this, storage(worker, inbox))
    }

    /// Does something `times` on a thread of its own.
    pub(crate) fn spawn(&self, times: usize, body: fn(&Self)) -> JoinHandle<()> {
        let session = self.clone();
        thread::spawn(move || (0..times).for_each(|_| body(&session)))
    }

    fn command<T: Send + 'static>(&self, make: impl FnOnce(Target, ReplyTo<T>) -> Command) -> (Command, Caller<T>) {
        assert!(self.slot.enter(), "nobody closes it");
        let (way, answers) = mailbox();
        let occupied = Occupied::nothing().in_slot(Arc::new(Place(Arc::clone(&self.slot))));
        let target = Target { id: self.id.clone(), held: Some(Arc::clone(self.slot.held())) };
        (make(target, Reply::new(AnyPort::new(Way(way)), occupied)), Caller(answers))
    }

    /// Asks storage, and does not wait.
    fn ask<T: Send + 'static>(&self, make: impl FnOnce(Target, ReplyTo<T>) -> Command) -> Caller<T> {
        let (command, caller) = self.command(make);
        self.mailbox.send(command);
        caller
    }

    /// Reads the record in memory where nothing is in flight, and asks storage otherwise; returns the version.
    fn get(&self) -> i64 {
        if self.slot.is_at_rest()
            && let Some(version) = self.slot.held().read(self.shared.vitals.generation(), |stored, _| stored.counter)
        {
            return version;
        }
        let caller = self.ask::<Option<Record>>(|target, reply| Command::Get { target, reply });
        caller.hear().expect("it is there").version().counter
    }

    /// Saves what is new each time.
    fn save(&self) -> Caller<Version> {
        let n = self.saves.fetch_add(1, Ordering::Relaxed);
        let change = Arc::new(Change::new().metadata("n", n.to_string()).keep_idle());
        let durability = Durability::Committed;
        self.ask(|target, reply| Command::Write { target, change, rotate_to: None, at: NOW, durability, reply })
    }

    pub(crate) fn save_and_get(&self) {
        let caller = self.save();
        let seen = self.get();
        let saved = caller.hear().counter;
        assert!(seen >= saved, "its own save, not waited for: {seen} after {saved}");
        assert!(self.get() >= seen, "a version after its successor");
    }

    pub(crate) fn save_then_get(&self) {
        let saved = self.save().hear().counter;
        assert!(self.get() >= saved, "its own save, acknowledged");
    }

    pub(crate) fn get_twice(&self) {
        let seen = self.get();
        assert!(self.get() >= seen, "a version after its successor");
    }

    /// Touches as a handle does, and has all touches written.
    pub(crate) fn touch_and_flush(&self) {
        let cell = self.slot.held().cell().expect("it is in memory");
        match cell.touch(NOW) {
            Touch::CountedFirst if self.shared.dirty.add(Arc::clone(&cell)) => self.mailbox.send(Command::Dirty),
            Touch::CountedFirst | Touch::Counted => {}
            other => panic!("{other:?}"),
        }
        let touches = cell.activity().count;
        let (way, answers) = mailbox();
        let reply = Reply::new(AnyPort::new(Way(way)), Occupied::nothing());
        self.mailbox.send(Command::Flush { reply });
        Caller(answers).hear();
        let committed = self.touches_committed.load(Ordering::Relaxed);
        assert!(committed >= touches, "{committed} of {touches} touches made before a flush are written");
    }

    /// Waits until all others are gone and storage with them; `saves` were asked for.
    pub(crate) fn end(self, storage: JoinHandle<()>, saves: u64) {
        let (slot, shared) = (Arc::clone(&self.slot), Arc::clone(&self.shared));
        drop(self);
        storage.join().expect("a panic ends the model");
        assert!(slot.is_at_rest());
        let version = slot.held().read(shared.vitals.generation(), |stored, _| stored.counter);
        assert_eq!(version, Some(1 + saves.cast_signed()));
    }
}

/// Takes what is there as one batch and runs it, as the storage thread does; what stands alone comes alone.
fn storage(mut worker: Worker<OneRow>, inbox: Inbox<Command>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut batch = Batch::new();
        let mut next = None;
        loop {
            while !batch.is_full()
                && let Some(command) = next.take().or_else(|| received(inbox.try_receive()))
            {
                match command {
                    Command::Dirty => worker.flush_soon(),
                    command => next = batch.push(command).err(),
                }
                if next.is_some() {
                    break;
                }
            }
            worker.run(&mut batch.commands).expect("it runs");
            batch.clear();
            if next.is_none() {
                next = received(inbox.receive(None));
                if next.is_none() {
                    return;
                }
            }
        }
    })
}

fn received(received: Received<Command>) -> Option<Command> {
    match received {
        Received::Command(command) => Some(command),
        Received::TimedOut | Received::Disconnected => None,
    }
}
