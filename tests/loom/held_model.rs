//! What a live session holds in memory, and the generation it is of: no reader is served what is known to be stale (R2,
//! R4, R5).

use loom::thread::{self, JoinHandle};

use crate::{
    cell::{Activity, Cell, Deadlines, NEVER},
    explore::{
        Preemptions::{AtMost, Unbounded},
        explore,
    },
    health::{Phase, Vitals},
    held::{Held, Weigh},
    join,
    mailbox::{Received, mailbox},
    sync::{Arc, AtomicUsize, Ordering, omitted},
};

/// A record: the row it is of, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    row: i64,
    version: usize,
}

impl Weigh for Record {
    fn bytes(&self) -> usize {
        self.version
    }
}

fn cell(row: i64) -> Arc<Cell> {
    let endless = Deadlines { idle_timeout: NEVER, expires_at: NEVER };
    Arc::new(Cell::new(row, Activity { last_active: 0, count: 0 }, endless))
}

/// A live session and the storage thread's vitals.
struct Live {
    vitals: Vitals,
    held: Held<Record>,
    bytes_held: Arc<AtomicUsize>,
}

impl Live {
    /// A session of row 1, with a record of version 1.
    fn new() -> (Arc<Self>, Arc<Cell>) {
        let (cell, bytes_held) = (cell(1), Arc::new(AtomicUsize::new(0)));
        let live = Self { vitals: Vitals::new(), held: Held::new(Arc::clone(&bytes_held)), bytes_held };
        assert!(live.held.bind(&cell));
        live.publish(&cell, 1);
        (Arc::new(live), cell)
    }

    fn publish(&self, cell: &Arc<Cell>, version: usize) {
        self.held.publish(self.vitals.generation(), cell, Arc::new(Record { row: cell.serial(), version }));
    }

    /// Reads as a handle does.
    fn read(&self) -> Option<Record> {
        self.held.read(self.vitals.generation(), |record, cell| {
            assert_eq!(record.row, cell.serial(), "a record beside the cell of another row");
            **record
        })
    }
}

fn spawn<T: 'static>(live: &Arc<Live>, body: impl FnOnce(&Live) -> T + 'static) -> JoinHandle<T> {
    let live = Arc::clone(live);
    thread::spawn(move || body(&live))
}

#[test]
fn who_heard_of_a_save_reads_it_or_nothing() {
    explore(Unbounded, || {
        let (live, cell) = Live::new();
        let (reply, answer) = mailbox();
        let storage = spawn(&live, move |live| {
            if omitted("storage: a record is published before the reply") {
                reply.send(2);
                return live.publish(&cell, 2);
            }
            live.publish(&cell, 2);
            reply.send(2);
        });
        let reader = spawn(&live, move |live| {
            let Received::Command(saved) = answer.receive(None) else { panic!("not answered") };
            assert_eq!(live.read(), Some(Record { row: 1, version: saved }));
        });
        let other = spawn(&live, |live| {
            let versions = [live.read(), live.read()].map(|record| record.map_or(0, |record| record.version));
            assert!(versions[0] <= versions[1], "a version after its successor: {versions:?}");
        });
        join([storage, reader, other]);
        assert_eq!(live.bytes_held.load(Ordering::Relaxed), 2);
        live.held.clear();
        assert_eq!(live.bytes_held.load(Ordering::Relaxed), 0);
    });
}

mutant!(reply_before_publishing:
    "storage: a record is published before the reply"
    is killed by who_heard_of_a_save_reads_it_or_nothing);

#[test]
fn who_heard_of_a_new_generation_reads_nothing_older() {
    explore(Unbounded, || {
        let (live, _cell) = Live::new();
        let (reply, answer) = mailbox();
        let storage = spawn(&live, move |live| {
            // What was committed is in doubt, or another process wrote: the record in memory may be wrong.
            live.vitals.next_generation();
            reply.send(());
        });
        let reader = spawn(&live, move |live| {
            assert!(matches!(answer.receive(None), Received::Command(())));
            assert_eq!(live.read(), None, "a record of a generation that is over");
        });
        join([storage, reader]);
    });
}

mutant!(read_an_older_generation:
    "held: a record of another generation is not read"
    is killed by who_heard_of_a_new_generation_reads_nothing_older);

#[test]
fn who_sees_a_generation_sees_what_it_ended() {
    explore(Unbounded, || {
        let (live, cell) = Live::new();
        let dying = Arc::clone(&cell);
        let storage = spawn(&live, move |live| {
            // Recovered: the row is gone, and so is what was held of it.
            dying.freeze();
            dying.kill();
            live.vitals.next_generation();
            live.vitals.enter(Phase::Running);
        });
        let reader = spawn(&live, move |live| {
            let generation = live.vitals.generation();
            assert!(generation == 1 || !cell.is_live(), "generation {generation} with a cell of the one before");
        });
        join([storage, reader]);
    });
}

mutant!(see_a_generation_too_early:
    "health: a reader acquires the generation"
    is killed by who_sees_a_generation_sees_what_it_ended);

#[test]
fn a_record_stands_beside_the_cell_of_its_own_row() {
    explore(AtMost(3), || {
        let (live, first) = Live::new();
        let storage = spawn(&live, move |live| {
            // The session was deleted and created again: another row.
            let second = cell(2);
            assert!(live.held.bind(&second));
            // A read of the first row that was staged in the same batch comes too late.
            live.publish(&first, 3);
            live.publish(&second, 4);
        });
        let readers = [spawn(&live, Live::read), spawn(&live, Live::read)];
        storage.join().unwrap();
        let served = [None, Some(Record { row: 1, version: 1 }), Some(Record { row: 2, version: 4 })];
        for read in join(readers) {
            assert!(served.contains(&read), "{read:?}");
        }
        live.held.close();
        assert!(!live.held.bind(&cell(3)), "bound after its passivation");
        assert_eq!(live.read(), None);
        assert_eq!(live.bytes_held.load(Ordering::Relaxed), 0);
    });
}

mutant!(keep_the_record_of_another_row:
    "held: the record of another row is dropped"
    is killed by a_record_stands_beside_the_cell_of_its_own_row);

#[test]
fn one_of_many_looks_for_foreign_writes() {
    explore(Unbounded, || {
        let (live, _cell) = Live::new();
        let look = |live: &Live| live.vitals.claim_check(10, 10);
        let claims = join([spawn(&live, look), spawn(&live, look), spawn(&live, look)]);
        assert_eq!(claims.into_iter().filter(|claimed| *claimed).count(), 1);
        assert!(!look(&live), "the interval begins anew");
    });
}

mutant!(everybody_looks:
    "health: one caller claims the look"
    is killed by one_of_many_looks_for_foreign_writes);
