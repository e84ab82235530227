//! Damage on the disk: a page overwritten, a log cut or garbled. What cannot be read is an error, never an absence, and
//! what can be read is served.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;
use sessile::{CauseKind, Engine, Error, Filter, Health, NewSession, OpenError, Query};
use sessile_tests::{Place, Random, effort, soon};

const PAGE_BYTES: usize = 4_096;
const SESSIONS: usize = 300;
/// The smallest cache, so that pages are read from the disk.
const CACHE_BYTES: u64 = 64 << 10;

fn id(n: usize) -> String {
    format!("s{n:03}")
}

fn log(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

async fn fill(engine: &Engine) {
    for n in 0..SESSIONS {
        let new = NewSession::with_id(id(n)).user(format!("u{n}")).data(&format!("{n}:{}", "x".repeat(400)));
        engine.create(new).await.unwrap();
    }
}

/// A page of each b-tree: the root and, where it has any, some leaf.
fn pages(place: &Place) -> Vec<(String, u64)> {
    let connection = place.connect();
    let mut statement =
        connection.prepare_cached("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0").unwrap();
    let roots = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?.into()))).unwrap();
    let mut pages: Vec<_> =
        roots.map(|root| root.unwrap()).map(|(name, page)| (format!("the root of {name}"), page)).collect();
    pages.push(("the schema".to_owned(), 1));
    let count = connection.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0)).unwrap();
    let known: Vec<_> = pages.iter().map(|(_, page)| *page).collect();
    pages.extend(
        (1..=u64::from(count))
            .filter(|page| !known.contains(page) && page % effort(5, 1) == 0)
            .map(|page| (format!("page {page}"), page)),
    );
    pages
}

fn overwrite(path: &Path, page: u64, with: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(with, (page - 1) * PAGE_BYTES as u64).unwrap();
}

/// Asks for everything; returns how many requests were refused.
async fn ask_for_all(engine: &Engine, what: &str) -> usize {
    let mut refused = 0;
    for n in 0..SESSIONS {
        let session = engine.session(id(n)).unwrap();
        match soon("a get", session.get()).await {
            Ok(None) => panic!("{what}: {} looks as if it had never been", id(n)),
            Ok(Some(record)) => {
                let data = record.data::<String>().unwrap();
                assert!(data.starts_with(&format!("{n}:")), "{what}: {} shows {data:?}", id(n));
            }
            Err(error) => {
                is_typed(&error, what);
                refused += 1;
            }
        }
        if n % 50 == 0 {
            let answers = [
                soon("a touch", session.touch()).await.err(),
                soon("a save", session.save(&format!("{n}:saved"))).await.err(),
                soon("a create", engine.create(NewSession::with_id(id(n)))).await.err(),
                soon("a list", engine.list(Query::new(Filter::all().user(format!("u{n}"))))).await.err(),
                soon("a count", engine.count(Filter::all())).await.err(),
                soon("a sweep", engine.sweep()).await.err(),
                soon("a flush", engine.flush()).await.err(),
            ];
            for error in answers.into_iter().flatten() {
                if !matches!(error, Error::AlreadyExists) {
                    is_typed(&error, what);
                    refused += 1;
                }
            }
        }
    }
    refused
}

fn is_typed(error: &Error, what: &str) {
    let named = match error {
        Error::Storage { cause } | Error::Partial { cause, .. } => {
            matches!(cause.kind, CauseKind::Corrupt | CauseKind::Io)
        }
        Error::Corrupt { .. } | Error::Interrupted { .. } | Error::Unavailable { .. } => true,
        _ => false,
    };
    assert!(named, "{what}: {error:?}");
}

#[tokio::test]
async fn a_damaged_page_at_rest_is_an_error_and_never_an_absence() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    fill(&engine).await;
    engine.shutdown().await.unwrap();
    let whole = fs::read(place.path()).unwrap();
    let (mut cells, mut refused, mut refused_to_open) = (0, 0, 0);
    for (what, page) in pages(&place) {
        for with in [[0xa5; PAGE_BYTES], [0; PAGE_BYTES]] {
            cells += 1;
            fs::write(place.path(), &whole).unwrap();
            drop(fs::remove_file(log(&place.path())));
            overwrite(&place.path(), page, &with);
            match soon("to open", place.builder().open()).await {
                Err(OpenError::Storage { .. } | OpenError::NotADatabase { .. } | OpenError::NotOurs { .. }) => {
                    refused_to_open += 1;
                }
                Err(error) => panic!("{what}: {error:?}"),
                Ok(engine) => {
                    refused += ask_for_all(&engine, &what).await;
                    drop(soon("the shutdown", engine.shutdown()).await);
                }
            }
        }
    }
    assert!(refused > 0 && refused_to_open > 0);
    println!(
        "figure: damaged_pages_at_rest cells={cells} absences=0 hangs=0 refused_requests={refused} refused_opens={refused_to_open}"
    );
}

