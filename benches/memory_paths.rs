//! The paths that send no message: a touch and a get of a session in memory, by one caller.
//!
//! `cargo bench --package sessile-benches --bench memory_paths`

#![expect(missing_docs, reason = "criterion makes functions without")]

use criterion::{Criterion, criterion_group, criterion_main};
use sessile::{Engine, NewSession};

fn memory_paths(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let (engine, session) = runtime.block_on(async {
        let engine = Engine::builder(directory.path().join("sessions.db")).open().await.expect("it opens");
        let session = engine.create(NewSession::new().data(&"x".repeat(400))).await.expect("it is created");
        session.get().await.expect("it is read");
        (engine, session)
    });
    criterion.bench_function("touch", |bencher| {
        bencher.to_async(&runtime).iter(async || session.touch().await.expect("it is touched"));
    });
    criterion.bench_function("get", |bencher| {
        bencher.to_async(&runtime).iter(async || session.get().await.expect("it is read"));
    });
    runtime.block_on(engine.shutdown()).expect("it shuts down");
}

criterion_group!(benches, memory_paths);
criterion_main!(benches);
