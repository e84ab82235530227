//! Damaged files: a database of ours, its write-ahead log, the source document's files, with any bytes written over, cut
//! off, moved or added.
//!
//! An engine says what is wrong or serves; it neither panics nor hangs. Damage to the log alone costs the commits from
//! there on and no others: what is read then is what some prefix of them had made.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::Connection;
use sessile::{Change, Engine, EngineBuilder, Filter, NewSession, OpenError, Order, Query, testing::ManualClock};

use super::harness::{block_on, open, scratch};
use crate::START;

/// Most damages of one input.
const DAMAGES_MAX: usize = 16;
/// How long a request may take: a file that breaks every connection must not make the fuzzer slow.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);
/// Commits in the log, each of which gives the sessions the next number.
const COMMITS: i64 = 6;
/// Rows of the source document's files, of which the rest is taken away.
const FOREIGN_ROWS: u32 = 40;

#[derive(Debug, Arbitrary)]
struct Input {
    base: Base,
    damages: Vec<Damage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Base {
    Ours,
    OursWithLog,
    LogAlone,
    ForeignDelete,
    ForeignWal,
    Nothing,
}

#[derive(Debug, Arbitrary)]
enum Damage {
    Byte {
        in_log: bool,
        at: u32,
        value: u8,
    },
    Bit {
        in_log: bool,
        at: u32,
        bit: u8,
    },
    Bytes {
        in_log: bool,
        at: u32,
        bytes: Vec<u8>,
    },
    Fill {
        in_log: bool,
        at: u32,
        length: u16,
        value: u8,
    },
    Cut {
        in_log: bool,
        at: u32,
    },
    Page {
        in_log: bool,
        from: u8,
        to: u8,
    },
    Append {
        in_log: bool,
        bytes: Vec<u8>,
    },
    /// A byte of the header, where most of the meaning is.
    Header {
        in_log: bool,
        at: u8,
        value: u8,
    },
}

/// A database and its log.
#[derive(Debug, Clone, Default)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Damage {
    fn is_of_log(&self) -> bool {
        match self {
            Self::Byte { in_log, .. }
            | Self::Bit { in_log, .. }
            | Self::Bytes { in_log, .. }
            | Self::Fill { in_log, .. }
            | Self::Cut { in_log, .. }
            | Self::Page { in_log, .. }
            | Self::Append { in_log, .. }
            | Self::Header { in_log, .. } => *in_log,
        }
    }

    fn make(&self, files: &mut Files, only_log: bool) {
        let file = if self.is_of_log() || only_log { &mut files.log } else { &mut files.database };
        let length = file.len();
        let place = |at: u32| if length == 0 { 0 } else { at as usize % length };
        let mut put = |at: usize, bytes: &[u8]| {
            let end = (at + bytes.len()).min(length);
            file[at.min(end)..end].copy_from_slice(&bytes[..end.saturating_sub(at)]);
        };
        match self {
            Self::Byte { at, value, .. } => put(place(*at), &[*value]),
            Self::Bit { at, bit, .. } if length > 0 => file[place(*at)] ^= 1 << (bit % 8),
            Self::Bit { .. } => {}
            Self::Bytes { at, bytes, .. } => put(place(*at), bytes),
            Self::Fill { at, length, value, .. } => put(place(*at), &vec![*value; usize::from(*length)]),
            Self::Cut { at, .. } => file.truncate(place(*at)),
            Self::Page { from, to, .. } => {
                let page = 4_096;
                let pages = length / page;
                if pages > 0 {
                    let from = usize::from(*from) % pages * page;
                    let copied = file[from..from + page].to_vec();
                    let to = usize::from(*to) % pages * page;
                    file[to..to + page].copy_from_slice(&copied);
                }
            }
            Self::Append { bytes, .. } => file.extend_from_slice(bytes),
            Self::Header { at, value, .. } => put(usize::from(*at), &[*value]),
        }
    }
}

/// Takes the input for damages of a file.
pub(super) fn database_file(input: &[u8]) {
    let Ok(mut input) = Input::arbitrary_take_rest(Unstructured::new(input)) else { return };
    input.damages.truncate(DAMAGES_MAX);
    let mut files = base(input.base);
    let only_log = input.base == Base::LogAlone;
    input.damages.iter().for_each(|damage| damage.make(&mut files, only_log));
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    fs::write(&path, &files.database).expect("a file");
    if !files.log.is_empty() {
        fs::write(log_path(&path), &files.log).expect("a log");
    }
    let clock = Arc::new(ManualClock::new(START));
    let builder = || {
        let builder = Engine::builder(&path).clock(clock.clone());
        // Where every answer counts, none is cut off.
        if only_log { builder } else { builder.request_timeout(REQUEST_TIMEOUT) }
    };
    block_on(async {
        let Some(engine) = opened(&builder, &input).await else { return };
        if only_log {
            is_a_prefix(&engine, &input).await;
        }
        use_it(&engine).await;
        // The last write may be refused; the file is let go all the same.
        drop(engine.shutdown().await);
        if let Some(engine) = opened(&builder, &input).await {
            drop(engine.get_or_create(NewSession::with_id("again")).await);
            drop(engine.shutdown().await);
        }
    });
}

