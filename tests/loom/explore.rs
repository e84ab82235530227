//! Runs models, and runs mutants of them.
//!
//! **A thread that only loads an atomic is spawned after those that change it.** Loom 0.7 decides which orders are worth
//! exploring by the *last* access to each atomic (`last_dependent_access` in its `rt/atomic.rs`). A thread that loads a
//! word and then changes it hides, by its own load, the load that another made before: with the reader first, loom takes
//! "writer first" for the same thing, explores a single execution, and passes. With the reader last, its load finds the
//! change. The mutants tell whether a model explores what it should.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use loom::thread::JoinHandle;

/// Names the mutant that is on in this process.
const MUTANT: &str = "SESSILE_LOOM_MUTANT";

/// How often a model may interrupt a thread that could go on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preemptions {
    /// As often as there are steps: every execution is explored.
    Unbounded,
    /// So often. Few bugs need more than two (Musuvathi and Qadeer, "Iterative context bounding", PLDI 2007).
    AtMost(usize),
}

/// Explores a model, and says how many executions that took.
pub(crate) fn explore<M: Fn() + Send + Sync + 'static>(preemptions: Preemptions, model: M) {
    let iterations = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    // Never cut short without a word, whatever the environment says.
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.preemption_bound = match preemptions {
        Preemptions::Unbounded => None,
        Preemptions::AtMost(bound) => Some(bound),
    };
    let counter = Arc::clone(&iterations);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let bound = match preemptions {
        Preemptions::Unbounded => String::new(),
        Preemptions::AtMost(bound) => format!(", at most {bound} preemptions"),
    };
    println!("{}: completed {} iterations{bound}", name_of::<M>(), iterations.load(Ordering::Relaxed));
}

/// Waits for the threads of a model.
pub(crate) fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join().expect("a panic ends the model"))
}

/// The name of the test that a model's closure stands in.
fn name_of<M>() -> &'static str {
    let name = std::any::type_name::<M>();
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    name.trim_end_matches("::{{closure}}")
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

/// Runs a model with a mutant on, in a process of its own; it must fail.
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
    assert!(!why.is_empty() && !why.contains("Model exceeded"), "{model} fails, but not by {mutant:?}:\n{said}");
    println!("mutant {mutant}: killed by {model}: {why}");
}

/// Every hook in the code has a mutant test here, and every mutant test a hook.
#[test]
fn every_hook_has_a_mutant_and_every_mutant_a_hook() {
    let hooks = names(
        &[
            include_str!("../../storage/src/admission.rs"),
            include_str!("../../storage/src/cell.rs"),
            include_str!("../../storage/src/health.rs"),
            include_str!("../../storage/src/held.rs"),
            include_str!("../../storage/src/mailbox.rs"),
            include_str!("../../storage/src/reply.rs"),
            include_str!("../../actors/src/registry.rs"),
            include_str!("../../actors/src/slot.rs"),
            include_str!("channel.rs"),
            include_str!("held_model.rs"),
            include_str!("order_model.rs"),
        ],
        &["ordering(", "omitted("],
    );
    let mutants = names(
        &[
            include_str!("admission_model.rs"),
            include_str!("cell_model.rs"),
            include_str!("held_model.rs"),
            include_str!("mailbox_on_loom.rs"),
            include_str!("order_model.rs"),
            include_str!("passivation_model.rs"),
            include_str!("registry_model.rs"),
            include_str!("reply_model.rs"),
            include_str!("shutdown_model.rs"),
            include_str!("slot_model.rs"),
        ],
        &["mutant!("],
    );
    assert!(!hooks.is_empty());
    assert_eq!(hooks, mutants);
}

/// The string literals that come next after one of `openings`.
fn names<'a>(sources: &[&'a str], openings: &[&str]) -> BTreeSet<&'a str> {
    let after = |source: &'a str, opening: &str| -> Vec<&'a str> {
        source.split(opening).skip(1).filter_map(|rest| rest.split('"').nth(1)).collect()
    };
    sources.iter().flat_map(|source| openings.iter().flat_map(|opening| after(source, opening))).collect()
}
