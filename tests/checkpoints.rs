//! The write-ahead log: moved at rest, bounded under load, reported where a reader keeps it (rule R23).

use std::{
    fs,
    time::{Duration, Instant},
};

use sessile::{Engine, NewSession, Stats};
use sessile_tests::{Place, Rig, START, eventually, read, soon};

/// Past what is quiet.
const AT_REST: Duration = Duration::from_secs(1);
/// Half of SQLite's busy timeout: what is done by then did not wait for a reader.
const AT_ONCE: Duration = Duration::from_millis(2_500);
/// The pages at which a checkpoint runs under load.
const LOG_PAGES_HIGH: u64 = 8_192;
/// One batch more: 8 MiB of payload, and what else it writes.
const LOG_PAGES_MAX: u64 = LOG_PAGES_HIGH + 2_560;
/// To what the log's file is cut.
const LOG_BYTES_MAX: u64 = 64 << 20;

fn log_bytes(place: &Place) -> u64 {
    fs::metadata(place.directory().join("sessions.db-wal")).map_or(0, |log| log.len())
}

/// A clock moved by hand wakes nobody: a touch does.
async fn nudge(engine: &Engine) {
    engine.session("a").unwrap().touch().await.unwrap();
}

#[tokio::test]
async fn at_rest_all_is_moved_and_nothing_more_is_done() {
    let rig = Rig::open().await;
    rig.create("a").await.save("b").await.unwrap();
    assert!(rig.engine.stats().log_pages > 0);
    assert_eq!(rig.engine.stats().saves_in_log, 1);
    eventually("the log is moved", async || {
        rig.advance(AT_REST);
        nudge(&rig.engine).await;
        let stats = rig.engine.stats();
        (stats.log_pages, stats.saves_in_log) == (0, 0)
    })
    .await;
    rig.engine.flush().await.unwrap();
    eventually("the touches are moved too", async || {
        rig.advance(AT_REST);
        drop(rig.engine.session("b").unwrap().get().await.unwrap());
        rig.engine.stats().log_pages == 0
    })
    .await;
    let other = rig.place.connect();
    let written = || other.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let before = (written(), rig.engine.stats().checkpoints);
    rig.advance(AT_REST * 10);
    drop(rig.engine.session("b").unwrap().get().await.unwrap());
    assert_eq!(before, (written(), rig.engine.stats().checkpoints));
}

#[tokio::test]
async fn under_load_the_log_is_bounded() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    // All of it changes: SQLite does not write a page again that is as it was.
    let data = |n: u32| format!("{n:08}").repeat(1 << 15);
    let session = engine.create(NewSession::with_id("a").data(&data(0))).await.unwrap();
    for n in 0..400 {
        session.save(&data(n)).await.unwrap();
        let pages = engine.stats().log_pages;
        assert!(pages <= LOG_PAGES_MAX, "{pages} pages");
    }
    assert!(engine.stats().checkpoints > 0);
    assert!(log_bytes(&place) <= LOG_BYTES_MAX, "{} bytes", log_bytes(&place));
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_holds_on_is_reported_and_the_log_is_moved_after_it() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other = rig.place.connect();
    other.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    session.save("b").await.unwrap();
    eventually("it is reported", async || {
        rig.advance(AT_REST);
        nudge(&rig.engine).await;
        rig.engine.stats().checkpoints_busy > 0
    })
    .await;
    assert!(rig.engine.stats().log_pages > 0);
    // It keeps nobody from working.
    session.save("c").await.unwrap();
    other.execute_batch("COMMIT").unwrap();
    eventually("the log is moved", async || {
        rig.advance(AT_REST);
        nudge(&rig.engine).await;
        rig.engine.stats().log_pages == 0
    })
    .await;
}

/// Moves the clock, and wakes the storage thread without a write.
async fn pass_time(rig: &Rig) {
    rig.advance(AT_REST);
    drop(rig.engine.session("nobody").unwrap().get().await.unwrap());
}

/// Waits, without a write, until the engine tells so.
async fn in_time(rig: &Rig, what: &str, holds: fn(Stats) -> bool) {
    eventually(what, async || {
        pass_time(rig).await;
        holds(rig.engine.stats())
    })
    .await;
}

#[tokio::test]
async fn what_a_reader_held_back_is_moved_without_another_write() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other = rig.place.connect();
    other.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    session.save("b").await.unwrap();
    in_time(&rig, "it is reported", |stats| stats.checkpoints_busy > 0).await;
    other.execute_batch("COMMIT").unwrap();
    in_time(&rig, "the log is moved", |stats| stats.log_pages == 0).await;
}

#[tokio::test]
async fn what_a_foreign_lock_kept_from_its_row_gets_there_without_another_write() {
    let rig = Rig::open().await;
    rig.create("a").await.save("b").await.unwrap();
    let other = rig.place.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..4 {
        pass_time(&rig).await;
    }
    assert_eq!(rig.engine.stats().saves_in_log, 1, "the lock keeps it there");
    other.execute_batch("ROLLBACK").unwrap();
    in_time(&rig, "it is in its row", |stats| stats.saves_in_log == 0).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_reader() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other = rig.place.connect();
    other.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    session.save("b").await.unwrap();
    session.touch().await.unwrap();
    let began = Instant::now();
    soon("a shutdown with a reader", rig.engine.shutdown()).await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    // The reader still sees what it saw, and the next engine what was written.
    let seen = other.query_row("SELECT data FROM session", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(seen, "\"a\"");
    other.execute_batch("COMMIT").unwrap();
    let engine = rig.place.builder().clock(rig.clock.clone()).open().await.unwrap();
    let record = read(&engine.session("a").unwrap()).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("b", 1));
    assert!(record.last_active_at() >= START);
}
