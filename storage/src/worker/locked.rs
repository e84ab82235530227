//! Another process holds the write lock: what writes is set aside and tried again, and reads go on (rule R15).

use std::collections::HashSet;

use crate::{backend::Backend, command::Command, id::SessionId};

use super::{Attempt, Broken, Worker};

/// How often that wait is repeated: 5 s altogether, as the source document has it. Counted in waits, not by the clock,
/// for the other process does not go by ours.
const LOCK_ATTEMPTS_MAX: u32 = 100;

impl<B: Backend> Worker<B> {
    /// Sets aside what writes, and reads of sessions that a write set aside precedes; the other reads stay.
    pub(super) fn defer_writes(&mut self, batch: &mut Vec<Command>) {
        let mut written: HashSet<SessionId> = self.deferred.iter().filter_map(Command::session).cloned().collect();
        let mut reads = Vec::with_capacity(batch.len());
        for command in batch.drain(..) {
            let is_read = command.durability().is_none() && !command.is_engine_wide();
            match command.session() {
                Some(id) if is_read && !written.contains(id) => reads.push(command),
                id => {
                    written.extend(id.cloned());
                    self.deferred.push_back(command);
                }
            }
        }
        // In the caller's buffer, which it keeps.
        batch.append(&mut reads);
    }

    /// Returns whether another process's lock has not been waited for long enough.
    pub(super) fn may_wait_on(&self) -> bool {
        self.lock_attempts < LOCK_ATTEMPTS_MAX
    }

    /// Tries again what another process's lock has kept waiting; `in_hand` is empty before and after.
    pub(super) fn retry_deferred(&mut self, in_hand: &mut Vec<Command>) -> Result<(), Broken> {
        // Up to the next that stands alone, or that one.
        while let Some(command) = self.deferred.pop_front() {
            if command.is_engine_wide() && !in_hand.is_empty() {
                self.deferred.push_front(command);
                break;
            }
            in_hand.push(command);
            if in_hand[0].is_engine_wide() {
                break;
            }
        }
        match self.attempt(in_hand, false)? {
            Attempt::LockedOut(_) if self.may_wait_on() => {
                in_hand.drain(..).rev().for_each(|command| self.deferred.push_front(command));
                Ok(())
            }
            Attempt::LockedOut(cause) => {
                in_hand.extend(self.deferred.drain(..));
                self.refuse(in_hand, &cause)
            }
            Attempt::Done => Ok(()),
        }
    }
}
