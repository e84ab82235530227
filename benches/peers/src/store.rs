//! The stores that are measured, and the programs that run them.

use std::path::{Path, PathBuf};

/// A program that runs stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The engine's own command.
    Sessile,
    Rusqlite,
    Sqlx,
    Redis,
}

impl Program {
    pub(crate) const ALL: [Self; 4] = [Self::Sessile, Self::Rusqlite, Self::Sqlx, Self::Redis];

    /// Returns the file name of the program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sessile => "sessile",
            Self::Rusqlite => "peer-rusqlite-store",
            Self::Sqlx => "peer-sqlx-store",
            Self::Redis => "peer-redis",
        }
    }

    /// Returns the manifest from which it is built.
    pub(crate) fn manifest(self) -> PathBuf {
        let folder = match self {
            Self::Sessile => "../../engine",
            Self::Rusqlite => "rusqlite-store",
            Self::Sqlx => "sqlx-store",
            Self::Redis => "redis",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml")
    }

    /// Returns the options to build it with.
    pub(crate) fn features(self) -> &'static [&'static str] {
        match self {
            Self::Sessile => &["--features", "cli"],
            Self::Rusqlite | Self::Sqlx | Self::Redis => &[],
        }
    }

    /// Returns the library that it measures, by the name on the registry.
    pub(crate) fn library(self) -> &'static str {
        match self {
            Self::Sessile => "sessile",
            Self::Rusqlite => "tower-sessions-rusqlite-store",
            Self::Sqlx => "tower-sessions-sqlx-store",
            Self::Redis => "redis",
        }
    }

    /// Returns the option that names a store.
    pub(crate) fn store_option(self) -> &'static str {
        match self {
            Self::Sessile => "--stores",
            Self::Rusqlite | Self::Sqlx | Self::Redis => "--store",
        }
    }
}

/// What a store is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Sessile,
    /// What SQLite can do here.
    Limit,
    /// Embedded, with the settings that the engine has: what it is compared with.
    TunedEmbedded,
    /// What a service writes for itself, with those settings. It blocks the runtime while SQLite works, which no store may.
    Recipe,
    /// Embedded, as it comes.
    Defaults,
    /// A connection for each client: it waits for each answer.
    Server,
    /// One connection for all: what they ask at the same time goes out together.
    PipelinedServer,
}

/// A store and how it is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) role: Role,
}

impl Store {
    pub(crate) const ALL: [Self; 12] = [
        Self { name: "sessile", program: Program::Sessile, role: Role::Sessile },
        Self { name: "rusqlite-store/tuned", program: Program::Rusqlite, role: Role::TunedEmbedded },
        Self { name: "sqlx-store/tuned", program: Program::Sqlx, role: Role::TunedEmbedded },
        Self { name: "sqlx-store/tuned-pool", program: Program::Sqlx, role: Role::TunedEmbedded },
        Self { name: "seed", program: Program::Sessile, role: Role::Recipe },
        Self { name: "rusqlite-store/defaults", program: Program::Rusqlite, role: Role::Defaults },
        Self { name: "sqlx-store/defaults", program: Program::Sqlx, role: Role::Defaults },
        Self { name: "redis/multiplexed-everysec", program: Program::Redis, role: Role::PipelinedServer },
        Self { name: "redis/pooled-everysec", program: Program::Redis, role: Role::Server },
        Self { name: "redis/multiplexed-always", program: Program::Redis, role: Role::PipelinedServer },
        Self { name: "redis/pooled-always", program: Program::Redis, role: Role::Server },
        Self { name: "raw", program: Program::Sessile, role: Role::Limit },
    ];

    /// Returns whether a load can come in at a steady rate: the raw loop takes its operations by the batch.
    pub(crate) fn takes_load(&self) -> bool {
        self.role != Role::Limit
    }
}
