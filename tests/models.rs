//! What the two explorers, `tests/loom.rs` and `tests/randomised.rs`, have in common: the files that ship, compiled beside
//! a `sync` of the explorer's types; stand-ins for what surrounds them; mutants; and the models
//! that both run, each in a size of its own.

#![allow(dead_code, unused_imports, reason = "neither explorer uses all of it")]

use crate::explorer::thread::JoinHandle;

/// Compiles the files that ship once more, and keeps their text.
macro_rules! shipped {
    ($($name:ident = $path:literal;)*) => {
        $(
            #[allow(unreachable_pub, clippy::pedantic, reason = "it is linted in its own crate")]
            #[path = $path]
            pub(crate) mod $name;
        )*
        pub(crate) const SHIPPED: &[&str] = &[$(include_str!($path)),*];
    };
}

shipped! {
    admission = "../storage/src/admission.rs";
    cell = "../storage/src/cell.rs";
    dirty = "../storage/src/dirty.rs";
    early = "../actors/src/early.rs";
    health = "../storage/src/health.rs";
    held = "../storage/src/held.rs";
    mailbox = "../storage/src/mailbox.rs";
    oneshot = "../storage/src/oneshot.rs";
    panic = "../storage/src/panic.rs";
    reply = "../storage/src/reply.rs";
    registry = "../actors/src/registry.rs";
    slot = "../actors/src/slot.rs";
    wake = "../storage/src/wake.rs";
}

/// What the worker rests on, which coordinates no threads.
#[path = "../storage/src"]
#[allow(
    unreachable_pub,
    unexpected_cfgs,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "it is linted in its own crate"
)]
mod storage {
    pub(crate) mod backend;
    pub(crate) mod batch;
    pub(crate) mod change;
    pub(crate) mod clock;
    pub(crate) mod command;
    pub(crate) mod error;
    pub(crate) mod id;
    pub(crate) mod json;
    pub(crate) mod query;
    pub(crate) mod record;
    pub(crate) mod shared;
    pub(crate) mod worker;
}
pub(crate) use storage::{backend, batch, change, clock, command, error, id, json, query, record, shared, worker};

pub(crate) mod actor;
pub(crate) mod caller;
#[macro_use]
pub(crate) mod mutants;
pub(crate) mod one_row;
pub(crate) mod order;
pub(crate) mod passivation;
pub(crate) mod shutdown;
pub(crate) mod sync;

/// Waits for the threads of a model.
pub(crate) fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("a panic ends the model")).collect()
}

/// The name of the test that a model's closure stands in.
pub(crate) fn name_of<M>() -> &'static str {
    let name = std::any::type_name::<M>();
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    name.trim_end_matches("::{{closure}}")
}
