//! The mailbox's contract, held by the channel that ships.
//!
//! crossbeam is trusted (rule R24), and what is assumed of it is tested: here, the same as of the channel that stands in
//! for it in the models.

use std::thread;

use sessile_storage::mailbox::{Received, mailbox};

#[path = "mailbox_suite.rs"]
#[allow(clippy::duplicate_mod, reason = "one suite, compiled for both channels")]
mod suite;

/// Often: the threads of a test meet in different ways.
const RUNS: usize = 200;

fn run(test: impl Fn()) {
    (0..RUNS).for_each(|_| test());
}
