//! Another process, a real one, that holds the write lock for longer than anybody waits for it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sessile::{CauseKind, Engine, Health, Outcome};
use sessile_tests::{Place, eventually, soon};

use super::promises::Client;

/// SQLite's busy timeout, as the engine has it, and the machine's slowness.
const BUSY: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(10);

struct Holder(Child);

impl Holder {
    fn locks(place: &Place) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lock-holder"))
            .arg(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process");
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut said).expect("it speaks");
        assert_eq!(said.trim(), "locked");
        Self(child)
    }

    fn lets_go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success());
    }

    fn dies(mut self) {
        self.0.kill().expect("it is killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // A test that fails leaves nobody behind.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn is_ready(engine: &Engine) -> bool {
    matches!(engine.health(), Health::Ready)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_past_the_busy_timeout_refuses_writes_and_only_them() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, DEADLINE);
    for id in ["a", "b"] {
        assert!(client.create(id).await);
    }
    let holder = Holder::locks(&place);
    let began = Instant::now();
    let error = soon("a save", engine.session("a").unwrap().save("x")).await.unwrap_err();
    let took = began.elapsed();
    assert!(matches!(&error, sessile::Error::Storage { cause } if cause.kind == CauseKind::Busy), "{error:?}");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, true));
    assert!(took > BUSY / 2 && took < DEADLINE, "{took:?}");
    match engine.health() {
        Health::Degraded { cause, .. } => assert_eq!(cause.kind, CauseKind::Busy),
        other => panic!("{other:?}"),
    }
    // All kinds of requests meanwhile: reads and touches are served.
    for id in ["a", "b"] {
        assert!(client.get(id).await && client.touch(id, None).await);
    }
    for _ in 0..3 {
        client.save("a").await;
        client.create("c").await;
        client.rotate("b").await;
        client.delete_where("a").await;
        client.count("a").await;
        client.flush().await;
    }
    assert_eq!(client.findings.errors.keys().copied().collect::<Vec<_>>(), ["Storage"]);
    holder.lets_go();
    // By itself: nobody asks for anything.
    eventually("it is well again", async || is_ready(&engine)).await;
    client.works_again("d").await;
    client.read_all().await;
    engine.shutdown().await.unwrap();
    let engine = place.builder().open().await.unwrap();
    client.reconnect(&engine, true);
    client.read_all().await;
    assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
    println!(
        "figure: foreign_lock requests={} refused={} wrong_acknowledgements=0 hangs=0 first_refusal_ms={}",
        client.findings.requests,
        client.findings.refused(),
        took.as_millis()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_with_the_lock_in_hand_leaves_nothing_behind() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, DEADLINE);
    assert!(client.create("a").await);
    for _ in 0..5 {
        let holder = Holder::locks(&place);
        let saving = tokio::spawn({
            let session = engine.session("a").unwrap();
            async move { session.touch_with(sessile::Durability::Committed).await }
        });
        eventually("it waits", async || engine.stats().requests_in_flight > 0).await;
        holder.dies();
        soon("the touch", saving).await.unwrap().unwrap();
    }
    let record = engine.session("a").unwrap().get().await.unwrap().unwrap();
    assert_eq!((record.user(), record.touch_count()), (None, 5));
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_and_a_shutdown_against_a_lock_end_with_a_typed_error() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, DEADLINE);
    assert!(client.create("a").await && client.touch("a", None).await && client.flush().await);
    let holder = Holder::locks(&place);
    assert!(client.touch("a", None).await);
    let ended = soon("the shutdown", engine.shutdown()).await.unwrap_err();
    assert!(matches!(&ended, sessile::Error::Storage { cause } if cause.kind == CauseKind::Busy), "{ended:?}");
    let error = soon("to open", place.builder().open()).await.unwrap_err();
    assert!(matches!(&error, sessile::OpenError::Storage { cause } if cause.kind == CauseKind::Busy), "{error:?}");
    holder.lets_go();
    let engine = place.builder().open().await.unwrap();
    client.reconnect(&engine, false);
    client.read_all().await;
    client.works_again("b").await;
    assert!(client.findings.wrong.is_empty(), "{:#?}", client.findings);
}
