//! The baseline, and the verdict on what was counted.
//!
//! Compilers differ in the instructions that they make. So the baseline says by what it was counted; elsewhere it is compared
//! loosely, and on another architecture not at all.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path as File, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::paths::Path;

/// How much a count may differ where the tools are others, in percent: a new compiler is no regression of ours.
const LOOSE_PERCENT: f64 = 25.0;

/// Counts on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What they were counted by.
    pub tools: Tools,
    /// Instructions per operation.
    pub instructions: BTreeMap<Path, u64>,
}

/// What instructions depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// The architecture.
    pub target: String,
    /// The Rust compiler.
    pub rustc: String,
    /// The C compiler, which makes SQLite; a distribution's name in it stands for its C library, too.
    pub cc: String,
    /// What counts.
    pub valgrind: String,
}

/// How strictly counts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// By each path's own tolerance.
    Strict,
    /// By a wide tolerance: the tools are others.
    Loose,
    /// Not at all: the architecture is another.
    None,
}

/// What a count is, beside the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// More instructions.
    More,
    /// Fewer: the baseline is to be renewed, or it would let as much of a slowdown pass.
    Fewer,
    /// Not in the baseline.
    Missing,
    /// Nothing to compare it with here.
    NotCompared,
}

impl Comparison {
    /// Returns by how many percent a path's count may differ.
    pub fn tolerance_percent(self, path: Path) -> Option<f64> {
        match self {
            Self::Strict => Some(path.tolerance_percent()),
            Self::Loose => Some(LOOSE_PERCENT),
            Self::None => None,
        }
    }
}

impl Baseline {
    /// Returns where it is.
    pub fn file() -> PathBuf {
        File::new(env!("CARGO_MANIFEST_DIR")).join("instructions/baseline.json")
    }

    /// Reads it.
    pub fn read(file: &File) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("no baseline in {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("no baseline: {}", file.display()))
    }

    /// Writes it.
    pub fn write(&self, file: &File) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Returns how counts made by these tools are compared with it.
    pub fn comparison(&self, tools: &Tools) -> Comparison {
        if self.tools.target != tools.target {
            Comparison::None
        } else if self.tools != *tools {
            Comparison::Loose
        } else {
            Comparison::Strict
        }
    }

    /// Returns by how many percent a count differs.
    pub fn difference_percent(&self, path: Path, counted: u64) -> Option<f64> {
        let baseline = *self.instructions.get(&path)? as f64;
        Some((counted as f64 - baseline) / baseline * 100.0)
    }

    /// Judges a count.
    pub fn verdict(&self, path: Path, counted: u64, comparison: Comparison) -> Verdict {
        let Some(tolerance) = comparison.tolerance_percent(path) else { return Verdict::NotCompared };
        match self.difference_percent(path, counted) {
            None => Verdict::Missing,
            Some(percent) if percent > tolerance => Verdict::More,
            Some(percent) if percent < -tolerance => Verdict::Fewer,
            Some(_) => Verdict::Same,
        }
    }
}

impl Tools {
    /// Asks for those here.
    pub fn here() -> Self {
        Self {
            target: format!("{}-{}", env::consts::ARCH, env::consts::OS),
            rustc: version(env::var_os("RUSTC"), "rustc"),
            cc: version(env::var_os("CC"), "cc"),
            valgrind: version(None, "valgrind"),
        }
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, rustc, cc, valgrind } = self;
        write!(formatter, "{target}, {rustc}, {cc}, {valgrind}")
    }
}

impl Verdict {
    /// Returns whether the check fails by it.
    pub fn fails(self) -> bool {
        match self {
            Self::More | Self::Fewer | Self::Missing => true,
            Self::Same | Self::NotCompared => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Same => "ok",
            Self::More => "MORE",
            Self::Fewer => "FEWER: renew the baseline",
            Self::Missing => "MISSING: renew the baseline",
            Self::NotCompared => "not compared",
        })
    }
}

/// Returns the first line of what a program says of its version: of the one that was asked for, or of the usual one.
fn version(asked_for: Option<OsString>, usual: &str) -> String {
    let program = asked_for.unwrap_or_else(|| usual.into());
    let said = Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools {
            target: "x86_64-linux".into(),
            rustc: "rustc 1".into(),
            cc: "cc 1".into(),
            valgrind: "valgrind 1".into(),
        }
    }

    fn baseline() -> Baseline {
        Baseline { tools: tools(), instructions: [(Path::Save, 10_000)].into() }
    }

    #[test]
    fn more_and_fewer_than_the_tolerance_fail() {
        let within = (Path::Save.tolerance_percent() * 100.0) as u64;
        let verdict = |counted| baseline().verdict(Path::Save, counted, Comparison::Strict);
        assert_eq!(verdict(10_000 + within), Verdict::Same);
        assert_eq!(verdict(10_000 - within), Verdict::Same);
        assert_eq!(verdict(10_000 + within + 1), Verdict::More);
        assert_eq!(verdict(10_000 - within - 1), Verdict::Fewer);
        assert!(Verdict::More.fails() && Verdict::Fewer.fails() && !Verdict::Same.fails());
    }

    #[test]
    fn a_path_without_a_baseline_fails() {
        assert_eq!(baseline().verdict(Path::Touch, 1, Comparison::Strict), Verdict::Missing);
        assert!(Verdict::Missing.fails());
    }

    #[test]
    fn other_tools_are_compared_loosely_and_another_architecture_is_not() {
        let other = |change: fn(&mut Tools)| {
            let mut tools = tools();
            change(&mut tools);
            baseline().comparison(&tools)
        };
        assert_eq!(other(|_| {}), Comparison::Strict);
        assert_eq!(other(|tools| tools.rustc = "rustc 2".into()), Comparison::Loose);
        assert_eq!(other(|tools| tools.cc = "cc 2".into()), Comparison::Loose);
        assert_eq!(other(|tools| tools.valgrind = "valgrind 2".into()), Comparison::Loose);
        assert_eq!(other(|tools| tools.target = "aarch64-linux".into()), Comparison::None);
        let verdict = |counted, comparison| baseline().verdict(Path::Save, counted, comparison);
        assert_eq!(verdict(12_400, Comparison::Loose), Verdict::Same);
        assert_eq!(verdict(12_600, Comparison::Loose), Verdict::More);
        assert_eq!(verdict(99_999, Comparison::None), Verdict::NotCompared);
        assert!(!Verdict::NotCompared.fails());
    }

    #[test]
    fn the_committed_baseline_has_every_path() {
        let baseline = Baseline::read(&Baseline::file()).unwrap();
        assert!(baseline.instructions.keys().eq(Path::ALL));
        let file = tempfile::NamedTempFile::new().unwrap();
        baseline.write(file.path()).unwrap();
        assert_eq!(Baseline::read(file.path()).unwrap(), baseline);
    }
}
