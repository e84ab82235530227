//! The figures of all rounds, and what they come to: medians, and ratios within a round.

use std::collections::BTreeMap;

use sessile_harness::{
    json::Row,
    load::{Kind, LoadRow},
    plan::Op,
};

use crate::store::{Role, Store};

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// One list for each round.
    pub(crate) bench: Vec<Vec<Row>>,
    /// One list for each round.
    pub(crate) load: Vec<Vec<LoadRow>>,
    /// Of one run, under a trace.
    pub(crate) traced: Vec<LoadRow>,
    /// What could not run, and why.
    pub(crate) not_run: BTreeMap<String, String>,
}

/// A median, and between what it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figures {
    /// Returns the median over the rounds of what an operation on a store took.
    pub(crate) fn bench(&self, store: &str, op: Op, clients: usize, what: fn(&Row) -> Option<f64>) -> Option<f64> {
        median(self.bench.iter().filter_map(|rows| what(find(rows, store, op, clients)?)).collect())
    }

    /// Returns the median of operations per second.
    pub(crate) fn rate(&self, store: &str, op: Op, clients: usize) -> Option<f64> {
        self.bench(store, op, clients, |row| Some(row.ops_per_s))
    }

    /// Returns the store of some role that is fastest at an operation.
    pub(crate) fn best(&self, role: Role, op: Op, clients: usize) -> Option<&'static str> {
        let rate = |store: &Store| self.rate(store.name, op, clients);
        let stores = Store::ALL.iter().filter(|store| store.role == role && rate(store).is_some());
        stores
            .max_by(|left, right| rate(left).partial_cmp(&rate(right)).expect("rates are numbers"))
            .map(|best| best.name)
    }

    /// Returns by how much sessile is faster than a store, each round compared with itself.
    pub(crate) fn ahead_of(&self, store: &str, op: Op, clients: usize) -> Option<Ratio> {
        let ratios = self.bench.iter().filter_map(|rows| {
            let rate = |store| Some(find(rows, store, op, clients)?.ops_per_s);
            Some(rate("sessile")? / rate(store)?)
        });
        let ratios: Vec<f64> = ratios.collect();
        Some(Ratio {
            min: ratios.iter().copied().reduce(f64::min)?,
            max: ratios.iter().copied().reduce(f64::max)?,
            median: median(ratios)?,
        })
    }

    /// Returns the median over the rounds of what a load on a store took.
    pub(crate) fn load(&self, store: &str, load: (Kind, u32), what: fn(&LoadRow) -> Option<f64>) -> Option<f64> {
        median(self.load.iter().filter_map(|rows| what(find_load(rows, store, load)?)).collect())
    }

    /// Returns how often files were synced for an operation.
    pub(crate) fn syncs(&self, store: &str, load: (Kind, u32)) -> Option<f64> {
        find_load(&self.traced, store, load)?.syncs_per_op
    }

    /// Notes that something could not run, and says so.
    pub(crate) fn note(&mut self, what: &str, why: &str) {
        if self.not_run.insert(what.to_owned(), why.to_owned()).is_none() {
            println!("NOT RUN: {what}: {why}");
        }
    }
}

fn find<'a>(rows: &'a [Row], store: &str, op: Op, clients: usize) -> Option<&'a Row> {
    rows.iter().find(|row| row.store == store && row.op == op && row.clients == clients)
}

fn find_load<'a>(rows: &'a [LoadRow], store: &str, (kind, per_s): (Kind, u32)) -> Option<&'a LoadRow> {
    rows.iter().find(|row| row.store == store && row.load == kind && row.per_s == per_s)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(upper, values[values.len() / 2 - 1]) } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_round_is_compared_with_itself() {
        let row = |store: &str, ops_per_s| Row {
            store: store.to_owned(),
            op: Op::Save,
            clients: 64,
            sessions: 1,
            payload_bytes: 400,
            ops: 1,
            ops_per_s,
            p50_us: 1.0,
            p99_us: 1.0,
            cpu_us_per_op: 1.0,
            written_bytes_per_op: None,
        };
        // A machine that is ten times slower in the second round, and hit one store in the third.
        let rounds = [(100.0, 50.0), (10.0, 5.0), (100.0, 10.0)];
        let bench = rounds.map(|(sessile, seed)| vec![row("sessile", sessile), row("seed", seed)]).into();
        let figures = Figures { bench, ..Figures::default() };
        let ratio = figures.ahead_of("seed", Op::Save, 64).expect("both are there");
        assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 2.0, 10.0));
        assert_eq!(figures.best(Role::Recipe, Op::Save, 64), Some("seed"));
    }
}
