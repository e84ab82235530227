//! The engine under power cuts (rule R1, invariant I3).

use sessile::{Durability, Health, NewSession, Outcome};
use sessile_tests::{
    Place, Random, effort, read, soon,
    vfs::{Breaker, CallKind, FileKind, Times, Verdict, codes, watch},
};
use tokio::runtime::Runtime;

use crate::{
    clients::Habits,
    content::{Content, Datum, NAME},
    cuts::{Findings, Plan, cut, least},
    script::{life, life_with_failing_syncs, life_with_failing_syncs_of_what_was_moved_in_part, plain_life},
};

/// Most writes of an application are committed, some synced.
const HABITS: Habits = Habits { synced: 20, padding: 1_500, flushes: true, engine: Durability::Committed };

/// An engine opens what a power cut left, serves all of it, and goes on.
pub fn engine_goes_on(runtime: &Runtime, directory: &std::path::Path, content: &Content) {
    runtime.block_on(async {
        let engine = sessile::Engine::builder(directory.join(NAME)).open().await.expect("what is left opens");
        for ((client, slot, operation), id) in &content.ids {
            let record = read(&engine.session(id.as_str()).unwrap()).await;
            let datum: Datum = record.data().unwrap();
            assert_eq!((datum.client, datum.slot, datum.operation), (*client, *slot, *operation));
        }
        let created = engine.create(NewSession::new().data("after the cut")).await.expect("it goes on");
        let serial = read(&created).await.serial().get();
        assert!(serial > content.serial_last && serial >= content.serial_next, "{serial} was used: {content:?}");
        created.touch().await.unwrap();
        engine.shutdown().await.expect("it shuts down");
        let engine = sessile::Engine::builder(directory.join(NAME)).open().await.expect("it opens again");
        assert_eq!(read(&engine.session(created.id().as_str()).unwrap()).await.touch_count(), 1);
        engine.shutdown().await.unwrap();
    });
}

#[test]
fn after_a_power_cut_at_any_step_the_file_is_a_prefix_with_every_synced_write() {
    let runtime = Runtime::new().unwrap();
    let mut random = Random::seeded();
    let mut findings = Findings::default();
    let (mut synced, mut committed) = (0, 0);
    for _ in 0..effort(1, 8) {
        let life = runtime.block_on(life(&mut random, HABITS, 18));
        let plan = Plan { writes: effort(1, 3), sectors: effort(2, 5), sample_every: effort(100, 50) };
        let mut sample = |directory: &std::path::Path, content: &Content| engine_goes_on(&runtime, directory, content);
        findings.add(cut(&life.recording(), plan, &mut random, &mut sample));
        synced += life.synced;
        committed += life.committed;
    }
    println!("figure: power disk=honest synced_acknowledged={synced} committed_acknowledged={committed} {findings}");
    findings.demand_honest(least::LIFE);
    assert!(findings.images_behind > 0, "a power cut that NORMAL cannot lose anything by is none");
}

#[test]
fn what_an_engine_of_synced_durability_creates_and_deletes_is_there_after_a_cut_at_any_step() {
    let runtime = Runtime::new().unwrap();
    let mut random = Random::seeded();
    let mut findings = Findings::default();
    for _ in 0..effort(1, 8) {
        // Few of the others are synced: they would sync what was created with them.
        let habits = Habits { synced: 5, engine: Durability::Synced, ..HABITS };
        let life = runtime.block_on(plain_life(&mut random, habits, 12, false));
        let (created, deleted) = life.synced_by_engine;
        println!("figure: power_synced_engine created={created} deleted_many={deleted}");
        assert!(created > 10 && deleted >= 3, "hardly anything was promised");
        let plan = Plan { writes: 1, sectors: 1, sample_every: 100 };
        let mut sample = |directory: &std::path::Path, content: &Content| engine_goes_on(&runtime, directory, content);
        findings.add(cut(&life.recording(), plan, &mut random, &mut sample));
    }
    println!("figure: power_synced_engine disk=honest {findings}");
    findings.demand_honest(least::SYNCED_ENGINE);
}

#[test]
fn a_sync_that_failed_costs_nothing_that_is_synced_afterwards() {
    let runtime = Runtime::new().unwrap();
    let mut random = Random::seeded();
    let mut findings = Findings::default();
    for _ in 0..effort(1, 8) {
        let life = runtime.block_on(life_with_failing_syncs(&mut random, HABITS, 6));
        let plan = Plan { writes: 1, sectors: 1, sample_every: 100 };
        let mut sample = |directory: &std::path::Path, content: &Content| engine_goes_on(&runtime, directory, content);
        findings.add(cut(&life.recording(), plan, &mut random, &mut sample));
    }
    println!("figure: power_failed_sync disk=honest {findings}");
    findings.demand_honest(least::FAILED_SYNC);
}

#[test]
fn a_sync_that_failed_after_a_checkpoint_cut_short_costs_nothing_of_what_that_had_moved() {
    let runtime = Runtime::new().unwrap();
    let mut random = Random::seeded();
    let mut findings = Findings::default();
    for _ in 0..effort(1, 8) {
        let life = runtime.block_on(life_with_failing_syncs_of_what_was_moved_in_part(&mut random, HABITS, 4));
        let plan = Plan { writes: 1, sectors: 1, sample_every: 100 };
        let mut sample = |directory: &std::path::Path, content: &Content| engine_goes_on(&runtime, directory, content);
        findings.add(cut(&life.recording(), plan, &mut random, &mut sample));
    }
    println!("figure: power_failed_sync_moved_in_part disk=honest {findings}");
    findings.demand_honest(least::MOVED_IN_PART);
}

#[tokio::test]
async fn a_foreign_reader_does_not_keep_the_engine_from_recovering_from_a_failed_sync() {
    let (place, breaker) = (Place::new(), Breaker::new());
    let _watch = watch(&place.directory(), breaker.clone());
    let engine = place.builder().open().await.unwrap();
    let session = engine.create(NewSession::with_id("a").data("acknowledged")).await.unwrap();
    let reader = place.connect();
    reader.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    breaker.order(CallKind::Sync, FileKind::Log, 0, Times::Once, Verdict::Fail(codes::SQLITE_IOERR_FSYNC));
    let synced = session.clone().with_durability(Durability::Synced);
    let doubtful = synced.save("in doubt").await.unwrap_err();
    assert_eq!(doubtful.outcome(), Outcome::MayHaveHappened);
    soon("a save after the recovery", synced.save("acknowledged again")).await.unwrap();
    assert_eq!((engine.stats().restarts, breaker.hits()), (1, 1));
    assert!(matches!(engine.health(), Health::Ready));
    drop(reader);
    engine.shutdown().await.unwrap();
}
