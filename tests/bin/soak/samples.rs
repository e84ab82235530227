//! What is measured every few seconds, how much of it may grow, and the table at the end.

use std::{fs, path::Path, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use sessile::Stats;
use sessile_tests::trend::{Bound, Series, Trend};

use crate::book::Latencies;

/// The fewest samples to judge by: a fifth of them is warm-up.
const SAMPLES_MIN: usize = 15;
const MIB: f64 = 1_048_576.0;

/// Something that is measured.
struct Measured {
    name: &'static str,
    /// `None`: it is shown and not judged.
    bound: Option<Bound>,
    series: Series,
}

/// All that is measured.
pub(crate) struct Samples {
    measured: Vec<Measured>,
    taken: usize,
}

/// What is measured, and how much it may grow.
const MEASURED: [(&str, Option<Bound>); 12] = [
    // Allocators and caches go up and down by tens of megabytes; a leak of one session record a second is 2 MB an hour,
    // and is found by runs of many hours only.
    ("memory MiB", Some(Bound { per_hour: 32.0, noise: 48.0 })),
    // A reader, a connection that is opened anew.
    ("descriptors", Some(Bound { per_hour: 4.0, noise: 8.0 })),
    // Tokio's blocking threads come and go.
    ("threads", Some(Bound { per_hour: 4.0, noise: 8.0 })),
    // Its file is cut to 64 MiB when it begins anew; a reader that pins it lets it grow meanwhile.
    ("log MiB", Some(Bound { per_hour: 32.0, noise: 64.0 })),
    ("database MiB", None),
    ("live sessions", None),
    ("sessions in memory", None),
    ("touch cells", None),
    ("touch p50 us", None),
    ("touch p99 us", None),
    ("save p50 us", None),
    ("save p99 us", None),
];

impl Default for Samples {
    fn default() -> Self {
        let measured = MEASURED.map(|(name, bound)| Measured { name, bound, series: Series::default() });
        Self { measured: measured.into(), taken: 0 }
    }
}

impl Samples {
    /// Returns whether there are enough to judge by.
    pub(crate) fn are_enough(&self) -> bool {
        self.taken >= SAMPLES_MIN
    }

    /// Measures.
    pub(crate) fn take(&mut self, since: Duration, path: &Path, stats: &Stats, latencies: &Latencies) {
        let quantile = |what: &str, quantile: f64| {
            latencies.get(what).map(|latencies| latencies.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        let values = [
            status("VmRSS:").map(|kibibytes| kibibytes / 1_024.0),
            fs::read_dir("/proc/self/fd").ok().map(|descriptors| descriptors.count() as f64),
            status("Threads:"),
            Some(bytes(path, "-wal") / MIB),
            Some(bytes(path, "") / MIB),
            Some(stats.live_sessions as f64),
            Some(stats.sessions_in_memory as f64),
            Some(stats.touch_cells as f64),
            quantile("touch", 0.5),
            quantile("touch", 0.99),
            quantile("save", 0.5),
            quantile("save", 0.99),
        ];
        self.taken += 1;
        let hours = since.as_secs_f64() / 3_600.0;
        for (measured, value) in self.measured.iter_mut().zip(values) {
            if let Some(value) = value {
                measured.series.add(hours, value);
            }
        }
    }

    /// Returns what goes like this.
    pub(crate) fn that_are(&self, trend: Trend) -> Vec<&'static str> {
        let are = self.measured.iter().filter(|measured| measured.trend() == Some(trend));
        are.map(|measured| measured.name).collect()
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["measured", "first", "last", "max", "slope per hour", "may be", "verdict"]);
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        for measured in &self.measured {
            let series = &measured.series;
            let verdict = match measured.trend() {
                None => "",
                Some(Trend::Grows) => "GROWS",
                Some(Trend::Level) => "ok",
                Some(Trend::NotJudged) => "NOT JUDGED",
            };
            table.add_row([
                measured.name.to_owned(),
                shown(series.first()),
                shown(series.last()),
                shown(series.max()),
                shown(series.slope_per_hour()),
                measured.bound.map_or(String::new(), |bound| shown(Some(bound.per_hour))),
                verdict.to_owned(),
            ]);
        }
        right_aligned(table, 1..6)
    }
}

impl Measured {
    /// `None` where it is not judged in any run.
    fn trend(&self) -> Option<Trend> {
        self.bound.map(|bound| self.series.trend(bound))
    }
}

/// Shows how long requests took.
pub(crate) fn latency_table(latencies: &Latencies) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["request", "answers", "p50 us", "p99 us", "max us"]);
    for (what, latencies) in latencies {
        let us = |nanoseconds: u64| format!("{:.1}", nanoseconds as f64 / 1_000.0);
        table.add_row([
            (*what).to_owned(),
            latencies.len().to_string(),
            us(latencies.value_at_quantile(0.5)),
            us(latencies.value_at_quantile(0.99)),
            us(latencies.max()),
        ]);
    }
    right_aligned(table, 1..5)
}

fn right_aligned(mut table: Table, columns: std::ops::Range<usize>) -> Table {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn status(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn bytes(path: &Path, suffix: &str) -> f64 {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    fs::metadata(name).map_or(0, |there| there.len()) as f64
}
