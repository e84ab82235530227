//! A filesystem without room: it refuses, says so, and works again once there is room.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use sessile::{Cause, CauseKind, Durability, Engine, Filter, Health, NewSession, OpenError, testing::ManualClock};
use sessile_tests::{
    PATIENCE, Place, START, eventually, soon,
    vfs::{self, Call, CallKind, FileKind, Verdict, Watcher, codes},
};

use super::{
    promises::{Client, no_strangers},
    volume::{Kind, Volume, on_volumes},
};

const BOTH: [Kind; 2] = [Kind::Tmpfs, Kind::Ext4];
/// The deadline of requests: shorter than a full disk lasts here, longer than a disk takes for a sync.
const DEADLINE: Duration = Duration::from_millis(400);
/// More refusals than faults in a row that the engine takes for the end.
const REFUSALS: usize = 15;
/// Time without writes after which the log is emptied, and some more.
const QUIET: Duration = Duration::from_millis(600);

fn trouble(engine: &Engine) -> Option<Cause> {
    match engine.health() {
        Health::Degraded { cause, .. } => Some(cause),
        _ => None,
    }
}

fn is_ready(engine: &Engine) -> bool {
    matches!(engine.health(), Health::Ready)
}

pub(super) fn is_whole(path: &Path) {
    let found: String =
        Connection::open(path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}

/// Shuts down, opens anew, and looks at everything.
async fn holds_after_a_restart(volume: &Volume, engine: Engine, mut client: Client) {
    let ended = soon("the shutdown", engine.shutdown()).await;
    let engine = Engine::builder(volume.path()).open().await.unwrap();
    client.reconnect(&engine, ended.is_ok());
    client.read_all().await;
    client.within(PATIENCE);
    client.works_again("after").await;
    let mut clients = [client];
    no_strangers(&engine, &mut clients).await;
    engine.shutdown().await.unwrap();
    is_whole(&volume.path());
    let [client] = clients;
    let findings = client.findings;
    assert!(findings.wrong.is_empty() && findings.hangs.is_empty(), "{findings:#?}");
    assert_eq!(ended.map_err(|error| format!("{error:?}")), Ok(()));
    println!(
        "figure: full_disk requests={} refused={} wrong_acknowledgements=0 hangs=0",
        findings.requests,
        findings.refused()
    );
}

#[test]
fn writes_are_refused_while_the_disk_is_full_and_go_on_once_there_is_room() {
    on_volumes("a full disk", &BOTH, async |volume| {
        // Some room is left: what is small finds its way, what is large does not.
        for spare in [0, 40_000] {
            let engine = Engine::builder(volume.path()).request_timeout(DEADLINE).open().await.unwrap();
            let mut client = Client::new(&engine, DEADLINE);
            client.create(&format!("small-{spare}")).await;
            client.touch(&format!("small-{spare}"), None).await;
            client.padding = 60_000;
            for n in 0..5 {
                assert!(client.create(&format!("before-{spare}-{n}")).await);
            }
            volume.fill(spare);
            let (mut refused, mut said_full) = (0, false);
            for n in 0..200 {
                client.get(&format!("before-{spare}-{}", n % 5)).await;
                refused += usize::from(!client.create(&format!("full-{spare}-{n}")).await);
                let cause = trouble(&engine);
                said_full |= cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::Full);
                if refused >= REFUSALS {
                    break;
                }
            }
            assert!(refused >= REFUSALS, "the disk was not full");
            assert!(said_full, "{:?}", engine.health());
            volume.empty();
            eventually("there is room", async || is_ready(&engine)).await;
            client.works_again(&format!("again-{spare}")).await;
            client.read_all().await;
            holds_after_a_restart(volume, engine, client).await;
            fs::remove_file(volume.path()).unwrap();
        }
    });
}

/// A disk on which the log cannot grow beyond this: small commits find room, large ones do not.
pub(super) struct LittleRoom {
    log_bytes_max: AtomicU64,
}

impl LittleRoom {
    pub(super) fn new(log_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { log_bytes_max: AtomicU64::new(log_bytes_max) })
    }

    /// Gives all the room there is.
    pub(super) fn lift(&self) {
        self.log_bytes_max.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Watcher for LittleRoom {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let is_beyond = call.offset + call.length as u64 > self.log_bytes_max.load(Ordering::Relaxed);
        if call.kind == CallKind::Write && call.file == FileKind::Log && is_beyond {
            return Verdict::Fail(codes::SQLITE_FULL);
        }
        Verdict::Pass
    }
}

#[tokio::test]
async fn a_disk_with_a_little_room_is_never_given_up() {
    let place = Place::new();
    let _watch = vfs::watch(&place.directory(), LittleRoom::new(100_000));
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, Duration::from_secs(10));
    client.padding = 200_000;
    for n in 0..REFUSALS {
        assert!(!client.create(&format!("large-{n}")).await, "there was room");
    }
    // Each of them gave the connection up, and none of the new ones has committed anything else.
    assert!(engine.stats().restarts >= REFUSALS as u64, "{:?}", engine.stats());
    client.padding = 20;
    client.works_again("small").await;
    assert!(is_ready(&engine), "{:?}", engine.health());
    client.read_all().await;
    assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
}

