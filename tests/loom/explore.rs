//! Runs models in every order of steps.
//!
//! **A thread that only loads an atomic is spawned after those that change it.** Loom 0.7 decides which orders are worth
//! exploring by the *last* access to each atomic (`last_dependent_access` in its `rt/atomic.rs`). A thread that loads a
//! word and then changes it hides, by its own load, the load that another made before: with the reader first, loom takes
//! "writer first" for the same thing, explores a single execution, and passes. With the reader last, its load finds the
//! change. The mutants tell whether a model explores what it should.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sessile_tests::announce;

use crate::{SHIPPED, name_of};

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
    announce(format_args!("{}: completed {} iterations{bound}", name_of::<M>(), iterations.load(Ordering::Relaxed)));
}

/// Every hook in the code has a mutant test here, and every mutant test a hook.
#[test]
fn every_hook_has_a_mutant_and_every_mutant_a_hook() {
    let others = [
        include_str!("../models/channel.rs"),
        include_str!("held_model.rs"),
        include_str!("../../storage/src/worker.rs"),
        include_str!("../../storage/src/worker/execute.rs"),
    ];
    let hooks = names(&[SHIPPED, &others].concat(), &["ordering(", "omitted("]);
    let mutants = names(
        &[
            include_str!("admission_model.rs"),
            include_str!("cell_model.rs"),
            include_str!("dirty_model.rs"),
            include_str!("early_model.rs"),
            include_str!("held_model.rs"),
            include_str!("mailbox_on_loom.rs"),
            include_str!("oneshot_model.rs"),
            include_str!("order_model.rs"),
            include_str!("passivation_model.rs"),
            include_str!("registry_model.rs"),
            include_str!("reply_model.rs"),
            include_str!("shutdown_model.rs"),
            include_str!("slot_model.rs"),
            include_str!("wake_model.rs"),
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
