//! Runs models by many schedules, and mutants of them.

use std::{
    process::Command,
    sync::{Once, OnceLock},
};

use sessile_tests::{Random, effort};
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    thread::JoinHandle,
};

/// Names the mutant that is on in this process.
const MUTANT: &str = "SESSILE_SHUTTLE_MUTANT";
/// Places at which priorities change in a schedule of the second kind: few bugs need more.
const CHANGES: usize = 4;

/// Runs a model by some thousands of schedules.
pub(crate) fn explore<M: Fn() + Copy + Send + Sync + 'static>(model: M) {
    let schedules: usize = effort(1_500, 30_000);
    let seed = Random::seeded().below(u64::MAX);
    run(RandomScheduler::new_from_seed(seed, schedules), model);
    run(PctScheduler::new_from_seed(seed, CHANGES, schedules), model);
    let name = std::any::type_name::<M>();
    let name = name.split_once("::").map_or(name, |(_, name)| name).trim_end_matches("::{{closure}}");
    println!("figure: randomised model={name} schedules={}", 2 * schedules);
}

fn run<M: Fn() + Send + Sync + 'static>(scheduler: impl Scheduler + 'static, model: M) {
    let mut config = Config::new();
    config.silence_warnings = true;
    // The seed, printed already, tells the schedule.
    config.failure_persistence = FailurePersistence::None;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(model);
}

/// Waits for the threads of a model.
pub(crate) fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) {
    for thread in threads {
        thread.join().expect("a panic ends the model");
    }
}

/// Whether a mutant is on.
pub(crate) fn is_on(mutant: &str) -> bool {
    static ON: OnceLock<Option<String>> = OnceLock::new();
    static MET: Once = Once::new();
    let on = ON.get_or_init(|| std::env::var(MUTANT).ok()).as_deref() == Some(mutant);
    if on {
        MET.call_once(|| println!("{}", met(mutant)));
    }
    on
}

fn met(mutant: &str) -> String {
    format!("the mutant is met: {mutant}")
}

/// Makes the test that a mutant is killed by a model of the same module.
macro_rules! mutant {
    ($test:ident: $mutant:literal is killed by $model:path) => {
        #[test]
        fn $test() {
            let _: fn() = $model;
            crate::explore::must_kill($mutant, concat!(module_path!(), "::", stringify!($model)));
        }
    };
}

/// Runs a model with a mutant on, in a process of its own, for a model that fails leaves its threads where they stand. It
/// must fail.
pub(crate) fn must_kill(mutant: &str, model: &str) {
    let model = model.split_once("::").map_or(model, |(_, model)| model);
    let this = std::env::current_exe().expect("the test knows its own file");
    let output = Command::new(this)
        .args([model, "--exact", "--nocapture", "--test-threads=1"])
        .env(MUTANT, mutant)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the test runs again");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(said.contains(&met(mutant)), "{model} does not come by the mutant {mutant:?}:\n{said}");
    assert!(!output.status.success(), "the mutant {mutant:?} survives {model}:\n{said}");
    let why = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
    assert!(!why.is_empty() && !why.contains("exceeded"), "{model} fails, but not by {mutant:?}:\n{said}");
    println!("mutant {mutant}: killed by {model}: {why}");
}
