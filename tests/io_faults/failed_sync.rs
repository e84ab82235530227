//! A sync that fails, as Linux fails it: what it was to write is lost to the disk, counts as written from then on, and
//! can still be read, until the power goes (<https://wiki.postgresql.org/wiki/Fsync_Errors>).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sessile::{
    CauseKind, Durability, Engine, Error, Health, InterruptedBy, NewSession, Outcome, Session, testing::Faults,
};
use sessile_tests::{
    PATIENCE, Place, eventually, soon,
    vfs::{self, Call, CallKind, FileKind, Verdict, Watcher, codes},
};

/// More than what the log takes before it is synced at once (4 MB).
const LARGE_BYTES: usize = 5 << 20;

/// What the disk holds, beside what the kernel shows.
#[derive(Debug, Default)]
struct Disk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileKind, File>,
    /// Syncs of this kind of file fail; how many have.
    fails: Option<FileKind>,
    failed: u64,
    /// The database cannot be opened.
    is_out_of_reach: bool,
    /// The log is deleted when the database is opened next.
    deletes_log: bool,
}

#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn fail(&self, file: Option<FileKind>) {
        self.state.lock().unwrap().fails = file;
    }

    fn delete_log_at_the_next_opening(&self) {
        self.state.lock().unwrap().deletes_log = true;
    }

    fn put_out_of_reach(&self, is_out_of_reach: bool) {
        self.state.lock().unwrap().is_out_of_reach = is_out_of_reach;
    }

    /// Loses what the log holds and no sync has written, as where the kernel's own writing fails.
    fn lose_log(&self) {
        self.state.lock().unwrap().files.entry(FileKind::Log).or_default().unsynced.clear();
    }

    fn failed(&self) -> u64 {
        self.state.lock().unwrap().failed
    }

    /// Checks that all these sessions are there when the power goes now, and returns where.
    async fn has_all_after_a_power_cut(&self, ids: &[String]) -> Place {
        let cut = Place::new();
        self.after_a_power_cut(&cut.path());
        let engine = cut.builder().open().await.unwrap();
        for id in ids {
            assert!(engine.session(id.as_str()).unwrap().get().await.unwrap().is_some(), "{id} is lost");
        }
        engine.shutdown().await.unwrap();
        let found: String = cut.connect().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
        cut
    }

    /// Writes down what is left when the power goes now.
    fn after_a_power_cut(&self, database: &Path) {
        let state = self.state.lock().unwrap();
        for (file, path) in [(FileKind::Database, database.to_owned()), (FileKind::Log, log_of(database))] {
            fs::write(path, state.files.get(&file).map_or(&[][..], |file| &file.content)).unwrap();
        }
    }
}

fn log_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

impl Watcher for Disk {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let State { files, fails, failed, is_out_of_reach, deletes_log } = &mut *state;
        let file = files.entry(call.file).or_default();
        let offset = usize::try_from(call.offset).unwrap();
        match call.kind {
            CallKind::Write => file.unsynced.push((offset, call.bytes.to_vec())),
            CallKind::Truncate => {
                file.content.truncate(offset);
                file.unsynced.retain(|(at, _)| *at < offset);
            }
            CallKind::Sync if *fails == Some(call.file) => {
                *failed += 1;
                file.unsynced.clear();
                return Verdict::Fail(codes::SQLITE_IOERR_FSYNC);
            }
            CallKind::Sync => {
                for (offset, bytes) in file.unsynced.drain(..) {
                    let end = offset + bytes.len();
                    file.content.resize(file.content.len().max(end), 0);
                    file.content[offset..end].copy_from_slice(&bytes);
                }
            }
            CallKind::Delete => *file = File::default(),
            CallKind::Open if call.file == FileKind::Database && *is_out_of_reach => {
                return Verdict::Fail(codes::SQLITE_CANTOPEN);
            }
            CallKind::Open if call.file == FileKind::Database && std::mem::take(deletes_log) => {
                fs::remove_file(log_of(call.path)).unwrap();
            }
            _ => {}
        }
        Verdict::Pass
    }
}

