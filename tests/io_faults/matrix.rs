//! The matrix: each kind of call on each kind of file, failing in each way, for as long, from its nth time on, in each
//! phase of an engine's life. In the brief mode a sample of it, drawn by the seed; in the long mode all of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use sessile_tests::{
    Random, effort,
    vfs::{
        CallKind, FileKind, Times,
        Verdict::{self, Fail, FailAfter, Short},
        codes,
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    cell::{Cell, Outcome, Phase, Template, census, run},
    promises::Findings,
};

/// Cells that run at a time; most of their time they wait.
const CELLS_AT_A_TIME: usize = 8;
/// Cells of a sample beside one of each kind.
const MORE: usize = 60;

/// In which ways a call can fail. Where SQLite's own layer has one code for all reasons, others tell of a full disk.
fn verdicts(call: CallKind) -> &'static [(&'static str, Verdict)] {
    match call {
        CallKind::Open => &[
            ("CANTOPEN", Fail(codes::SQLITE_CANTOPEN)),
            ("NOMEM", Fail(codes::SQLITE_NOMEM)),
            ("ENOSPC", Fail(codes::SQLITE_FULL)),
        ],
        CallKind::Access => &[("EIO", Fail(codes::SQLITE_IOERR_ACCESS))],
        CallKind::Delete => &[("EIO", Fail(codes::SQLITE_IOERR_DELETE))],
        CallKind::Read => &[("EIO", Fail(codes::SQLITE_IOERR_READ)), ("NOMEM", Fail(codes::SQLITE_NOMEM))],
        CallKind::Write => &[
            ("EIO", Fail(codes::SQLITE_IOERR_WRITE)),
            ("ENOSPC", Fail(codes::SQLITE_FULL)),
            ("short, EIO", Short(11, codes::SQLITE_IOERR_WRITE)),
            ("short, ENOSPC", Short(2_000, codes::SQLITE_FULL)),
        ],
        CallKind::Truncate => &[("EIO", Fail(codes::SQLITE_IOERR_TRUNCATE)), ("ENOSPC", Fail(codes::SQLITE_FULL))],
        CallKind::Sync => &[
            ("EIO", Fail(codes::SQLITE_IOERR_FSYNC)),
            ("EIO after", FailAfter(codes::SQLITE_IOERR_FSYNC)),
            ("ENOSPC", Fail(codes::SQLITE_FULL)),
        ],
        CallKind::FileSize => &[("EIO", Fail(codes::SQLITE_IOERR_FSTAT))],
        CallKind::Lock => &[("EIO", Fail(codes::SQLITE_IOERR_LOCK)), ("BUSY", Fail(codes::SQLITE_BUSY))],
        CallKind::SharedMap => {
            &[("EIO", Fail(codes::SQLITE_IOERR_SHMMAP)), ("ENOSPC", Fail(codes::SQLITE_IOERR_SHMSIZE))]
        }
        CallKind::SharedLock => &[("EIO", Fail(codes::SQLITE_IOERR_SHMLOCK)), ("BUSY", Fail(codes::SQLITE_BUSY))],
        // Nobody hears of it.
        CallKind::Close => &[],
    }
}

/// All cells, with the names of how they fail.
async fn cells(template: &Template) -> Vec<(&'static str, Cell)> {
    let mut cells = Vec::new();
    for phase in Phase::ALL {
        for ((call, file), count) in census(template, phase).await {
            for (name, verdict) in verdicts(call) {
                for times in [Times::Once, Times::Count(3), Times::ForEver] {
                    if *name == "BUSY" && times == Times::ForEver {
                        // A lock that is held for ever is another process's, and tested as such.
                        continue;
                    }
                    let cell = |nth| (*name, Cell { phase, call, file, verdict: *verdict, times, nth });
                    cells.extend((0..count).map(cell));
                }
            }
        }
    }
    cells
}

