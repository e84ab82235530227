//! A take-over under power cuts (rule R20): the old file as it was, or all of it taken over.

use std::{fs, path::Path};

use sessile::Filter;
use sessile_tests::{Place, Random, effort, vfs::watch};
use tokio::runtime::Runtime;

use crate::{
    clients::{Ledger, Mark},
    content::{Content, NAME},
    cuts::{Plan, Recording, cut, least},
    disk::{Recorder, files_in},
};

const SESSIONS: u64 = 1_000;

#[test]
fn a_take_over_cut_at_any_step_is_the_old_file_or_the_new_one() {
    let runtime = Runtime::new().unwrap();
    let mut random = Random::seeded();
    for (seed, cuts_min) in ["seed_sessions_delete.db", "seed_sessions_wal.db"].into_iter().zip(least::TAKE_OVER) {
        let place = Place::new();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(seed), place.path()).unwrap();
        let start = files_in(&place.directory());
        let ledger = Ledger::new(Recorder::new());
        let _watch = watch(&place.directory(), ledger.recorder.clone());
        runtime.block_on(async {
            let engine = place.builder().take_over_time_zone("Asia/Shanghai").open().await.unwrap();
            ledger.recorder.mark(Mark::Opened);
            ledger.shutdown(&engine).await;
        });
        let (mut old, mut new) = (0, 0);
        let mut sample = |directory: &Path, content: &Content| {
            if content.is_ours {
                new += 1;
            } else {
                old += 1;
            }
            opens(&runtime, directory);
        };
        let plan = Plan { writes: effort(0, 2), sectors: effort(1, 4), sample_every: effort(100, 25) };
        let (log, histories) = (ledger.recorder.take(), ledger.histories());
        let findings = cut(&Recording { start, log: &log, histories: &histories }, plan, &mut random, &mut sample);
        println!("figure: power_take_over file={seed} disk=honest {findings}");
        findings.demand_honest(cuts_min);
        println!("figure: power_take_over file={seed} samples_old={old} samples_new={new}");
        assert!(findings.samples > 0, "{findings}");
        // The old file, the new one, its epoch, and what the shutdown notes.
        assert!((3..=6).contains(&findings.states), "{findings}");
    }
}

/// An engine takes over what is left, or finds it taken over.
fn opens(runtime: &Runtime, directory: &Path) {
    runtime.block_on(async {
        let builder = sessile::Engine::builder(directory.join(NAME)).take_over_time_zone("Asia/Shanghai");
        let engine = builder.open().await.expect("what is left opens");
        assert_eq!(engine.count(Filter::all()).await.unwrap(), SESSIONS);
        engine.shutdown().await.unwrap();
    });
}
