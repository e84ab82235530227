//! How often files are synced.
//!
//! The system keeps no count of that per process, so it is taken from a trace: the program runs under
//! `strace --follow-forks --seccomp-bpf --trace=SYNCS --output=FILE` and counts the lines that have come into the file. The
//! filter lets all other calls run at full speed, but such a run is for this count alone, not for times.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The calls to trace, in the words of `strace --trace`.
pub const CALLS: &str = "fsync,fdatasync,sync_file_range,syncfs,sync,msync";

/// A trace, if there is one.
#[derive(Debug, Clone)]
pub struct Syncs {
    trace: Option<PathBuf>,
}

impl Syncs {
    /// Counts in a file that strace writes.
    pub fn new(trace: Option<&Path>) -> Self {
        Self { trace: trace.map(Path::to_owned) }
    }

    /// Returns how often files were synced so far; `None` without a trace.
    pub fn count(&self) -> anyhow::Result<Option<u64>> {
        let Some(path) = &self.trace else { return Ok(None) };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(text.lines().filter(|line| is_call(line)).count() as u64))
    }
}

/// Returns whether a line tells of a call that began: `7 fsync(3) = 0` or `7 fsync(3 <unfinished ...>`, but not
/// `7 <... fsync resumed>) = 0`.
fn is_call(line: &str) -> bool {
    let Some((_, call)) = line.split_once(' ') else { return false };
    CALLS.split(',').any(|name| call.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_once() {
        assert!(is_call("812   fsync(3) = 0"));
        assert!(is_call("812 fdatasync(12 <unfinished ...>"));
        assert!(!is_call("812 <... fdatasync resumed>) = 0"));
        assert!(!is_call("812 +++ exited with 0 +++"));
    }
}
