//! Idle timeouts and ends of life: an expired session is gone at once, and the sweep takes its row.

use std::time::Duration;

use sessile::{Change, Durability, Error, Filter, NewSession, Order, Query, Timestamp};
use sessile_tests::{Rig, START, eventually, read};

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u32) -> Timestamp {
    START.saturating_add(SECOND * seconds)
}

async fn idle_after_ten() -> Rig {
    Rig::open_with(|builder| builder.idle_timeout(SECOND * 10)).await
}

async fn is_gone(rig: &Rig, id: &str) {
    let session = rig.session(id);
    let answers = [
        session.touch().await.err(),
        session.touch_with(Durability::Committed).await.err(),
        session.save("x").await.err(),
        session.apply(Change::new().keep_idle()).await.err(),
        session.update(|_: &mut String| ()).await.err(),
        session.rotate(Change::new()).await.err(),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Some(Error::NotFound)), "call {n}: {answer:?}");
    }
    assert!(session.get().await.unwrap().is_none());
    assert_eq!(rig.engine.count(Filter::all().id_prefix(id)).await.unwrap(), 0);
    assert!(rig.engine.list(Query::new(Filter::all().id_prefix(id))).await.unwrap().items.is_empty());
    assert_eq!(rig.engine.delete_where(Filter::all().id_prefix(id)).await.unwrap(), 0);
    assert!(!session.delete().await.unwrap());
}

#[tokio::test]
async fn an_idle_session_is_gone_at_once() {
    for in_memory in [false, true] {
        let rig = idle_after_ten().await;
        let session = rig.create("a").await;
        if in_memory {
            session.save("b").await.unwrap();
            session.touch().await.unwrap();
        }
        assert_eq!(read(&session).await.expires_at(), Some(at(10)));
        rig.advance(Duration::from_micros(9_999_999));
        assert!(session.get().await.unwrap().is_some());
        rig.advance(Duration::from_micros(1));
        is_gone(&rig, "a").await;
    }
}

#[tokio::test]
async fn an_expired_session_not_in_memory_is_gone() {
    let rig = idle_after_ten().await;
    rig.create("a").await;
    let rig = rig.restart().await;
    rig.advance(SECOND * 10);
    is_gone(&rig, "a").await;
}

#[tokio::test]
async fn a_lifetime_ends_an_active_session() {
    let rig = Rig::open_with(|builder| builder.lifetime(SECOND * 10)).await;
    let session = rig.create("a").await;
    for _ in 0..9 {
        rig.advance(SECOND);
        session.touch().await.unwrap();
        session.save("b").await.unwrap();
    }
    assert_eq!(read(&session).await.expires_at(), Some(at(10)));
    rig.advance(SECOND);
    is_gone(&rig, "a").await;
}

#[tokio::test]
async fn whichever_of_timeout_and_lifetime_comes_first_ends_the_session() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(SECOND * 4).lifetime(SECOND * 10)).await;
    let session = rig.create("a").await;
    assert_eq!(read(&session).await.expires_at(), Some(at(4)));
    for _ in 0..3 {
        rig.advance(SECOND * 3);
        session.touch().await.unwrap();
    }
    assert_eq!(read(&session).await.expires_at(), Some(at(10)));
    rig.create("b").await;
    rig.advance(SECOND);
    is_gone(&rig, "a").await;
    rig.advance(SECOND * 3);
    is_gone(&rig, "b").await;
}

#[tokio::test]
async fn a_session_may_set_its_own() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(SECOND * 10).lifetime(SECOND * 20)).await;
    let new = NewSession::with_id;
    for new in [
        new("short").idle_timeout(SECOND),
        new("long").idle_timeout(SECOND * 100).expires_at(at(1_000)),
        new("soon").expires_at(at(2)),
        new("plain"),
    ] {
        rig.engine.create(new.data("x")).await.unwrap();
    }
    for (seconds, gone) in [(1, "short"), (1, "soon"), (8, "plain"), (90, "long")] {
        assert!(rig.session(gone).get().await.unwrap().is_some(), "{gone}");
        rig.advance(SECOND * seconds);
        is_gone(&rig, gone).await;
    }
}

#[tokio::test]
async fn apply_and_rotate_change_the_end_for_touches_in_memory_too() {
    let rig = idle_after_ten().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    session.apply(Change::new().idle_timeout(SECOND * 100)).await.unwrap();
    rig.advance(SECOND * 50);
    session.touch().await.unwrap();
    let session = session.rotate(Change::new().idle_timeout(SECOND * 5)).await.unwrap();
    assert_eq!(read(&session).await.expires_at(), Some(at(55)));
    session.touch().await.unwrap();
    rig.advance(SECOND * 5);
    is_gone(&rig, session.id().as_str()).await;
}

