//! Clients of an engine, each of which writes to sessions of its own, one operation after the other, and notes what it
//! was answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use sessile::{Change, Durability, Engine, Error, Filter, NewSession, Outcome, Query, Session};
use sessile_tests::{Random, read};

use crate::{
    content::{Datum, Kept},
    disk::Recorder,
};

/// What a client learned, in the order in which it did.
#[derive(Debug, Clone)]
pub enum Mark {
    /// The engine is open: the file is the engine's, and safely so.
    Opened,
    /// An operation was answered, and with what promise.
    Acknowledged { client: usize, operation: usize, synced: bool },
    /// A lazy touch was answered: so many there are now.
    Touched { client: usize, count: u64 },
    /// A flush or a shutdown was answered. To each client, what had been answered to it before the flush was asked for:
    /// the last operation and the number of lazy touches.
    Flushed(BTreeMap<usize, (usize, u64)>),
}

/// What clients' sessions were.
#[derive(Debug, Clone, Default)]
pub struct Histories {
    /// Of each client, after each of its operations.
    pub kept: BTreeMap<usize, Vec<Kept>>,
    /// What an operation of a client would have made of them, that was in doubt and then had not happened. A file may
    /// show it until the engine has recovered.
    pub doubts: BTreeMap<(usize, usize), Kept>,
}

/// What all clients share.
pub struct Ledger {
    pub recorder: Arc<Recorder<Mark>>,
    histories: Mutex<Histories>,
    answered: Mutex<BTreeMap<usize, (usize, u64)>>,
    synced: AtomicU64,
    committed: AtomicU64,
    /// Of those that were synced, creations and deletions of many.
    created: AtomicU64,
    deleted: AtomicU64,
}

impl Ledger {
    pub fn new(recorder: Arc<Recorder<Mark>>) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            histories: Mutex::default(),
            answered: Mutex::default(),
            synced: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            created: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
        })
    }

    /// Returns the histories so far.
    pub fn histories(&self) -> Histories {
        self.histories.lock().unwrap().clone()
    }

    /// Returns how many operations were answered with `Synced`, and how many with `Committed`.
    pub fn acknowledged(&self) -> (u64, u64) {
        (self.synced.load(Ordering::Relaxed), self.committed.load(Ordering::Relaxed))
    }

    /// Returns how many creations were answered with `Synced`, and how many deletions of many.
    pub fn synced_by_engine(&self) -> (u64, u64) {
        (self.created.load(Ordering::Relaxed), self.deleted.load(Ordering::Relaxed))
    }

    /// Flushes, and notes what that promises.
    pub async fn flush(&self, engine: &Engine) {
        let before = self.answered.lock().unwrap().clone();
        while let Err(error) = engine.flush().await {
            assert!(is_doubtful(&error), "a flush fails: {error:?}");
        }
        self.recorder.mark(Mark::Flushed(before));
    }

    /// Shuts the engine down, and notes what that promises.
    pub async fn shutdown(&self, engine: &Engine) {
        engine.shutdown().await.expect("it shuts down");
        self.recorder.mark(Mark::Flushed(self.answered.lock().unwrap().clone()));
    }

    fn intend(&self, client: usize, operation: usize, then: &Kept) {
        let mut histories = self.histories.lock().unwrap();
        let history = histories.kept.entry(client).or_insert_with(|| vec![Kept::new()]);
        history.truncate(operation);
        history.push(then.clone());
    }

    fn take_back(&self, client: usize, operation: usize, kept: &Kept, instead_of: Kept) {
        self.intend(client, operation, kept);
        self.histories.lock().unwrap().doubts.insert((client, operation), instead_of);
    }

    fn answer(&self, client: usize, operation: usize, synced: bool) {
        self.recorder.mark(Mark::Acknowledged { client, operation, synced });
        self.answered.lock().unwrap().entry(client).or_default().0 = operation;
        if synced { &self.synced } else { &self.committed }.fetch_add(1, Ordering::Relaxed);
    }

    fn touched(&self, client: usize, count: u64) {
        self.recorder.mark(Mark::Touched { client, count });
        self.answered.lock().unwrap().entry(client).or_default().1 = count;
    }
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Out of a hundred operations, how many are to be synced.
    pub synced: u64,
    /// The most bytes of data.
    pub padding: u64,
    /// Whether it flushes now and then.
    pub flushes: bool,
    /// What its engine promises where an operation asks for nothing else: creations, and deletions of many.
    pub engine: Durability,
}

/// A client.
pub struct Client {
    number: usize,
    engine: Engine,
    ledger: Arc<Ledger>,
    random: Random,
    habits: Habits,
    operation: usize,
    kept: Kept,
    sessions: BTreeMap<u64, Session>,
    slot_next: u64,
    lazy: Option<Session>,
    lazy_count: u64,
}

impl Client {
    pub fn new(number: usize, engine: &Engine, ledger: &Arc<Ledger>, random: Random, habits: Habits) -> Self {
        Self {
            number,
            engine: engine.clone(),
            ledger: Arc::clone(ledger),
            random,
            habits,
            operation: 0,
            kept: Kept::new(),
            sessions: BTreeMap::new(),
            slot_next: 0,
            lazy: None,
            lazy_count: 0,
        }
    }

    /// Goes on with an engine that was opened anew.
    pub fn moves_to(&mut self, engine: &Engine) {
        self.engine = engine.clone();
        let anew = |session: &mut Session| *session = engine.session(session.id().as_str()).unwrap();
        self.sessions.values_mut().for_each(anew);
        self.lazy.iter_mut().for_each(anew);
    }

