//! A clock to move by hand and faults to order, for tests of services that embed the engine.

use std::sync::mpsc::{Sender, channel};

use sessile_storage::{admission::Permit, testing::Fault};

pub use sessile_storage::clock::ManualClock;

use crate::Engine;

/// Orders faults of an engine.
#[derive(Debug, Clone)]
pub struct Faults {
    engine: Engine,
}

impl Faults {
    /// For this engine.
    pub fn of(engine: &Engine) -> Self {
        Self { engine: engine.clone() }
    }

    /// Makes the next COMMIT fail so that its outcome is unknown: the requests in it are answered `Interrupted`. The
    /// COMMIT took place if `happened`.
    pub fn fail_commit(&self, happened: bool) {
        self.engine.order_fault(Fault::FailCommit { happened });
    }

    /// Makes the next sync of the log fail that no commit waits for: one comes within a second of each commit. The commit
    /// after it is answered `Interrupted`.
    pub fn fail_log_sync(&self) {
        self.engine.order_fault(Fault::FailLogSync);
    }

    /// Makes the storage thread panic at the next COMMIT, after it if `happened`.
    pub fn interrupt(&self, happened: bool) {
        self.engine.order_fault(Fault::Panic { happened });
    }

    /// Holds the storage thread until the returned value is dropped.
    pub fn stall(&self) -> Stall {
        let (sender, receiver) = channel();
        self.engine.order_fault(Fault::Stall(receiver));
        Stall(sender)
    }

    /// Takes all room for requests until the returned value is dropped.
    pub fn overload(&self) -> Overload {
        let admission = self.engine.router_for_faults().admission();
        Overload(std::iter::from_fn(|| admission.try_acquire(0).ok()).collect())
    }
}

/// Holds the storage thread.
#[derive(Debug)]
pub struct Stall(#[expect(dead_code, reason = "its drop lets the thread go")] Sender<()>);

/// Holds all room for requests.
#[derive(Debug)]
pub struct Overload(#[expect(dead_code, reason = "its drop gives the room back")] Vec<Permit>);
