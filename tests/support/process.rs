//! What the process of a test has, as Linux counts it; and a process of its own for a test that counts.

use std::{
    fs,
    io::{Read, Seek},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::PATIENCE;

/// Names the test that runs in this process alone.
const ALONE: &str = "SESSILE_ALONE";
/// How long such a process may take: more than any long test, for a hang must show as one.
const ALONE_MAX: Duration = Duration::from_secs(600);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the test whose closure this is in a process of its own, so that it finds nobody else's threads there.
pub fn alone<F: FnOnce()>(body: F) {
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, name)| name).trim_end_matches("::{{closure}}");
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return body();
    }
    let mut said = tempfile::tempfile().expect("a temporary file");
    let output = || Stdio::from(said.try_clone().expect("another descriptor of the file"));
    let mut child = Command::new(std::env::current_exe().expect("the test knows its own file"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .stdout(output())
        .stderr(output())
        .spawn()
        .expect("the test runs again");
    let give_up = Instant::now() + ALONE_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break Some(status);
        }
        if Instant::now() > give_up {
            child.kill().expect("the child can be killed");
            break None;
        }
        thread::sleep(LOOK);
    };
    let mut text = Vec::new();
    said.rewind().expect("the file rewinds");
    said.read_to_end(&mut text).expect("the file reads");
    let text = String::from_utf8_lossy(&text);
    let passed = status.is_some_and(|status| status.success()) && text.contains("1 passed");
    assert!(passed, "{name}, alone: {status:?}\n{text}");
    // The first stands behind the test's name.
    for said in ["figure:", "SESSILE_SEED="] {
        text.lines().filter_map(|line| line.find(said).map(|at| &line[at..])).for_each(|line| println!("{line}"));
    }
}

/// Returns the names of this process's threads.
pub fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux lists the threads");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    // One that ends meanwhile has no name any more.
    tasks.flatten().filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

/// Returns what this process's descriptors lead to, but for the one that looks.
pub fn descriptors() -> Vec<String> {
    let list = fs::read_dir("/proc/self/fd").expect("Linux lists the descriptors");
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let targets = list.flatten().filter_map(target).map(|target| target.display().to_string());
    targets.filter(|target| !target.starts_with("/proc/")).collect()
}

/// Returns what this process's descriptors lead to below `directory`.
pub fn descriptors_in(directory: &Path) -> Vec<String> {
    let directory = directory.canonicalize().expect("the directory is there").display().to_string();
    descriptors().into_iter().filter(|target| target.starts_with(&directory)).collect()
}

/// Returns the bytes of memory that this process has resident.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells of memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it tells what is resident");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("in KiB") * 1_024
}

/// How long the share of the processor is measured.
const SHARE_MEASURED: Duration = Duration::from_millis(150);

/// Measures how much of the time two threads of this process get a processor when they ask for one, in percent. What rests
/// on speed cannot be judged where that is little.
pub fn processor_percent() -> u64 {
    let on_processor = || -> u64 {
        let stats = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells of its scheduling");
        stats.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds come first")
    };
    let spin = move || {
        let (before, began) = (on_processor(), Instant::now());
        while began.elapsed() < SHARE_MEASURED {
            std::hint::spin_loop();
        }
        (on_processor() - before) * 100 / u64::try_from(began.elapsed().as_nanos()).expect("it is short")
    };
    let threads = [thread::spawn(spin), thread::spawn(spin)];
    let [one, other] = threads.map(|thread| thread.join().expect("it only spins"));
    one.min(other)
}

/// What a process has that must not grow.
#[derive(Debug, Clone)]
pub struct Possessions {
    threads: Vec<String>,
    descriptors: Vec<String>,
}

impl Possessions {
    /// Counts now.
    pub fn now() -> Self {
        Self { threads: threads(), descriptors: descriptors() }
    }

    /// Waits until the process has no more than this again.
    pub fn are_back(&self) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let now = Self::now();
            if now.threads.len() <= self.threads.len() && now.descriptors.len() <= self.descriptors.len() {
                return;
            }
            assert!(Instant::now() < give_up, "left behind: {now:?}\nof which were there before: {self:?}");
            thread::sleep(LOOK);
        }
    }
}

/// What a thread has used so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadUse {
    /// What tells it from the process's other threads.
    pub id: String,
    /// Its name; Linux keeps 15 bytes of it.
    pub name: String,
    /// How often it has gone to sleep, which is how often it was woken.
    pub sleeps: u64,
    /// Its time on a processor, in nanoseconds.
    pub processor_ns: u64,
}

/// Returns what this process's threads have used; `None` where the system does not tell.
pub fn thread_uses() -> Option<Vec<ThreadUse>> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let known = tasks.flatten().map(|task| (thread_use(&task), task));
    // One that ends meanwhile is not there any more.
    known.filter(|(told, task)| told.is_some() || task.path().exists()).map(|(told, _)| told).collect()
}

fn thread_use(task: &fs::DirEntry) -> Option<ThreadUse> {
    let read = |file| fs::read_to_string(task.path().join(file)).ok();
    let (status, scheduled) = (read("status")?, read("schedstat")?);
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(ThreadUse {
        id: task.file_name().to_string_lossy().into_owned(),
        name: field("Name:")?.to_owned(),
        sleeps: field("voluntary_ctxt_switches:")?.parse().ok()?,
        processor_ns: scheduled.split(' ').next()?.parse().ok()?,
    })
}
