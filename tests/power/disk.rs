//! What SQLite did to the files of a directory, step by step, and what a disk may hold of it when the power goes.
//!
//! The model is harsher than a disk in three ways and promises what POSIX does and no more:
//!
//! 1. What a file was written since it was last synced is there or not, sector by sector of 512 bytes: each holds any of
//!    the versions it has had since then. So writes are dropped, reordered and torn. SQLite counts on a sector being
//!    written whole or not at all (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).
//! 2. A file's length is any it has had since the last sync, whatever of its bytes is there; bytes that are not, are zero.
//!    A truncation takes place as a whole or not at all: what was behind is gone, or as it was.
//! 3. A file that was made or unlinked is so on the disk once its directory is synced, else it may be or not; so is each
//!    of several in any order. SQLite syncs the directory with the first sync of a log or journal that it opened to make,
//!    and with a deletion if it says so.
//!
//! A sync that failed leaves what it was to write in memory only, for good: Linux takes such pages for written, so that
//! the next sync succeeds without them (<https://lwn.net/Articles/752063/>).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use sessile_tests::{
    Random,
    vfs::{Breaker, Call, CallKind, FileKind, Verdict, Watcher, codes},
};

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// The files of a directory, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event<M> {
    /// A file was opened; it was made if it was not there. `syncs_directory`: with its first sync.
    Open {
        name: String,
        syncs_directory: bool,
    },
    Write {
        name: String,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Truncate {
        name: String,
        length: usize,
    },
    Sync {
        name: String,
    },
    FailedSync {
        name: String,
    },
    /// Somebody wrote the file once more as it is, by hand, and synced it.
    WrittenAgain {
        name: String,
    },
    SyncDirectory,
    Delete {
        name: String,
    },
    /// A client learned something.
    Mark(M),
}

/// An event and when it was.
#[derive(Debug, Clone)]
pub struct Entry<M> {
    pub at: Instant,
    pub event: Event<M>,
}

/// Records the events of a directory, with clients' marks between them.
pub struct Recorder<M> {
    log: Mutex<Vec<Entry<M>>>,
    lies: AtomicBool,
    /// Files whose last sync failed and that nobody has written to since.
    doubtful: Mutex<BTreeSet<PathBuf>>,
    /// Decides what fails.
    pub breaker: Arc<Breaker>,
}

impl<M> Recorder<M> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::default(),
            lies: AtomicBool::new(false),
            doubtful: Mutex::default(),
            breaker: Breaker::new(),
        })
    }

    /// From now on syncs do nothing and say that all is well.
    pub fn lie(&self) {
        self.lies.store(true, Ordering::SeqCst);
    }

    pub fn mark(&self, mark: M) {
        self.push(Event::Mark(mark));
    }

    pub fn take(&self) -> Vec<Entry<M>> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn push(&self, event: Event<M>) {
        let mut log = self.log.lock().unwrap();
        log.push(Entry { at: Instant::now(), event });
    }
}

impl<M: Send> Watcher for Recorder<M> {
    fn before(&self, call: &Call<'_>) -> Verdict {
        if call.kind == CallKind::Sync && self.lies.load(Ordering::SeqCst) {
            return Verdict::Pretend;
        }
        let verdict = self.breaker.before(call);
        if call.kind == CallKind::Sync && matches!(verdict, Verdict::Fail(_)) {
            self.push(Event::FailedSync { name: file_name(call.path) });
            // Not the database: to close it would drop SQLite's locks on it.
            if call.file == FileKind::Log {
                let log = fs::File::options().write(true).open(call.path).expect("the log can be opened by hand");
                log.set_modified(SystemTime::UNIX_EPOCH).expect("its time can be set");
                self.doubtful.lock().unwrap().insert(call.path.to_owned());
            }
        } else if matches!(call.kind, CallKind::Write | CallKind::Truncate | CallKind::Sync)
            && self.doubtful.lock().unwrap().remove(call.path)
            && fs::metadata(call.path).is_ok_and(|there| there.modified().unwrap() > SystemTime::UNIX_EPOCH)
        {
            // Not by SQLite, whose writes come by here.
            self.push(Event::WrittenAgain { name: file_name(call.path) });
        }
        verdict
    }

