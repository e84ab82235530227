//! Another process at the same file: a plain connection, as the sqlite3 shell would open.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sessile::{CauseKind, Change, Durability, Error, Filter, Health, NewSession, Outcome, Query, testing::Faults};
use sessile_tests::{
    Place, Rig, START, eventually, poll_once, read, soon,
    vfs::{self, Call, CallKind, Verdict, Watcher, codes},
};

/// Half of SQLite's busy timeout: what is answered by then did not wait for the lock.
const AT_ONCE: Duration = Duration::from_millis(2_500);
/// For how long a session in memory may be behind what another process wrote.
const STALENESS: Duration = Duration::from_secs(1);

fn change(connection: &Connection, sql: &str) {
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
}

fn lock(place: &Place) -> Connection {
    let other = place.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test]
async fn data_written_by_another_process_is_seen_within_the_interval() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    read(&session).await;
    change(&rig.place.connect(), "UPDATE session SET data = '\"foreign\"', counter = counter + 1");
    rig.advance(STALENESS);
    eventually("it is seen", async || read(&session).await.data::<String>().unwrap() == "foreign").await;
    assert_eq!(rig.engine.stats().foreign_writes, 1);
    // The touch in memory is not lost by it.
    assert_eq!(read(&session).await.touch_count(), 1);
    session.update(|data: &mut String| data.push('!')).await.unwrap();
    assert_eq!(rig.restart().await.record("a").await.data::<String>().unwrap(), "foreign!");
}

#[tokio::test]
async fn by_the_machines_clock_too() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    read(&session).await;
    change(&place.connect(), "UPDATE session SET data = '\"foreign\"'");
    let written = Instant::now();
    eventually("it is seen", async || read(&session).await.data::<String>().unwrap() == "foreign").await;
    assert!(written.elapsed() < STALENESS * 4, "{:?}", written.elapsed());
}

#[tokio::test]
async fn a_session_deleted_by_another_process_is_gone_within_the_interval() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    read(&session).await;
    rig.place.connect().execute_batch("BEGIN; DELETE FROM session; DELETE FROM activity; COMMIT").unwrap();
    rig.advance(STALENESS);
    eventually("it is gone", async || session.get().await.unwrap().is_none()).await;
    // Nothing sent later brings it back.
    for error in [
        session.save("x").await.err(),
        session.update(|_: &mut String| ()).await.err(),
        session.touch_with(Durability::Committed).await.err(),
        session.touch().await.err(),
    ] {
        assert!(matches!(error, Some(Error::NotFound)), "{error:?}");
    }
    rig.engine.flush().await.unwrap();
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 0);
    assert!(rig.restart().await.session("a").get().await.unwrap().is_none());
}

#[tokio::test]
async fn touches_of_a_session_deleted_by_another_process_end_with_the_next_flush() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.place.connect().execute_batch("BEGIN; DELETE FROM session; DELETE FROM activity; COMMIT").unwrap();
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    assert!(matches!(session.touch().await, Err(Error::NotFound)));
    let successor = rig.create("a").await;
    session.touch().await.unwrap();
    assert_eq!(read(&successor).await.touch_count(), 1);
}

#[tokio::test]
async fn a_session_made_anew_by_another_process_is_another_session() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    let version = read(&session).await.version();
    // The same id in another row, as by a deletion and a new session.
    let anew = "BEGIN; UPDATE session SET serial = 5000; UPDATE activity SET serial = 5000, touch_count = 7; COMMIT";
    rig.place.connect().execute_batch(anew).unwrap();
    assert!(matches!(session.save_if(version, "x").await, Err(Error::Conflict { .. })));
    // Sent after it was made, so meant for it, although its function runs on the record in memory first.
    session.update(|data: &mut String| data.push('!')).await.unwrap();
    let record = read(&session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("a!", 7));
    session.touch().await.unwrap();
    assert_eq!(read(&session).await.touch_count(), 8);
    // The cell of the row that is gone went with it.
    assert_eq!(rig.engine.stats().touch_cells, 1);
    assert_eq!(rig.restart().await.record("a").await.touch_count(), 8);
}

