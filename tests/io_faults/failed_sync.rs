//! A sync that fails, as Linux fails it: what it was to write is lost to the disk, counts as written from then on, and
//! can still be read, until the power goes (<https://wiki.postgresql.org/wiki/Fsync_Errors>).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sessile::{Durability, Error, InterruptedBy, NewSession, Outcome};
use sessile_tests::{
    Place, eventually, soon,
    vfs::{self, Call, CallKind, FileKind, Verdict, Watcher, codes},
};

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

    fn failed(&self) -> u64 {
        self.state.lock().unwrap().failed
    }

    /// Writes down what is left when the power goes now.
    fn after_a_power_cut(&self, database: &Path) {
        let state = self.state.lock().unwrap();
        for (file, suffix) in [(FileKind::Database, ""), (FileKind::Log, "-wal")] {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            fs::write(path, state.files.get(&file).map_or(&[][..], |file| &file.content)).unwrap();
        }
    }
}

impl Watcher for Disk {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let State { files, fails, failed } = &mut *state;
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
            let cut = Place::new();
            disk.after_a_power_cut(&cut.path());
            let after = cut.builder().open().await.unwrap();
            for id in &committed {
                let found = after.session(id.as_str()).unwrap().get().await.unwrap();
                assert!(found.is_some(), "{file:?}, round {round}: {id} is lost");
            }
            after.shutdown().await.unwrap();
            let found: String = cut.connect().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(found, "ok");
        }
        engine.shutdown().await.unwrap();
    }
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
