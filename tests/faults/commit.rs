//! A storage thread that panics or a COMMIT that fails: the answer says that nobody knows, and reading tells.

use std::{pin::pin, time::Duration};

use sessile::{
    Change, Engine, Error, Filter, Health, InterruptedBy, NewSession, Outcome, Query, Session, testing::Faults,
};
use sessile_tests::{Rig, eventually, poll_once, read, soon};

/// A fault at the next COMMIT.
#[derive(Debug, Clone, Copy)]
enum At {
    Panic { happened: bool },
    Commit { happened: bool },
}

const ALL: [At; 4] = [
    At::Panic { happened: false },
    At::Panic { happened: true },
    At::Commit { happened: false },
    At::Commit { happened: true },
];

impl At {
    fn order(self, engine: &Engine) {
        match self {
            Self::Panic { happened } => Faults::of(engine).interrupt(happened),
            Self::Commit { happened } => Faults::of(engine).fail_commit(happened),
        }
    }

    fn happened(self) -> bool {
        match self {
            Self::Panic { happened } | Self::Commit { happened } => happened,
        }
    }

    /// Checks what a request that met the fault was answered.
    fn is(self, error: &Error) {
        let expected = match self {
            Self::Panic { .. } => InterruptedBy::StorageDied,
            Self::Commit { .. } => InterruptedBy::CommitUnknown,
        };
        assert!(matches!(error, Error::Interrupted { by } if *by == expected), "{self:?}: {error:?}");
        assert_eq!((error.outcome(), error.is_retryable()), (Outcome::MayHaveHappened, false));
    }
}

async fn is_whole_again(engine: &Engine, session: &Session) {
    soon("a request after the fault", session.touch()).await.unwrap();
    soon("a request after the fault", session.apply(Change::new().metadata("after", "fault"))).await.unwrap();
    assert_eq!(engine.stats().restarts, 1);
    assert!(matches!(engine.health(), Health::Ready));
    assert_eq!(engine.stats().requests_in_flight, 0);
}

#[tokio::test]
async fn a_save_in_doubt_is_what_a_later_get_says() {
    for at in ALL {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.save("acknowledged").await.unwrap();
        at.order(&rig.engine);
        at.is(&soon("a save", session.save("in doubt")).await.unwrap_err());
        let seen = soon("a get", session.get()).await.unwrap().unwrap().data::<String>().unwrap();
        assert_eq!(seen, if at.happened() { "in doubt" } else { "acknowledged" }, "{at:?}");
        is_whole_again(&rig.engine, &session).await;
        assert_eq!(rig.restart().await.record("a").await.data::<String>().unwrap(), seen);
    }
}

#[tokio::test]
async fn a_create_in_doubt_is_what_a_later_get_says() {
    for at in ALL {
        let rig = Rig::open_with(|builder| builder.max_sessions(1)).await;
        at.order(&rig.engine);
        at.is(&rig.engine.create(NewSession::with_id("a").data("a")).await.unwrap_err());
        assert_eq!(rig.session("a").get().await.unwrap().is_some(), at.happened(), "{at:?}");
        // The limit knows, too.
        let created = rig.engine.get_or_create(NewSession::with_id("a").data("a")).await.unwrap().1;
        assert_eq!(created, !at.happened(), "{at:?}");
        assert!(matches!(rig.engine.create(NewSession::new()).await, Err(Error::LimitReached { .. })));
        is_whole_again(&rig.engine, &rig.session("a")).await;
    }
}

#[tokio::test]
async fn a_delete_in_doubt_is_met_properly_by_touches() {
    for at in ALL {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.touch().await.unwrap();
        let before = read(&session).await;
        at.order(&rig.engine);
        let (deleted, touched) = tokio::join!(session.delete(), session.touch());
        at.is(&deleted.unwrap_err());
        let also = u64::from(touched.is_ok());
        let later = soon("a touch", session.touch()).await;
        if at.happened() {
            assert!(matches!(later, Err(Error::NotFound)), "{at:?}: {later:?}");
            assert!(session.get().await.unwrap().is_none(), "{at:?}");
            assert_ne!(read(&rig.create("a").await).await.serial(), before.serial());
            assert_eq!(rig.record("a").await.touch_count(), 0);
        } else {
            later.unwrap();
            let record = read(&session).await;
            assert_eq!((record.serial(), record.touch_count()), (before.serial(), 2 + also), "{at:?}");
        }
        is_whole_again(&rig.engine, &session).await;
    }
}