#[tokio::test]
async fn a_touch_keeps_alive_through_a_sweep() {
    let rig = idle_after_ten().await;
    let session = rig.create("a").await;
    rig.create("b").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    for _ in 0..5 {
        rig.advance(SECOND * 9);
        // In memory only: on disk the session is over.
        session.touch().await.unwrap();
        rig.advance(SECOND * 9);
        rig.engine.sweep().await.unwrap();
        session.touch().await.unwrap();
    }
    assert_eq!(read(&session).await.touch_count(), 11);
    assert_eq!(rig.engine.stats().expired, 1);
    let rig = rig.restart().await;
    assert_eq!(rig.record("a").await.touch_count(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touches_during_sweeps_lose_no_session() {
    let rig = idle_after_ten().await;
    for n in 0..100 {
        rig.create(&format!("s{n}")).await.touch().await.unwrap();
    }
    for _ in 0..30 {
        rig.advance(SECOND * 6);
        let touching: Vec<_> = (0..4)
            .map(|task| {
                let sessions: Vec<_> = (0..25).map(|n| rig.session(&format!("s{}", task * 25 + n))).collect();
                tokio::spawn(async move {
                    for session in &sessions {
                        session.touch().await.unwrap();
                    }
                })
            })
            .collect();
        assert_eq!(rig.engine.sweep().await.unwrap(), 0);
        for touching in touching {
            touching.await.unwrap();
        }
    }
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 100);
    assert_eq!(rig.record("s42").await.touch_count(), 31);
}

#[tokio::test]
async fn get_does_not_keep_alive() {
    let rig = idle_after_ten().await;
    let session = rig.create("a").await;
    rig.advance(SECOND * 9);
    assert!(session.get().await.unwrap().is_some());
    rig.advance(SECOND);
    is_gone(&rig, "a").await;
}

#[tokio::test]
async fn the_sweep_deletes_the_rows_of_expired_sessions_only() {
    let rig = idle_after_ten().await;
    for n in 0..1_000 {
        let new = NewSession::with_id(format!("s{n}"));
        let new = if n % 10 == 0 { new.idle_timeout(SECOND * 1_000) } else { new };
        rig.engine.create(new).await.unwrap();
    }
    rig.advance(SECOND * 10);
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 100);
    assert_eq!(rig.engine.sweep().await.unwrap(), 900);
    assert_eq!(rig.engine.sweep().await.unwrap(), 0);
    let rows = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        rig.place.connect().query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows("session"), rows("activity")), (100, 100));
}

#[tokio::test]
async fn the_engine_sweeps_by_itself_every_minute() {
    let rig = idle_after_ten().await;
    rig.create("a").await;
    rig.advance(SECOND * 59);
    rig.engine.flush().await.unwrap();
    assert_eq!(rig.engine.stats().expired, 0);
    rig.advance(SECOND);
    eventually("the sweep", async || {
        // The thread looks at its timers after each batch.
        rig.engine.flush().await.unwrap();
        rig.engine.stats().expired == 1
    })
    .await;
}

#[tokio::test]
async fn creating_over_an_expired_id_makes_another_session() {
    for in_memory in [false, true] {
        let rig = idle_after_ten().await;
        let old = rig.create("a").await;
        let (serial, version) = (read(&old).await.serial(), read(&old).await.version());
        if in_memory {
            old.touch().await.unwrap();
        }
        rig.advance(SECOND * 10);
        let (new, created) = rig.engine.get_or_create(NewSession::with_id("a").data("new")).await.unwrap();
        assert!(created);
        let record = read(&new).await;
        assert_ne!(record.serial(), serial);
        assert_eq!((record.touch_count(), record.created_at()), (0, at(10)));
        assert!(matches!(old.save_if(version, "old").await, Err(Error::Conflict { .. })));
        rig.advance(SECOND * 10);
        rig.engine.create(NewSession::with_id("a").data("newer")).await.unwrap();
        assert_eq!(read(&old).await.data::<String>().unwrap(), "newer");
    }
}

#[tokio::test]
async fn creating_over_an_id_kept_alive_in_memory_only_fails() {
    let rig = idle_after_ten().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    rig.advance(SECOND * 9);
    session.touch().await.unwrap();
    rig.advance(SECOND * 9);
    let error = rig.engine.create(NewSession::with_id("a")).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists), "{error:?}");
    assert!(!rig.engine.get_or_create(NewSession::with_id("a")).await.unwrap().1);
    assert_eq!(read(&session).await.touch_count(), 2);
}

#[tokio::test]
async fn an_expired_session_leaves_the_orders_and_pages() {
    let rig = idle_after_ten().await;
    for n in 0..10 {
        rig.create(&format!("s{n}")).await;
        rig.advance(SECOND);
    }
    rig.advance(SECOND * 4);
    for order in [Order::Oldest, Order::Newest, Order::RecentlyActive] {
        let first = rig.engine.list(Query::new(Filter::all()).order(order).limit(3)).await.unwrap();
        let query = Query::new(Filter::all()).order(order).limit(3).after(first.next.unwrap());
        let second = rig.engine.list(query).await.unwrap();
        assert_eq!((first.items.len(), second.items.len()), (3, 2), "{order:?}");
    }
}