#[tokio::test]
async fn what_is_acknowledged_as_synced_after_a_failed_sync_rests_on_nothing_that_it_lost() {
    for file in [FileKind::Log, FileKind::Database] {
        let place = Place::new();
        let disk = Arc::new(Disk::default());
        let _watch = vfs::watch(&place.directory(), disk.clone());
        let engine = place.builder().open().await.unwrap();
        let anchor = engine.create(NewSession::with_id("anchor")).await.unwrap();
        let mut committed = Vec::new();
        for round in 0..4 {
            // Committed, and on nobody's disk yet: the sync that fails is to write them.
            for n in 0..5 {
                let id = format!("before-{round}-{n}");
                engine.create(NewSession::with_id(id.as_str()).data(&n)).await.unwrap();
                committed.push(id);
            }
            let failed = disk.failed();
            disk.fail(Some(file));
            if file == FileKind::Log {
                let error = soon("a touch", anchor.touch_with(Durability::Synced)).await.unwrap_err();
                assert_eq!(error.outcome(), Outcome::MayHaveHappened);
            }
            // Or the checkpoint's, when it has been quiet for a while.
            eventually("a sync fails", async || disk.failed() > failed).await;
            disk.fail(None);
            // Synced: what was committed before it is a part of the same promise.
            soon("a touch", anchor.touch_with(Durability::Synced)).await.unwrap();
            disk.has_all_after_a_power_cut(&committed).await;
        }
        engine.shutdown().await.unwrap();
    }
}

/// The thread that syncs the log beside the commits is the first to hear that the disk has lost some of it.
#[tokio::test]
async fn a_failed_sync_from_beside_gives_the_connection_up_once_and_nothing_is_lost() {
    let place = Place::new();
    let disk = Arc::new(Disk::default());
    let _watch = vfs::watch(&place.directory(), disk.clone());
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a")).await.unwrap();
    let (mut committed, mut touches) = (Vec::new(), 0);
    for round in 1..=3_i64 {
        for n in 0..5 {
            let id = format!("before-{round}-{n}");
            engine.create(NewSession::with_id(id.as_str())).await.unwrap();
            committed.push(id);
        }
        Faults::of(&engine).fail_log_sync();
        disk.lose_log();
        disk.put_out_of_reach(true);
        // Never quiet until then: else a checkpoint would move the lost part first.
        let begun = Instant::now();
        let error = loop {
            match soon("a touch", session.touch_with(Durability::Committed)).await {
                Ok(()) => touches += 1,
                Err(error) => break error,
            }
            assert!(begun.elapsed() < PATIENCE, "nobody hears of the failed sync");
        };
        assert!(matches!(error, Error::Interrupted { by: InterruptedBy::CommitUnknown }), "{error:?}");
        eventually("health tells", async || match engine.health() {
            Health::Degraded { cause, .. } => cause.kind == CauseKind::Io,
            _ => false,
        })
        .await;
        disk.put_out_of_reach(false);
        soon("a touch", session.touch_with(Durability::Synced)).await.unwrap();
        touches += 1;
        assert_eq!(engine.stats().restarts, round.cast_unsigned());
        assert!(matches!(engine.health(), Health::Ready));
        let cut = disk.has_all_after_a_power_cut(&committed).await;
        let sql = "SELECT touch_count FROM current_session WHERE id = 'a'";
        let counted = cut.connect().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        // Those in doubt may have happened.
        assert!((touches..=touches + round).contains(&counted), "round {round}: {counted} of {touches} touches");
    }
    engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn after_a_failed_sync_from_beside_no_checkpoint_moves_what_the_log_has_lost() {
    let place = Place::new();
    let disk = Arc::new(Disk::default());
    let _watch = vfs::watch(&place.directory(), disk.clone());
    let engine = place.builder().payload_bytes_max(2 * LARGE_BYTES).open().await.unwrap();
    Faults::of(&engine).fail_log_sync();
    // So much that it is synced at once; then all is quiet.
    let large = NewSession::with_id("large").data(&"x".repeat(LARGE_BYTES));
    engine.create(large).await.unwrap();
    disk.lose_log();
    eventually("the connection is given up", async || engine.stats().restarts == 1).await;
    eventually("it recovers", async || matches!(engine.health(), Health::Ready)).await;
    disk.has_all_after_a_power_cut(&["large".to_owned()]).await;
    engine.shutdown().await.unwrap();
}

/// A request that nobody has begun with, for storage cannot be opened, did not happen, and is told so.
#[tokio::test]
async fn what_waits_for_a_reopening_in_vain_did_not_happen() {
    let place = Place::new();
    let disk = Arc::new(Disk::default());
    let _watch = vfs::watch(&place.directory(), disk.clone());
    let engine = place.builder().durability(Durability::Synced).open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data(&1)).await.unwrap();
    disk.fail(Some(FileKind::Log));
    soon("a save", session.save(&2)).await.unwrap_err();
    let hurried = session.clone().with_deadline(Duration::from_millis(300));
    let mut told = 0;
    // On a busy machine an attempt to reopen may take longer than it is given; then it is the deadline that ends the save.
    for _ in 0..100 {
        match soon("a save", hurried.save(&3)).await.unwrap_err() {
            error @ Error::Unavailable { .. } => {
                assert_eq!((error.outcome(), error.is_retryable()), (Outcome::DidNotHappen, true));
                told += 1;
            }
            Error::Interrupted { by: InterruptedBy::Deadline } => {}
            error => panic!("{error:?}"),
        }
    }
    assert!(told >= 10, "only {told} were told");
    disk.fail(None);
    soon("a save", session.save(&4)).await.unwrap();
    engine.shutdown().await.unwrap();
}

