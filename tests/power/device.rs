//! A real disk: ext4 on a loop device. A process writes; it is stopped, and what the device has been given by then is
//! copied, as if the power had gone: what is in the page cache of the file system above is lost. The copy is mounted, and
//! ext4 recovers it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use sessile::{Engine, NewSession};
use sessile_tests::{PATIENCE, Random, effort, not_run, read};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::content::{self, NAME};

/// Bytes of the disk: room for ext4's journal, the database and its log.
const DISK_BYTES: u64 = 64 << 20;
/// What the child writes to.
const SESSIONS: u64 = 8;
const SYNCED_EVERY: u64 = 20;
/// The most operations before the cut: two checkpoints are among them.
const OPERATIONS_MAX: u64 = 700;

#[test]
fn a_real_disk_that_is_cut_off_has_a_prefix_with_every_synced_write() {
    // On a thread of its own: its mounts are nobody else's, and end with it and its children.
    let ran = thread::spawn(|| {
        let scratch = mounts_of_its_own()?;
        let mut random = Random::seeded();
        let mut total = Total::default();
        for _ in 0..effort(3, 40) {
            let operations = random.below(OPERATIONS_MAX) + 1;
            let cut = cut_off(scratch.path(), operations, &["--synced-every", &SYNCED_EVERY.to_string()])?;
            total.add(&cut);
        }
        Ok::<Total, String>(total)
    });
    match ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        Ok(Total { cuts, synced, committed, lost, lost_max }) => println!(
            "figure: power_real_disk cuts={cuts} synced_acknowledged={synced} synced_lost=0 \
             committed_acknowledged={committed} committed_lost={lost} committed_lost_per_cut_max={lost_max}"
        ),
        Err(why) => not_run(format_args!("power cuts of a real disk (ext4 on a loop device): {why}")),
    }
}

/// Milliseconds between operations of a trickle: often enough that the log is never quiet, and far too few for a
/// checkpoint.
const TRICKLE_MS: u64 = 50;
/// Operations of a trickle before the cut: six seconds.
const TRICKLED: u64 = 120;
/// How many of them may be lost: the log is synced every second; the rest is for a machine that is slow.
const TRICKLE_LOST_MAX: u64 = 60;

#[test]
fn a_real_disk_that_is_cut_off_in_a_trickle_of_writes_has_all_but_the_last() {
    let ran = thread::spawn(|| {
        let scratch = mounts_of_its_own()?;
        cut_off(scratch.path(), TRICKLED, &["--pause-ms", &TRICKLE_MS.to_string()])
    });
    match ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        Ok(Cut { told, kept }) => {
            let lost = told.last.saturating_sub(kept);
            println!("figure: power_real_disk_trickle operations={} lost={lost} interval_ms={TRICKLE_MS}", told.last);
            assert!(lost <= TRICKLE_LOST_MAX, "{lost} of {} committed operations are lost", told.last);
        }
        Err(why) => not_run(format_args!("a power cut of a real disk in a trickle of writes: {why}")),
    }
}

/// Operations between two rests, and how long those are: longer than a commit may be kept from the disk, with a second for a
/// machine that is slow, and far shorter than the kernel keeps what nobody syncs.
const BETWEEN_RESTS: u64 = 5;
const REST: Duration = Duration::from_secs(2);

#[test]
fn a_real_disk_that_is_cut_off_at_rest_has_all_though_a_reader_holds_every_checkpoint_back() {
    let ran = thread::spawn(|| {
        let scratch = mounts_of_its_own()?;
        cut_off_at_rest(scratch.path(), BETWEEN_RESTS)
    });
    match ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        Ok(Cut { told, kept }) => {
            let (rest, lost) = (REST.as_millis(), told.last.saturating_sub(kept));
            println!("figure: power_real_disk_rest operations={} lost={lost} rest_ms={rest}", told.last);
            assert_eq!((told.last, kept), (BETWEEN_RESTS, BETWEEN_RESTS));
        }
        Err(why) => not_run(format_args!("a power cut of a real disk at rest, beside a reader: {why}")),
    }
}

#[derive(Debug, Default)]
struct Total {
    cuts: u64,
    synced: u64,
    committed: u64,
    lost: u64,
    lost_max: u64,
}

impl Total {
    fn add(&mut self, Cut { told, kept }: &Cut) {
        self.cuts += 1;
        self.synced += told.synced / SYNCED_EVERY;
        self.committed += told.last - told.synced / SYNCED_EVERY;
        let lost = told.last.saturating_sub(*kept);
        self.lost += lost;
        self.lost_max = self.lost_max.max(lost);
    }
}

fn mounts_of_its_own() -> Result<TempDir, String> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .map_err(|error| format!("no mounts of its own: {error}"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|error| format!("mounts cannot be made private: {error}"))?;
    TempDir::new().map_err(|error| error.to_string())
}

/// What was told before a cut, and up to which operation all is there after it.
struct Cut {
    told: Told,
    kept: u64,
}

/// Cuts a disk off once, after so many operations. An error says why it cannot be done here.
fn cut_off(scratch: &Path, operations: u64, options: &[&str]) -> Result<Cut, String> {
    cut_off_after(scratch, options, |writer, _| {
        writer.read_until(operations);
        None
    })
}

