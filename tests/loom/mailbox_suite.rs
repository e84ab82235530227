//! What is assumed of the channel under the mailbox; compiled once for each channel.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{Received, mailbox, run, thread};

/// A message that counts its own end, as a request's reply answers.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
pub(super) fn messages_of_a_sender_keep_their_order_and_come_before_the_end() {
    run(|| {
        let (mailbox, inbox) = mailbox();
        let other = mailbox.clone();
        let senders = [(1, mailbox), (2, other)].map(|(sender, mailbox)| {
            thread::spawn(move || {
                mailbox.send((sender, 1));
                mailbox.send((sender, 2));
            })
        });
        let mut last = [0; 3];
        let mut received = 0;
        while let Received::Command((sender, number)) = inbox.receive(None) {
            assert_eq!(number, last[sender] + 1, "sender {sender}");
            last[sender] = number;
            received += 1;
        }
        assert_eq!(received, 4);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
pub(super) fn who_waits_hears_that_nobody_is_left() {
    run(|| {
        let (mailbox, inbox) = mailbox::<()>();
        let senders = [mailbox.clone(), mailbox].map(|mailbox| thread::spawn(move || drop(mailbox)));
        assert!(matches!(inbox.receive(None), Received::Disconnected));
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
pub(super) fn a_receiver_that_goes_takes_the_queue_with_it() {
    run(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let (mailbox, inbox) = mailbox();
        mailbox.send(Counted(Arc::clone(&ended)));
        let sender = {
            let (mailbox, ended) = (mailbox.clone(), Arc::clone(&ended));
            thread::spawn(move || {
                mailbox.send(Counted(Arc::clone(&ended)));
                mailbox.send(Counted(ended));
            })
        };
        let receiver = thread::spawn(move || drop(inbox));
        sender.join().unwrap();
        receiver.join().unwrap();
        assert_eq!(ended.load(Ordering::Relaxed), 3, "a message lies in a queue that nobody reads");
        mailbox.send(Counted(Arc::clone(&ended)));
        assert_eq!(ended.load(Ordering::Relaxed), 4);
    });
}

/// A message whose end sends another, as a request that is dropped may.
struct Sends(Option<Box<dyn FnOnce() + Send>>);

impl Drop for Sends {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send();
        }
    }
}

#[test]
pub(super) fn a_message_may_send_while_it_is_dropped() {
    run(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let (mailbox, inbox) = mailbox();
        let (again, counted) = (mailbox.clone(), Counted(Arc::clone(&ended)));
        mailbox.send(Sends(Some(Box::new(move || {
            again.send(Sends(Some(Box::new(move || drop(counted)))));
        }))));
        drop(inbox);
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    });
}

#[test]
pub(super) fn what_is_there_is_taken_however_it_is_asked_for() {
    run(|| {
        let (mailbox, inbox) = mailbox();
        assert!(matches!(inbox.try_receive(), Received::TimedOut));
        (1..=4).for_each(|number| mailbox.send(number));
        assert!(matches!(inbox.try_receive(), Received::Command(1)));
        assert!(matches!(inbox.receive(Some(Instant::now())), Received::Command(2)));
        drop(mailbox);
        assert!(matches!(inbox.receive(Some(Instant::now())), Received::Command(3)));
        assert!(matches!(inbox.receive(None), Received::Command(4)));
        assert!(matches!(inbox.try_receive(), Received::Disconnected));
        assert!(matches!(inbox.receive(Some(Instant::now())), Received::Disconnected));
        assert!(matches!(inbox.receive(None), Received::Disconnected));
    });
}