#[tokio::test]
async fn a_rotation_in_doubt_leaves_one_id_alive() {
    for at in ALL {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.touch().await.unwrap();
        let serial = read(&session).await.serial();
        at.order(&rig.engine);
        at.is(&session.rotate(Change::new().user("ada")).await.unwrap_err());
        let filter = Filter::all().serial(serial);
        let page = rig.engine.list(sessile::Query::new(filter)).await.unwrap();
        let [alive] = &page.items[..] else { panic!("{page:?}") };
        assert_eq!(alive.touch_count(), 1);
        assert_eq!(alive.id() == Some(session.id()), !at.happened(), "{at:?}");
        assert_eq!(alive.user().is_some(), at.happened(), "{at:?}");
        assert_eq!(session.touch().await.is_ok(), !at.happened(), "{at:?}");
        let alive = rig.session(alive.id().unwrap().as_str());
        is_whole_again(&rig.engine, &alive).await;
    }
}

#[tokio::test]
async fn an_update_in_doubt_happened_once_or_not_at_all() {
    for at in ALL {
        let rig = Rig::open().await;
        let session = rig.engine.create(NewSession::with_id("n").data(&0)).await.unwrap();
        session.update(|n: &mut i32| *n += 1).await.unwrap();
        at.order(&rig.engine);
        at.is(&session.update(|n: &mut i32| *n += 1).await.unwrap_err());
        assert_eq!(read(&session).await.data::<i32>().unwrap(), 1 + i32::from(at.happened()), "{at:?}");
        session.update(|n: &mut i32| *n += 1).await.unwrap();
        is_whole_again(&rig.engine, &session).await;
    }
}

