//! The fuzzing targets on their committed corpora and on seeded mutations of those, without cargo-fuzz.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sessile::{Engine, NewSession, testing::Faults};
use sessile_tests::{
    Random, effort,
    fuzz::{TARGETS, Target, WRONG_DECODERS, check, check_alone, stored_row_by, target},
};

/// The longest input that a mutation makes.
const BYTES_MAX: usize = 4_096;

fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs a corpus, then mutations of it for some seconds.
fn run(name: &str) {
    let target = target(name);
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "a corpus of {name}");
    for (path, input) in &corpus {
        println!("{}", path.display());
        check(target, input);
    }
    let mut random = Random::seeded();
    let until = Instant::now() + effort(Duration::from_secs(3), Duration::from_secs(60));
    let mut runs = 0;
    while Instant::now() < until {
        let input = mutation(&corpus, &mut random);
        // An input that fails is named in full: it belongs into the corpus.
        let failed = fails(|| check(target, &input));
        assert!(!failed, "{name} fails on {input:02x?}");
        runs += 1;
    }
    println!("figure: target={name} corpus_inputs={} mutated_inputs={runs}", corpus.len());
}

fn fails(run: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
}

fn mutation(corpus: &[(PathBuf, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut pick = |end: usize| random.below(end.max(1) as u64) as usize;
    let mut input = corpus[pick(corpus.len())].1.clone();
    for _ in 0..=pick(6) {
        let at = pick(input.len() + 1);
        match pick(6) {
            0 => input.insert(at, pick(256) as u8),
            1 if at < input.len() => input[at] = pick(256) as u8,
            2 if at < input.len() => input[at] ^= 1 << pick(8),
            3 => input.truncate(at),
            4 => drop(input.splice(at..(at + pick(8)).min(input.len()), (0..pick(16)).map(|n| n as u8))),
            _ => {
                let other = &corpus[pick(corpus.len())].1;
                input.extend_from_slice(&other[pick(other.len() + 1)..]);
            }
        }
    }
    input.truncate(BYTES_MAX);
    input
}

#[test]
fn ids_of_any_bytes() {
    run("session_id");
}

#[test]
fn texts_of_any_bytes() {
    run("text");
}

#[test]
fn stored_rows_of_any_values() {
    run("stored_row");
}

#[test]
fn foreign_tables_of_any_kind() {
    run("take_over");
}

#[test]
fn files_damaged_anyhow() {
    run("database_file");
}

#[test]
fn every_target_has_a_test_here_and_a_binary() {
    let here = include_str!("fuzz_corpus.rs");
    let manifest = include_str!("fuzz/Cargo.toml");
    for Target { name, .. } in TARGETS {
        assert!(here.contains(&format!("run(\"{name}\")")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

#[test]
fn a_wrong_decoder_is_found_out_by_the_corpus() {
    let corpus = corpus(target("stored_row"));
    for (wrong, decoder) in WRONG_DECODERS {
        let is_found = corpus.iter().any(|(_, input)| fails(|| stored_row_by(input, decoder)));
        assert!(is_found, "no input tells that {wrong}");
    }
}

#[test]
fn a_decoder_that_panics_is_reported() {
    let unwraps = |input: &[u8]| drop(serde_json::from_slice::<serde_json::Value>(input).unwrap());
    let target = Target { name: "unwraps", run: unwraps };
    check(target, b"{}");
    assert!(fails(|| check(target, b"{\"cut")));
}

#[test]
fn a_panic_that_the_engine_survives_is_reported() {
    let heals = |input: &[u8]| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::in_memory().open().await.unwrap();
            if input == b"panic" {
                Faults::of(&engine).interrupt(false);
                engine.flush().await.unwrap_err();
            }
            engine.create(NewSession::new()).await.unwrap();
            engine.shutdown().await.unwrap();
        });
    };
    let target = Target { name: "heals", run: heals };
    check_alone(target, b"");
    assert!(fails(|| check_alone(target, b"panic")));
}
