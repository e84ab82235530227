//! Touches: counted at once, seen at once, on disk within the flush interval.

use std::time::Duration;

use sessile::{Durability, Engine, Filter, NewSession, Order, Query, Timestamp};
use sessile_tests::{Place, Rig, START, eventually, read};

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

#[tokio::test]
async fn a_touch_is_on_disk_within_the_flush_interval() {
    let place = Place::new();
    let engine = place.builder().flush_interval(Duration::from_millis(20)).open().await.unwrap();
    let session = engine.create(NewSession::with_id("a")).await.unwrap();
    session.touch().await.unwrap();
    eventually("the touch is written", async || on_disk(&place, "a").0 == 1).await;
    session.touch().await.unwrap();
    session.touch().await.unwrap();
    eventually("the later touches are written", async || on_disk(&place, "a").0 == 3).await;
    engine.shutdown().await.unwrap();
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
