//! What was sent to a session never reaches another one that is made under its id later, however long it is under way.

use std::{pin::pin, sync::mpsc};

use sessile::{Durability, Engine, Error, Filter, NewSession, Session, testing::Faults};
use sessile_tests::{Place, poll_once, read, soon};
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of one thread, which can be held: what is queued for an actor then stays there.
struct Actors(Option<Runtime>);

impl Actors {
    fn start() -> Self {
        Self(Some(Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it runs until it is dropped").handle()
    }

    /// Holds the thread until the returned value is dropped.
    fn hold(&self) -> mpsc::Sender<()> {
        let (let_go, held) = mpsc::channel();
        let (reached, is_held) = mpsc::channel();
        self.handle().spawn(async move {
            reached.send(()).unwrap();
            assert!(held.recv().is_err(), "it is let go by a drop");
        });
        is_held.recv().unwrap();
        let_go
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        // The plain drop blocks, which a test on a runtime of its own must not.
        self.0.take().expect("it is dropped once").shutdown_background();
    }
}

async fn create(engine: &Engine, data: &str) -> Session {
    engine.create(NewSession::with_id("a").data(data)).await.unwrap()
}

#[tokio::test]
async fn what_is_queued_for_a_session_does_not_reach_its_successor() {
    let actors = Actors::start();
    let place = Place::new();
    let engine = place.builder().runtime(actors.handle().clone()).open().await.unwrap();
    for is_in_memory in [true, false] {
        let session = create(&engine, "first").await;
        // Brings the actor up.
        session.update(|_: &mut String| ()).await.unwrap();
        if !is_in_memory {
            engine.delete_where(Filter::all()).await.unwrap();
            create(&engine, "first").await;
        }
        let held = actors.hold();
        let mut updating = pin!(session.update(|data: &mut String| data.push('!')));
        let mut saving = pin!(session.save("for the first"));
        let mut touching = pin!(session.touch_with(Durability::Committed));
        let mut deleting = pin!(session.delete());
        // What stands behind it waits in the actor's mailbox, too.
        assert!(poll_once(updating.as_mut()).is_pending());
        assert!(poll_once(saving.as_mut()).is_pending());
        assert!(poll_once(touching.as_mut()).is_pending());
        assert!(poll_once(deleting.as_mut()).is_pending());
        assert_eq!(engine.delete_where(Filter::all()).await.unwrap(), 1);
        let mut creating = pin!(engine.create(NewSession::with_id("a").data("second")));
        assert!(poll_once(creating.as_mut()).is_pending());
        drop(held);
        let successor = soon("the create", creating).await.unwrap();
        assert!(matches!(soon("the save", saving).await, Err(Error::NotFound)));
        assert!(matches!(soon("the update", updating).await, Err(Error::NotFound)));
        assert!(matches!(soon("the touch", touching).await, Err(Error::NotFound)));
        assert!(!soon("the delete", deleting).await.unwrap());
        let record = read(&successor).await;
        assert_eq!((record.data::<String>().unwrap().as_str(), record.touch_count()), ("second", 0));
        assert!(successor.delete().await.unwrap());
    }
}

#[tokio::test]
async fn a_create_queued_behind_a_session_is_answered_like_any_other() {
    let actors = Actors::start();
    let place = Place::new();
    let engine = place.builder().runtime(actors.handle().clone()).open().await.unwrap();
    let session = create(&engine, "first").await;
    session.update(|_: &mut String| ()).await.unwrap();
    let taken = engine.create(NewSession::with_id("a")).await;
    assert!(matches!(taken, Err(Error::AlreadyExists)), "{taken:?}");
    let (found, created) = engine.get_or_create(NewSession::with_id("a")).await.unwrap();
    assert!(!created);
    assert_eq!(read(&found).await.data::<String>().unwrap(), "first");
}

#[tokio::test]
async fn an_update_sent_behind_a_delete_and_a_create_changes_what_was_created() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let session = create(&engine, "first").await;
    read(&session).await;
    let stall = Faults::of(&engine).stall();
    let mut deleting = pin!(session.delete());
    let mut creating = pin!(engine.create(NewSession::with_id("a").data("second")));
    let mut updating = pin!(session.update(|data: &mut String| data.push('!')));
    assert!(poll_once(deleting.as_mut()).is_pending());
    assert!(poll_once(creating.as_mut()).is_pending());
    assert!(poll_once(updating.as_mut()).is_pending());
    drop(stall);
    assert!(deleting.await.unwrap());
    creating.await.unwrap();
    updating.await.unwrap();
    assert_eq!(read(&session).await.data::<String>().unwrap(), "second!");
}