/// The same, some time after the last of so many operations. A reader holds on to what was there before them.
fn cut_off_at_rest(scratch: &Path, operations: u64) -> Result<Cut, String> {
    let options = ["--operations", &operations.to_string(), "--pause-ms", &TRICKLE_MS.to_string()];
    cut_off_after(scratch, &options, |writer, directory| {
        let reader = content::connect(directory).expect("the database is there");
        // It reads the database, with nothing in the log: as long as it does, nothing may be moved there.
        reader.execute_batch("BEGIN; SELECT count(*) FROM session").expect("it reads");
        thread::sleep(REST);
        writer.go_on();
        writer.read_until(operations);
        thread::sleep(REST);
        Some(reader)
    })
}

/// Cuts a disk off once what is given has been done; a reader that it returns goes on until then.
fn cut_off_after(
    scratch: &Path,
    options: &[&str],
    first: impl FnOnce(&mut Writer, &Path) -> Option<Connection>,
) -> Result<Cut, String> {
    let (disk, copy) = (scratch.join("disk"), scratch.join("copy"));
    drop(fs::remove_file(&disk));
    fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).map_err(|error| error.to_string())?;
    run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&disk))?;
    let mounted = Mounted::new(&disk, scratch.join("mounted"))?;
    let mut writer = Writer::start(&mounted.directory, options);
    let reader = first(&mut writer, &mounted.directory);
    writer.stop();
    copy_at_rest(&disk, &copy);
    let told = writer.end();
    drop(reader);
    drop(mounted);

    let after = Mounted::new(&copy, scratch.join("mounted")).expect("ext4 recovers the copy");
    let kept = judge(&after.directory, &told);
    Ok(Cut { told, kept })
}

/// Checks what is left, and returns up to which operation it is all there.
fn judge(directory: &Path, told: &Told) -> u64 {
    // With the name alone and no file, or with the tables missing, this fails: the child had said that it is ready.
    let connection = content::connect(directory).expect("the database is there");
    content::digest(&connection).expect("the database is whole");
    let mut statement = connection.prepare_cached("SELECT id, data FROM current_session").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let rows: Vec<(String, String)> = statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
    drop(statement);
    drop(connection);
    let operation = |data: &str| serde_json::from_str::<Value>(data).unwrap()["operation"].as_u64().unwrap();
    let kept = rows.iter().map(|(_, data)| operation(data)).max().unwrap_or(0);
    assert_eq!(rows.len() as u64, SESSIONS, "all sessions had been created and flushed");
    for (id, data) in &rows {
        let session: u64 = id.parse().unwrap();
        let expected = (0..=kept).rev().find(|operation| *operation == 0 || operation % SESSIONS == session).unwrap();
        assert_eq!(operation(data), expected, "session {id} of a prefix of {kept} operations");
    }
    assert!(kept >= told.synced, "operation {} was synced, {kept} are there", told.synced);
    assert!(kept <= told.last + 1, "{kept} are there, {} were answered", told.last);
    Runtime::new().unwrap().block_on(async {
        let engine = Engine::builder(directory.join(NAME)).open().await.expect("an engine opens what is left");
        let record = read(&engine.session((kept % SESSIONS).to_string()).unwrap()).await;
        assert_eq!(record.data::<Value>().unwrap()["operation"].as_u64(), Some(kept));
        engine.create(NewSession::new()).await.expect("it goes on");
        engine.shutdown().await.unwrap();
    });
    kept
}

/// Copies a disk that nobody gives anything any more: the kernel may still be at it, hence twice until both are the same.
fn copy_at_rest(disk: &Path, copy: &Path) {
    let mut before = fs::read(disk).unwrap();
    loop {
        let now = fs::read(disk).unwrap();
        if now == before {
            return fs::write(copy, now).unwrap();
        }
        before = now;
    }
}

/// A file system in a file, mounted.
struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    fn new(disk: &Path, directory: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(disk).arg(&directory))?;
        Ok(Self { directory })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.directory)).expect("nobody has files open there");
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

/// What the child said.
#[derive(Debug, Default)]
struct Told {
    /// The last operation that was answered, and the last that was synced.
    last: u64,
    synced: u64,
}

/// The child.
struct Writer {
    child: Child,
    lines: Receiver<String>,
    told: Told,
}

impl Writer {
    fn start(directory: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_power-child"))
            .arg(directory.join(NAME))
            .args(["--sessions", &SESSIONS.to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let writer = Self { child, lines, told: Told::default() };
        assert_eq!(writer.lines.recv_timeout(PATIENCE).expect("the child opens its engine"), "ready");
        writer
    }

    /// Gives it the line that it waits for.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("the child is there");
    }

    fn read_until(&mut self, operation: u64) {
        while self.told.last < operation {
            let line = self.lines.recv_timeout(PATIENCE).expect("the child goes on");
            self.take_down(&line);
        }
    }

    fn take_down(&mut self, line: &str) {
        let (kind, operation) = line.split_once(' ').expect("two words");
        self.told.last = operation.parse().expect("a number");
        if kind == "synced" {
            self.told.synced = self.told.last;
        }
    }

    /// Stops it, all its threads.
    fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).expect("the child is there");
        let status = waitpid(Some(pid), WaitOptions::UNTRACED).expect("it stops").expect("its status");
        assert!(status.1.stopped(), "{status:?}");
    }

    /// Ends it, and returns all that it had said.
    fn end(mut self) -> Told {
        self.child.kill().expect("it is there still");
        self.child.wait().expect("it ends");
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.take_down(&line);
        }
        self.told
    }
}
