//! Touches: counted at once, seen at once, on disk within the flush interval.

use std::{pin::Pin, time::Duration};

use sessile::{
    Durability, Engine, Filter, NewSession, Order, Query, Timestamp,
    testing::{Faults, Stall},
};
use sessile_tests::{Place, Rig, START, eventually, poll_once, read, soon};

const SECOND: Duration = Duration::from_secs(1);

fn on_disk(place: &Place, id: &str) -> (i64, i64) {
    place
        .connect()
        .query_row("SELECT touch_count, last_active_at FROM current_session WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap()
}

#[tokio::test]
async fn a_touch_is_seen_by_every_later_get() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other_handle = rig.session("a");
    let mut at = START;
    for n in 1..=10 {
        rig.advance(SECOND);
        at = at.saturating_add(SECOND);
        session.touch().await.unwrap();
        for handle in [&session, &other_handle] {
            let record = read(handle).await;
            assert_eq!((record.touch_count(), record.last_active_at()), (n, at));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touches_of_many_tasks_are_counted_exactly_across_restarts() {
    let mut rig = Rig::open().await;
    rig.create("a").await;
    rig.create("b").await;
    for round in 1..=3 {
        let tasks: Vec<_> = (0..32)
            .map(|task| {
                let session = rig.session(if task % 2 == 0 { "a" } else { "b" });
                tokio::spawn(async move {
                    for n in 0..100 {
                        match n % 10 {
                            0 => session.touch_with(Durability::Committed).await.unwrap(),
                            _ => session.touch().await.unwrap(),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(rig.record("a").await.touch_count(), round * 1_600);
        rig = rig.restart().await;
        assert_eq!(rig.record("a").await.touch_count(), round * 1_600);
        assert_eq!(rig.record("b").await.touch_count(), round * 1_600);
    }
}

/// The flush interval of the tests that time it, by a clock that only they move: all of it but an instant, and that.
const NEARLY: Duration = Duration::from_micros(49_999);
const INSTANT: Duration = Duration::from_micros(1);

async fn timed() -> Rig {
    Rig::open_with(|builder| builder.flush_interval(NEARLY + INSTANT)).await
}

/// Lets another session be created: the storage thread has then taken all that was sent to it before.
async fn create_another(rig: &Rig) {
    rig.engine.create(NewSession::new()).await.unwrap();
}

#[tokio::test]
async fn a_touch_is_on_disk_within_the_flush_interval() {
    let rig = timed().await;
    let session = rig.create("a").await;
    let mut written = 0;
    for touches in [1, 2] {
        for _ in 0..touches {
            session.touch().await.unwrap();
        }
        create_another(&rig).await;
        rig.advance(NEARLY);
        // Between the two it looks at its timers.
        create_another(&rig).await;
        create_another(&rig).await;
        assert_eq!(on_disk(&rig.place, "a").0, written, "before its time");
        rig.advance(INSTANT);
        written += touches;
        eventually("the flush, with nobody to ask for anything", async || on_disk(&rig.place, "a").0 == written).await;
    }
}

/// Has the storage thread run several batches of other sessions' creation without ever finding its mailbox empty. It
/// stands still afterwards, until the returned value is dropped.
async fn work_without_a_rest(rig: &Rig) -> Stall {
    const BATCHES: usize = 3;
    const CREATES_PER_BATCH: usize = 16;
    let batches = rig.engine.stats().batches;
    let faults = Faults::of(&rig.engine);
    let first = faults.stall();
    let mut asked: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for _ in 0..BATCHES {
        for _ in 0..CREATES_PER_BATCH {
            asked.push(Box::pin(create_another(rig)));
        }
        // Alone in its batch, so that it ends the one before; and it writes no touch.
        asked.push(Box::pin(async { assert_eq!(rig.engine.sweep().await.unwrap(), 0) }));
    }
    for asked in &mut asked {
        assert!(poll_once(Pin::new(asked)).is_pending());
    }
    let last = faults.stall();
    drop(first);
    for asked in asked {
        soon("what another session asked for", asked).await;
    }
    assert!(rig.engine.stats().batches >= batches + 2 * BATCHES as u64, "each create would do for a batch");
    last
}

#[tokio::test]
async fn a_flush_comes_in_time_though_the_mailbox_is_never_empty() {
    let rig = timed().await;
    let session = rig.create("a").await;
    for touches in 1..=20 {
        session.touch().await.unwrap();
        create_another(&rig).await;
        rig.advance(NEARLY);
        let stall = work_without_a_rest(&rig).await;
        assert_eq!(on_disk(&rig.place, "a").0, touches - 1, "before its time");
        rig.advance(INSTANT);
        drop(stall);
        let stall = work_without_a_rest(&rig).await;
        assert_eq!(on_disk(&rig.place, "a").0, touches, "the flush waits for the mailbox to be empty");
        drop(stall);
    }
}

#[tokio::test]
async fn touch_with_answers_when_it_is_on_disk() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.advance(SECOND);
    for (n, durability) in [(2, Durability::Committed), (3, Durability::Synced)] {
        session.touch_with(durability).await.unwrap();
        assert_eq!(on_disk(&rig.place, "a"), (n, START.saturating_add(SECOND).as_micros()));
    }
}

#[tokio::test]
async fn flush_puts_every_touch_acknowledged_before_on_disk() {
    let rig = Rig::open().await;
    let sessions: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    for id in &sessions {
        let session = rig.create(id).await;
        session.touch().await.unwrap();
        session.touch().await.unwrap();
    }
    rig.engine.flush().await.unwrap();
    for id in &sessions {
        assert_eq!(on_disk(&rig.place, id).0, 2);
    }
}

#[tokio::test]
async fn list_and_count_see_touches_acknowledged_before() {
    let rig = Rig::open().await;
    let sessions = [rig.create("a").await, rig.create("b").await, rig.create("c").await];
    let since = START.saturating_add(SECOND);
    for n in 1..=3_u32 {
        rig.advance(SECOND);
        let session = &sessions[(n % 2) as usize];
        session.touch().await.unwrap();
        let page = rig.engine.list(Query::new(Filter::all()).order(Order::RecentlyActive)).await.unwrap();
        assert_eq!(page.items[0].id(), Some(session.id()));
        assert_eq!(page.items[0].touch_count(), u64::from(n.div_ceil(2)));
        assert_eq!(page.items[0].last_active_at(), START.saturating_add(SECOND * n));
    }
    assert_eq!(rig.engine.count(Filter::all().active(since..)).await.unwrap(), 2);
    assert_eq!(rig.engine.delete_where(Filter::all().active(..since)).await.unwrap(), 1);
    assert!(rig.session("c").get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_touch_of_a_session_not_in_memory_spawns_no_actor() {
    let rig = Rig::open().await;
    rig.create("a").await;
    let rig = rig.restart().await;
    rig.session("a").touch().await.unwrap();
    rig.session("a").touch_with(Durability::Committed).await.unwrap();
    let stats = rig.engine.stats();
    assert_eq!((stats.live_sessions, stats.record_bytes), (0, 0));
    assert_eq!(rig.record("a").await.touch_count(), 2);
}

#[tokio::test]
async fn touches_never_lower_the_time_of_activity() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    // From now on the row's time is ahead of the clock, as after a restore on a machine whose clock is behind.
    let ahead = START.saturating_add(SECOND * 3_600).as_micros();
    let rig = {
        rig.engine.shutdown().await.unwrap();
        rig.place.connect().execute("UPDATE activity SET last_active_at = ?1", [ahead]).unwrap();
        rig.restart().await
    };
    drop(session);
    rig.session("a").touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    assert_eq!(rig.record("a").await.last_active_at(), Timestamp::from_micros(ahead));
    assert_eq!(on_disk(&rig.place, "a"), (1, ahead));
}

#[tokio::test]
async fn touches_in_memory_need_no_command() {
    let engine = Engine::in_memory().flush_interval(SECOND * 60).open().await.unwrap();
    let session = engine.create(NewSession::new()).await.unwrap();
    session.touch().await.unwrap();
    let commands = engine.stats().commands;
    for _ in 0..1_000 {
        session.touch().await.unwrap();
    }
    assert_eq!(engine.stats().commands, commands);
    assert_eq!(read(&session).await.touch_count(), 1_001);
}
