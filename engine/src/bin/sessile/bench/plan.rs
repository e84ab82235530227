//! What is measured: operations, stores, and how much of each.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

/// How many sessions are in use at most.
const LIVE_MAX: usize = 10_000;
/// What the records in use may take together: by default the engine holds records of 64 MiB.
const LIVE_BYTES_MAX: usize = 48 << 20;
/// What a record takes beside its data, generously.
const RECORD_BYTES: usize = 512;
/// One session in so many is in use, so that reading the others in turn never finds one in memory.
const SESSIONS_PER_LIVE: usize = 5;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Op {
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
    pub(crate) const ALL: [Self; 6] =
        [Self::Create, Self::Get, Self::GetCold, Self::Save, Self::Touch, Self::TouchCommitted];

    /// Returns whether it changes something.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::GetCold)
    }

    /// Returns whether it is for sessions that are in use.
    pub(crate) fn is_for_live(self) -> bool {
        !matches!(self, Self::Create | Self::GetCold)
    }

    /// Returns the operation that stands for this one in a store that holds no session in memory.
    pub(crate) fn without_memory(self) -> Self {
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

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreName {
    /// This engine.
    Sessile,
    /// One tuned connection behind a lock, a commit per operation.
    Seed,
    /// A connection per operation, SQLite's defaults.
    Naive,
    /// The engine's tables and batches in one thread.
    Raw,
}

impl StoreName {
    /// All, in the order in which they run. This engine is first, so that its memory is not what others left.
    pub(crate) const ALL: [Self; 4] = [Self::Sessile, Self::Seed, Self::Naive, Self::Raw];
}

impl fmt::Display for StoreName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(self, formatter)
    }
}

/// Writes the name by which the command line knows a value.
fn write_name(value: &impl ValueEnum, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = value.to_possible_value().expect("no value is hidden");
    formatter.pad(name.get_name())
}

/// What to measure on every store.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sessions: usize,
    /// Numbers of clients: one, and many.
    pub(crate) clients: Vec<usize>,
    /// How long each figure is measured.
    pub(crate) duration: Duration,
    pub(crate) payload_bytes: usize,
    pub(crate) ops: Vec<Op>,
}

impl Plan {
    /// Returns the larger number of clients.
    pub(crate) fn clients_max(&self) -> usize {
        self.clients.iter().copied().max().unwrap_or(1)
    }

    /// Returns how many sessions are in use: at least one for each client, who saves sessions of its own.
    pub(crate) fn live(&self) -> usize {
        let fitting = LIVE_BYTES_MAX / (self.payload_bytes + RECORD_BYTES);
        (self.sessions / SESSIONS_PER_LIVE).min(LIVE_MAX).min(fitting).max(self.clients_max())
    }

    /// Returns how many sessions the engine may hold in memory: a quarter more than are in use, because it may let some go
    /// before their number is quite reached.
    pub(crate) fn live_max(&self) -> usize {
        self.live() + self.live() / 4
    }

    /// Returns whether sessions that are not in use are so many that none stays in memory until it is read again.
    pub(crate) fn has_cold(&self) -> bool {
        self.sessions - self.live() >= 2 * self.live_max()
    }

    /// Returns whether the source document's workloads of touches are to run.
    pub(crate) fn touches(&self) -> bool {
        self.ops.iter().any(|op| op.without_memory() == Op::Touch)
    }
}
