//! Updates by a function: nothing is lost, order is kept, a refusal or a panic writes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sessile::{Change, DecodeCategory, Error, NewSession};
use sessile_tests::{Rig, START, read};

#[tokio::test]
async fn update_returns_what_the_function_returned() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().data(&vec![1, 2])).await.unwrap();
    let len = session
        .update(|list: &mut Vec<u32>| {
            list.push(3);
            list.len()
        })
        .await
        .unwrap();
    assert_eq!(len, 3);
    assert_eq!(read(&session).await.data::<Vec<u32>>().unwrap(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_64_tasks_lose_nothing() {
    const EACH: u64 = 25;
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::with_id("n").data(&0_u64)).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            // Each with a handle of its own, as requests of a service have.
            let session = rig.engine.session("n").unwrap();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    session.update(|n: &mut u64| *n += 1).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(read(&session).await.data::<u64>().unwrap(), 64 * EACH);
    assert_eq!(rig.restart().await.record("n").await.data::<u64>().unwrap(), 64 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_among_saves_and_touches_of_others_lose_nothing() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::with_id("n").data(&0_u64)).await.unwrap();
    let tasks: Vec<_> = (0..48_u64)
        .map(|task| {
            let session = session.clone();
            tokio::spawn(async move {
                for n in 0..20_u64 {
                    match task % 3 {
                        0 => session.update(|n: &mut u64| *n += 1).await.unwrap(),
                        1 => session.touch().await.unwrap(),
                        // Conflicts with the updates, from which these must recover.
                        _ => drop(session.apply(Change::new().metadata("n", format!("{task}-{n}"))).await.unwrap()),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let record = read(&session).await;
    assert_eq!((record.data::<u64>().unwrap(), record.touch_count()), (320, 320));
}

#[tokio::test]
async fn saves_and_updates_of_one_task_take_effect_in_order() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    for _ in 0..50 {
        // `join!` polls them in this order before any is answered.
        let (first, second, seen, third, fourth, last) = tokio::join!(
            session.save("x"),
            session.update(|data: &mut String| data.push('1')),
            session.get(),
            session.save("y"),
            session.update(|data: &mut String| data.push('2')),
            session.get(),
        );
        let (first, third) = (first.unwrap(), third.unwrap());
        second.unwrap();
        fourth.unwrap();
        assert_ne!(first, third);
        assert_eq!(seen.unwrap().unwrap().data::<String>().unwrap(), "x1");
        assert_eq!(last.unwrap().unwrap().data::<String>().unwrap(), "y2");
    }
}

#[tokio::test]
async fn a_delete_between_two_updates_ends_the_session_for_the_second() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let (before, deleted, after) = tokio::join!(
        session.update(|data: &mut String| data.push('1')),
        session.delete(),
        session.update(|data: &mut String| data.push('2')),
    );
    before.unwrap();
    assert!(deleted.unwrap());
    assert!(matches!(after, Err(Error::NotFound)), "{after:?}");
    assert!(session.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_rotation_between_two_updates_ends_the_old_id_for_the_second() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let (before, rotated, after) = tokio::join!(
        session.update(|data: &mut String| data.push('1')),
        session.rotate(Change::new()),
        session.update(|data: &mut String| data.push('2')),
    );
    before.unwrap();
    assert!(matches!(after, Err(Error::NotFound)), "{after:?}");
    assert_eq!(read(&rotated.unwrap()).await.data::<String>().unwrap(), "a1");
}

#[tokio::test]
async fn a_refusal_of_try_update_writes_nothing() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    let before = read(&session).await;
    rig.advance(Duration::from_secs(1));
    let refused = session
        .try_update(|data: &mut String| {
            data.push_str("never");
            Err::<(), _>("not today")
        })
        .await
        .unwrap();
    assert_eq!(refused, Err("not today"));
    let after = read(&session).await;
    assert_eq!((after.version(), after.bytes(), after.last_active_at()), (before.version(), before.bytes(), START));
    let accepted = session.try_update(|data: &mut String| Ok::<_, ()>(std::mem::take(data))).await.unwrap();
    assert_eq!(accepted.unwrap(), "a");
    assert_eq!(read(&session).await.data::<String>().unwrap(), "");
}

#[tokio::test]
async fn refusals_among_updates_leave_the_others_whole() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().data(&0)).await.unwrap();
    let (first, refused, third) = tokio::join!(
        session.update(|n: &mut i32| *n += 1),
        session.try_update(|n: &mut i32| {
            *n += 100;
            Err::<(), _>(*n)
        }),
        session.update(|n: &mut i32| {
            *n += 1;
            *n
        }),
    );
    first.unwrap();
    assert_eq!(refused.unwrap(), Err(101));
    assert_eq!(third.unwrap(), 2);
    assert_eq!(read(&session).await.data::<i32>().unwrap(), 2);
}

#[tokio::test]
async fn a_function_runs_again_on_a_fresh_value_when_something_was_written_before_it() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().data(&0)).await.unwrap();
    // In memory, so that the update begins with the record from before the save.
    read(&session).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let (saved, updated) = tokio::join!(
        session.save(&10),
        session.update(move |n: &mut i32| {
            counted.fetch_add(1, Ordering::Relaxed);
            *n += 1;
            *n
        }),
    );
    saved.unwrap();
    assert_eq!(updated.unwrap(), 11);
    assert!(runs.load(Ordering::Relaxed) >= 1);
    assert_eq!(read(&session).await.data::<i32>().unwrap(), 11);
}

#[tokio::test]
async fn a_decode_error_names_the_place_and_not_the_value() {
    let rig = Rig::open().await;
    let session = rig.create("secret").await;
    let record = read(&session).await;
    let error = record.data::<u32>().unwrap_err();
    assert!(matches!(error, Error::Decode { line: 1, column: 8, category: DecodeCategory::Data }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(record.bytes().as_ref(), br#""secret""#);

    let error = session.update(|_: &mut u32| ()).await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    assert_eq!(read(&session).await.version(), record.version());
}

#[tokio::test]
async fn an_update_of_raw_bytes_is_not_json() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().bytes(&b"1"[..])).await.unwrap();
    assert!(matches!(session.update(|_: &mut u32| ()).await, Err(Error::NotJson)));
    assert_eq!(read(&session).await.bytes().as_ref(), b"1");
}

#[tokio::test]
async fn a_panic_in_an_update_writes_nothing_and_the_others_go_on() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::new().data(&0)).await.unwrap();
    let (first, panicked, third) = tokio::join!(
        session.update(|n: &mut i32| *n += 1),
        session.update(|n: &mut i32| {
            *n += 100;
            assert!(*n < 100, "on purpose");
        }),
        session.update(|n: &mut i32| *n += 1),
    );
    first.unwrap();
    assert!(matches!(panicked, Err(Error::Panicked)), "{panicked:?}");
    third.unwrap();
    assert_eq!(read(&session).await.data::<i32>().unwrap(), 2);
    session.update(|n: &mut i32| *n += 1).await.unwrap();
    assert_eq!(rig.restart().await.engine.count(sessile::Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_refusal_is_decided_on_what_was_sent_before_it() {
    let rig = Rig::open().await;
    let session = rig.engine.create(NewSession::with_id("a").data(&0)).await.unwrap();
    // A change and a read: the actor is up, the record in memory.
    session.apply(Change::new().keep_idle()).await.unwrap();
    session.get().await.unwrap();
    let withdraw = |balance: &mut i64| {
        if *balance < 50 {
            return Err("too little");
        }
        *balance -= 50;
        Ok(*balance)
    };
    let (saved, withdrawn) = tokio::join!(session.save(&100), session.try_update(withdraw));
    saved.unwrap();
    assert_eq!(withdrawn.unwrap(), Ok(50));
}