#[tokio::test]
async fn a_page_damaged_while_open_is_an_error_and_never_an_absence() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    fill(&engine).await;
    engine.shutdown().await.unwrap();
    let whole = fs::read(place.path()).unwrap();
    let (mut cells, mut refused) = (0, 0);
    for (what, page) in pages(&place) {
        cells += 1;
        fs::write(place.path(), &whole).unwrap();
        drop(fs::remove_file(log(&place.path())));
        let engine = place.builder().cache_bytes(CACHE_BYTES).open().await.unwrap();
        overwrite(&place.path(), page, &[0xa5; PAGE_BYTES]);
        refused += ask_for_all(&engine, &what).await;
        drop(soon("the shutdown", engine.shutdown()).await);
    }
    assert!(refused > 0);
    println!("figure: damaged_pages_while_open cells={cells} absences=0 hangs=0 refused_requests={refused}");
}

/// How a log is damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Cut(u64),
    Garbled(u64),
}

impl Damage {
    fn is_done_to(self, path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        match self {
            Self::Cut(length) => file.set_len(length).unwrap(),
            Self::Garbled(at) => file.write_all_at(&[0xa5; 64], at).unwrap(),
        }
    }
}

#[tokio::test]
async fn of_a_log_damaged_at_rest_a_prefix_is_left() {
    let place = Place::new();
    let engine = place.builder().open().await.unwrap();
    fill(&engine).await;
    // As a kill leaves it: the files of an engine that is still open.
    let (database, whole) = (fs::read(place.path()).unwrap(), fs::read(log(&place.path())).unwrap());
    engine.shutdown().await.unwrap();
    let mut random = Random::seeded();
    let length = whole.len() as u64;
    let mut damages = vec![Damage::Cut(0), Damage::Cut(31), Damage::Cut(32), Damage::Garbled(0), Damage::Garbled(40)];
    for _ in 0..effort(20, 500) {
        damages.extend([Damage::Cut(random.below(length)), Damage::Garbled(random.below(length - 64))]);
    }
    let mut left_least = SESSIONS as u64;
    for damage in &damages {
        let crashed = Place::new();
        fs::write(crashed.path(), &database).unwrap();
        fs::write(log(&crashed.path()), &whole).unwrap();
        damage.is_done_to(&log(&crashed.path()));
        let engine = crashed.builder().open().await.unwrap_or_else(|error| panic!("{damage:?}: {error:?}"));
        let left = engine.count(Filter::all()).await.unwrap();
        for n in 0..SESSIONS {
            let there = engine.session(id(n)).unwrap().get().await.unwrap().is_some();
            assert_eq!(there, (n as u64) < left, "{damage:?}: {} of {left}", id(n));
        }
        left_least = left_least.min(left);
        engine.create(NewSession::with_id("later")).await.unwrap();
        engine.shutdown().await.unwrap();
        is_whole(&crashed.path(), *damage);
    }
    assert!(left_least < SESSIONS as u64, "no damage did any");
    println!("figure: damaged_logs_at_rest cells={} not_a_prefix=0 corrupt=0", damages.len());
}

fn is_whole(path: &Path, damage: Damage) {
    let connection = Connection::open(path).unwrap();
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok", "{damage:?}");
}

#[tokio::test]
async fn a_log_damaged_while_open_hides_nothing_and_hangs_nobody() {
    let mut random = Random::seeded();
    let (mut cells, mut refused) = (0, 0);
    for _ in 0..effort(4, 40) {
        for is_cut in [false, true] {
            cells += 1;
            let place = Place::new();
            let builder = place.builder().cache_bytes(CACHE_BYTES).request_timeout(Duration::from_millis(500));
            let engine = builder.open().await.unwrap();
            fill(&engine).await;
            let path = log(&place.path());
            let length = fs::metadata(&path).unwrap().len();
            let damage =
                if is_cut { Damage::Cut(random.below(length)) } else { Damage::Garbled(random.below(length - 64)) };
            damage.is_done_to(&path);
            refused += log_was_damaged(&engine, &damage).await;
            if is_cut {
                // Whatever is written now would lie behind the hole.
                let error = soon("a create", engine.create(NewSession::with_id("behind"))).await.unwrap_err();
                is_typed(&error, "a log that was cut");
                assert!(matches!(engine.health(), Health::Degraded { .. }));
            }
            drop(soon("the shutdown", engine.shutdown()).await);
            if is_cut {
                let engine = place.builder().open().await.unwrap();
                assert!(engine.count(Filter::all()).await.unwrap() < SESSIONS as u64);
                engine.shutdown().await.unwrap();
                is_whole(&place.path(), damage);
            }
        }
    }
    println!("figure: damaged_logs_while_open cells={cells} absences=0 hangs=0 refused_requests={refused}");
}

/// What SQLite reads of a log that is open it does not check: data may be garbled, but nothing may look absent.
async fn log_was_damaged(engine: &Engine, damage: &Damage) -> usize {
    let mut refused = 0;
    for n in 0..SESSIONS {
        match soon("a get", engine.session(id(n)).unwrap().get()).await {
            Ok(None) => panic!("{damage:?}: {} looks as if it had never been", id(n)),
            Ok(Some(_)) => {}
            Err(error) => {
                is_typed(&error, "a damaged log");
                refused += 1;
            }
        }
    }
    if let Err(error) = soon("a create", engine.create(NewSession::with_id("later"))).await {
        is_typed(&error, "a damaged log");
        refused += 1;
    }
    refused
}
