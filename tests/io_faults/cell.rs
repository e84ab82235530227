//! One cell of the matrix: an engine at work, one kind of call that fails in one phase of it, and what must hold.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sessile::{
    CauseKind, Durability, Engine, EngineBuilder, Error, Health, OpenError,
    testing::{Faults, ManualClock},
};
use sessile_tests::{
    PATIENCE, START,
    vfs::{self, Breaker, CallKind, FileKind, Times, Verdict, codes},
};
use tempfile::TempDir;

use super::promises::{Client, Findings, no_strangers};

/// The deadline of requests while something fails.
const DEADLINE: Duration = Duration::from_millis(200);
/// Past a flush, and past the quiet after which the log is emptied.
const FLUSH: Duration = Duration::from_millis(300);
const QUIET: Duration = Duration::from_millis(600);
/// How long some of the sessions live.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// The smallest cache, so that pages are read from the disk.
const CACHE_BYTES: u64 = 64 << 10;
/// Sessions there from the beginning: some that fill pages, and some to be deleted.
const LARGE: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const DELETED: [&str; 5] = ["x-0", "x-1", "x-2", "x-3", "x-4"];
/// And some to be swept away.
const EXPIRING: [&str; 5] = ["z-0", "z-1", "z-2", "z-3", "z-4"];

/// What the engine is at when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    Read,
    Write,
    Synced,
    DeleteWhere,
    Checkpoint,
    /// The connection was given up, and is made anew.
    Recover,
    Sweep,
    Shutdown,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Synced,
        Self::DeleteWhere,
        Self::Checkpoint,
        Self::Recover,
        Self::Sweep,
        Self::Shutdown,
    ];
}

/// The fault.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub phase: Phase,
    pub call: CallKind,
    pub file: FileKind,
    pub verdict: Verdict,
    pub times: Times,
    pub nth: u64,
}

impl Cell {
    /// Returns whether the fault may be told as this kind of trouble.
    fn explains(&self, kind: CauseKind) -> bool {
        let (Verdict::Fail(code) | Verdict::FailAfter(code) | Verdict::Short(_, code)) = self.verdict else {
            return false;
        };
        let told = match code {
            codes::SQLITE_IOERR_SHMSIZE | codes::SQLITE_FULL => CauseKind::Full,
            codes::SQLITE_BUSY => CauseKind::Busy,
            codes::SQLITE_CANTOPEN => CauseKind::ReadOnly,
            codes::SQLITE_NOMEM => CauseKind::Other,
            _ => CauseKind::Io,
        };
        // A recovery begins with a commit that failed on order.
        kind == told || self.phase == Phase::Recover && kind == CauseKind::Io
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub was_hit: bool,
    pub findings: Findings,
    /// The engine gave up for good, so that only a new one could go on.
    pub gave_up: bool,
    /// Requests in flight or waiting at the end, when nobody asks any more.
    pub unresolved: usize,
}

/// A database with some sessions, shut down, and what a client knows of it.
pub struct Template {
    content: Vec<u8>,
    client: Client,
}

impl Template {
    pub async fn new() -> Self {
        let place = Scene::new();
        let engine = place.builder().open().await.expect("a new file opens");
        let mut client = Client::new(&engine, DEADLINE * 50);
        client.padding = 3_000;
        for id in LARGE.into_iter().chain(DELETED) {
            assert!(client.create(id).await && client.touch(id, None).await);
        }
        for id in EXPIRING {
            assert!(client.create_until(id, START.saturating_add(LIFETIME)).await && client.touch(id, None).await);
        }
        engine.shutdown().await.expect("it shuts down");
        Self { content: fs::read(place.path()).expect("the file"), client }
    }

