//! Counts instructions, compares them with the baseline, or renews that: see `benches/instructions.rs`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use sessile_benches::instructions::{
    baseline::{Baseline, Comparison, Tools, Verdict},
    callgrind,
    paths::{self, Path},
};
use sessile_harness::format::count;

/// How often each path is counted for a baseline, of which the median is taken.
const ROUNDS: usize = 5;
/// How to renew the baseline.
const RENEW: &str = "cargo bench --package sessile-benches --bench instructions -- --bless";

/// Counts the instructions of the engine's paths under valgrind and compares them with the baseline.
#[derive(Debug, Parser)]
struct Options {
    /// Renew the baseline, by the medians of five counts.
    #[arg(long, conflicts_with = "only")]
    bless: bool,
    /// Count only these.
    #[arg(long, value_enum, value_name = "PATH,…", value_delimiter = ',', default_values_t = Path::ALL.to_vec(), hide_default_value = true)]
    only: Vec<Path>,
    /// What runs under valgrind.
    #[arg(long, hide = true, requires_all = ["operations", "file"])]
    run: Option<Path>,
    #[arg(long, hide = true)]
    operations: Option<usize>,
    #[arg(long, hide = true)]
    file: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let (Some(path), Some(operations), Some(file)) = (options.run, options.operations, &options.file) {
        paths::run(path, operations, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bench = Bench::new()?;
    if options.bless { bless(&bench) } else { compare(&bench, &options.only) }
}

/// Where profiles are kept, and a file with sessions to count on.
struct Bench {
    directory: PathBuf,
    filled: PathBuf,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("instructions");
        // What an older run left is of other code.
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let filled = directory.join("filled.db");
        paths::fill(&filled).context("no sessions to count on")?;
        Ok(Self { directory, filled })
    }

    /// Counts a path so often, an odd number; returns the median, and by how many percent the counts differ.
    fn count(&self, path: Path, rounds: usize) -> anyhow::Result<(u64, f64)> {
        let round = |_| callgrind::per_operation(path, &self.filled, &self.directory);
        let counts = (0..rounds).map(round).collect::<anyhow::Result<Vec<_>>>();
        let mut counts = counts.with_context(|| format!("{} cannot be counted", path.name()))?;
        counts.sort_unstable_by(f64::total_cmp);
        let median = counts[rounds / 2];
        Ok((median.round() as u64, (counts[rounds - 1] - counts[0]) / median * 100.0))
    }
}

fn bless(bench: &Bench) -> anyhow::Result<ExitCode> {
    let mut instructions = BTreeMap::new();
    for &path in Path::ALL {
        let (median, spread_percent) = bench.count(path, ROUNDS)?;
        println!("{}: {}, spread {spread_percent:.1} %", path.name(), count(median));
        instructions.insert(path, median);
    }
    Baseline { tools: Tools::here(), instructions }.write(&Baseline::file())?;
    println!("{} is renewed", Baseline::file().display());
    Ok(ExitCode::SUCCESS)
}

fn compare(bench: &Bench, paths: &[Path]) -> anyhow::Result<ExitCode> {
    let (baseline, here) = (Baseline::read(&Baseline::file())?, Tools::here());
    let comparison = baseline.comparison(&here);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "instructions per operation",
        "counted",
        "baseline",
        "difference",
        "tolerated",
        "",
    ]);
    for column in 1..5 {
        table.column_mut(column).expect("the header has it").set_cell_alignment(CellAlignment::Right);
    }
    let mut fails = false;
    for &path in paths {
        let (counted, _) = bench.count(path, path.rounds())?;
        let verdict = baseline.verdict(path, counted, comparison);
        fails |= verdict.fails();
        table.add_row(row(&baseline, path, counted, comparison, verdict));
    }
    println!("{}", table.trim_fmt());
    match comparison {
        Comparison::Strict => {}
        Comparison::Loose => println!("COMPARED LOOSELY: here are {here}; the baseline is of {}", baseline.tools),
        Comparison::None => println!("NOT COMPARED: here are {here}; the baseline is of {}", baseline.tools),
    }
    if !fails {
        return Ok(ExitCode::SUCCESS);
    }
    println!("`callgrind_annotate` tells where the instructions are: {}/*.callgrind", bench.directory.display());
    println!("If the difference is meant, renew the baseline: {RENEW}");
    Ok(ExitCode::FAILURE)
}

fn row(baseline: &Baseline, path: Path, counted: u64, comparison: Comparison, verdict: Verdict) -> [String; 6] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    [
        path.name(),
        count(counted),
        or_none(baseline.instructions.get(&path).map(|&instructions| count(instructions))),
        or_none(baseline.difference_percent(path, counted).map(|percent| format!("{percent:+.1} %"))),
        or_none(comparison.tolerance_percent(path).map(|percent| format!("±{percent} %"))),
        verdict.to_string(),
    ]
}
