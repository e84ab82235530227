//! Filesystems of a test's own, small enough to fill: mounted in a mount namespace that nobody else sees and that ends
//! with the test, however it ends.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use sessile_tests::{PATIENCE, not_run};
use tempfile::TempDir;

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Memory. Its files are refused a page at the time of the write.
    Tmpfs,
    /// A disk in a file, which turns read-only at an error, as is usual.
    Ext4,
}

/// The filesystem.
#[derive(Debug)]
pub struct Volume {
    kind: Kind,
    outside: TempDir,
}

/// Bytes of a volume: room for a database and a log of some hundred sessions, and what the engine leaves to others.
const VOLUME_BYTES: u64 = 32 << 20;
/// How much is written at a time to fill it.
const FILLER_STEP_BYTES: usize = 4_096;

/// Runs a test on a volume of each kind, on a thread whose mounts are its own. Where that is not allowed it says so.
pub fn on_volumes(test: &str, kinds: &[Kind], body: impl AsyncFn(&Volume) + Sync) {
    thread::scope(|scope| {
        let run = |kind: Kind| match Volume::mount(kind) {
            // One thread: those that it starts see its mounts, too.
            Ok(volume) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(body(&volume));
                println!("{test}: ran on {kind:?}");
            }
            Err(why) => not_run(format_args!("{test} on {kind:?}: {why}")),
        };
        let threads: Vec<_> = kinds.iter().map(|kind| scope.spawn(move || run(*kind))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

impl Volume {
    fn mount(kind: Kind) -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
            .map_err(|error| format!("no mounts of its own: {error}"))?;
        // Else the mounts would show outside.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|error| format!("mounts cannot be made private: {error}"))?;
        let outside = TempDir::new().map_err(|error| error.to_string())?;
        let this = Self { kind, outside };
        let directory = this.directory();
        fs::create_dir(&directory).map_err(|error| error.to_string())?;
        match kind {
            Kind::Tmpfs => {
                let options = format!("size={VOLUME_BYTES}");
                mount(Some("none"), &directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
                    .map_err(|error| format!("no tmpfs: {error}"))?;
            }
            Kind::Ext4 => {
                let image = this.outside.path().join("image");
                let file = fs::File::create(&image).map_err(|error| error.to_string())?;
                file.set_len(VOLUME_BYTES).map_err(|error| error.to_string())?;
                // Without a journal of its own: the volume is small, and nobody cuts its power. With blocks as large as
                // SQLite's pages, as every larger disk has them: with smaller ones SQLite reserves less of the mapped index
                // than it uses, and to use it on a full disk is a SIGBUS.
                run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "4096", "-O", "^has_journal"]).arg(&image))?;
                run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(&directory))?;
            }
        }
        Ok(this)
    }

    /// Returns where it is mounted.
    pub fn directory(&self) -> PathBuf {
        self.outside.path().join("volume")
    }

    /// Returns where the database is to be.
    pub fn path(&self) -> PathBuf {
        self.directory().join("sessions.db")
    }

    fn filler(&self) -> PathBuf {
        self.directory().join("filler")
    }

    /// Fills all the room there is, but for `spare` bytes or some more.
    pub fn fill(&self, spare: u64) {
        let mut filler =
            fs::File::options().create(true).append(true).open(self.filler()).expect("a file to fill with");
        // Delayed allocation promises what it may not hold: synced, so that all is decided.
        while filler.write_all(&[0x5a; FILLER_STEP_BYTES]).is_ok() {}
        filler.sync_all().ok();
        while filler.write_all(&[0x5a; 512]).is_ok() {}
        let length = filler.metadata().expect("its length").len();
        filler.set_len(length.saturating_sub(spare)).expect("it is cut");
        filler.sync_all().ok();
    }

    /// Gives the room back, and waits until it is there: the filler is gone when the last that has it open is, a child of another
    /// test's between fork and exec, say.
    pub fn empty(&self) {
        let began = Instant::now();
        fs::remove_file(self.filler()).expect("the filler goes");
        while self.room() < VOLUME_BYTES / 2 {
            assert!(began.elapsed() < PATIENCE, "the room does not come back: {} bytes", self.room());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn room(&self) -> u64 {
        let volume = rustix::fs::statvfs(self.directory()).expect("the volume is there");
        volume.f_bavail * volume.f_frsize
    }

    /// Makes the filesystem turn read-only under those who have files open, as it does at an error of the disk.
    pub fn turn_read_only(&self) -> Result<(), String> {
        assert_eq!(self.kind, Kind::Ext4);
        let source = Command::new("findmnt").args(["-no", "SOURCE"]).arg(self.directory()).output();
        let source = source.map_err(|error| format!("findmnt: {error}"))?;
        let device = String::from_utf8_lossy(&source.stdout).trim().rsplit('/').next().unwrap_or_default().to_owned();
        fs::write(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"), "1")
            .map_err(|error| format!("the error cannot be triggered: {error}"))
    }

    /// Mounts the same disk anew, as an operator would after a check. Nothing may have files open.
    pub fn mount_again(&self) -> Result<(), String> {
        let directory = self.directory();
        run(Command::new("umount").arg(&directory))?;
        let image = self.outside.path().join("image");
        // Its exit code tells of what was mended.
        drop(Command::new("e2fsck").arg("-fy").arg(&image).output());
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&directory))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The namespace would do it; but first the directory is to go.
        drop(Command::new("umount").arg("--lazy").arg(self.directory()).output());
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