/// Draws one cell of each kind, whatever its nth call, and some more.
fn sample(all: Vec<(&'static str, Cell)>, random: &mut Random) -> Vec<(&'static str, Cell)> {
    let mut kinds: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut draw = |cells: &[_]| cells[usize::try_from(random.below(cells.len() as u64)).expect("an index")];
    let more: Vec<_> = (0..MORE).map(|_| draw(&all)).collect();
    for (name, cell) in all {
        let Cell { phase, call, file, times, .. } = cell;
        kinds.entry(format!("{phase:?} {call:?} {file:?} {name} {times:?}")).or_default().push((name, cell));
    }
    kinds.into_values().map(|cells| draw(&cells)).chain(more).collect()
}

/// Panics of storage threads, which survive them, but should not have any.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("sessile-storage") {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

/// A row of the table that is printed.
#[derive(Debug, Default)]
struct Row {
    cells: u64,
    hit: u64,
    refused: u64,
    wrong: usize,
    hangs: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_call_fails_no_answer_is_wrong_and_none_is_missing() {
    count_panics();
    let template = Arc::new(Template::new().await);
    let all = cells(&template).await;
    let of = all.len();
    let mut random = Random::seeded();
    let chosen = if effort(true, false) { sample(all, &mut random) } else { all };
    let room = Arc::new(Semaphore::new(CELLS_AT_A_TIME));
    let mut tasks = JoinSet::new();
    for (name, cell) in chosen {
        let (room, template) = (Arc::clone(&room), Arc::clone(&template));
        tasks.spawn(async move {
            let _room = room.acquire_owned().await;
            (name, cell, run(&template, cell).await)
        });
    }
    let mut table: BTreeMap<(CallKind, FileKind, &str), Row> = BTreeMap::new();
    let (mut total, mut wrong, mut gave_up, mut missed) = (Findings::default(), Vec::new(), Vec::new(), Vec::new());
    let (mut ran, mut unresolved) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (name, cell, outcome) = done.expect("a cell panicked");
        let Outcome { was_hit, findings, gave_up: has_given_up, unresolved: left } = outcome;
        let row = table.entry((cell.call, cell.file, name)).or_default();
        row.cells += 1;
        row.hit += u64::from(was_hit);
        row.refused += findings.refused();
        row.wrong += findings.wrong.len();
        row.hangs += findings.hangs.len();
        ran += 1;
        unresolved += left;
        if !was_hit {
            missed.push(cell);
        }
        if has_given_up {
            gave_up.push(cell);
        }
        if !findings.wrong.is_empty() || !findings.hangs.is_empty() || left > 0 {
            let Findings { wrong: answers, hangs, .. } = &findings;
            wrong.push(format!("{cell:?}\n    {answers:?}\n    {hangs:?}\n    {left} unresolved"));
        }
        total.add(findings);
    }
    println!(
        "{:<14}{:<14}{:<16}{:>7}{:>7}{:>9}{:>7}{:>7}",
        "call", "file", "fails by", "cells", "hit", "refused", "wrong", "hangs"
    );
    for ((call, file, name), row) in table {
        let (call, file) = (format!("{call:?}"), format!("{file:?}"));
        let Row { cells, hit, refused, wrong, hangs } = row;
        println!("{call:<14}{file:<14}{name:<16}{cells:>7}{hit:>7}{refused:>9}{wrong:>7}{hangs:>7}");
    }
    println!(
        "figure: fault_matrix cells_run={ran} cells={of} cells_hit={} requests={} acknowledged={} refused={} \
         wrong_acknowledgements={} hangs={} unresolved_replies={} panics={} gave_up={}",
        ran - missed.len(),
        total.requests,
        total.acknowledged,
        total.refused(),
        total.wrong.len(),
        total.hangs.len(),
        unresolved,
        PANICS.load(Ordering::Relaxed),
        gave_up.len()
    );
    println!("errors: {:?}", total.errors);
    assert!(wrong.is_empty(), "{} of {ran} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(gave_up.is_empty(), "{gave_up:?}");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    // What is left over: a call that comes or not, as the storage thread is awake or not.
    assert!(missed.len() * 20 <= ran, "{} faults of {ran} met no call: {missed:?}", missed.len());
}
