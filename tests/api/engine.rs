//! The engine as a whole: flush, sweep, numbers, health, the end.

use std::time::Duration;

use sessile::{Change, Durability, Engine, Error, Filter, Health, NewSession, Outcome, Query};
use sessile_tests::{Place, Rig, read, soon};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_engine_in_memory_does_all_that_one_on_a_file_does() {
    let engine = Engine::in_memory().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").user("ada").data(&1)).await.unwrap();
    session.touch().await.unwrap();
    session.touch_with(Durability::Synced).await.unwrap();
    session.update(|n: &mut i32| *n += 1).await.unwrap();
    let version = session.save(&3).await.unwrap();
    session.save_if(version, &4).await.unwrap();
    engine.flush().await.unwrap();
    let session = session.rotate(Change::new().metadata("k", "v")).await.unwrap();
    let record = read(&session).await;
    assert_eq!((record.data::<i32>().unwrap(), record.touch_count()), (4, 2));
    assert_eq!(engine.list(Query::new(Filter::all().user("ada"))).await.unwrap().items.len(), 1);
    assert_eq!(engine.delete_where(Filter::all()).await.unwrap(), 1);
    assert!(session.get().await.unwrap().is_none());
    engine.shutdown().await.unwrap();
    assert!(matches!(session.get().await, Err(Error::Closed)));
}

#[tokio::test]
async fn two_engines_in_memory_share_nothing() {
    let (one, other) = (Engine::in_memory().open().await.unwrap(), Engine::in_memory().open().await.unwrap());
    one.create(NewSession::with_id("a")).await.unwrap();
    assert_eq!(other.count(Filter::all()).await.unwrap(), 0);
}

#[tokio::test]
async fn sweep_deletes_the_expired_and_counts_them() {
    let rig = Rig::open_with(|builder| builder.idle_timeout(SECOND * 10)).await;
    for n in 0..5 {
        rig.create(&format!("s{n}")).await;
    }
    assert_eq!(rig.engine.sweep().await.unwrap(), 0);
    rig.advance(SECOND * 5);
    rig.session("s1").touch().await.unwrap();
    rig.advance(SECOND * 5);
    assert_eq!(rig.engine.sweep().await.unwrap(), 4);
    assert_eq!(rig.engine.stats().expired, 4);
    assert!(rig.session("s1").get().await.unwrap().is_some());
}

#[tokio::test]
async fn stats_tell_what_is_in_memory_and_in_flight() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    assert_eq!(rig.engine.stats().sessions_in_memory, 0);
    read(&session).await;
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions_in_memory, stats.live_sessions, stats.touch_cells), (1, 0, 1));
    assert!(stats.record_bytes > 0);
    session.save("b").await.unwrap();
    assert_eq!(rig.engine.stats().live_sessions, 0);
    session.update(|data: &mut String| data.push('c')).await.unwrap();
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions_in_memory, stats.live_sessions), (1, 1));
    assert_eq!((stats.requests_in_flight, stats.request_bytes_in_flight, stats.requests_waiting), (0, 0, 0));
    assert!(stats.commands >= 3 && stats.batches >= 3 && stats.commits >= 3);
    assert_eq!((stats.restarts, stats.foreign_writes, stats.casts_failed), (0, 0, 0));
    assert!(stats.log_pages > 0);
}

#[tokio::test]
async fn health_is_ready_until_the_end() {
    let rig = Rig::open().await;
    assert!(matches!(rig.engine.health(), Health::Ready));
    rig.engine.shutdown().await.unwrap();
    assert!(matches!(rig.engine.health(), Health::Closed));
}

