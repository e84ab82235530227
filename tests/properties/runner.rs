//! Runs properties: seeded as all random tests are, shrinking, and keeping what failed.

use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner},
};
use sessile_tests::Random;

/// How many shorter forms of a failure are tried.
const SHRINKS_MAX: u32 = 2_000;

/// Runs a property on `cases` random values, and on those that ever failed, which are kept in `regressions`.
pub(crate) fn holds<S: Strategy>(
    cases: u32,
    regressions: &'static str,
    values: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let persistence: Box<dyn proptest::test_runner::FailurePersistence> =
        Box::new(FileFailurePersistence::Direct(regressions));
    if let Err(failure) = run(cases, Some(persistence), values, property) {
        panic!("{failure}");
    }
}

/// Runs a property that must not hold; returns whether it was found not to.
pub(crate) fn is_refuted<S: Strategy>(cases: u32, values: &S, property: impl Fn(S::Value) -> TestCaseResult) -> bool {
    matches!(run(cases, None, values, property), Err(TestError::Fail(..)))
}

fn run<S: Strategy>(
    cases: u32,
    failure_persistence: Option<Box<dyn proptest::test_runner::FailurePersistence>>,
    values: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) -> Result<(), TestError<S::Value>> {
    let max_shrink_iters = if failure_persistence.is_some() { SHRINKS_MAX } else { 0 };
    let config = Config { cases, failure_persistence, max_shrink_iters, ..Config::default() };
    let mut random = Random::seeded();
    let seed: Vec<u8> = (0..32).map(|_| random.below(256) as u8).collect();
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed)).run(values, property)
}
