//! Touches across faults, deadlines that pass, futures that are dropped.

use std::{pin::pin, task::Poll, time::Duration};

use sessile::{Change, Durability, Error, Filter, Health, InterruptedBy, NewSession, Outcome, testing::Faults};
use sessile_tests::{Place, Rig, eventually, poll_once, read, soon};

const DEADLINE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn touches_in_memory_survive_a_fault_and_are_flushed_after_it() {
    for panics in [true, false] {
        for happened in [true, false] {
            let rig = Rig::open().await;
            let session = rig.create("a").await;
            for _ in 0..5 {
                session.touch().await.unwrap();
            }
            let faults = Faults::of(&rig.engine);
            if panics {
                faults.interrupt(happened);
            } else {
                faults.fail_commit(happened);
            }
            // The fault meets the flush itself.
            let error = rig.engine.flush().await.unwrap_err();
            assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
            session.touch().await.unwrap();
            assert_eq!(read(&session).await.touch_count(), 6);
            rig.engine.flush().await.unwrap();
            let sql = "SELECT touch_count FROM activity";
            assert_eq!(rig.place.connect().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 6);
            assert_eq!(rig.restart().await.record("a").await.touch_count(), 6);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touches_during_faults_are_counted_exactly() {
    let rig = Rig::open().await;
    for n in 0..10 {
        rig.create(&format!("s{n}")).await.touch().await.unwrap();
    }
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let session = rig.session(&format!("s{}", task % 10));
            tokio::spawn(async move {
                let mut counted = 0_u64;
                for _ in 0..500 {
                    // In memory all of them: a fault of storage does not show.
                    session.touch().await.unwrap();
                    counted += 1;
                    tokio::task::yield_now().await;
                }
                counted
            })
        })
        .collect();
    for n in 0..6 {
        let faults = Faults::of(&rig.engine);
        if n % 2 == 0 {
            faults.interrupt(n % 3 == 0);
        } else {
            faults.fail_commit(n % 3 == 0);
        }
        rig.engine.flush().await.unwrap_err();
        rig.engine.flush().await.unwrap();
    }
    let mut counted = 10;
    for task in tasks {
        counted += task.await.unwrap();
    }
    let rig = rig.restart().await;
    let mut stored = 0;
    for n in 0..10 {
        stored += rig.record(&format!("s{n}")).await.touch_count();
    }
    assert_eq!(stored, counted);
}

#[tokio::test]
async fn a_touch_to_be_committed_that_is_in_doubt_counts_once_or_not_at_all() {
    for happened in [true, false] {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.touch().await.unwrap();
        Faults::of(&rig.engine).fail_commit(happened);
        let error = session.touch_with(Durability::Committed).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::MayHaveHappened);
        session.touch_with(Durability::Committed).await.unwrap();
        assert_eq!(read(&session).await.touch_count(), 2 + u64::from(happened));
        assert_eq!(rig.restart().await.record("a").await.touch_count(), 2 + u64::from(happened));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_interrupts_the_caller_and_not_the_write() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let n = rig.engine.create(NewSession::with_id("n").data(&0)).await.unwrap();
    let hasty = (session.clone().with_deadline(DEADLINE), n.clone().with_deadline(DEADLINE));
    let stall = Faults::of(&rig.engine).stall();
    let answers = [
        hasty.0.save("saved").await.err(),
        hasty.0.touch_with(Durability::Committed).await.err(),
        hasty.1.update(|n: &mut i32| *n += 1).await.err(),
        hasty.0.apply(Change::new().user("ada")).await.err(),
    ];
    for answer in answers {
        let error = answer.expect("the thread stands");
        assert!(matches!(error, Error::Interrupted { by: InterruptedBy::Deadline }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    }
    drop(stall);
    let record = read(&session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.user()), ("saved", Some("ada")));
    assert_eq!(record.touch_count(), 1);
    assert_eq!(read(&n).await.data::<i32>().unwrap(), 1);
    assert_eq!(rig.engine.stats().requests_in_flight, 0);
}

#[tokio::test]
async fn a_future_dropped_before_admission_did_nothing() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let overload = Faults::of(&rig.engine).overload();
    {
        let mut save = Box::pin(session.save("never"));
        assert!(poll_once(save.as_mut()).is_pending());
        let mut delete = Box::pin(session.delete());
        assert!(poll_once(delete.as_mut()).is_pending());
        assert_eq!(rig.engine.stats().requests_waiting, 2);
    }
    drop(session.save("never polled"));
    assert_eq!(rig.engine.stats().requests_waiting, 0);
    drop(overload);
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
    assert_eq!(rig.engine.stats().requests_in_flight, 0);
}

#[tokio::test]
async fn a_future_dropped_after_admission_lets_its_request_proceed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let other = rig.create("b").await;
    let n = rig.engine.create(NewSession::with_id("n").data(&0)).await.unwrap();
    let stall = Faults::of(&rig.engine).stall();
    {
        let mut save = Box::pin(session.save("saved"));
        assert!(poll_once(save.as_mut()).is_pending());
        let mut touch = Box::pin(session.touch());
        assert!(poll_once(touch.as_mut()).is_pending());
        let mut delete = Box::pin(other.delete());
        assert!(poll_once(delete.as_mut()).is_pending());
        let mut update = Box::pin(n.update(|n: &mut i32| *n += 1));
        assert!(poll_once(update.as_mut()).is_pending());
        let mut create = Box::pin(rig.engine.create(NewSession::with_id("c")));
        assert!(poll_once(create.as_mut()).is_pending());
    }
    drop(stall);
    let record = read(&session).await;
    assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("saved", 1));
    assert!(other.get().await.unwrap().is_none());
    assert_eq!(read(&n).await.data::<i32>().unwrap(), 1);
    assert!(rig.session("c").get().await.unwrap().is_some());
    assert_eq!(rig.engine.stats().requests_in_flight, 0);
}

