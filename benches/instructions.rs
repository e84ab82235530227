//! How many instructions the engine needs for an operation, counted by callgrind and compared with a baseline: times are
//! noisy, and counts hardly.
//!
//! `cargo bench --package sessile-benches --bench instructions` counts and compares, `… -- --bless` renews the baseline.
//!
//! A file each: `paths`, what is counted; `callgrind`, how; `baseline`, what it is compared with, and the verdict;
//! `baseline.json`, the baseline; `main`, the command.

pub mod baseline;
pub mod callgrind;
pub mod paths;