async fn opened(builder: &impl Fn() -> EngineBuilder, input: &Input) -> Option<Engine> {
    match open(builder).await {
        Ok(engine) => Some(engine),
        Err(error) => {
            let is_named = matches!(
                error,
                OpenError::NotADatabase { .. }
                    | OpenError::NotOurs { .. }
                    | OpenError::NewerSchema { .. }
                    | OpenError::NotWritable { .. }
                    | OpenError::PragmaRefused { .. }
                    | OpenError::TakeOver { .. }
                    | OpenError::Storage { .. }
            );
            assert!(is_named, "{error:?}: {input:?}");
            assert!(input.base != Base::LogAlone, "a damaged log keeps no engine from opening: {error:?} {input:?}");
            None
        }
    }
}

/// Asks for everything; every answer will do, if it comes.
async fn use_it(engine: &Engine) {
    for id in ["s0", "s1", "s3"] {
        let session = engine.session(id).expect("a valid id");
        drop(session.get().await);
        drop(session.touch().await);
        drop(session.save(&7).await);
        drop(session.update(|n: &mut i64| *n += 1).await);
    }
    for order in [Order::Oldest, Order::Newest, Order::RecentlyActive] {
        drop(engine.list(Query::new(Filter::all().user("ada")).order(order)).await);
    }
    drop(engine.count(Filter::all()).await);
    drop(engine.create(NewSession::with_id("new").user("ada")).await);
    if let Ok(session) = engine.session("s2") {
        drop(session.rotate(Change::new().user("bob").metadata("k", "w")).await);
    }
    drop(engine.session("s4").expect("a valid id").delete().await);
    drop(engine.sweep().await);
    drop(engine.delete_where(Filter::all().id_prefix("s1")).await);
    drop(engine.flush().await);
}

/// Checks that all sessions are of one commit.
async fn is_a_prefix(engine: &Engine, input: &Input) {
    let mut numbers = BTreeSet::new();
    for n in 0..SESSIONS {
        let session = engine.session(format!("s{n}")).expect("a valid id");
        let record = session.get().await.expect("it is read").expect("it was there before the log");
        numbers.insert(record.data::<i64>().expect("it decodes"));
    }
    let is_one = numbers.len() == 1 && numbers.iter().all(|number| (0..=COMMITS).contains(number));
    assert!(is_one, "not of one commit: {numbers:?} {input:?}");
}

/// Sessions in the files of ours.
const SESSIONS: i64 = 8;

fn log_path(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn base(base: Base) -> Files {
    static OURS: OnceLock<[Files; 2]> = OnceLock::new();
    static FOREIGN: OnceLock<[Files; 2]> = OnceLock::new();
    let ours = || OURS.get_or_init(ours);
    let foreign = || FOREIGN.get_or_init(|| ["seed_sessions_delete.db", "seed_sessions_wal.db"].map(foreign));
    match base {
        Base::Ours => ours()[0].clone(),
        Base::OursWithLog | Base::LogAlone => ours()[1].clone(),
        Base::ForeignDelete => foreign()[0].clone(),
        Base::ForeignWal => foreign()[1].clone(),
        Base::Nothing => Files::default(),
    }
}

/// Makes a database of ours, and the same with a log of some commits.
fn ours() -> [Files; 2] {
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    block_on(async {
        let clock = Arc::new(ManualClock::new(START));
        let engine = Engine::builder(&path).clock(clock).open().await.expect("a new file opens");
        for n in 0..SESSIONS {
            let new = NewSession::with_id(format!("s{n}")).user("ada").metadata("k", "v").data(&0);
            engine.create(new).await.expect("it is free");
        }
        engine.shutdown().await.expect("it shuts down");
    });
    let closed = Files { database: fs::read(&path).expect("the file"), log: Vec::new() };
    let connection = Connection::open(&path).expect("a plain connection");
    connection.pragma_update(None, "wal_autocheckpoint", 0).expect("no checkpoints");
    for n in 1..=COMMITS {
        connection.execute("UPDATE session SET data = CAST(?1 AS TEXT)", [n]).expect("a commit");
    }
    let log = fs::read(log_path(&path)).expect("the log");
    [closed.clone(), Files { log, ..closed }]
}

/// Makes a file of the source document's service small.
fn foreign(name: &str) -> Files {
    let directory = scratch();
    let path = directory.path().join("sessions.db");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name), &path).expect("the seed file");
    let connection = Connection::open(&path).expect("a plain connection");
    connection.execute("DELETE FROM sessions WHERE rowid > ?1", [FOREIGN_ROWS]).expect("rows to spare");
    connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").expect("a smaller file");
    drop(connection);
    Files { database: fs::read(&path).expect("the file"), log: Vec::new() }
}
