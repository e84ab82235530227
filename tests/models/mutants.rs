//! Runs mutants: a step left out, or an ordering weakened, that a model must not survive.

use std::{
    process::Command,
    sync::{Once, OnceLock},
};

/// Names the mutant that is on in this process.
const MUTANT: &str = "SESSILE_MUTANT";

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
            crate::mutants::must_kill($mutant, concat!(module_path!(), "::", stringify!($model)));
        }
    };
}

/// Runs a model with a mutant on; it must fail. In a process of its own: a model that fails leaves its threads where they
/// stand, and a deadlock found in a destructor aborts.
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