    fn after(&self, call: &Call<'_>, code: i32) {
        if code != codes::SQLITE_OK {
            return;
        }
        let name = file_name(call.path);
        let event = match call.kind {
            CallKind::Open => Event::Open {
                name,
                syncs_directory: matches!(call.file, FileKind::Log | FileKind::Journal)
                    && call.flags & codes::SQLITE_OPEN_CREATE != 0,
            },
            CallKind::Write => Event::Write { name, offset: call.offset as usize, bytes: call.bytes.into() },
            CallKind::Truncate => Event::Truncate { name, length: call.offset as usize },
            CallKind::Sync => Event::Sync { name },
            CallKind::Delete => {
                self.push(Event::Delete { name });
                if call.flags == 0 {
                    return;
                }
                Event::SyncDirectory
            }
            _ => return,
        };
        self.push(event);
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Reads the files of a directory that nobody has open.
pub fn files_in(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| (file_name(&path), fs::read(&path).unwrap())).collect()
}

/// How to choose what is there of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// Nothing of it.
    Synced,
    /// All of it: what a killed process leaves.
    Everything,
    /// Some of the writes, in any order.
    Writes,
    /// Some of the sectors.
    Sectors,
}

/// A disk with what is written and not yet synced.
#[derive(Debug, Clone)]
pub struct Disk {
    files: Vec<File>,
    /// Which file a name means, on the disk and in memory.
    durable: BTreeMap<String, usize>,
    volatile: BTreeMap<String, usize>,
    /// What each name meant since the directory was last synced, in order.
    pending: BTreeMap<String, Vec<Option<usize>>>,
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    volatile: Vec<u8>,
    pending: Vec<Change>,
    syncs_directory: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
            Self::Truncate(length) => bytes.resize(*length, 0),
        }
    }

    fn is_truncation(&self) -> bool {
        matches!(self, Self::Truncate(_))
    }
}

impl Disk {
    /// A disk on which these files are safe.
    pub fn holding(files: Files) -> Self {
        let names = files.keys().cloned().zip(0..).collect::<BTreeMap<_, _>>();
        let file = |bytes: Vec<u8>| File { durable: bytes.clone(), volatile: bytes, ..File::default() };
        Self {
            files: files.into_values().map(file).collect(),
            durable: names.clone(),
            volatile: names,
            pending: BTreeMap::new(),
        }
    }

    /// Lets an event happen. Returns whether it ought to be followed by a sync of the directory.
    pub fn apply<M>(&mut self, event: &Event<M>) -> bool {
        match event {
            Event::Open { name, syncs_directory } => {
                let index = self.volatile.get(name).copied().unwrap_or_else(|| {
                    self.files.push(File::default());
                    let index = self.files.len() - 1;
                    self.name(name, Some(index));
                    index
                });
                self.files[index].syncs_directory |= syncs_directory;
            }
            Event::Write { name, offset, bytes } => self.change(name, Change::Write(*offset, Arc::clone(bytes))),
            Event::Truncate { name, length } => self.change(name, Change::Truncate(*length)),
            Event::Sync { name } => {
                let file = self.file(name);
                for change in file.pending.drain(..) {
                    change.apply(&mut file.durable);
                }
                return std::mem::take(&mut file.syncs_directory);
            }
            Event::FailedSync { name } => self.file(name).pending.clear(),
            Event::WrittenAgain { name } => {
                let file = self.file(name);
                file.pending.clear();
                file.durable.clone_from(&file.volatile);
            }
            Event::SyncDirectory => {
                self.durable.clone_from(&self.volatile);
                self.pending.clear();
            }
            Event::Delete { name } => self.name(name, None),
            Event::Mark(_) => {}
        }
        false
    }

    fn name(&mut self, name: &str, file: Option<usize>) {
        self.pending.entry(name.to_owned()).or_default().push(file);
        match file {
            Some(file) => self.volatile.insert(name.to_owned(), file),
            None => self.volatile.remove(name),
        };
    }

    fn file(&mut self, name: &str) -> &mut File {
        &mut self.files[self.volatile[name]]
    }

    fn change(&mut self, name: &str, change: Change) {
        let file = self.file(name);
        change.apply(&mut file.volatile);
        file.pending.push(change);
    }

