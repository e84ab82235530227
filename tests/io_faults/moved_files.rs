//! Files deleted, or others put in their place, while they are open: SQLite itself goes on with what has no name any
//! more, and what it writes there is lost with the process. The engine must not acknowledge such a write.

use std::{fs, path::PathBuf, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use sessile::{CauseKind, Engine, Error, Filter, Health, NewSession, Outcome};
use sessile_tests::{Place, eventually, soon};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::promises::Client;

const DEADLINE: Duration = Duration::from_secs(10);

fn beside(place: &Place, suffix: &str) -> PathBuf {
    let mut name = place.path().into_os_string();
    name.push(suffix);
    name.into()
}

async fn served(place: &Place) -> (Engine, Client) {
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, DEADLINE);
    for id in ["a", "b", "c"] {
        assert!(client.create(id).await && client.save(id).await && client.touch(id, None).await);
    }
    client.flush().await;
    (engine, client)
}

/// Checks that the engine refuses for good, and says why.
async fn has_given_up(engine: &Engine) {
    eventually("it gives up", async || {
        let refused = engine.create(NewSession::new()).await;
        assert!(refused.is_err());
        matches!(refused, Err(Error::Unavailable { .. }))
    })
    .await;
    for error in [
        soon("a get", engine.session("a").unwrap().get()).await.unwrap_err(),
        soon("a touch", engine.session("a").unwrap().touch()).await.unwrap_err(),
        soon("a count", engine.count(Filter::all())).await.unwrap_err(),
        soon("a deletion", engine.delete_where(Filter::all())).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
    }
    match engine.health() {
        Health::Degraded { cause, .. } => assert_eq!(cause.kind, CauseKind::Replaced, "{cause:?}"),
        other => panic!("{other:?}"),
    }
    soon("the shutdown", engine.shutdown()).await.unwrap_err();
}

#[tokio::test]
async fn no_write_to_a_deleted_file_is_acknowledged() {
    let place = Place::new();
    let (engine, mut client) = served(&place).await;
    fs::remove_file(place.path()).unwrap();
    assert!(!client.save("a").await, "it was acknowledged");
    assert!(!client.create("d").await, "it was acknowledged");
    has_given_up(&engine).await;
    assert!(!place.path().exists(), "it was made anew");
}

#[tokio::test]
async fn touches_alone_find_a_deleted_file_out() {
    let place = Place::new();
    let (engine, mut client) = served(&place).await;
    fs::remove_file(place.path()).unwrap();
    // It counts in memory until it is to be written.
    assert!(client.touch("a", None).await);
    eventually("it is found out", async || matches!(engine.health(), Health::Degraded { .. })).await;
    has_given_up(&engine).await;
}

#[tokio::test]
async fn a_file_put_in_its_place_is_left_as_it_is() {
    let place = Place::new();
    let other = Place::new();
    let restored = other.builder().open().await.unwrap();
    restored.create(NewSession::with_id("restored").data(&1)).await.unwrap();
    restored.shutdown().await.unwrap();
    let content = fs::read(other.path()).unwrap();
    let (engine, mut client) = served(&place).await;
    fs::copy(other.path(), place.directory().join("restored.db")).unwrap();
    fs::rename(place.directory().join("restored.db"), place.path()).unwrap();
    assert!(!client.save("a").await, "it was acknowledged");
    has_given_up(&engine).await;
    assert_eq!(fs::read(place.path()).unwrap(), content);
    // As whoever restores a file has to: the log beside it was the other one's.
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(beside(&place, suffix)));
    }
    let engine = place.builder().open().await.unwrap();
    assert!(engine.session("restored").unwrap().get().await.unwrap().is_some());
    assert!(engine.session("a").unwrap().get().await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_committed_outlives_a_deleted_log() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let place = Place::new();
        let (engine, mut client) = served(&place).await;
        for suffix in suffixes {
            fs::remove_file(beside(&place, suffix)).unwrap();
        }
        client.save("a").await;
        client.touch("b", None).await;
        client.works_again("d").await;
        client.read_all().await;
        assert_eq!(engine.stats().restarts, 1, "{suffixes:?}: nobody noticed");
        assert!(matches!(engine.health(), Health::Ready));
        // What another process finds now, as after a kill.
        let crashed = Place::new();
        for suffix in ["", "-wal"] {
            fs::copy(beside(&place, suffix), beside(&crashed, suffix)).unwrap();
        }
        client.flush().await;
        let copy = crashed.builder().open().await.unwrap();
        client.reconnect(&copy, false);
        client.read_all().await;
        copy.shutdown().await.unwrap();
        engine.shutdown().await.unwrap();
        let engine = place.builder().open().await.unwrap();
        client.reconnect(&engine, true);
        client.read_all().await;
        assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
        let found: String = place.connect().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }
}

#[tokio::test]
async fn of_two_engines_on_one_file_the_later_one_goes_on() {
    let place = Place::new();
    let (first, mut client) = served(&place).await;
    // Without it, nothing keeps a second engine out.
    fs::remove_file(beside(&place, ".lock")).unwrap();
    let second = place.builder().open().await.unwrap();
    assert!(!client.save("a").await, "two engines write the same file");
    has_given_up(&first).await;
    client.reconnect(&second, false);
    client.read_all().await;
    client.works_again("d").await;
    assert_eq!(second.stats().restarts, 0);
    second.shutdown().await.unwrap();
    let third = place.builder().open().await.unwrap();
    client.reconnect(&third, true);
    client.read_all().await;
    assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
}

#[tokio::test]
async fn a_lock_file_deleted_and_nobody_there_is_nothing_to_see() {
    let place = Place::new();
    let (engine, mut client) = served(&place).await;
    fs::remove_file(beside(&place, ".lock")).unwrap();
    client.works_again("d").await;
    engine.shutdown().await.unwrap();
    let engine = place.builder().open().await.unwrap();
    client.reconnect(&engine, true);
    client.read_all().await;
    assert!(client.findings.wrong.is_empty(), "{:#?}", client.findings);
}

struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = UnboundedSender<String>;
    type Arguments = UnboundedSender<String>;

    async fn pre_start(
        &self,
        _: ActorRef<()>,
        seen: UnboundedSender<String>,
    ) -> Result<UnboundedSender<String>, ActorProcessingErr> {
        Ok(seen)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        seen: &mut UnboundedSender<String>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            seen.send(error.to_string())?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_supervisor_hears_that_the_file_is_gone() {
    let place = Place::new();
    let (sender, mut seen) = unbounded_channel();
    let (supervisor, _) = Actor::spawn(None, Supervisor, sender).await.unwrap();
    let engine = place.builder().open_linked(supervisor.get_cell()).await.unwrap();
    engine.create(NewSession::with_id("a")).await.unwrap();
    fs::remove_file(place.path()).unwrap();
    engine.create(NewSession::with_id("b")).await.unwrap_err();
    let error = soon("the failure", seen.recv()).await.unwrap();
    assert!(error.contains("deleted"), "{error}");
    supervisor.stop(None);
}
