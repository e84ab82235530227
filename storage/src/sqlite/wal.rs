//! The write-ahead log that an engine finds when it opens a database.

use std::{fs, io, os::unix::fs::FileExt, path::Path};

/// How much is read and written at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes a log that is there once more, as it is, and syncs it.
///
/// Whoever wrote it may have met a sync that failed. Linux then takes the pages for written: SQLite reads them, and the
/// next sync succeeds without them (<https://lwn.net/Articles/752063/>). A commit behind them would be acknowledged as
/// synced and could not be read after a power cut, and a checkpoint cut short would leave a damaged database. Written
/// again, they are to be synced again. The name, too: SQLite takes no notice of a directory whose sync failed.
///
/// Only under SQLite's write lock. The log may be opened by hand, unlike the database: SQLite's locks are not on it.
pub(super) fn write_again(database: &Path) -> io::Result<()> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let log = match fs::OpenOptions::new().read(true).write(true).open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let bytes = log.read_at(&mut chunk, offset)?;
        if bytes == 0 {
            break;
        }
        log.write_all_at(&chunk[..bytes], offset)?;
        offset += bytes as u64;
    }
    if offset == 0 {
        return Ok(());
    }
    log.sync_all()?;
    fs::File::open(database.parent().unwrap_or(Path::new("/")))?.sync_all()
}
