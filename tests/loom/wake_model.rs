//! Callers whose answers are there: all are woken, whether somebody helps or not.

use loom::{future::block_on, thread};

use crate::{
    explore::{Preemptions::AtMost, explore},
    join,
    oneshot::oneshot,
    sync::Arc,
    wake::Wakes,
};

#[test]
fn all_are_woken_with_help_and_without() {
    explore(AtMost(3), || {
        let wakes = Arc::new(Wakes::default());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot()).unzip();
        let callers: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                let wakes = Arc::clone(&wakes);
                thread::spawn(move || {
                    assert_eq!(block_on(receiver), Some(7));
                    wakes.help();
                })
            })
            .collect();
        wakes.wake_all(senders.into_iter().map(|sender| sender.send(7)).collect());
        join(callers);
    });
}

mutant!(the_storage_thread_relies_on_help:
    "wakes: the storage thread goes on to the end"
    is killed by all_are_woken_with_help_and_without);
