//! Opening a database that is there, to look into it.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags};
use sessile::Engine;

/// What the engine writes into its files as `application_id`: "SESL".
const APPLICATION_ID: i32 = 0x5345_534c;

/// Opens the engine on a database of its own. Unlike `Engine::builder`, neither makes a database nor takes one over.
pub(crate) async fn open(path: &Path) -> anyhow::Result<Engine> {
    fs::metadata(path).with_context(|| format!("there is no database at {}", path.display()))?;
    if application_id(path).is_some_and(|found| found != APPLICATION_ID) {
        bail!(
            "{} is not a database of this engine (one of the source document's service is taken over when an \
             application opens it with the engine)",
            path.display()
        );
    }
    Engine::builder(path).open().await.with_context(|| format!("cannot open {}", path.display()))
}

/// Reads the mark of the application that owns the file; `None` where that fails: then the engine tells better why.
fn application_id(path: &Path) -> Option<i32> {
    // Not read-only: such a connection leaves the files of a write-ahead log behind.
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    connection.pragma_query_value(None, "application_id", |row| row.get(0)).ok()
}
