//! What the databases are kept on.

use std::path::Path;

/// Returns whether a directory is in memory, where syncing costs nothing.
#[cfg(target_os = "linux")]
pub fn is_in_memory(directory: &Path) -> bool {
    /// `TMPFS_MAGIC` of statfs(2).
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::statfs(directory).is_ok_and(|system| i128::from(system.f_type) == TMPFS)
}

/// Returns whether a directory is in memory, where syncing costs nothing.
#[cfg(not(target_os = "linux"))]
pub fn is_in_memory(_directory: &Path) -> bool {
    false
}
