//! The code that coordinates threads, beside loom: where there are too many threads for every interleaving, thousands of
//! schedules at random.
//!
//! The very files that ship are compiled once more, as in `tests/loom.rs`, this time beside a `sync` made of [shuttle]'s
//! types. Shuttle runs one thread at a time and chooses at each step which: half of the schedules step by step at random,
//! half by priorities that change at a few places (PCT: Burckhardt and others, "A randomized scheduler with probabilistic
//! guarantees of finding bugs", ASPLOS 2010). A lost wake-up or a lost answer is a deadlock, which shuttle reports. It knows
//! no weak memory orders: those are loom's to check. What both have in common is in `models.rs`.
//!
//! ```text
//! cargo test -p sessile-tests --test randomised -- --nocapture       with the counts
//! SESSILE_LONG=1 cargo test -p sessile-tests --test randomised       more schedules
//! SESSILE_SEED=… cargo test -p sessile-tests --test randomised       the same schedules again
//! ```
//!
//! **Mutants** are those of `tests/loom.rs`: a step behind `omitted("…")` is left out, and the model named beside it must fail.

use shuttle as explorer;

#[macro_use]
mod models;
use models::*;

#[path = "randomised/explore.rs"]
mod explore;

#[path = "randomised/admission_model.rs"]
mod admission_model;
#[path = "randomised/cell_model.rs"]
mod cell_model;
#[path = "randomised/order_model.rs"]
mod order_model;
#[path = "randomised/passivation_model.rs"]
mod passivation_model;
#[path = "randomised/shutdown_model.rs"]
mod shutdown_model;