#[tokio::test]
async fn after_shutdown_every_method_says_closed() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    // In memory, so that the short ways are tried too.
    let version = read(&session).await.version();
    session.touch().await.unwrap();
    rig.engine.shutdown().await.unwrap();
    for session in [session, rig.session("a"), rig.session("unknown")] {
        let engine = &rig.engine;
        let answers = [
            session.get().await.err(),
            session.touch().await.err(),
            session.touch_with(Durability::Committed).await.err(),
            session.save("x").await.err(),
            session.save_if(version, "x").await.err(),
            session.apply(Change::new()).await.err(),
            session.update(|_: &mut String| ()).await.err(),
            session.try_update(|_: &mut String| Ok::<_, ()>(())).await.err(),
            session.rotate(Change::new()).await.err(),
            session.delete().await.err(),
            engine.create(NewSession::new()).await.err(),
            engine.get_or_create(NewSession::with_id("a")).await.err(),
            engine.list(Query::new(Filter::all())).await.err(),
            engine.count(Filter::all()).await.err(),
            engine.delete_where(Filter::all()).await.err(),
            engine.sweep().await.err(),
            engine.flush().await.err(),
        ];
        for (n, answer) in answers.into_iter().enumerate() {
            let error = answer.unwrap_or_else(|| panic!("call {n} was served"));
            assert!(matches!(error, Error::Closed), "call {n}: {error:?}");
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
        }
    }
    assert_eq!(rig.restart().await.record("a").await.touch_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_may_be_called_by_everybody_at_once_and_again() {
    let rig = Rig::open().await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let engine = rig.engine.clone();
            tokio::spawn(async move { engine.shutdown().await })
        })
        .collect();
    for caller in callers {
        soon("a shutdown", caller).await.unwrap().unwrap();
    }
    rig.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_answers_what_is_in_flight_and_loses_nothing_acknowledged() {
    let rig = Rig::open().await;
    for n in 0..8 {
        rig.engine.create(NewSession::with_id(format!("s{n}")).data(&0_u64)).await.unwrap();
    }
    let callers: Vec<_> = (0..32)
        .map(|n| {
            let session = rig.session(&format!("s{}", n % 8));
            tokio::spawn(async move {
                let (mut updates, mut touches) = (0_u64, 0_u64);
                loop {
                    match session.update(|n: &mut u64| *n += 1).await {
                        Ok(()) => updates += 1,
                        Err(Error::Closed) => return (updates, touches),
                        Err(other) => panic!("{other:?}"),
                    }
                    match session.touch().await {
                        Ok(()) => touches += 1,
                        Err(Error::Closed) => return (updates, touches),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    while rig.engine.stats().commits < 100 {
        tokio::task::yield_now().await;
    }
    soon("the shutdown", rig.engine.shutdown()).await.unwrap();
    let (mut updates, mut touches) = (0, 0);
    for caller in callers {
        let of_caller = soon("a caller", caller).await.unwrap();
        updates += of_caller.0;
        touches += of_caller.1;
    }
    let rig = rig.restart().await;
    let mut stored = (0, 0);
    for n in 0..8 {
        let record = rig.record(&format!("s{n}")).await;
        stored.0 += record.data::<u64>().unwrap();
        stored.1 += record.touch_count();
    }
    assert_eq!(stored, (updates, touches));
}

#[tokio::test]
async fn shutdown_leaves_one_tidy_file() {
    let rig = Rig::open().await;
    rig.create("a").await;
    rig.engine.shutdown().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(rig.place.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "sessions.db.lock")
        .collect();
    assert_eq!(left, ["sessions.db"]);
}

#[tokio::test]
async fn a_shutdown_given_up_goes_on() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    engine.create(NewSession::with_id("a")).await.unwrap();
    {
        let shutdown = std::pin::pin!(engine.shutdown());
        drop(sessile_tests::poll_once(shutdown));
    }
    let again = place.open_when_free().await;
    assert_eq!(again.count(Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn handles_and_futures_may_go_to_other_threads() {
    fn portable<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let engine = Engine::in_memory().open().await.unwrap();
    let session = sendable(engine.create(NewSession::new().data(&0))).await.unwrap();
    portable(&engine);
    portable(&session);
    portable(&engine.actor());
    sendable(session.update(|n: &mut i32| *n += 1)).await.unwrap();
    sendable(session.touch()).await.unwrap();
    let record = sendable(session.get()).await.unwrap().unwrap();
    portable(&record);
    sendable(engine.shutdown()).await.unwrap();
}