#[tokio::test]
async fn writes_go_by_what_is_there_and_not_by_what_is_in_memory() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let version = read(&session).await.version();
    change(&rig.place.connect(), "UPDATE session SET data = '\"b\"', counter = counter + 1");
    // Without any interval.
    let error = session.save_if(version, "c").await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    change(&rig.place.connect(), "UPDATE session SET data = '\"d\"', counter = counter + 1");
    session.update(|data: &mut String| data.push('e')).await.unwrap();
    assert_eq!(read(&session).await.data::<String>().unwrap(), "de");
}

#[tokio::test]
async fn activity_raised_by_another_process_is_never_lowered() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    change(&rig.place.connect(), "UPDATE activity SET touch_count = 100, last_active_at = last_active_at + 5000000");
    let later = START.saturating_add(Duration::from_secs(5));
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    let rig = rig.restart().await;
    let record = rig.record("a").await;
    assert!(record.touch_count() >= 100);
    assert_eq!(record.last_active_at(), later);
}

/// Deletes all sessions from another connection, at the moment when a transaction is about to have SQLite's write lock.
#[derive(Default)]
struct AtTheLastMoment {
    other: OnceLock<Mutex<Connection>>,
    is_due: AtomicBool,
}

/// The write lock, among those on the log's index: <https://sqlite.org/walformat.html>.
const WRITE_LOCK: u64 = 0;

fn takes_write_lock(call: &Call<'_>) -> bool {
    call.kind == CallKind::SharedLock && call.offset == WRITE_LOCK && call.flags & codes::SQLITE_SHM_EXCLUSIVE != 0
}

impl Watcher for AtTheLastMoment {
    fn before(&self, call: &Call<'_>) -> Verdict {
        // Once: the other takes the lock itself.
        if takes_write_lock(call) && self.is_due.swap(false, Ordering::Relaxed) {
            let other = self.other.get().unwrap().lock().unwrap();
            other.execute_batch("DELETE FROM session").unwrap();
        }
        Verdict::Pass
    }
}

#[tokio::test]
async fn a_commit_that_slips_in_before_the_transaction_is_seen_in_it() {
    let place = Place::new();
    let moment = Arc::new(AtTheLastMoment::default());
    let _watch = vfs::watch(&place.directory(), moment.clone());
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("a")).await.unwrap();
    session.touch().await.unwrap();
    session.touch_with(Durability::Committed).await.unwrap();
    moment.other.set(Mutex::new(place.connect())).unwrap();
    moment.is_due.store(true, Ordering::Relaxed);
    // Its cell is in use, so that its row is not read: that it is there is known by nobody else having written.
    let touched = session.touch_with(Durability::Committed).await;
    assert!(!moment.is_due.load(Ordering::Relaxed), "the lock was not taken");
    assert!(matches!(touched, Err(Error::NotFound)), "{touched:?}");
    assert!(session.get().await.unwrap().is_none());
}

/// Has SQLite's write lock taken twice, and then by somebody else for a while.
#[derive(Default)]
struct TakenAgain {
    is_on: AtomicBool,
    state: Mutex<(u32, Option<Instant>)>,
}

/// For how often it is taken before, and for how long after that it cannot be: longer than a batch waits.
const TAKEN_BEFORE: u32 = 2;
const TAKEN_FOR: Duration = Duration::from_millis(120);

impl Watcher for TakenAgain {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if !self.is_on.load(Ordering::Relaxed) || !takes_write_lock(call) {
            return Verdict::Pass;
        }
        let (taken, since) = &mut *self.state.lock().unwrap();
        if *taken < TAKEN_BEFORE || since.get_or_insert_with(Instant::now).elapsed() > TAKEN_FOR {
            Verdict::Pass
        } else {
            Verdict::Fail(codes::SQLITE_BUSY)
        }
    }

    fn after(&self, call: &Call<'_>, code: i32) {
        if self.is_on.load(Ordering::Relaxed) && takes_write_lock(call) && code == codes::SQLITE_OK {
            self.state.lock().unwrap().0 += 1;
        }
    }
}

