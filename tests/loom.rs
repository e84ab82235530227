//! Every interleaving of the code that coordinates threads (invariant I11).
//!
//! The modules of `storage` and `actors` that hold an atomic, a lock or a queue take their primitives from `crate::sync`
//! and import nothing else but each other. Here the very same files are compiled once more, beside a `sync` made of
//! [loom]'s types, and loom runs each model in every order of steps and with every value that a weak memory order allows.
//! What is checked is the code that ships, not a copy of it.
//!
//! ```text
//!   storage/src/{cell, dirty, held, admission, reply, oneshot, wake, mailbox, health}.rs ─┐                ┌─ std + crossbeam   (their crates)
//!   actors/src/{slot, registry, early}.rs ────────────────────────────────────────────────┴─▶ crate::sync ─┴─ models/sync.rs, of loom's types
//! ```
//!
//! `worker` and `batch` are there as well, with all that they rest on but SQLite, over a database of one row.
//!
//! A model ends by itself: a wake-up that is lost, or an answer that never comes, is a deadlock, and loom reports it.
//! Each model prints how many executions it took, and which bound on preemptions it was given, if any: `at most 2
//! preemptions` explores all executions in which a thread is interrupted twice where it could have gone on.
//!
//! **Mutants.** At each ordering that matters, and at each step that could seem to be superfluous, the code names a
//! mutant: `ordering("cell: a touch releases its time", …)`, `omitted("slot: …")`. With the mutant on, the ordering is
//! `Relaxed`, the step left out, and the model named beside it here must fail.
//!
//! ```text
//! cargo test -p sessile-tests --test loom -- cell              the models and mutants of one module
//! cargo test -p sessile-tests --test loom -- --nocapture       with the counts
//! SESSILE_MUTANT='cell: a touch rechecks the state' cargo test -p sessile-tests --test loom -- cell
//! ```
//!
//! What loom cannot do: more than five threads; a wait that times out; orders that need `SeqCst` accesses (there are
//! none); a switch inside a critical section that touches nothing shared, so a `try_lock` never meets one. `Arc` is std's
//! even here: `self: &Arc<Self>` takes no other, and nothing is decided by a count of references.

use loom as explorer;

#[macro_use]
mod models;
use models::*;

#[path = "loom/admission_model.rs"]
mod admission_model;
#[path = "loom/cell_model.rs"]
mod cell_model;
#[path = "loom/dirty_model.rs"]
mod dirty_model;
#[path = "loom/early_model.rs"]
mod early_model;
#[path = "loom/explore.rs"]
mod explore;
#[path = "loom/held_model.rs"]
mod held_model;
#[path = "loom/mailbox_on_crossbeam.rs"]
mod mailbox_on_crossbeam;
#[path = "loom/mailbox_on_loom.rs"]
mod mailbox_on_loom;
#[path = "loom/oneshot_model.rs"]
mod oneshot_model;
#[path = "loom/order_model.rs"]
mod order_model;
#[path = "loom/passivation_model.rs"]
mod passivation_model;
#[path = "loom/registry_model.rs"]
mod registry_model;
#[path = "loom/reply_model.rs"]
mod reply_model;
#[path = "loom/shutdown_model.rs"]
mod shutdown_model;
#[path = "loom/slot_model.rs"]
mod slot_model;
#[path = "loom/wake_model.rs"]
mod wake_model;
