//! The mailbox's contract, held by the channel that stands in for crossbeam's in all models.

use loom::thread;

use crate::{
    explore::{Preemptions::AtMost, explore},
    mailbox::{Received, mailbox},
};

#[path = "mailbox_suite.rs"]
mod suite;

fn run(test: impl Fn() + Send + Sync + 'static) {
    explore(AtMost(3), test);
}

mutant!(end_without_a_word:
    "channel: the last sender wakes the receiver"
    is killed by suite::who_waits_hears_that_nobody_is_left);
mutant!(leave_the_queue:
    "channel: the receiver takes the queue with it"
    is killed by suite::a_receiver_that_goes_takes_the_queue_with_it);
mutant!(send_to_nobody:
    "channel: a send finds the receiver gone"
    is killed by suite::a_receiver_that_goes_takes_the_queue_with_it);