    /// Does so many operations, with lazy touches and now and then a flush between them.
    pub async fn work(&mut self, operations: usize) {
        if self.lazy.is_none() {
            let data = Datum { client: self.number, slot: None, operation: 0, padding: String::new() };
            let new = NewSession::with_id(format!("lazy-{}", self.number)).user("client").data(&data);
            self.lazy = Some(self.engine.create(new).await.expect("it is created"));
        }
        for _ in 0..operations {
            self.operate().await;
            match self.random.below(10) {
                0..5 => self.touch().await,
                5 if self.habits.flushes => self.ledger.flush(&self.engine).await,
                _ => {}
            }
        }
    }

    async fn touch(&mut self) {
        let lazy = self.lazy.as_ref().expect("made at the beginning");
        match lazy.touch().await {
            Ok(()) => self.lazy_count += 1,
            Err(error) if is_doubtful(&error) => {
                self.lazy_count = read(lazy).await.touch_count();
            }
            Err(error) => panic!("a touch of client {} fails: {error:?}", self.number),
        }
        self.ledger.touched(self.number, self.lazy_count);
    }

    /// One operation. Whatever it is answered, afterwards the client knows whether it took place.
    async fn operate(&mut self) {
        self.operation += 1;
        let synced = self.random.below(100) < self.habits.synced;
        let durability = if synced { Durability::Synced } else { Durability::Committed };
        let slots: Vec<_> = self.kept.keys().copied().collect();
        let kind = match self.operation {
            _ if slots.len() < 3 => 0,
            // Once for certain.
            4 => 10,
            _ => self.random.below(11),
        };
        let slot = match kind {
            // The oldest goes, and a new one never has an old one's number: so no state comes twice.
            9 => slots[0],
            0 => self.slot_next,
            _ => slots[self.random.below(slots.len() as u64) as usize],
        };
        let mut then = self.kept.clone();
        let touches = then.get(&slot).map_or(0, |kept| kept.1);
        let many = format!("{}-", self.number);
        match kind {
            8 => drop(then.insert(slot, (then[&slot].0, touches + 1))),
            9 => drop(then.remove(&slot)),
            10 => then.retain(|slot, _| !self.sessions[slot].id().as_str().starts_with(&many)),
            _ => drop(then.insert(slot, (self.operation, touches))),
        }
        self.ledger.intend(self.number, self.operation, &then);

        let operation = self.operation;
        let length = self.random.below(self.habits.padding + 1) as usize;
        let data = Datum { client: self.number, slot: Some(slot), operation, padding: "x".repeat(length) };
        let session = self.sessions.get(&slot).map(|session| session.clone().with_durability(durability));
        let session = || session.clone().expect("a session of this slot");
        let answer = match kind {
            0 => {
                let new = NewSession::with_id(format!("{many}{slot}")).user("client").data(&data);
                self.slot_next += 1;
                let created = if self.random.below(2) == 0 {
                    self.engine.create(new).await
                } else {
                    self.engine.get_or_create(new).await.map(|(session, is_new)| {
                        assert!(is_new, "a new slot");
                        session
                    })
                };
                created.map(|session| drop(self.sessions.insert(slot, session)))
            }
            1..5 => session().save(&data).await.map(drop),
            5 => session().update(move |kept: &mut Datum| kept.operation = operation).await,
            6 => session().apply(Change::new().data(&data).metadata("at", operation.to_string())).await.map(drop),
            7 => session()
                .rotate(Change::new().data(&data))
                .await
                .map(|rotated| drop(self.sessions.insert(slot, rotated.with_durability(Durability::Committed)))),
            8 => session().touch_with(durability).await,
            9 => session().delete().await.map(|was_there| assert!(was_there, "it was there")),
            // Those that were not rotated since they were created.
            _ => self.engine.delete_where(Filter::all().id_prefix(&many)).await.map(|deleted| {
                assert_eq!(deleted as usize, slots.len() - then.len(), "all of them were there");
            }),
        };
        match answer {
            Ok(()) => {
                self.kept = then;
                let promised = if matches!(kind, 0 | 10) { self.habits.engine } else { durability };
                let synced = promised == Durability::Synced;
                self.ledger.answer(self.number, operation, synced);
                match kind {
                    0 if synced => drop(self.ledger.created.fetch_add(1, Ordering::Relaxed)),
                    10 if synced => drop(self.ledger.deleted.fetch_add(1, Ordering::Relaxed)),
                    _ => {}
                }
            }
            Err(error) if is_doubtful(&error) => {
                self.find_out(then, slot).await;
            }
            Err(error) => panic!("operation {operation} of client {} fails: {error:?}", self.number),
        }
    }

    /// Reads which of two it is: as it was, or `then`.
    async fn find_out(&mut self, then: Kept, slot: u64) {
        let mut there = Kept::new();
        let page = self.engine.list(Query::new(Filter::all().user("client")).limit(1_000)).await.expect("a list");
        for summary in page.items {
            let session = self.engine.session(summary.id().expect("ids are kept").as_str()).unwrap();
            let Some(record) = session.get().await.expect("a read") else { continue };
            let datum: Datum = record.data().unwrap();
            if let (true, Some(found)) = (datum.client == self.number, datum.slot) {
                there.insert(found, (datum.operation, record.touch_count()));
                if found == slot {
                    self.sessions.insert(slot, session);
                }
            }
        }
        if there == then {
            self.kept = then;
        } else {
            assert_eq!(there, self.kept, "what was in doubt happened or did not");
            self.ledger.take_back(self.number, self.operation, &self.kept, then);
        }
        self.ledger.answer(self.number, self.operation, false);
    }
}

/// Whether it is what a fault of the disk is answered with: to be asked again.
fn is_doubtful(error: &Error) -> bool {
    error.outcome() == Outcome::MayHaveHappened || matches!(error, Error::Unavailable { .. })
}