#[tokio::test]
async fn what_is_set_aside_twice_keeps_its_order() {
    let place = Place::new();
    place.builder().open().await.unwrap().shutdown().await.unwrap();
    let other = place.connect();
    let lock = Arc::new(TakenAgain::default());
    let _watch = vfs::watch(&place.directory(), lock.clone());
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("new")).await.unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The number that the next session of the engine's is to have.
    let taken = "INSERT INTO session (serial, id, counter, data) \
                 SELECT value, 'other', 1, '1' FROM meta WHERE key = 'serial_next'";
    other.execute_batch(taken).unwrap();
    let before = engine.stats().commands;
    let mut create = pin!(engine.create(NewSession::with_id("b")));
    let mut first = pin!(session.save("first"));
    let mut list = pin!(engine.list(Query::new(Filter::all())));
    let mut second = pin!(session.save("second"));
    assert!(poll_once(create.as_mut()).is_pending());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(list.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    eventually("all of them have come", async || engine.stats().commands == before + 4).await;
    // And were set aside, each after a batch's wait for the lock, of which nothing tells.
    tokio::time::sleep(Duration::from_millis(200)).await;
    lock.is_on.store(true, Ordering::Relaxed);
    other.execute_batch("COMMIT").unwrap();
    // Its number is taken, so that all that was set aside with it runs one by one; and then the lock is gone again.
    create.await.unwrap();
    first.await.unwrap();
    list.await.unwrap();
    second.await.unwrap();
    assert!(lock.state.lock().unwrap().1.is_some(), "the lock was not asked for once more");
    assert_eq!(read(&session).await.data::<String>().unwrap(), "second");
}

/// Reads the count of the one row that there is.
fn count_in_file(place: &Place) -> u64 {
    let count: i64 = place.connect().query_row("SELECT touch_count FROM activity", [], |row| row.get(0)).unwrap();
    count.unsigned_abs()
}

#[tokio::test]
async fn touches_count_on_top_of_what_another_process_has_counted() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let mut expected = 0;
    // Before touches and after them, with a read between and without, with what else writes to the row.
    for round in 0..12 {
        for _ in 0..5 {
            session.touch().await.unwrap();
        }
        if round % 2 == 0 {
            rig.engine.flush().await.unwrap();
        }
        change(&rig.place.connect(), "UPDATE activity SET touch_count = touch_count + 2");
        session.touch().await.unwrap();
        expected += 5 + 2 + 1;
        match round % 4 {
            0 => {}
            1 => session.touch_with(Durability::Committed).await.map(|()| expected += 1).unwrap(),
            2 => session.save(&format!("{round}")).await.map(drop).unwrap(),
            _ => assert_eq!(rig.engine.delete_where(Filter::all().user("nobody")).await.unwrap(), 0),
        }
        rig.engine.flush().await.unwrap();
        assert_eq!((count_in_file(&rig.place), round), (expected, round));
        assert_eq!(read(&session).await.touch_count(), expected);
    }
    session.touch().await.unwrap();
    change(&rig.place.connect(), "UPDATE activity SET touch_count = touch_count + 2");
    // The last flush, of a shutdown.
    assert_eq!(rig.restart().await.record("a").await.touch_count(), expected + 3);
}

#[tokio::test]
async fn touches_on_top_of_another_processs_count_once_over_faults() {
    for happened in [true, false] {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        for round in 1..=4 {
            for _ in 0..3 {
                session.touch().await.unwrap();
            }
            change(&rig.place.connect(), "UPDATE activity SET touch_count = touch_count + 2");
            let faults = Faults::of(&rig.engine);
            if round % 2 == 0 {
                faults.interrupt(happened);
            } else {
                faults.fail_commit(happened);
            }
            let error = rig.engine.flush().await.unwrap_err();
            assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
            session.touch().await.unwrap();
            rig.engine.flush().await.unwrap();
            assert_eq!((count_in_file(&rig.place), round), (round * 6, round), "{happened}");
        }
        assert_eq!(rig.restart().await.record("a").await.touch_count(), 24);
    }
}

#[tokio::test]
async fn a_rotation_takes_along_what_another_process_has_counted() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    change(&rig.place.connect(), "UPDATE activity SET touch_count = touch_count + 2");
    let rotated = session.rotate(Change::new()).await.unwrap();
    assert_eq!(read(&rotated).await.touch_count(), 3);
    rotated.touch().await.unwrap();
    assert_eq!(rig.restart().await.record(rotated.id().as_str()).await.touch_count(), 4);
}

