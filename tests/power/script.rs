//! What is recorded: an engine's life from its first opening on, with everything that moves bytes in it.

use std::sync::Arc;

use rusqlite::Connection;
use sessile::{Engine, Health, NewSession, testing::Faults};
use sessile_tests::{
    Place, Random, eventually,
    vfs::{CallKind, FileKind, Times, Verdict, codes, watch},
};

use crate::{
    clients::{Client, Habits, Histories, Ledger, Mark},
    cuts::Recording,
    disk::{Entry, Files, Recorder, files_in},
};

/// Clients at the same time: their operations meet in batches.
const CLIENTS: usize = 3;
/// Sessions that nobody writes to again, so that their pages are written by one checkpoint only.
const BYSTANDERS: usize = 10;

const FAILS: Verdict = Verdict::Fail(codes::SQLITE_IOERR_FSYNC);

/// A recorded life.
pub struct Life {
    pub start: Files,
    pub log: Vec<Entry<Mark>>,
    pub histories: Histories,
    /// Operations answered `Synced` and `Committed`.
    pub synced: u64,
    pub committed: u64,
    /// Creations that were answered `Synced`, and deletions of many.
    pub synced_by_engine: (u64, u64),
}

impl Life {
    pub fn recording(&self) -> Recording<'_> {
        Recording { start: self.start.clone(), log: &self.log, histories: &self.histories }
    }
}

/// An engine whose files are recorded.
pub struct Stage {
    pub place: Place,
    pub engine: Engine,
    pub ledger: Arc<Ledger>,
    habits: Habits,
    clients: Vec<Client>,
    start: Files,
    _watch: sessile_tests::vfs::Watch,
}

impl Stage {
    /// Opens an engine on what is in a place.
    pub async fn open(place: Place, random: &mut Random, habits: Habits) -> Self {
        let start = files_in(&place.directory());
        let ledger = Ledger::new(Recorder::new());
        let watch = watch(&place.directory(), ledger.recorder.clone());
        let engine = open(&place, &ledger, habits).await;
        let client = |number| Client::new(number, &engine, &ledger, random.split(), habits);
        let clients = (0..CLIENTS).map(client).collect();
        Self { place, engine, ledger, habits, clients, start, _watch: watch }
    }

    /// Lets all clients work at the same time.
    pub async fn work(&mut self, operations: usize) {
        let working = self.clients.drain(..).map(|mut client| {
            tokio::spawn(async move {
                client.work(operations).await;
                client
            })
        });
        let working: Vec<_> = working.collect();
        for client in working {
            self.clients.push(client.await.expect("a client ends well"));
        }
    }

    /// Waits until the engine has moved the log into the database.
    pub async fn quiet(&self) {
        let before = self.engine.stats().checkpoints;
        eventually("a checkpoint", async || self.engine.stats().checkpoints > before).await;
    }

    /// Shuts the engine down and opens it again.
    pub async fn restart(&mut self) {
        self.ledger.shutdown(&self.engine).await;
        self.open_anew().await;
    }

    async fn open_anew(&mut self) {
        self.engine = open(&self.place, &self.ledger, self.habits).await;
        self.clients.iter_mut().for_each(|client| client.moves_to(&self.engine));
    }

    /// Shuts the engine down and returns what was recorded.
    pub async fn end(self) -> Life {
        self.ledger.shutdown(&self.engine).await;
        let (synced, committed) = self.ledger.acknowledged();
        let synced_by_engine = self.ledger.synced_by_engine();
        let (log, histories) = (self.ledger.recorder.take(), self.ledger.histories());
        Life { start: self.start, log, histories, synced, committed, synced_by_engine }
    }
}

async fn open(place: &Place, ledger: &Ledger, habits: Habits) -> Engine {
    let builder = place.builder().take_over_time_zone("UTC").durability(habits.engine);
    let engine = builder.open().await.expect("it opens");
    ledger.recorder.mark(Mark::Opened);
    engine
}

/// The whole of it, `operations` of each client in each part.
pub async fn life(random: &mut Random, habits: Habits, operations: usize) -> Life {
    let mut stage = Stage::open(Place::new(), random, habits).await;
    stage.work(operations).await;
    stage.quiet().await;
    // The log begins anew, over the old one.
    stage.work(operations).await;
    read_while(&mut stage, operations).await;
    // A COMMIT in doubt, a panic, a sync that fails: each is followed by another connection and its epoch.
    for happened in [false, true] {
        Faults::of(&stage.engine).fail_commit(happened);
        stage.work(operations / 4).await;
        Faults::of(&stage.engine).interrupt(happened);
        stage.work(operations / 4).await;
    }
    stage.restart().await;
    stage.work(operations).await;
    stage.quiet().await;
    stage.restart().await;
    stage.work(operations / 2).await;
    stage.end().await
}