    /// Returns whether there is something to choose.
    pub fn is_unsynced(&self) -> bool {
        !self.pending.is_empty() || self.files.iter().any(|file| !file.pending.is_empty())
    }

    /// Returns what the disk may hold.
    pub fn image(&self, choice: Choice, random: &mut Random) -> Files {
        let mut names = if choice == Choice::Everything { self.volatile.clone() } else { self.durable.clone() };
        if matches!(choice, Choice::Writes | Choice::Sectors) {
            let all = random.below(2) == 0;
            for (name, meanings) in &self.pending {
                let known = if all { meanings.len() } else { random.below(meanings.len() as u64 + 1) as usize };
                match known.checked_sub(1).map(|last| meanings[last]) {
                    Some(Some(file)) => drop(names.insert(name.clone(), file)),
                    Some(None) => drop(names.remove(name)),
                    None => {}
                }
            }
        }
        names.into_iter().map(|(name, file)| (name, self.files[file].image(choice, random))).collect()
    }
}

impl File {
    fn image(&self, choice: Choice, random: &mut Random) -> Vec<u8> {
        match choice {
            Choice::Everything => self.volatile.clone(),
            _ if self.pending.is_empty() => self.durable.clone(),
            Choice::Synced => self.durable.clone(),
            Choice::Writes => self.some_writes(random),
            Choice::Sectors => self.some_sectors(random),
        }
    }

    fn some_writes(&self, random: &mut Random) -> Vec<u8> {
        // Out of a hundred: so that often nearly all is there, or nearly nothing.
        let kept = [10, 50, 90, 97][random.below(4) as usize];
        let mut chosen: Vec<_> = self.pending.iter().filter(|_| random.below(100) < kept).collect();
        for last in (1..chosen.len()).rev() {
            chosen.swap(last, random.below(last as u64 + 1) as usize);
        }
        let mut bytes = self.durable.clone();
        for change in chosen {
            change.apply(&mut bytes);
        }
        bytes
    }

    fn some_sectors(&self, random: &mut Random) -> Vec<u8> {
        // Out of a hundred: how often a sector holds its newest version whatever the chances.
        let newest = [0, 50, 90, 99][random.below(4) as usize];
        // A truncation is there or not, and none before those before it.
        let mut truncations =
            random.below(self.pending.iter().filter(|change| change.is_truncation()).count() as u64 + 1);
        let mut current = self.durable.clone();
        let mut lengths = BTreeSet::from([current.len()]);
        // How many versions each sector has had, and the one chosen.
        let mut versions: BTreeMap<usize, (u64, [u8; SECTOR])> = BTreeMap::new();
        for change in &self.pending {
            let Change::Write(offset, new) = change else {
                if truncations > 0 {
                    truncations -= 1;
                    change.apply(&mut current);
                    // What was behind is not there in any version.
                    drop(versions.split_off(&(current.len() / SECTOR)));
                    lengths = BTreeSet::from([current.len()]);
                }
                continue;
            };
            let sectors = offset / SECTOR..(offset + new.len()).div_ceil(SECTOR);
            for sector in sectors.clone() {
                versions.entry(sector).or_insert_with(|| (1, sector_of(&current, sector)));
            }
            change.apply(&mut current);
            lengths.insert(current.len());
            for sector in sectors {
                let (count, chosen) = versions.get_mut(&sector).expect("entered above");
                *count += 1;
                if random.below(100) < newest || random.below(*count) == 0 {
                    *chosen = sector_of(&current, sector);
                }
            }
        }
        let lengths: Vec<_> = lengths.into_iter().collect();
        let any = lengths[random.below(lengths.len() as u64) as usize];
        let length = if random.below(100) < newest { current.len() } else { any };
        let mut bytes = current;
        bytes.resize(length.next_multiple_of(SECTOR), 0);
        for (sector, (_, chosen)) in versions {
            if let Some(there) = bytes.get_mut(sector * SECTOR..(sector + 1) * SECTOR) {
                there.copy_from_slice(&chosen);
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// A sector of a file; zero where it ends before.
fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut content = [0; SECTOR];
    let there = &bytes[(sector * SECTOR).min(bytes.len())..((sector + 1) * SECTOR).min(bytes.len())];
    content[..there.len()].copy_from_slice(there);
    content
}
