//! Faults on order, for tests of what rests on storage.

use std::sync::mpsc::Receiver;

use crate::{
    backend::CommitError,
    error::{Cause, CauseKind},
};

/// A fault to have.
#[derive(Debug)]
pub enum Fault {
    /// The next COMMIT fails so that nobody knows whether it took place; it did if `happened`.
    FailCommit {
        /// Whether the COMMIT took place.
        happened: bool,
    },
    /// The storage thread panics at the next COMMIT: after it if `happened`.
    Panic {
        /// Whether the COMMIT took place.
        happened: bool,
    },
    /// The next sync of the log from beside fails.
    FailLogSync,
    /// The storage thread stands still until the other end sends or is dropped.
    Stall(Receiver<()>),
}

/// Faults that wait for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    next: Option<Fault>,
}

impl Pending {
    pub(crate) fn order(&mut self, fault: Fault) {
        match fault {
            // An error tells that the other end was dropped, which is as good.
            Fault::Stall(until) => drop(until.recv()),
            fault => self.next = Some(fault),
        }
    }

    pub(crate) fn before_commit(&mut self) {
        if let Some(Fault::Panic { happened: false }) = self.next {
            self.next = None;
            panic!("a panic on order, before COMMIT");
        }
    }

    pub(crate) fn fails_without_commit(&mut self) -> bool {
        let fails = matches!(self.next, Some(Fault::FailCommit { happened: false }));
        if fails {
            self.next = None;
        }
        fails
    }

    pub(crate) fn after_commit(&mut self, committed: Result<(), CommitError>) -> Result<(), CommitError> {
        match self.next.take() {
            Some(Fault::Panic { .. }) => panic!("a panic on order, after COMMIT"),
            Some(Fault::FailCommit { .. }) => Err(Self::doubt()),
            _ => committed,
        }
    }

    pub(crate) fn doubt() -> CommitError {
        CommitError::Unknown(Cause::new(CauseKind::Io, "a commit that failed on order"))
    }
}
