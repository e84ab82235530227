//! `max_sessions` and `max_sessions_per_user`: exact under races, and expired sessions do not count.

use std::time::Duration;

use sessile::{Change, Error, Filter, Limit, NewSession, Outcome};
use sessile_tests::{Configure, Rig, soon};

const SECOND: Duration = Duration::from_secs(1);

fn is_limit(error: &Error, which: Limit, of: u64) {
    assert!(matches!(error, Error::LimitReached { limit, max } if *limit == which && *max == of), "{error:?}");
    assert_eq!(error.outcome(), Outcome::DidNotHappen);
}

async fn add(rig: &Rig, user: &str) -> Result<(), Error> {
    rig.engine.create(NewSession::new().user(user)).await.map(drop)
}

#[tokio::test]
async fn the_sessions_of_an_engine_are_limited() {
    let rig = Rig::open_with(|builder| builder.max_sessions(3)).await;
    for user in ["ada", "bob", "eve"] {
        add(&rig, user).await.unwrap();
    }
    is_limit(&add(&rig, "joe").await.unwrap_err(), Limit::Sessions, 3);
    // What is there is found all the same, or is there already.
    let rig = rig.restart().await;
    is_limit(&add(&rig, "joe").await.unwrap_err(), Limit::Sessions, 3);
    rig.engine.delete_where(Filter::all().user("ada")).await.unwrap();
    rig.create("a").await;
    assert!(matches!(rig.engine.create(NewSession::with_id("a")).await, Err(Error::AlreadyExists)));
    assert!(!rig.engine.get_or_create(NewSession::with_id("a")).await.unwrap().1);
    is_limit(&rig.engine.get_or_create(NewSession::with_id("b")).await.unwrap_err(), Limit::Sessions, 3);
    rig.session("a").delete().await.unwrap();
    add(&rig, "joe").await.unwrap();
}

#[tokio::test]
async fn the_sessions_of_a_user_are_limited() {
    let rig = Rig::open_with(|builder| builder.max_sessions_per_user(2)).await;
    for user in ["ada", "ada", "bob"] {
        add(&rig, user).await.unwrap();
    }
    is_limit(&add(&rig, "ada").await.unwrap_err(), Limit::SessionsPerUser, 2);
    add(&rig, "bob").await.unwrap();
    for _ in 0..5 {
        rig.engine.create(NewSession::new()).await.unwrap();
    }
    // Neither by a change of owner.
    let visitor = rig.create("visitor").await;
    is_limit(&visitor.apply(Change::new().user("ada")).await.unwrap_err(), Limit::SessionsPerUser, 2);
    is_limit(&visitor.rotate(Change::new().user("ada")).await.unwrap_err(), Limit::SessionsPerUser, 2);
    assert_eq!(rig.record("visitor").await.user(), None);
    // One's own sessions may be changed at the limit.
    let mine = rig.engine.create(NewSession::with_id("mine").user("eve")).await.unwrap();
    add(&rig, "eve").await.unwrap();
    mine.apply(Change::new().user("eve").data(&1)).await.unwrap();
    mine.rotate(Change::new().user("eve")).await.unwrap();
    assert_eq!(rig.engine.count(Filter::all().user("eve")).await.unwrap(), 2);
}

#[tokio::test]
async fn expiry_makes_room() {
    let configure: [Configure; 2] = [
        |builder| builder.max_sessions(3).idle_timeout(SECOND * 10),
        |builder| builder.max_sessions_per_user(3).idle_timeout(SECOND * 10),
    ];
    for configure in configure {
        let rig = Rig::open_with(configure).await;
        for _ in 0..3 {
            add(&rig, "ada").await.unwrap();
            rig.advance(SECOND);
        }
        add(&rig, "ada").await.unwrap_err();
        rig.advance(SECOND * 7);
        add(&rig, "ada").await.unwrap();
        add(&rig, "ada").await.unwrap_err();
        rig.advance(SECOND * 2);
        add(&rig, "ada").await.unwrap();
        add(&rig, "ada").await.unwrap();
        add(&rig, "ada").await.unwrap_err();
        assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn expiry_makes_room_at_once_after_a_refusal() {
    let rig = Rig::open_with(|builder| builder.max_sessions(1).idle_timeout(SECOND * 10)).await;
    add(&rig, "ada").await.unwrap();
    rig.advance(Duration::from_millis(9_999));
    add(&rig, "ada").await.unwrap_err();
    rig.advance(Duration::from_millis(1));
    add(&rig, "ada").await.unwrap();
}

#[tokio::test]
async fn sessions_kept_alive_in_memory_only_count() {
    let configure: [Configure; 2] = [
        |builder| builder.max_sessions(2).idle_timeout(SECOND * 10),
        |builder| builder.max_sessions_per_user(2).idle_timeout(SECOND * 10),
    ];
    for configure in configure {
        let rig = Rig::open_with(configure).await;
        let kept = rig.engine.create(NewSession::with_id("kept").user("ada")).await.unwrap();
        kept.touch().await.unwrap();
        add(&rig, "ada").await.unwrap();
        rig.engine.flush().await.unwrap();
        rig.advance(SECOND * 9);
        kept.touch().await.unwrap();
        rig.advance(SECOND * 9);
        add(&rig, "ada").await.unwrap();
        add(&rig, "ada").await.unwrap_err();
        assert!(kept.get().await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_that_create_at_once_exactly_as_many_succeed_as_there_is_room() {
    const MAX: u64 = 17;
    let configure: [Configure; 2] = [|builder| builder.max_sessions(MAX), |builder| builder.max_sessions_per_user(MAX)];
    for configure in configure {
        let rig = Rig::open_with(configure).await;
        let creating: Vec<_> = (0..64)
            .map(|_| {
                let engine = rig.engine.clone();
                tokio::spawn(async move { engine.create(NewSession::new().user("ada")).await })
            })
            .collect();
        let mut created = 0;
        for creating in creating {
            match soon("a create", creating).await.unwrap() {
                Ok(_) => created += 1,
                Err(Error::LimitReached { max: MAX, .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(created, MAX);
        assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), MAX);
        assert_eq!(rig.restart().await.engine.count(Filter::all()).await.unwrap(), MAX);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_and_deletes_at_once_never_exceed_the_limit_and_leave_it_exact() {
    const MAX: u64 = 8;
    let rig = Rig::open_with(|builder| builder.max_sessions(MAX)).await;
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let engine = rig.engine.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    if let Ok(session) = engine.create(NewSession::new()).await {
                        assert!(engine.count(Filter::all()).await.unwrap() <= MAX);
                        assert!(session.delete().await.unwrap());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        soon("a task", task).await.unwrap();
    }
    assert_eq!(rig.engine.count(Filter::all()).await.unwrap(), 0);
    for _ in 0..MAX {
        add(&rig, "ada").await.unwrap();
    }
    is_limit(&add(&rig, "ada").await.unwrap_err(), Limit::Sessions, MAX);
}

#[tokio::test]
async fn a_rotation_that_shortens_a_session_makes_room_when_it_ends() {
    let rig = Rig::open_with(|builder| builder.max_sessions(1)).await;
    let session = rig.create("a").await;
    assert!(rig.engine.create(NewSession::with_id("b")).await.is_err());
    let ends = session.get().await.unwrap().unwrap().created_at().saturating_add(Duration::from_secs(10));
    session.rotate(Change::new().expires_at(ends)).await.unwrap();
    rig.advance(Duration::from_secs(11));
    rig.engine.create(NewSession::with_id("b")).await.unwrap();
}
