//! The stores that the command knows.

use std::fmt;

use clap::ValueEnum;

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

    /// Returns its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sessile => "sessile",
            Self::Seed => "seed",
            Self::Naive => "naive",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
