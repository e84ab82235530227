//! Counting: the program runs itself under callgrind, which counts the instructions of all threads.
//!
//! It runs twice, with so many operations and with twice as many; the difference, divided, is an operation's. So whatever is
//! the same in both, the start, the filling, the end, is not in the figure.

use std::{
    env, fs,
    path::{Path as File, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, bail, ensure};

use super::paths::Path;

/// The C library chooses among several ways to copy memory by what the processor can do, and these differ in
/// instructions. So that machines count alike, it takes the one that all have.
const PLAIN_PROCESSOR: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-FSRS,-FZRM";

/// Counts the instructions of one operation of a path, on copies of the file `filled`. The profiles, for `callgrind_annotate`, stay in `directory`.
pub fn per_operation(path: Path, filled: &File, directory: &File) -> anyhow::Result<f64> {
    let operations = path.operations();
    let [few, many] = thread::scope(|scope| {
        [operations, 2 * operations]
            .map(|operations| scope.spawn(move || run(path, operations, filled, directory)))
            .map(|counting| counting.join().expect("it returns its errors"))
    });
    let (few, many) = (few?, many?);
    ensure!(many > few, "{few} instructions for {operations} operations, {many} for twice as many");
    Ok((many - few) as f64 / operations as f64)
}

/// Runs a path under callgrind and returns how many instructions that took.
fn run(path: Path, operations: usize, filled: &File, directory: &File) -> anyhow::Result<u64> {
    let profile: PathBuf = directory.join(format!("{}-{operations}.callgrind", path.name()));
    let output = Command::new("valgrind")
        // Fair, so that it hangs less on the machine's load how often a thread looks in vain before it sleeps.
        .args(["--tool=callgrind", "--quiet", "--fair-sched=try"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe()?)
        .args(["--run", &path.name(), "--operations", &operations.to_string(), "--file"])
        .arg(filled)
        .env("GLIBC_TUNABLES", PLAIN_PROCESSOR)
        .stdin(Stdio::null())
        .output()
        .context("valgrind cannot be run (Debian has it in the package `valgrind`)")?;
    if !output.status.success() {
        bail!("{} under valgrind: {}\n{}", path.name(), output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = fs::read_to_string(&profile).with_context(|| format!("no {}", profile.display()))?;
    total(&text).with_context(|| format!("no total in {}", profile.display()))
}

/// Finds the total in a profile.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("events: Ir\nsummary: 12\n\nfn=(1) main\n3 12\n\ntotals: 12\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }
}