#[tokio::test]
async fn a_deletion_of_many_in_doubt_is_answered() {
    for at in ALL {
        let rig = Rig::open().await;
        for n in 0..10 {
            rig.create(&format!("s{n}")).await.touch().await.unwrap();
        }
        at.order(&rig.engine);
        let error = soon("the deletion", rig.engine.delete_where(Filter::all())).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{at:?}: {error:?}");
        let left = rig.engine.count(Filter::all()).await.unwrap();
        assert_eq!(left, if at.happened() { 0 } else { 10 }, "{at:?}");
        assert_eq!(rig.session("s5").touch().await.is_ok(), !at.happened(), "{at:?}");
        assert_eq!(rig.engine.delete_where(Filter::all()).await.unwrap(), left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_what_was_acknowledged_stays_and_what_was_not_is_bounded() {
    for at in ALL {
        let rig = Rig::open().await;
        for n in 0..8 {
            rig.engine.create(NewSession::with_id(format!("s{n}")).data(&0_u64)).await.unwrap();
        }
        let tasks: Vec<_> = (0..32_u64)
            .map(|task| {
                let session = rig.session(&format!("s{}", task % 8));
                tokio::spawn(async move {
                    let (mut acknowledged, mut in_doubt) = (0_u64, 0_u64);
                    for _ in 0..40 {
                        match session.update(|n: &mut u64| *n += 1).await {
                            Ok(()) => acknowledged += 1,
                            Err(error) if error.outcome() == Outcome::MayHaveHappened => in_doubt += 1,
                            Err(error) => assert!(error.is_retryable(), "{error:?}"),
                        }
                    }
                    (acknowledged, in_doubt)
                })
            })
            .collect();
        for n in 1..=5 {
            at.order(&rig.engine);
            eventually("the fault", async || {
                rig.engine.stats().restarts >= n || tasks.iter().all(tokio::task::JoinHandle::is_finished)
            })
            .await;
        }
        let (mut acknowledged, mut in_doubt) = (0, 0);
        for task in tasks {
            let (yes, perhaps) = soon("a task", task).await.unwrap();
            acknowledged += yes;
            in_doubt += perhaps;
        }
        // One fault may be left over.
        drop(rig.engine.flush().await);
        let mut stored = 0;
        for n in 0..8 {
            stored += rig.record(&format!("s{n}")).await.data::<u64>().unwrap();
        }
        assert!(
            (acknowledged..=acknowledged + in_doubt).contains(&stored),
            "{at:?}: {acknowledged} {in_doubt} {stored}"
        );
        assert!(rig.engine.stats().restarts > 0);
    }
}

#[tokio::test]
async fn an_engine_in_memory_survives_a_fault() {
    for at in ALL {
        let engine = Engine::in_memory().open().await.unwrap();
        let session = engine.create(NewSession::new().data("a")).await.unwrap();
        session.touch().await.unwrap();
        at.order(&engine);
        at.is(&session.save("b").await.unwrap_err());
        let record = read(&session).await;
        let expected = if at.happened() { "b" } else { "a" };
        assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), (expected, 1), "{at:?}");
        is_whole_again(&engine, &session).await;
    }
}

#[tokio::test]
async fn a_fault_at_the_last_commit_is_told_by_shutdown_and_the_file_opens() {
    for at in ALL {
        let rig = Rig::open().await;
        let session = rig.create("a").await;
        session.touch().await.unwrap();
        rig.engine.flush().await.unwrap();
        session.touch().await.unwrap();
        at.order(&rig.engine);
        let ended = soon("the shutdown", rig.engine.shutdown()).await;
        assert!(matches!(ended, Err(Error::Storage { .. })), "{at:?}: {ended:?}");
        assert!(matches!(session.get().await, Err(Error::Closed)));
        assert!(matches!(session.touch().await, Err(Error::Closed)));
        let engine = rig.place.open_when_free().await;
        let count = read(&engine.session("a").unwrap()).await.touch_count();
        assert!((1..=2).contains(&count), "{at:?}: {count}");
        if at.happened() {
            assert_eq!(count, 2);
        }
    }
}

#[tokio::test]
async fn one_command_that_the_database_refuses_fails_alone() {
    let rig = Rig::open().await;
    let (good, bad) = (rig.create("good").await, rig.create("bad").await);
    // An index that cannot be kept for one value: the statement fails in the middle of the transaction.
    let refuse = "CREATE INDEX refuse ON save_log (abs(iif(data = '\"2\"', -9223372036854775807 - 1, 0)))";
    rig.place.connect().execute_batch(refuse).unwrap();
    let stall = Faults::of(&rig.engine).stall();
    let mut first = pin!(good.save("1"));
    let mut refused = pin!(bad.save("2"));
    let mut last = pin!(good.save("3"));
    let mut created = pin!(rig.engine.create(NewSession::with_id("new")));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(refused.as_mut()).is_pending());
    assert!(poll_once(last.as_mut()).is_pending());
    assert!(poll_once(created.as_mut()).is_pending());
    drop(stall);
    first.await.unwrap();
    let error = refused.await.unwrap_err();
    assert!(matches!(error, Error::Storage { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::DidNotHappen);
    last.await.unwrap();
    created.await.unwrap();
    assert_eq!(read(&good).await.data::<String>().unwrap(), "3");
    assert_eq!(read(&bad).await.data::<String>().unwrap(), "bad");
    assert_eq!(rig.engine.stats().restarts, 0);
}

#[tokio::test]
async fn touches_written_for_a_list_that_fails_are_written_later() {
    let rig = Rig::open().await;
    rig.create("a").await.touch().await.unwrap();
    let other = rig.place.connect();
    other.execute_batch("ALTER TABLE session RENAME COLUMN metadata TO hidden").unwrap();
    let error = rig.engine.list(Query::new(Filter::all())).await.unwrap_err();
    assert!(matches!(error, Error::Storage { .. }), "{error:?}");
    other.execute_batch("ALTER TABLE session RENAME COLUMN hidden TO metadata").unwrap();
    rig.advance(Duration::from_secs(1));
    let flushed = || other.query_row("SELECT sum(touch_count) FROM activity", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("the touch is on disk", async || flushed() == 1).await;
}
