//! The storage thread, spoken to without actors: what no caller of an engine can bring about on purpose.

use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use jiff::tz::TimeZone;
use sessile_storage::{
    Settings,
    admission::{Admission, Bounds},
    cell::{Cell, Touch},
    change::Change,
    clock::{EngineClock, ManualClock, micros},
    command::{AnyPort, Command, HeldRecord, Occupied, ReplyTo, Sink, Target},
    error::Result,
    id::SessionId,
    mailbox::Mailbox,
    query::{Filter, Query},
    record::{Durability, ExpiryDefaults},
    reply::Reply,
    shared::Shared,
    sqlite::{OpenOptions, Sqlite},
    thread::{Parts, spawn},
};
use sessile_tests::{PATIENCE, Place, START};

/// How long sessions may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// Answers go to a channel.
struct Answers<T>(Sender<Result<T>>);

impl<T: Send> Sink<T> for Answers<T> {
    fn send(self: Box<Self>, answer: Result<T>) {
        drop(self.0.send(answer));
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// The thread, with one session whose cell has a touch that nobody has told of yet.
struct Rig {
    mailbox: Mailbox<Command>,
    thread: JoinHandle<()>,
    clock: Arc<ManualClock>,
    place: Place,
    cell: Arc<Cell>,
}

impl Rig {
    fn new() -> Self {
        let place = Place::new();
        let clock = Arc::new(ManualClock::new(START));
        let (shared, engine_clock) = (Arc::new(Shared::default()), Arc::new(EngineClock::new(clock.clone())));
        let bounds = Bounds { requests_max: 1, bytes_max: 1, waiters_max: 1 };
        let options = OpenOptions {
            path: Some(place.path()),
            cache_bytes: 1 << 20,
            take_over_zone: TimeZone::UTC,
            only_existing: false,
        };
        let (opened, is_open) = channel();
        let (mailbox, thread) = spawn(Parts {
            open: Box::new(|| Sqlite::open(options).map(|(sqlite, _)| sqlite)),
            settings: Settings {
                expiry: ExpiryDefaults { idle_timeout: Some(micros(IDLE)), lifetime: None },
                // Nothing but what is asked for.
                flush_interval: i64::MAX,
                sweep_interval: i64::MAX,
                sweep_grace: 0,
                payload_bytes_max: 1_000,
                sessions_max: None,
                sessions_per_user_max: None,
            },
            clock: engine_clock,
            admission: Arc::new(Admission::new(bounds)),
            shared: Arc::clone(&shared),
            opened: Box::new(move |outcome| drop(opened.send(outcome))),
            observer: Box::new(|_| {}),
        })
        .unwrap();
        is_open.recv_timeout(PATIENCE).unwrap().unwrap();

        let id = SessionId::try_from("a").unwrap();
        let held = Arc::new(HeldRecord::new(Arc::default()));
        let (new, at) = (Arc::new(Change::new()), START.as_micros());
        let durability = Durability::Committed;
        let create = |reply| Command::Create { id: id.clone(), change: new, or_existing: false, at, durability, reply };
        assert!(ask(&mailbox, create).unwrap());
        let target = Target { id: id.clone(), held: Some(Arc::clone(&held)) };
        assert!(ask(&mailbox, |reply| Command::Get { target, reply }).unwrap().is_some());
        let cell = held.cell().expect("a cell is bound");
        // Whoever touches first is to add the cell to those with something to flush, and to tell of it. This one has not
        // come to that yet; so the one after it, who is done, rests on a hint that is still to come.
        clock.advance(IDLE / 2);
        let now = START.as_micros() + micros(IDLE / 2);
        assert_eq!(cell.touch(now), Touch::CountedFirst);
        assert_eq!(cell.touch(now), Touch::Counted);
        Self { mailbox, thread, clock, place, cell }
    }

    fn ask<T: Send + 'static>(&self, make: impl FnOnce(ReplyTo<T>) -> Command) -> Result<T> {
        ask(&self.mailbox, make)
    }

    fn touches_in_file(&self) -> i64 {
        self.place.connect().query_row("SELECT touch_count FROM activity", [], |row| row.get(0)).unwrap()
    }

    fn end(self) -> Place {
        self.mailbox.send(Command::Shutdown);
        self.thread.join().unwrap();
        self.place
    }
}

fn ask<T: Send + 'static>(mailbox: &Mailbox<Command>, make: impl FnOnce(ReplyTo<T>) -> Command) -> Result<T> {
    let (sender, answers) = channel();
    mailbox.send(make(Reply::new(AnyPort::new(Answers(sender)), Occupied::nothing())));
    answers.recv_timeout(PATIENCE).expect("an answer")
}

#[test]
fn a_flush_writes_a_touch_whose_hint_is_still_to_come() {
    let rig = Rig::new();
    rig.ask(|reply| Command::Flush { reply }).unwrap();
    assert_eq!(rig.touches_in_file(), 2);
    rig.end();
}

#[test]
fn a_list_shows_a_touch_whose_hint_is_still_to_come() {
    let rig = Rig::new();
    let page = rig.ask(|reply| Command::List { query: Box::new(Query::new(Filter::all())), reply }).unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].touch_count(), 2);
    rig.end();
}

#[test]
fn a_sweep_spares_a_session_by_a_touch_whose_hint_is_still_to_come() {
    let rig = Rig::new();
    // Over by what is on disk, not by the touch.
    rig.clock.advance(IDLE * 9 / 10);
    let filter = Box::new(Filter::over());
    let durability = Durability::Committed;
    assert_eq!(rig.ask(|reply| Command::DeleteWhere { filter, durability, reply }).unwrap(), 0);
    assert!(rig.cell.is_live());
    assert_eq!(rig.ask(|reply| Command::Count { filter: Box::new(Filter::all()), reply }).unwrap(), 1);
    rig.end();
}

#[test]
fn a_shutdown_writes_a_touch_whose_hint_is_still_to_come() {
    let rig = Rig::new();
    let place = rig.end();
    let count: i64 = place.connect().query_row("SELECT touch_count FROM activity", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
}
