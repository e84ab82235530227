//! Runs a target, and sees panics that the engine survives.

use std::{
    cell::Cell,
    future::Future,
    sync::{
        Once, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sessile::{Engine, EngineBuilder, OpenError};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// How long one input may take: far more than any does, and below libFuzzer's own limit.
const HANG: Duration = Duration::from_secs(30);
/// A filesystem in memory, where the machine has one.
const MEMORY_FILESYSTEM: &str = "/dev/shm";
/// The name of the engine's thread.
const STORAGE_THREAD: &str = "sessile-storage";

/// Held by whatever makes a storage thread panic on purpose: whose thread it was cannot be told.
static PANICS_ON_PURPOSE: RwLock<()> = RwLock::new(());
/// Panics of storage threads: the engine catches them, and would heal.
static STORAGE_PANICS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Panics of this thread, on which actors run: whoever runs them catches theirs, too.
    static PANICS: Cell<u64> = const { Cell::new(0) };
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// A kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics where the engine does not do what it must.
    pub run: fn(&[u8]),
}

/// Runs a target on an input.
///
/// # Panics
/// If the target does, or any thread of the engine, whoever catches that.
pub fn check(target: Target, input: &[u8]) {
    let _others_wait = PANICS_ON_PURPOSE.read().unwrap_or_else(PoisonError::into_inner);
    run(target, input);
}

/// Runs a target whose storage threads panic on purpose.
///
/// # Panics
/// As [`check`] does.
pub fn check_alone(target: Target, input: &[u8]) {
    let _alone = PANICS_ON_PURPOSE.write().unwrap_or_else(PoisonError::into_inner);
    run(target, input);
}

fn run(target: Target, input: &[u8]) {
    count_panics();
    let before = (STORAGE_PANICS.load(Ordering::SeqCst), PANICS.get());
    (target.run)(input);
    let after = (STORAGE_PANICS.load(Ordering::SeqCst), PANICS.get());
    assert!(before == after, "{}: the engine panicked, and went on", target.name);
}

fn count_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(STORAGE_THREAD) {
                STORAGE_PANICS.fetch_add(1, Ordering::SeqCst);
            } else {
                PANICS.set(PANICS.get() + 1);
            }
            before(panic);
        }));
    });
}

/// Runs a future on the thread's own runtime.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| {
        runtime.block_on(async { tokio::time::timeout(HANG, future).await.expect("it answers within its deadline") })
    })
}

/// Makes a directory, where files cost little.
pub(super) fn scratch() -> TempDir {
    TempDir::new_in(MEMORY_FILESYSTEM).or_else(|_| TempDir::new()).expect("a temporary directory")
}

/// Opens an engine once the one before has let go of the file.
pub(super) async fn open(builder: impl Fn() -> EngineBuilder) -> Result<Engine, OpenError> {
    let opened = builder().open().await;
    assert!(!matches!(opened, Err(OpenError::InUse { .. })), "nobody has the file open");
    opened
}
