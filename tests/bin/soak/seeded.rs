//! Bugs planted in the soak itself, to show that it finds them.

use std::{fs::File, path::Path};

use clap::ValueEnum;
use rusqlite::Connection;

/// Bytes leaked at each sample.
const MEMORY_BYTES: usize = 16 << 20;
/// Descriptors, or threads, leaked at each sample.
const MANY: usize = 8;
/// Bytes by which the log is made to look longer at each sample.
const LOG_BYTES: i64 = 16 << 20;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seeded {
    /// Memory is leaked.
    Memory,
    /// Descriptors are leaked.
    Descriptors,
    /// Threads are leaked.
    Threads,
    /// The log is pinned for good.
    Log,
    /// A session is deleted behind the engine's back.
    Loss,
}

/// What was leaked so far.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    bug: Option<Seeded>,
    memory: Vec<Vec<u8>>,
    descriptors: Vec<File>,
    pinned: Option<Connection>,
}

impl Seeds {
    pub(crate) fn new(bug: Option<Seeded>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Makes it worse.
    pub(crate) fn grow(&mut self, path: &Path) -> anyhow::Result<()> {
        match self.bug {
            None => {}
            Some(Seeded::Memory) => self.memory.push(vec![1; MEMORY_BYTES]),
            Some(Seeded::Descriptors) => {
                for _ in 0..MANY {
                    self.descriptors.push(File::open("/dev/null")?);
                }
            }
            Some(Seeded::Threads) => {
                for _ in 0..MANY {
                    std::thread::spawn(|| {
                        loop {
                            std::thread::park();
                        }
                    });
                }
            }
            Some(Seeded::Log) => self.pin(path)?,
            Some(Seeded::Loss) => {
                let connection = Connection::open(path)?;
                let lost = "SELECT serial FROM session WHERE metadata LIKE '%key%' ORDER BY serial LIMIT 1";
                connection.execute(&format!("DELETE FROM session WHERE serial IN ({lost})"), [])?;
            }
        }
        Ok(())
    }

    /// Pins the log with a reader that never ends, and has much written behind it.
    fn pin(&mut self, path: &Path) -> anyhow::Result<()> {
        let connection = Connection::open(path)?;
        if self.pinned.is_none() {
            let reader = Connection::open(path)?;
            reader.execute_batch("BEGIN")?;
            reader.query_row("SELECT count(*) FROM session", [], |_| Ok(()))?;
            self.pinned = Some(reader);
        }

        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS ballast (bytes BLOB)")?;
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?1))", [LOG_BYTES])?;
        Ok(())
    }
}