#[tokio::test]
async fn a_touch_in_memory_is_done_at_its_first_poll() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    let stall = Faults::of(&rig.engine).stall();
    assert!(matches!(poll_once(std::pin::pin!(session.touch())), Poll::Ready(Ok(()))));
    // And so is a get of a session at rest.
    drop(stall);
    read(&session).await;
    let stall = Faults::of(&rig.engine).stall();
    match poll_once(std::pin::pin!(session.get())) {
        Poll::Ready(Ok(Some(record))) => assert_eq!(record.touch_count(), 2),
        other => panic!("{other:?}"),
    }
    drop(stall);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_what_is_not_committed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    read(&session).await;
    let stall = Faults::of(&rig.engine).stall();
    let saving = tokio::spawn({
        let session = session.clone();
        async move { session.save("b").await }
    });
    eventually("the save is in flight", async || rig.engine.stats().requests_in_flight == 1).await;
    let reading = tokio::spawn({
        let session = session.clone();
        async move { session.get().await }
    });
    eventually("the get waits behind it", async || rig.engine.stats().requests_in_flight == 2).await;
    Faults::of(&rig.engine).fail_commit(false);
    drop(stall);
    saving.await.unwrap().unwrap_err();
    match soon("the get", reading).await.unwrap() {
        Ok(record) => assert_eq!(record.unwrap().data::<String>().unwrap(), "a"),
        Err(error) => assert!(matches!(error, Error::Interrupted { .. }), "{error:?}"),
    }
    assert_eq!(read(&session).await.data::<String>().unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_behind_a_standing_thread_waits_for_what_is_in_flight() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data(&0)).await.unwrap();
    let stall = Faults::of(&engine).stall();
    let updates: Vec<_> = (0..50)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.update(|n: &mut i32| *n += 1).await })
        })
        .collect();
    eventually("all are in flight", async || engine.stats().requests_in_flight == 50).await;
    let shutdown = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown().await }
    });
    eventually("it is closed", async || matches!(engine.health(), Health::Closed)).await;
    assert!(matches!(session.save(&9).await, Err(Error::Closed)));
    drop(stall);
    soon("the shutdown", shutdown).await.unwrap().unwrap();
    for update in updates {
        soon("an update", update).await.unwrap().unwrap();
    }
    let engine = place.open_when_free().await;
    assert_eq!(read(&engine.session("a").unwrap()).await.data::<i32>().unwrap(), 50);
    assert_eq!(engine.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn touches_of_a_session_whose_deletion_did_not_happen_are_flushed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    // The deletion takes the cell out of use in the very transaction that a flush has come due in. Storage stands until both
    // are there: else the flush might go by itself, and have the fault.
    let faults = Faults::of(&rig.engine);
    let stall = faults.stall();
    rig.advance(Duration::from_secs(1));
    faults.fail_commit(false);
    let mut deleting = pin!(session.delete());
    assert!(poll_once(deleting.as_mut()).is_pending());
    for _ in 0..100 {
        // The session's actor, on this very thread, hands it on.
        tokio::task::yield_now().await;
    }
    drop(stall);
    let error = deleting.await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    let sql = "SELECT touch_count FROM activity";
    assert_eq!(rig.place.connect().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}
