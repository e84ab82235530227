//! A process to kill, and what it wrote until then.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{self, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sessile_tests::{
    PATIENCE,
    load::{Entry, now_us},
};

/// How often a file's size is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// How to start a child.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) first_op: u64,
    pub(crate) flush_interval: Duration,
    pub(crate) clients: u32,
    pub(crate) sessions_per_client: u32,
    pub(crate) pad_max: u32,
    pub(crate) engine_wide: bool,
    pub(crate) lies: bool,
    pub(crate) load: Option<Duration>,
    pub(crate) reader: bool,
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    lines: Option<JoinHandle<Vec<String>>>,
    milestones: Receiver<Entry>,
}

/// A child that is no more.
#[derive(Debug)]
pub(crate) struct Dead {
    /// Just before when it was killed.
    pub(crate) at_us: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Child {
    pub(crate) fn spawn(path: &Path, options: &Options) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kill-child"));
        command.arg(path);
        let mut number = |name: &str, value: u64| {
            command.args([name, &value.to_string()]);
        };
        number("--seed", options.seed);
        number("--first-op", options.first_op.max(1));
        if !options.flush_interval.is_zero() {
            number("--flush-interval-ms", millis(options.flush_interval));
        }
        number("--clients", options.clients.into());
        number("--sessions-per-client", options.sessions_per_client.max(1).into());
        number("--pad-max", options.pad_max.into());
        if let Some(load) = options.load {
            number("--load-ms", millis(load));
        }
        for (name, is_set) in
            [("--engine-wide", options.engine_wide), ("--lies", options.lies), ("--reader", options.reader)]
        {
            if is_set {
                command.arg(name);
            }
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, milestones) = channel();
        let lines = std::thread::spawn(move || {
            let mut lines = Vec::new();
            for line in output.lines() {
                let line = line.expect("the pipe can be read");
                // The others are read once the child is dead, to leave the processors to it.
                if ["\"Ready\"", "{\"Closing\"", "{\"Closed\""].iter().any(|start| line.starts_with(start)) {
                    // Nobody may wait for it.
                    drop(sender.send(entry(&line)));
                }
                lines.push(line);
            }
            lines
        });
        Self { process, lines: Some(lines), milestones }
    }

    /// Waits for the next of its milestones; returns `None` if the child ended without one.
    pub(crate) fn milestone(&self, patience: Duration) -> Option<Entry> {
        self.milestones.recv_timeout(patience).ok()
    }

    /// Waits until the engine is open.
    pub(crate) fn ready(&self) {
        let ready = self.milestone(PATIENCE);
        assert!(matches!(ready, Some(Entry::Ready)), "it opens: {ready:?}");
    }

    /// Tells it to shut down.
    pub(crate) fn shut_down(&mut self) {
        let input = self.process.stdin.as_mut().expect("it is piped");
        input.write_all(b"shutdown\n").expect("the child listens");
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) -> Dead {
        let at_us = now_us();
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it is waited for");
        Dead { at_us, entries: self.entries() }
    }

    /// Waits until it has ended, which must be well.
    pub(crate) fn end(mut self) -> Dead {
        let status = self.process.wait().expect("it is waited for");
        assert!(status.success(), "{status}");
        Dead { at_us: now_us(), entries: self.entries() }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let lines = self.lines.take().expect("read once").join().expect("the reader does not panic");
        lines.iter().map(|line| entry(line)).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A test that fails leaves no process behind; one that is dead already is no matter.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Dead {
    /// Returns the highest number of a request, or `least`.
    pub(crate) fn last_op(&self, least: u64) -> u64 {
        let ops = self.entries.iter().filter_map(|entry| match entry {
            Entry::Invoked { op, .. } => Some(*op),
            _ => None,
        });
        ops.fold(least, u64::max)
    }
}

/// Waits until the log's file has so many bytes; returns whether it came to that.
pub(crate) fn log_reaches(path: &Path, bytes: u64, patience: Duration) -> bool {
    let give_up = Instant::now() + patience;
    while log_bytes(path) < bytes {
        if Instant::now() >= give_up {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Returns the size of a database's log.
pub(crate) fn log_bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).map_or(0, |there| there.len())
}

/// Returns whether a process that is dead was about to move pages from the log into the database. By the layout of the
/// log's index, <https://sqlite.org/walformat.html>: pages moved at byte 96, pages that were to be moved at byte 128.
pub(crate) fn died_in_checkpoint(path: &Path) -> bool {
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    let index = fs::read(index).unwrap_or_default();
    let number = |at: usize| index.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().expect("4")));
    number(128) > number(96)
}

fn entry(line: &str) -> Entry {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("it is short")
}