/// An engine whose database's syncs fail, and another process that has the file open.
struct Doubt {
    place: Place,
    disk: Arc<Disk>,
    engine: Engine,
    session: Session,
    reader: Connection,
    _watch: vfs::Watch,
}

impl Doubt {
    /// Lets a checkpoint fail by the sync of this file, after one that has moved a part of the log, or after none.
    async fn begin(is_some_moved: bool, fails: FileKind) -> Self {
        let place = Place::new();
        let disk = Arc::new(Disk::default());
        let watch = vfs::watch(&place.directory(), disk.clone());
        let engine = place.builder().open().await.unwrap();
        let session = engine.create(NewSession::with_id("a").data(&0)).await.unwrap();
        let reader = place.connect();
        let read = "SELECT count(*) FROM session";
        loop {
            eventually("all is moved", async || engine.stats().log_pages == 0).await;
            engine.create(NewSession::new().data(&"in its first pages")).await.unwrap();
            reader.execute_batch(&format!("BEGIN; {read}")).unwrap();
            let busy = engine.stats().checkpoints_busy;
            session.save(&1).await.unwrap();
            if is_some_moved {
                eventually("a checkpoint", async || engine.stats().checkpoints_busy > busy).await;
            }
            reader.execute_batch("COMMIT").unwrap();
            let counts = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
            let (in_log, moved) = reader.query_row("PRAGMA wal_checkpoint(NOOP)", [], counts).unwrap();
            // On a busy machine a checkpoint may have come too soon.
            if moved < in_log && is_some_moved == (moved > 0) {
                break;
            }
            session.touch_with(Durability::Committed).await.unwrap();
        }
        disk.fail(Some(fails));
        session.save(&2).await.unwrap();
        eventually("a sync fails", async || disk.failed() > 0 && engine.stats().restarts > 0).await;
        Self { place, disk, engine, session, reader, _watch: watch }
    }

