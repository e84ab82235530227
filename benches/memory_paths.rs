//! The paths that send no message: a touch and a get of a session in memory, by one caller, also with its 400 bytes of JSON
//! decoded.
//!
//! `cargo bench --package sessile-benches --bench memory_paths`

#![expect(missing_docs, reason = "criterion makes functions without")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde::Deserialize;
use sessile::{Engine, NewSession};
use sessile_harness::payload::Payloads;

/// What a service keeps in a session, say.
#[derive(Deserialize)]
struct State {
    session: usize,
    sequence: u64,
    text: String,
}

fn memory_paths(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, session) = runtime.block_on(async {
        let engine = Engine::builder(directory.path().join("sessions.db")).open().await.expect("it opens");
        let session = engine.create(NewSession::new().data(&Payloads::new(400).of(7, 7))).await.expect("it is created");
        session.get().await.expect("it is read");
        (engine, session)
    });
    criterion.bench_function("touch", |bencher| {
        bencher.to_async(&runtime).iter(async || session.touch().await.expect("it is touched"));
    });
    criterion.bench_function("get", |bencher| {
        bencher.to_async(&runtime).iter(async || session.get().await.expect("it is read"));
    });
    criterion.bench_function("get, decoded", |bencher| {
        bencher.to_async(&runtime).iter(async || {
            let record = session.get().await.expect("it is read").expect("it is there");
            let State { session, sequence, text } = record.data().expect("it decodes");
            black_box((session, sequence, text));
        });
    });
    runtime.block_on(engine.shutdown()).expect("it shuts down");
}

criterion_group!(benches, memory_paths);
criterion_main!(benches);
