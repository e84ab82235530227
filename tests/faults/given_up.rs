//! A storage thread that gives up: every request is answered, and the end is told.

use std::fs;

use sessile::{Engine, Error, Health, NewSession, Outcome, testing::Faults};
use sessile_tests::{Rig, eventually, soon};

/// Faults in a row after which storage gives up, and some more.
const FAULTS: usize = 12;

async fn break_for_good(engine: &Engine) {
    for _ in 0..FAULTS {
        Faults::of(engine).interrupt(false);
        let error = soon("a create", engine.create(NewSession::new())).await.unwrap_err();
        if matches!(error, Error::Unavailable { .. }) {
            return;
        }
        assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
    }
}

#[tokio::test]
async fn after_too_many_faults_requests_are_unavailable_and_shutdown_tells() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    rig.engine.flush().await.unwrap();
    break_for_good(&rig.engine).await;
    for error in [
        soon("a get", session.get()).await.unwrap_err(),
        soon("a touch", session.touch()).await.unwrap_err(),
        soon("a save", session.save("b")).await.unwrap_err(),
        soon("an update", session.update(|_: &mut String| ())).await.unwrap_err(),
        soon("a flush", rig.engine.flush()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
    }
    assert!(matches!(rig.engine.health(), Health::Degraded { .. }));
    let ended = soon("the shutdown", rig.engine.shutdown()).await;
    assert!(matches!(ended, Err(Error::Storage { .. })), "{ended:?}");
    assert!(matches!(session.get().await, Err(Error::Closed)));
    let engine = rig.place.open_when_free().await;
    assert!(engine.session("a").unwrap().get().await.unwrap().is_some());
}

#[tokio::test]
async fn while_the_file_is_replaced_nothing_is_written_to_the_other() {
    let rig = Rig::open().await;
    let session = rig.create("a").await;
    session.touch().await.unwrap();
    let other = b"not the file that was opened";
    fs::rename(rig.place.path(), rig.place.directory().join("moved.db")).unwrap();
    fs::write(rig.place.path(), other).unwrap();
    Faults::of(&rig.engine).fail_commit(false);
    session.save("b").await.unwrap_err();
    eventually("it is noticed", async || matches!(rig.engine.health(), Health::Degraded { .. })).await;
    soon("the shutdown", rig.engine.shutdown()).await.unwrap_err();
    assert_eq!(fs::read(rig.place.path()).unwrap(), other);
}