/// Another process reads while the engine writes and checkpoints: the log can only be moved in part.
async fn read_while(stage: &mut Stage, operations: usize) {
    let reader = Connection::open(stage.place.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    stage.work(operations).await;
    stage.quiet().await;
    stage.work(operations / 2).await;
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    stage.quiet().await;
}

/// A life without anything but work and checkpoints. The disk lies about syncs from its second part on, if it `lies`.
pub async fn plain_life(random: &mut Random, habits: Habits, operations: usize, lies: bool) -> Life {
    let mut stage = Stage::open(Place::new(), random, habits).await;
    stage.work(operations).await;
    if lies {
        stage.ledger.recorder.lie();
    }
    stage.work(operations).await;
    stage.quiet().await;
    stage.work(operations).await;
    stage.end().await
}

/// A life in which syncs fail: of the log at a commit, of the database at a checkpoint, and all of them at the end.
pub async fn life_with_failing_syncs(random: &mut Random, habits: Habits, operations: usize) -> Life {
    let mut stage = Stage::open(Place::new(), random, habits).await;
    let breaker = Arc::clone(&stage.ledger.recorder.breaker);
    for nth in 0..4 {
        stage.work(operations).await;
        breaker.order(CallKind::Sync, FileKind::Log, nth, Times::Once, FAILS);
        stage.work(operations).await;
    }
    let restarts = stage.engine.stats().restarts;
    breaker.order(CallKind::Sync, FileKind::Database, 0, Times::Once, FAILS);
    stage.work(operations).await;
    let recovered = async || stage.engine.stats().restarts > restarts && matches!(stage.engine.health(), Health::Ready);
    eventually("the recovery from a checkpoint that failed", recovered).await;
    stage.work(operations).await;
    // The next engine knows nothing of it.
    breaker.order(CallKind::Sync, FileKind::Log, 0, Times::ForEver, FAILS);
    stage.engine.shutdown().await.expect_err("the last commit cannot be synced");
    breaker.lift();
    stage.open_anew().await;
    stage.work(operations).await;
    stage.end().await
}

/// A life in which a reader cuts checkpoints short, which sync nothing then, and the sync of the next one fails: while
/// nobody else has the file open, while the reader still has, and at a shutdown.
pub async fn life_with_failing_syncs_of_what_was_moved_in_part(
    random: &mut Random,
    habits: Habits,
    operations: usize,
) -> Life {
    let mut stage = Stage::open(Place::new(), random, habits).await;
    let bystander = stage.engine.create(NewSession::with_id("bystander")).await.unwrap();
    let breaker = Arc::clone(&stage.ledger.recorder.breaker);
    for stays_open in [false, true] {
        let reader = move_in_part(&mut stage, operations).await;
        let reader = stays_open.then_some(reader);
        let (hits, restarts) = (breaker.hits(), stage.engine.stats().restarts);
        breaker.order(CallKind::Sync, FileKind::Database, 0, Times::Once, FAILS);
        bystander.touch().await.unwrap();
        let failed = async || breaker.hits() > hits && stage.engine.stats().restarts > restarts;
        eventually("a checkpoint fails", failed).await;
        drop(reader);
        eventually("the recovery", async || matches!(stage.engine.health(), Health::Ready)).await;
        stage.work(operations).await;
        stage.quiet().await;
        stage.work(operations).await;
    }
    drop(move_in_part(&mut stage, operations).await);
    let hits = breaker.hits();
    breaker.order(CallKind::Sync, FileKind::Database, 0, Times::Once, FAILS);
    stage.restart().await;
    assert_eq!(breaker.hits(), hits + 1, "the last checkpoint failed");
    stage.work(operations).await;
    stage.quiet().await;
    stage.work(operations).await;
    stage.end().await
}

/// Lets a checkpoint move a part of the log. Returns the connection that kept it from the rest, and does not any more.
async fn move_in_part(stage: &mut Stage, operations: usize) -> Connection {
    for _ in 0..20 {
        for _ in 0..BYSTANDERS {
            stage.engine.create(NewSession::new().data(&"x".repeat(1_000))).await.unwrap();
        }
        let reader = stage.place.connect();
        reader.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
        stage.work(operations).await;
        stage.quiet().await;
        reader.execute_batch("COMMIT").unwrap();
        let counts = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (in_log, moved) = reader.query_row("PRAGMA wal_checkpoint(NOOP)", [], counts).unwrap();
        if (1..in_log).contains(&moved) {
            return reader;
        }
        // On a busy machine all may have been moved before the reader began.
    }
    panic!("no checkpoint was cut short");
}