    fn lay_out(&self, scene: &Scene) {
        fs::write(scene.path(), &self.content).expect("a copy");
    }
}

/// A directory in memory, where there is one: the matrix is about answers, not about a disk's speed.
struct Scene {
    directory: TempDir,
    clock: Arc<ManualClock>,
}

impl Scene {
    fn new() -> Self {
        let in_memory = Path::new("/dev/shm");
        let directory = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { TempDir::new() };
        Self { directory: directory.expect("a directory"), clock: Arc::new(ManualClock::new(START)) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("sessions.db")
    }

    fn builder(&self) -> EngineBuilder {
        Engine::builder(self.path()).clock(self.clock.clone()).cache_bytes(CACHE_BYTES)
    }
}

/// Counts the calls of each kind that a phase makes when nothing fails.
pub async fn census(template: &Template, phase: Phase) -> Vec<((CallKind, FileKind), u64)> {
    let scene = Scene::new();
    template.lay_out(&scene);
    let breaker = Breaker::new();
    let _watch = vfs::watch(scene.directory.path(), breaker.clone());
    let mut before = breaker.census();
    let engine = scene.builder().open().await.expect("nothing fails");
    if phase != Phase::Open {
        is_open(&engine).await;
        before = breaker.census();
        let mut client = template.client.known_to(&engine, DEADLINE * 50);
        if phase == Phase::Shutdown {
            before_shutdown(&mut client).await;
            before = breaker.census();
            engine.shutdown().await.expect("nothing fails");
        } else {
            work(phase, &scene, &engine, &mut client, &mut |_| {}).await;
        }
        assert!(client.findings.wrong.is_empty(), "{:?}", client.findings);
    }
    let after = breaker.census();
    let calls = after.into_iter().map(|(kind, count)| (kind, count - before.get(&kind).copied().unwrap_or(0)));
    let calls = calls.filter(|(_, count)| *count > 0).collect();
    drop(engine);
    calls
}

/// Runs a cell.
pub async fn run(template: &Template, cell: Cell) -> Outcome {
    let scene = Scene::new();
    template.lay_out(&scene);
    let breaker = Breaker::new();
    let watch = vfs::watch(scene.directory.path(), breaker.clone());
    let mut outcome = Outcome::default();
    let order = || breaker.order(cell.call, cell.file, cell.nth, cell.times, cell.verdict);
    if cell.phase == Phase::Open {
        order();
        match tokio::time::timeout(PATIENCE, scene.builder().open()).await {
            Err(_) => outcome.findings.hangs.push("to open".to_owned()),
            Ok(Ok(engine)) => drop(engine.shutdown().await),
            Ok(Err(
                error @ (OpenError::Storage { .. } | OpenError::NotWritable { .. } | OpenError::PragmaRefused { .. }),
            )) => {
                *outcome.findings.errors.entry("OpenError").or_default() += 1;
                if let OpenError::Storage { cause } = error {
                    outcome.findings.note_cause(cause.kind);
                }
            }
            Ok(Err(error)) => outcome.findings.wrong.push(format!("to open: {error:?}")),
        }
        outcome.was_hit = breaker.hits() > 0;
        breaker.lift();
    }
    let engine = scene.builder().request_timeout(DEADLINE).open().await;
    let engine = match engine {
        Ok(engine) => engine,
        Err(error) => {
            outcome.findings.wrong.push(format!("it does not open without a fault: {error:?}"));
            return outcome;
        }
    };
    is_open(&engine).await;
    let mut client = template.client.known_to(&engine, DEADLINE);
    let mut was_degraded = false;
    if cell.phase == Phase::Shutdown {
        before_shutdown(&mut client).await;
        order();
    } else if cell.phase != Phase::Open {
        order();
        let mut told = Vec::new();
        work(cell.phase, &scene, &engine, &mut client, &mut |_| {
            if let Health::Degraded { cause, .. } = engine.health() {
                was_degraded = true;
                told.push(cause.kind);
            }
        })
        .await;
        for kind in told {
            client.findings.note_cause(kind);
        }
        outcome.was_hit = breaker.hits() > 0;
        let refused = client.findings.refused() - client.findings.errors.get("NotFound").copied().unwrap_or(0);
        // A recovery begins with one that was refused on order.
        let on_order = u64::from(cell.phase == Phase::Recover);
        if cell.times == Times::ForEver && refused > on_order && !was_degraded {
            let errors = &client.findings.errors;
            client.findings.wrong.push(format!("health said nothing of {errors:?}"));
        }
        breaker.lift();
        outcome.gave_up = !recovers(&scene, &engine, &mut client).await;
        if !outcome.gave_up {
            client.works_again("again").await;
            client.read_all().await;
        }
    }
    outcome.unresolved = unresolved(&engine).await;
    let ended = tokio::time::timeout(PATIENCE, engine.shutdown()).await;
    if cell.phase == Phase::Shutdown {
        outcome.was_hit = breaker.hits() > 0;
    }
    breaker.lift();
    drop(watch);
    let ended = match ended {
        Err(_) => {
            client.findings.hangs.push("the shutdown".to_owned());
            false
        }
        Ok(ended) => {
            if let Err(Error::Storage { cause }) = &ended {
                client.findings.note_cause(cause.kind);
            }
            let may_fail = cell.phase == Phase::Shutdown || outcome.gave_up;
            if let (Err(error), false) = (&ended, may_fail) {
                client.findings.wrong.push(format!("the shutdown without a fault: {error:?}"));
            }
            ended.is_ok()
        }
    };
    drop(engine);
    let causes = outcome.findings.causes.iter().chain(&client.findings.causes);
    let strange: Vec<_> = causes.filter(|kind| !cell.explains(**kind)).copied().collect();
    if !strange.is_empty() {
        client.findings.wrong.push(format!("the fault is told as {strange:?}"));
    }
    outcome.findings.add(verify(&scene, client, ended).await);
    outcome
}

/// Opens the file by a new engine, nothing failing any more, and holds all that was said to what is there.
async fn verify(scene: &Scene, mut client: Client, was_shut_down: bool) -> Findings {
    let engine = match scene.builder().open().await {
        Ok(engine) => engine,
        Err(error) => {
            client.findings.wrong.push(format!("it does not open again: {error:?}"));
            return client.findings;
        }
    };
    client.reconnect(&engine, was_shut_down);
    client.within(PATIENCE);
    client.read_all().await;
    let mut clients = [client];
    no_strangers(&engine, &mut clients).await;
    let [mut client] = clients;
    client.works_again("anew").await;
    drop(engine.shutdown().await);
    let found = Connection::open(scene.path())
        .and_then(|connection| connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    if !matches!(found.as_deref(), Ok("ok")) {
        client.findings.wrong.push(format!("integrity_check: {found:?}"));
    }
    client.findings
}

/// Waits until the engine is well, time passing; false if it has given up instead.
async fn recovers(scene: &Scene, engine: &Engine, client: &mut Client) -> bool {
    let give_up = Instant::now() + PATIENCE;
    loop {
        scene.clock.advance(QUIET);
        // The storage thread looks at its timers after each command.
        let asked = engine.session("nobody").expect("a valid id").get().await;
        if matches!(engine.health(), Health::Ready) && asked.is_ok() {
            return true;
        }
        if Instant::now() > give_up {
            client.findings.wrong.push(format!("it does not recover: {:?} {asked:?}", engine.health()));
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts the requests that are still in flight or waiting: none, if each was answered. An answer may come a moment before
/// its room is free.
async fn unresolved(engine: &Engine) -> usize {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let stats = engine.stats();
        let left = stats.requests_in_flight + stats.requests_waiting;
        if left == 0 || Instant::now() > give_up {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the engine has moved what its opening has written: else that falls into the phase or not.
async fn is_open(engine: &Engine) {
    let give_up = Instant::now() + PATIENCE;
    while engine.stats().checkpoints == 0 {
        assert!(Instant::now() < give_up, "no checkpoint after the opening");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn before_shutdown(client: &mut Client) {
    client.padding = 30;
    for id in ["a", "b", "c"] {
        client.touch(id, None).await;
        client.save(id).await;
        client.touch(id, None).await;
    }
}

/// Lets time pass, and storage do what is due then.
async fn pass(scene: &Scene, client: &mut Client, time: Duration) {
    scene.clock.advance(time);
    // It looks at its timers after each command, and at the next command after that.
    for _ in 0..2 {
        client.get("nobody").await;
    }
}

/// Does what the phase is about; `look` is called after each step.
async fn work(
    phase: Phase,
    scene: &Scene,
    engine: &Engine,
    client: &mut Client,
    look: &mut (dyn FnMut(&Client) + Send),
) {
    macro_rules! steps {
        ($($step:expr;)*) => { $( $step; look(client); )* };
    }
    client.padding = 30;
    match phase {
        Phase::Read => {
            for id in LARGE {
                steps! { client.get(id).await; }
            }
            steps! { client.count("x-").await; client.touch("a", None).await; client.get("nobody").await; }
        }
        Phase::Write => {
            steps! {
                client.create("new").await;
                client.save("a").await;
                client.touch("b", None).await;
                client.update("b").await;
                client.touch("c", Some(Durability::Committed)).await;
                client.rotate("d").await;
                client.delete("e").await;
                pass(scene, client, FLUSH).await;
                client.get("f").await;
                client.get("a").await;
            }
        }
        Phase::Synced => {
            client.promising(Durability::Synced);
            steps! {
                client.save("a").await;
                client.touch("b", None).await;
                client.touch("c", Some(Durability::Synced)).await;
                client.flush().await;
                client.save("b").await;
            }
            client.promising(Durability::Committed);
        }
        Phase::DeleteWhere => {
            steps! {
                client.touch("x-1", None).await;
                client.delete_where("x-").await;
                client.count("x-").await;
                client.create("x-9").await;
            }
        }
        Phase::Checkpoint => {
            for _ in 0..3 {
                steps! {
                    client.save("a").await;
                    client.save("b").await;
                    pass(scene, client, QUIET).await;
                    pass(scene, client, QUIET).await;
                    client.get("f").await;
                }
            }
        }
        Phase::Recover => {
            Faults::of(engine).fail_commit(false);
            steps! {
                client.save("a").await;
                client.get("a").await;
                client.save("b").await;
                client.touch("c", Some(Durability::Committed)).await;
                client.get("f").await;
            }
        }
        Phase::Sweep => {
            scene.clock.advance(2 * LIFETIME);
            client.have_ended("z-");
            steps! {
                client.get("z-0").await;
                client.sweep(EXPIRING.len() as u64).await;
                client.get("z-1").await;
                client.create("z-2").await;
                client.count("z-").await;
                client.sweep(EXPIRING.len() as u64).await;
                client.get("f").await;
            }
        }
        Phase::Open | Phase::Shutdown => {}
    }
}
