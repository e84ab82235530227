//! Random sequences of everything that may be asked of an engine, restarts, faults and the clock's steps among them,
//! beside the model.

use proptest::{
    strategy::Strategy,
    test_runner::{TestCaseError, TestCaseResult},
};
use sessile_tests::effort;
use tokio::runtime::Runtime;

use crate::{
    model::Flaw,
    operation::{Operation, Options, operations, options},
    runner::{holds, is_refuted},
    world::World,
};

/// Where sequences that failed are kept.
const REGRESSIONS: &str = "properties/regressions/engine.txt";
/// The longest sequence.
const OPERATIONS_MAX: usize = 80;
/// How many sequences may go by before a flaw of the model is found.
const CASES_TO_FIND_A_FLAW_MAX: u32 = 400;

/// Any engine, any sequence, and whether everything is compared after each step: to look changes what is in memory.
fn cases() -> impl Strategy<Value = (Options, Vec<Operation>, bool)> {
    (options(), operations(OPERATIONS_MAX), proptest::bool::weighted(0.3))
}

fn agrees(
    runtime: &Runtime,
    (options, operations, looks): (Options, Vec<Operation>, bool),
    flaw: Option<Flaw>,
) -> TestCaseResult {
    let run = async {
        let mut world = World::open(options, flaw).await;
        for (step, operation) in operations.iter().enumerate() {
            let verdict = world.perform(operation).await;
            let verdict = if looks && verdict.is_ok() { world.compare().await } else { verdict };
            verdict.map_err(|verdict| format!("step {step}, {operation:?}: {verdict}"))?;
        }
        world.close().await.map_err(|verdict| format!("at the end: {verdict}"))
    };
    runtime.block_on(run).map_err(|verdict: String| TestCaseError::fail(verdict))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn the_engine_answers_as_the_model_does() {
    let runtime = runtime();
    let cases_count = effort(100, 3_000);
    let steps = std::cell::Cell::new(0);
    holds(cases_count, REGRESSIONS, &cases(), |case| {
        steps.set(steps.get() + case.1.len());
        agrees(&runtime, case, None)
    });
    println!("figure: sequences={cases_count} operations={}", steps.get());
}

#[test]
fn every_flaw_of_the_model_comes_to_light() {
    let runtime = runtime();
    for flaw in Flaw::ALL {
        let is_found = is_refuted(CASES_TO_FIND_A_FLAW_MAX, &cases(), |case| agrees(&runtime, case, Some(flaw)));
        assert!(is_found, "{flaw:?} was not found in {CASES_TO_FIND_A_FLAW_MAX} sequences");
    }
}