#[tokio::test]
async fn touches_never_reach_a_row_that_another_process_gave_another_id() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    change(&rig.place.connect(), "UPDATE session SET id = 'b'");
    // In memory still; it ends with the flush.
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    assert!(matches!(session.touch().await, Err(Error::NotFound)));
    assert!(session.get().await.unwrap().is_none());
    assert_eq!(count_in_file(&rig.place), 1);
    rig.session("b").touch().await.unwrap();
    assert_eq!(rig.restart().await.record("b").await.touch_count(), 2);
}

#[tokio::test]
async fn touches_of_a_row_with_another_id_die_with_the_shutdown_too() {
    let rig = Rig::open().await;
    rig.create("a").await.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    rig.session("a").touch().await.unwrap();
    change(&rig.place.connect(), "UPDATE session SET id = 'b'");
    assert_eq!(rig.restart().await.record("b").await.touch_count(), 1);
}

#[tokio::test]
async fn a_session_ended_by_another_process_is_over_for_touches_too() {
    for column in ["expires_at", "idle_timeout"] {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.touch().await.unwrap();
        rig.engine.flush().await.unwrap();
        change(&rig.place.connect(), &format!("UPDATE activity SET {column} = 1"));
        rig.advance(STALENESS);
        session.touch().await.unwrap();
        rig.engine.flush().await.unwrap();
        rig.advance(Duration::from_millis(1));
        assert!(matches!(session.touch().await, Err(Error::NotFound)), "{column}");
        assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 0, "{column}");
        assert_eq!(rig.engine.sweep().await.unwrap(), 1, "{column}");
    }
}

#[tokio::test]
async fn a_touch_in_memory_lets_storage_look_for_foreign_writes() {
    let rig = Rig::open_with(|builder| builder.flush_interval(Duration::from_secs(3_600))).await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    change(&rig.place.connect(), "UPDATE activity SET touch_count = touch_count + 2");
    session.touch().await.unwrap();
    assert_eq!(rig.engine.stats().foreign_writes, 0);
    rig.advance(STALENESS);
    session.touch().await.unwrap();
    eventually("it has looked", async || rig.engine.stats().foreign_writes == 1).await;
}