    /// Deletes the log, at once or when the file is opened again, and lets the syncs succeed some attempts later: all that
    /// it held must be there.
    async fn survives_a_deleted_log(self, at_the_next_opening: bool) {
        self.reader.close().unwrap();
        if at_the_next_opening {
            self.disk.delete_log_at_the_next_opening();
            eventually("the log is deleted", async || !self.disk.state.lock().unwrap().deletes_log).await;
        } else {
            fs::remove_file(log_of(&self.place.path())).unwrap();
        }
        let failed = self.disk.failed();
        eventually("it is tried again", async || self.disk.failed() > failed + 2).await;
        self.disk.fail(None);
        goes_on(&self.engine, &self.session, &self.disk).await;
        self.engine.shutdown().await.unwrap();
        holds(&self.place, 4);
    }
}

async fn goes_on(engine: &Engine, session: &Session, disk: &Disk) {
    eventually("it recovers", async || matches!(engine.health(), Health::Ready)).await;
    soon("a save", session.clone().with_durability(Durability::Synced).save(&4)).await.unwrap();
    let cut = Place::new();
    disk.after_a_power_cut(&cut.path());
    holds(&cut, 4);
}

/// Checks that a file is whole, and the data of its session.
fn holds(place: &Place, data: i64) {
    let connection = place.connect();
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(text("SELECT data FROM current_session WHERE id = 'a'"), data.to_string());
}

#[tokio::test]
async fn what_was_moved_without_a_sync_is_moved_again_once_nobody_else_has_the_file_open() {
    let doubt = Doubt::begin(true, FileKind::Database).await;
    doubt.disk.fail(None);
    let patient = doubt.session.clone().with_deadline(Duration::from_secs(60));
    let patient = tokio::spawn(async move { patient.save(&3).await });
    let hurried = doubt.session.clone().with_deadline(Duration::from_millis(300));
    let mut told = 0;
    // On a busy machine an attempt to reopen may take longer than it is given; then it is the deadline that ends the save.
    for _ in 0..20 {
        match soon("a save", hurried.save(&5)).await.unwrap_err() {
            Error::Unavailable { cause } => {
                assert!(cause.message.contains("nobody else may have it open"), "{cause:?}");
                told += 1;
            }
            Error::Interrupted { by: InterruptedBy::Deadline } => {}
            error => panic!("{error:?}"),
        }
    }
    assert!(told >= 5, "only {told} were told");
    assert!(!patient.is_finished());
    // The last of the others does not take the log with it.
    doubt.reader.close().unwrap();
    soon("a save", patient).await.unwrap().unwrap();
    goes_on(&doubt.engine, &doubt.session, &doubt.disk).await;
    doubt.engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn where_nothing_was_moved_before_a_failed_sync_others_may_have_the_file_open() {
    let doubt = Doubt::begin(false, FileKind::Database).await;
    doubt.disk.fail(None);
    goes_on(&doubt.engine, &doubt.session, &doubt.disk).await;
    doubt.reader.close().unwrap();
    doubt.engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_deleted_after_a_failed_sync_is_moved_whole_where_nothing_was_moved_before() {
    Doubt::begin(false, FileKind::Database).await.survives_a_deleted_log(false).await;
}

#[tokio::test]
async fn a_log_deleted_while_the_file_is_opened_again_is_moved_by_who_has_it_still() {
    Doubt::begin(false, FileKind::Database).await.survives_a_deleted_log(true).await;
}

#[tokio::test]
async fn a_log_deleted_after_a_failed_sync_is_the_end_where_a_part_was_moved_before() {
    // The log's sync comes first: the rest is nowhere but in the log.
    let doubt = Doubt::begin(true, FileKind::Log).await;
    doubt.disk.fail(None);
    fs::remove_file(log_of(&doubt.place.path())).unwrap();
    let given_up = async || match doubt.engine.health() {
        Health::Degraded { cause, .. } => cause.kind == CauseKind::Replaced,
        _ => false,
    };
    eventually("it gives up", given_up).await;
    assert!(matches!(soon("a save", doubt.session.save(&3)).await, Err(Error::Unavailable { .. })));
    doubt.reader.close().unwrap();
    soon("the shutdown", doubt.engine.shutdown()).await.unwrap_err();
    // As long as the power stays on.
    holds(&doubt.place, 2);
}
