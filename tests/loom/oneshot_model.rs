//! The way of one answer to its caller: it is heard once, whoever comes first (R14, I6).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use loom::{future::block_on, thread};

use crate::{
    explore::{Preemptions::Unbounded, explore},
    oneshot::{Receiver, oneshot},
};

/// Polls once.
fn poll<T>(receiver: &mut Receiver<T>) -> Poll<Option<T>> {
    block_on(poll_fn(|context| Poll::Ready(Pin::new(&mut *receiver).poll(context))))
}

#[test]
fn who_waits_hears() {
    explore(Unbounded, || {
        let (sender, mut receiver) = oneshot();
        let storage = thread::spawn(move || drop(sender.send(7)));
        // By a waker that is not the one that counts.
        let heard = match poll(&mut receiver) {
            Poll::Ready(heard) => heard,
            Poll::Pending => block_on(receiver),
        };
        assert_eq!(heard, Some(7));
        storage.join().unwrap();
    });
}

mutant!(who_waits_is_not_woken:
    "oneshot: who waits is woken"
    is killed by who_waits_hears);

#[test]
fn a_sender_that_goes_is_heard_too() {
    explore(Unbounded, || {
        let (sender, receiver) = oneshot::<()>();
        let storage = thread::spawn(move || drop(sender));
        assert_eq!(block_on(receiver), None);
        storage.join().unwrap();
    });
}

#[test]
fn a_receiver_that_goes_is_seen() {
    explore(Unbounded, || {
        let (sender, mut receiver) = oneshot();
        let caller = thread::spawn(move || {
            let heard = poll(&mut receiver);
            drop(receiver);
            heard
        });
        let was_closed = sender.is_closed();
        drop(sender.send(7));
        let heard = caller.join().unwrap();
        assert!(!(was_closed && heard.is_ready()), "it was told to be gone, and heard");

        let (sender, receiver) = oneshot::<()>();
        drop(receiver);
        assert!(sender.is_closed());
    });
}

mutant!(a_receiver_that_goes_is_not_seen:
    "oneshot: a receiver that goes is seen"
    is killed by a_receiver_that_goes_is_seen);