#[tokio::test]
async fn sessions_made_or_deleted_by_another_process_count_for_the_limit() {
    let rig = Rig::open_with(|builder| builder.max_sessions(2)).await;
    rig.create("a").await;
    rig.create("b").await;
    assert!(matches!(rig.engine.create(NewSession::new()).await, Err(Error::LimitReached { .. })));
    rig.place.connect().execute_batch("BEGIN; DELETE FROM session; DELETE FROM activity; COMMIT").unwrap();
    rig.create("c").await;
    rig.create("d").await;
    assert!(matches!(rig.engine.create(NewSession::new()).await, Err(Error::LimitReached { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_another_process_holds_the_write_lock() {
    let rig = Rig::open().await;
    for id in ["held", "cold", "colder"] {
        rig.create(id).await;
    }
    let held = rig.session("held");
    held.touch().await.unwrap();
    read(&held).await;
    let other = lock(&rig.place);
    let began = Instant::now();
    for id in ["held", "cold", "colder"] {
        assert_eq!(rig.record(id).await.data::<String>().unwrap(), id);
    }
    held.touch().await.unwrap();
    rig.session("cold").touch().await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
    rig.engine.flush().await.unwrap();
    assert_eq!(rig.record("held").await.touch_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_in_one_batch_with_a_write_that_waits_are_answered_before_it() {
    let rig = Rig::open().await;
    for id in ["written", "cold"] {
        rig.create(id).await;
    }
    let stall = Faults::of(&rig.engine).stall();
    let saving = tokio::spawn({
        let session = rig.session("written");
        async move { session.save("saved").await }
    });
    eventually("the write is in flight", async || rig.engine.stats().requests_in_flight == 1).await;
    let reading = tokio::spawn({
        let session = rig.session("cold");
        async move { session.get().await }
    });
    eventually("the read is in flight", async || rig.engine.stats().requests_in_flight == 2).await;
    let other = lock(&rig.place);
    let began = Instant::now();
    drop(stall);
    assert!(soon("the read", reading).await.unwrap().unwrap().is_some());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(!saving.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    soon("the write", saving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_come_while_a_write_waits_go_on() {
    let rig = Rig::open().await;
    for id in ["written", "cold"] {
        rig.create(id).await;
    }
    let other = lock(&rig.place);
    let commands = rig.engine.stats().commands;
    let saving = tokio::spawn({
        let session = rig.session("written");
        async move { session.save("saved").await }
    });
    eventually("the write waits", async || rig.engine.stats().commands > commands).await;
    let began = Instant::now();
    assert!(rig.session("cold").get().await.unwrap().is_some());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(!saving.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    soon("the write", saving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_a_flush_is_due_and_the_lock_is_held() {
    let place = Place::new();
    let engine = place.builder().flush_interval(Duration::from_millis(10)).open().await.unwrap();
    let hot = engine.create(NewSession::with_id("hot")).await.unwrap();
    for n in 0..20 {
        engine.create(NewSession::with_id(format!("cold{n}")).data(&n)).await.unwrap();
    }
    let other = lock(&place);
    hot.touch().await.unwrap();
    eventually("a flush is tried in vain", async || matches!(engine.health(), Health::Degraded { .. })).await;
    // It is due again all the time.
    let began = Instant::now();
    for n in 0..20 {
        let record = read(&engine.session(format!("cold{n}")).unwrap()).await;
        assert_eq!(record.data::<i32>().unwrap(), n);
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_the_lock_and_then_succeed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other = lock(&rig.place);
    let writes = [
        tokio::spawn({
            let session = session.clone();
            async move { session.save("b").await.map(drop) }
        }),
        tokio::spawn({
            let engine = rig.engine.clone();
            async move { engine.create(NewSession::with_id("c")).await.map(drop) }
        }),
        tokio::spawn({
            let engine = rig.engine.clone();
            async move { engine.flush().await }
        }),
    ];
    eventually("all are in flight", async || rig.engine.stats().requests_in_flight == 3).await;
    change(&other, "UPDATE session SET user = 'foreign' WHERE id = 'a'");
    other.execute_batch("COMMIT").unwrap();
    for write in writes {
        soon("a write", write).await.unwrap().unwrap();
    }
    let record = read(&session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.user()), ("b", Some("foreign")));
    assert!(rig.session("c").get().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_give_up_on_a_lock_held_too_long_and_nothing_happened() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    let other = lock(&rig.place);
    let doomed = rig.session("a");
    let (saved, created, deleted, updated) = tokio::join!(
        session.save("b"),
        rig.engine.create(NewSession::with_id("c")),
        doomed.delete(),
        session.update(|data: &mut String| data.push('!')),
    );
    for error in [saved.err(), created.err(), deleted.err(), updated.err()] {
        let error = error.expect("the lock is held");
        assert!(matches!(&error, Error::Storage { cause } if cause.kind == CauseKind::Busy), "{error:?}");
        assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, true));
    }
    assert_eq!(read(&session).await.touch_count(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    session.apply(Change::new().user("ada")).await.unwrap();
    let rig = rig.restart().await;
    let record = rig.record("a").await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("a", 1));
    assert!(rig.session("c").get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_deletion_of_many_that_meets_a_lock_midway_says_how_many_are_gone() {
    const SESSIONS: i64 = 600;
    let rig = Rig::open().await;
    for _ in 0..SESSIONS {
        rig.engine.create(NewSession::new()).await.unwrap();
    }
    let other = rig.place.connect();
    let left = || other.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, i64>(0)).unwrap();
    // The thread stands still before the deletion and again after its first step.
    let before = Faults::of(&rig.engine).stall();
    let mut deletion = pin!(rig.engine.delete_where(Filter::all()));
    assert!(poll_once(deletion.as_mut()).is_pending());
    let midway = Faults::of(&rig.engine).stall();
    drop(before);
    eventually("one step is done", async || left() < SESSIONS).await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(midway);
    let error = soon("the deletion", deletion).await.unwrap_err();
    let Error::Partial { done, cause } = &error else { panic!("{error:?}") };
    assert_eq!((done.cast_signed() + left(), cause.kind), (SESSIONS, CauseKind::Busy));
    assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    let rest = left().cast_unsigned();
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(rig.engine.delete_where(Filter::all()).await.unwrap(), rest);
}
