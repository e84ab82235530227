//! Runs models by many schedules.

use sessile_tests::{Random, effort};
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

use crate::name_of;

/// Places at which priorities change in a schedule of the second kind: few bugs need more.
const CHANGES: usize = 4;

/// Runs a model by some thousands of schedules.
pub(crate) fn explore<M: Fn() + Copy + Send + Sync + 'static>(model: M) {
    let schedules: usize = effort(1_500, 30_000);
    let seed = Random::seeded().below(u64::MAX);
    run(RandomScheduler::new_from_seed(seed, schedules), model);
    run(PctScheduler::new_from_seed(seed, CHANGES, schedules), model);
    println!("figure: randomised model={} schedules={}", name_of::<M>(), 2 * schedules);
}

fn run<M: Fn() + Send + Sync + 'static>(scheduler: impl Scheduler + 'static, model: M) {
    let mut config = Config::new();
    config.silence_warnings = true;
    // The seed, printed already, tells the schedule.
    config.failure_persistence = FailurePersistence::None;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(model);
}