#[test]
fn a_checkpoint_that_finds_no_room_is_made_up_for() {
    on_volumes("a checkpoint on a full disk", &BOTH, async |volume| {
        let clock = Arc::new(ManualClock::new(START));
        let engine = Engine::builder(volume.path()).clock(clock.clone()).open().await.unwrap();
        let mut client = Client::new(&engine, Duration::from_secs(10));
        client.padding = 40_000;
        for n in 0..30 {
            assert!(client.create(&format!("s{n}")).await);
        }
        // A save and touches to be folded, and rows to be indexed: all that is done at rest.
        client.padding = 20;
        client.save("s0").await;
        for n in 0..20 {
            client.touch(&format!("s{n}"), None).await;
        }
        client.flush().await;
        let waiting = engine.stats();
        assert!(
            waiting.saves_in_log > 0 && waiting.touches_in_log > 0 && waiting.sessions_unindexed > 0,
            "{waiting:?}"
        );
        // The log has it all; the database has yet to grow.
        volume.fill(0);
        clock.advance(QUIET);
        eventually("a checkpoint is refused", async || {
            client.get("s0").await;
            clock.advance(QUIET);
            engine.session("nobody").unwrap().get().await.unwrap();
            trouble(&engine).is_some()
        })
        .await;
        let cause = trouble(&engine).unwrap();
        assert_eq!(cause.kind, CauseKind::Full, "{cause:?}");
        // Nobody wrote, so nobody is refused: what can wait until there is room does.
        for _ in 0..10 {
            clock.advance(QUIET);
            engine.session("nobody").unwrap().get().await.unwrap();
        }
        client.read_all().await;
        assert_eq!(engine.stats().restarts, 0);
        volume.empty();
        eventually("the checkpoint is made up for", async || {
            clock.advance(QUIET);
            engine.session("nobody").unwrap().get().await.unwrap();
            let stats = engine.stats();
            let waiting = stats.log_pages + stats.saves_in_log + stats.touches_in_log + stats.sessions_unindexed;
            is_ready(&engine) && waiting == 0
        })
        .await;
        holds_after_a_restart(volume, engine, client).await;
    });
}

#[tokio::test]
async fn reads_do_not_put_the_checkpoint_off() {
    let rig = sessile_tests::Rig::open().await;
    rig.create("a").await;
    let before = rig.engine.stats().checkpoints;
    // Reads all the time, which reach storage, and no write.
    for _ in 0..20 {
        rig.advance(QUIET / 4);
        assert!(rig.session("nobody").get().await.unwrap().is_none());
    }
    eventually("the log is moved", async || rig.engine.stats().checkpoints > before).await;
}

#[test]
fn a_new_file_on_a_full_disk_is_an_error_of_its_own_and_opens_later() {
    on_volumes("to open on a full disk", &BOTH, async |volume| {
        volume.fill(0);
        let error = Engine::builder(volume.path()).open().await.unwrap_err();
        assert!(matches!(&error, OpenError::Storage { cause } if cause.kind == CauseKind::Full), "{error:?}");
        volume.empty();
        let engine = Engine::builder(volume.path()).open().await.unwrap();
        engine.create(NewSession::with_id("a").data(&1)).await.unwrap();
        engine.shutdown().await.unwrap();
        volume.fill(0);
        let before = fs::read(volume.path()).unwrap();
        match Engine::builder(volume.path()).open().await {
            Err(error) => {
                assert!(matches!(&error, OpenError::Storage { cause } if cause.kind == CauseKind::Full), "{error:?}");
                assert_eq!(fs::read(volume.path()).unwrap(), before);
            }
            Ok(_) => panic!("there was room for a log"),
        }
        volume.empty();
        let engine = Engine::builder(volume.path()).open().await.unwrap();
        assert_eq!(engine.count(Filter::all()).await.unwrap(), 1);
        engine.shutdown().await.unwrap();
        is_whole(&volume.path());
    });
}

#[test]
fn a_take_over_on_a_full_disk_leaves_the_old_file_as_it_was() {
    on_volumes("to take over on a full disk", &BOTH, async |volume| {
        for seed in ["seed_sessions_delete.db", "seed_sessions_wal.db"] {
            let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(seed);
            fs::copy(&seed, volume.path()).unwrap();
            for spare in [0, 8_192, 60_000] {
                volume.fill(spare);
                let error = Engine::builder(volume.path()).open().await.unwrap_err();
                assert!(matches!(&error, OpenError::Storage { cause } if cause.kind == CauseKind::Full), "{error:?}");
                volume.empty();
                let old = Connection::open(volume.path()).unwrap();
                let rows = old.query_row("SELECT count(*) FROM sessions", [], |row| row.get::<_, i64>(0));
                assert_eq!(rows.unwrap(), 1_000);
            }
            let engine = Engine::builder(volume.path()).open().await.unwrap();
            assert_eq!(engine.count(Filter::all()).await.unwrap(), 1_000);
            engine.shutdown().await.unwrap();
            is_whole(&volume.path());
            fs::remove_file(volume.path()).unwrap();
        }
    });
}

#[test]
fn a_shutdown_on_a_full_disk_says_what_it_could_not_write() {
    on_volumes("a shutdown on a full disk", &BOTH, async |volume| {
        let clock = Arc::new(ManualClock::new(START));
        let engine = Engine::builder(volume.path()).clock(clock).open().await.unwrap();
        let mut client = Client::new(&engine, Duration::from_secs(10));
        for n in 0..400 {
            let id = format!("s{n}");
            client.create(&id).await;
            client.touch(&id, (n % 3 == 0).then_some(Durability::Committed)).await;
            client.touch(&id, None).await;
        }
        volume.fill(0);
        let ended = soon("the shutdown", engine.shutdown()).await;
        volume.empty();
        if let Err(error) = &ended {
            assert!(matches!(error, sessile::Error::Storage { cause } if cause.kind == CauseKind::Full), "{error:?}");
        }
        println!("a shutdown on a full disk answered {ended:?}");
        let engine = Engine::builder(volume.path()).open().await.unwrap();
        client.reconnect(&engine, ended.is_ok());
        client.read_all().await;
        holds_after_a_restart(volume, engine, client).await;
    });
}
