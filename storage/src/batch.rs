//! A batch: the commands that share a transaction.

use crate::command::Command;

/// Commands in a batch; beyond this a transaction's answers come late without it getting cheaper.
pub(crate) const BATCH_COMMANDS_MAX: usize = 2_048;
/// Payload bytes in a batch, over which no further command joins it (8 MiB): bounds the time of one COMMIT.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;

/// Commands in the hands of the storage thread.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    bytes: usize,
    stands_alone: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { commands: Vec::with_capacity(BATCH_COMMANDS_MAX), bytes: 0, stands_alone: false }
    }

    /// Adds a command, or gives it back where it cannot share this batch's transaction.
    pub(crate) fn push(&mut self, mut command: Command) -> Result<(), Command> {
        let stands_alone = command.is_engine_wide();
        if stands_alone && !self.commands.is_empty() {
            return Err(command);
        }
        self.stands_alone = stands_alone;
        self.bytes += command.payload_bytes();
        if let Some(reply) = command.reply_mut() {
            reply.receive();
        }
        self.commands.push(command);
        Ok(())
    }

    /// Returns whether nothing more is to join.
    pub(crate) fn is_full(&self) -> bool {
        self.stands_alone || self.commands.len() >= BATCH_COMMANDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    pub(crate) fn clear(&mut self) {
        self.commands.clear();
        self.bytes = 0;
        self.stands_alone = false;
    }
}
