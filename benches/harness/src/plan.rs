//! What is measured: operations, and how much of each.

use std::{collections::BTreeMap, fmt, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How many sessions are in use at most.
const LIVE_MAX: usize = 10_000;
/// What the records in use may take together: by default the engine holds records of 64 MiB.
const LIVE_BYTES_MAX: usize = 48 << 20;
/// What a record takes beside its data, generously.
const RECORD_BYTES: usize = 512;
/// One session in so many is in use, so that reading the others in turn never finds one in memory.
const SESSIONS_PER_LIVE: usize = 5;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Op {
    /// Create a session.
    Create,
    /// Read a session that is in use.
    Get,
    /// Read a session that was not in use.
    GetCold,
    /// Replace the data, committed.
    Save,
    /// "A message came", as cheap as the store has it.
    Touch,
    /// The same, committed.
    TouchCommitted,
}

impl Op {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 6] = [Self::Create, Self::Get, Self::GetCold, Self::Save, Self::Touch, Self::TouchCommitted];

    /// Returns whether it changes something.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::GetCold)
    }

    /// Returns whether it is for sessions that are in use.
    pub fn is_for_live(self) -> bool {
        !matches!(self, Self::Create | Self::GetCold)
    }

    /// Returns the operation that stands for this one in a store that holds no session in memory.
    #[must_use]
    pub fn without_memory(self) -> Self {
        match self {
            Self::GetCold => Self::Get,
            Self::TouchCommitted => Self::Touch,
            op => op,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(self, formatter)
    }
}

/// Writes the name by which the command line knows a value.
pub(crate) fn write_name(value: &impl ValueEnum, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = value.to_possible_value().expect("no value is hidden");
    formatter.pad(name.get_name())
}

/// What to measure on every store.
#[derive(Debug)]
pub struct Plan {
    /// How many sessions the store is filled with.
    pub sessions: usize,
    /// Numbers of clients: one, and many.
    pub clients: Vec<usize>,
    /// How long each figure is measured.
    pub duration: Duration,
    /// The size of a session's data.
    pub payload_bytes: usize,
    /// The operations.
    pub ops: Vec<Op>,
    /// How many operations of so many clients a store that takes batches gets in one; as many as there are clients, where
    /// this says nothing.
    pub batches: BTreeMap<(Op, usize), usize>,
}

impl Plan {
    /// Returns the larger number of clients.
    pub fn clients_max(&self) -> usize {
        self.clients.iter().copied().max().unwrap_or(1)
    }

    /// Returns how many operations a batch has that stands for so many clients.
    pub fn batch(&self, op: Op, clients: usize) -> usize {
        let standing_for = Op::ALL.into_iter().filter(|other| other.without_memory() == op);
        let batches = standing_for.filter_map(|op| self.batches.get(&(op, clients)).copied());
        batches.max().unwrap_or(clients)
    }

    /// Returns how many sessions are in use: at least one for each client, who saves sessions of its own.
    pub fn live(&self) -> usize {
        let fitting = LIVE_BYTES_MAX / (self.payload_bytes + RECORD_BYTES);
        (self.sessions / SESSIONS_PER_LIVE).min(LIVE_MAX).min(fitting).max(self.clients_max())
    }

    /// Returns how many sessions the engine may hold in memory: a quarter more than are in use, because it may let some go
    /// before their number is quite reached.
    pub fn live_max(&self) -> usize {
        self.live() + self.live() / 4
    }

    /// Returns whether sessions that are not in use are so many that none stays in memory until it is read again.
    pub fn has_cold(&self) -> bool {
        self.sessions - self.live() >= 2 * self.live_max()
    }

    /// Returns whether the source document's workloads of touches are to run.
    pub fn touches(&self) -> bool {
        self.ops.iter().any(|op| op.without_memory() == Op::Touch)
    }
}
