//! The soak command, for some seconds: it runs, and finds bugs that are planted in it.

use std::process::{Command, Output};

use sessile_tests::trend::{Bound, Series, Trend};

/// Runs the command; in a debug build, and beside other tests.
fn soak(minutes: &str, plant: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.args(["--minutes", minutes, "--restart-seconds", "2", "--sample-ms", "200", "--sessions", "320"]);
    command.args(["--pause-ms", "15"]);
    if let Some(plant) = plant {
        command.args(["--plant", plant]);
    }
    command.output().expect("it runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_soak_of_some_seconds_loses_nothing_and_says_what_it_cannot_judge() {
    let output = soak("0.12", None);
    let text = text(&output);
    println!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("soak: nothing lost"), "{text}");
    // It takes hours to tell what grows slowly, and it says so.
    assert!(text.contains("soak: NOT JUDGED: whether memory MiB, descriptors, threads, log MiB grow"), "{text}");
}

fn is_found(plant: &str, finding: &str) {
    let output = soak("0.05", Some(plant));
    let text = text(&output);
    assert!(!output.status.success() && text.contains(finding), "not found: {plant}\n{text}");
}

#[test]
fn memory_that_leaks_is_found() {
    is_found("memory", "soak: it grows: memory MiB");
}

#[test]
fn descriptors_that_leak_are_found() {
    is_found("descriptors", "soak: it grows: descriptors");
}

#[test]
fn threads_that_leak_are_found() {
    is_found("threads", "soak: it grows: threads");
}

#[test]
fn a_log_that_grows_is_found() {
    is_found("log", "soak: it grows: log MiB");
}

#[test]
fn a_loss_is_found() {
    is_found("loss", "soak: session ");
}

#[test]
fn a_trend_is_told_from_ups_and_downs() {
    let bound = Bound { per_hour: 10.0, noise: 5.0 };
    let series = |value: &dyn Fn(f64) -> f64| {
        let mut series = Series::default();
        (0..100).for_each(|n| series.add(f64::from(n) / 100.0, value(f64::from(n) / 100.0)));
        series
    };
    assert_eq!(series(&|_| 100.0).trend(bound), Trend::Level);
    assert_eq!(series(&|hours| 100.0 + 20.0 * (hours * 60.0).sin()).trend(bound), Trend::Level);
    assert_eq!(series(&|hours| 100.0 + 20.0 * hours).trend(bound), Trend::Grows);
    assert_eq!(series(&|hours| 100.0 + 9.0 * hours).trend(bound), Trend::Level);
    // What fills at the beginning does not count.
    assert_eq!(series(&|hours| 100.0 * (hours * 10.0).min(1.0)).trend(bound), Trend::Level);
    // Steep or level, but not for long enough to tell.
    let mut short = Series::default();
    (0..10).for_each(|n| short.add(f64::from(n) / 1_000.0, f64::from(n) / 10.0));
    assert_eq!(short.trend(bound), Trend::NotJudged);
    short = Series::default();
    (0..10).for_each(|n| short.add(f64::from(n) / 1_000.0, 100.0));
    assert_eq!(short.trend(bound), Trend::NotJudged);
    assert_eq!(Series::default().trend(bound), Trend::NotJudged);
}
