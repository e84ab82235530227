//! Cuts the power at every step of a recording, rebuilds what the disk may hold, and judges it.
//!
//! What was committed, and in which order, the recording says itself: after each of its steps the files as a killed
//! process would leave them hold one state, and these states in their order are the history. What a disk holds after a
//! power cut must be one of them, up to the last and from the first on that keeps every promise made until the cut.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    ops::RangeInclusive,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use sessile_tests::Random;
use tempfile::TempDir;

use crate::{
    clients::{Histories, Mark},
    content::{self, Content},
    disk::{Choice, Disk, Entry, Event, Files},
};

/// How many images of a kind a new one is compared with: what is synced stays the same for many steps.
const RECENT_MAX: usize = 4;

/// The least cuts of a disk that honours syncs, by what is cut: so many are on every run.
pub mod least {
    pub const LIFE: u64 = 1_750;
    pub const FAILED_SYNC: u64 = 1_000;
    pub const MOVED_IN_PART: u64 = 850;
    pub const SYNCED_ENGINE: u64 = 500;
    pub const ONLY_COMMITTED: u64 = 300;
    /// Of a database with a rollback journal, and of one with a log.
    pub const TAKE_OVER: [u64; 2] = [200, 400];

    const _: () = assert!(
        LIFE + FAILED_SYNC + MOVED_IN_PART + SYNCED_ENGINE + ONLY_COMMITTED + TAKE_OVER[0] + TAKE_OVER[1] >= 5_000,
        "5,000 crash points are on every run"
    );
}

/// How many images to make of each kind at each step with something unsynced.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub writes: usize,
    pub sectors: usize,
    /// Every how many images one is given to whoever wants samples; 0 for none.
    pub sample_every: u64,
}

/// What the cuts brought to light.
#[derive(Debug, Default)]
pub struct Findings {
    /// Steps at which the power was cut.
    pub cuts: u64,
    /// Different images, each judged.
    pub images: u64,
    /// Those that lack something that had been answered `Committed`.
    pub images_behind: u64,
    /// The most that one lacks: commits, answers, and the age of the oldest such commit.
    pub behind_commits: usize,
    pub behind_answers: usize,
    pub behind_time: Duration,
    /// States in the history.
    pub states: usize,
    pub samples: u64,
    /// What must not be.
    pub violations: Vec<(Violation, String)>,
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// SQLite finds the database damaged, or the engine's rules are broken in it.
    Corrupt,
    /// A state that was never committed, or not yet.
    NeverCommitted,
    /// Something that was answered `Synced`, flushed or shut down is missing.
    SyncedLost,
    /// A killed process, the power staying on, loses what was answered `Committed`.
    KillLost,
    /// What is committed is not what the clients asked for.
    Wrong,
}

impl Findings {
    pub fn count(&self, violation: Violation) -> usize {
        self.violations.iter().filter(|(kind, _)| *kind == violation).count()
    }

    /// Demands of a disk that honours syncs that it was cut at least so many times, and that nothing was found that must not
    /// be. Prints the sum over all such disks of the process so far: the last line is that of the run.
    pub fn demand_honest(&self, cuts_min: u64) {
        static SUM: Mutex<(u64, u64)> = Mutex::new((0, 0));
        self.demand_none();
        assert!(self.cuts >= cuts_min && self.images >= self.cuts, "hardly anything was cut: {self}");
        let mut sum = SUM.lock().unwrap();
        *sum = (sum.0 + self.cuts, sum.1 + self.images);
        println!("figure: power_honest_disks_so_far cuts={} images={}", sum.0, sum.1);
    }

    /// Demands that nothing was found that must not be.
    pub fn demand_none(&self) {
        let first: Vec<_> = self.violations.iter().take(5).collect();
        assert!(first.is_empty(), "{} violations, the first: {first:#?}\n{self}", self.violations.len());
    }

    pub fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.images += other.images;
        self.images_behind += other.images_behind;
        self.behind_commits = self.behind_commits.max(other.behind_commits);
        self.behind_answers = self.behind_answers.max(other.behind_answers);
        self.behind_time = self.behind_time.max(other.behind_time);
        self.states += other.states;
        self.samples += other.samples;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |violation| self.count(violation);
        write!(
            formatter,
            "cuts={} images={} commits={} corrupt={} never_committed={} synced_lost={} kill_lost={} wrong={} \
             images_behind={} committed_lost_commits_max={} committed_lost_answers_max={} committed_lost_ms_max={} \
             engine_samples={}",
            self.cuts,
            self.images,
            self.states,
            count(Violation::Corrupt),
            count(Violation::NeverCommitted),
            count(Violation::SyncedLost),
            count(Violation::KillLost),
            count(Violation::Wrong),
            self.images_behind,
            self.behind_commits,
            self.behind_answers,
            self.behind_time.as_millis(),
            self.samples,
        )
    }
}

/// A recording to cut.
pub struct Recording<'a> {
    /// The files before it.
    pub start: Files,
    pub log: &'a [Entry<Mark>],
    pub histories: &'a Histories,
}

/// Looks at an image in a directory, whose content is known.
pub type Sample<'a> = &'a mut dyn FnMut(&Path, &Content);

/// Cuts the power at each step.
pub fn cut(recording: &Recording<'_>, plan: Plan, random: &mut Random, sample: Sample<'_>) -> Findings {
    let mut cutter = Cutter {
        histories: recording.histories,
        states: Vec::new(),
        by_digest: HashMap::new(),
        floor: 0,
        answered: BTreeMap::new(),
        touched: BTreeMap::new(),
        recent: BTreeMap::new(),
        scratch: scratch(),
        findings: Findings::default(),
        place: (0, String::new()),
        sample_every: plan.sample_every,
        sample,
    };
    let mut disk = Disk::holding(recording.start.clone());
    let begin = recording.log.first().map_or_else(Instant::now, |entry| entry.at);
    cutter.advance(&disk, begin, random);
    for (index, entry) in recording.log.iter().enumerate() {
        cutter.place = (index, format!("{:?}", Brief(&entry.event)));
        if let Event::Mark(mark) = &entry.event {
            cutter.note(mark);
            continue;
        }
        let syncs_directory = disk.apply(&entry.event);
        cutter.step(&disk, entry.at, plan, random);
        if syncs_directory {
            disk.apply(&Event::<Mark>::SyncDirectory);
            cutter.step(&disk, entry.at, plan, random);
        }
    }
    cutter.findings.states = cutter.states.len();
    cutter.findings
}

/// Returns a directory in memory, where there is one.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary directory")
}

/// A state of the history.
struct State {
    content: Content,
    /// When it was committed.
    at: Instant,
    /// How far each client's operations are in it. Several are alike where some had not happened.
    progress: BTreeMap<usize, RangeInclusive<usize>>,
    /// The clients of whom it shows something that was in doubt and then had not happened: it keeps no promise.
    doubtful: BTreeSet<usize>,
}

impl State {
    fn reached(&self, client: usize) -> usize {
        self.progress.get(&client).map_or(0, |reached| *reached.end())
    }
}

struct Cutter<'a> {
    histories: &'a Histories,
    states: Vec<State>,
    by_digest: HashMap<u64, Vec<usize>>,
    /// The first state that keeps every promise so far.
    floor: usize,
    /// Each client's operations and touches that were answered.
    answered: BTreeMap<usize, usize>,
    touched: BTreeMap<usize, u64>,
    /// The last images of each kind, with the floor at that time.
    recent: BTreeMap<Choice, VecDeque<(usize, Files)>>,
    scratch: TempDir,
    findings: Findings,
    /// The step in hand.
    place: (usize, String),
    sample_every: u64,
    sample: Sample<'a>,
}

impl Cutter<'_> {
    /// Cuts the power here.
    fn step(&mut self, disk: &Disk, at: Instant, plan: Plan, random: &mut Random) {
        self.findings.cuts += 1;
        self.advance(disk, at, random);
        if !disk.is_unsynced() {
            return;
        }
        let several = [(Choice::Synced, 1), (Choice::Writes, plan.writes), (Choice::Sectors, plan.sectors)];
        for (choice, times) in several {
            for _ in 0..times {
                self.judge(&disk.image(choice, random), choice, at);
            }
        }
    }

    /// Looks at what a killed process leaves: the newest state, or the next one.
    fn advance(&mut self, disk: &Disk, at: Instant, random: &mut Random) {
        let image = disk.image(Choice::Everything, random);
        if !self.is_new(&image, Choice::Everything) {
            return;
        }
        match self.open(&image) {
            Err(why) => self.complain(Violation::Corrupt, format!("after a kill: {why}")),
            Ok(content) if self.states.last().is_some_and(|last| last.content.digest == content.digest) => {}
            Ok(content) => {
                let (mut progress, mut doubtful, mut wrong) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
                for (client, history) in &self.histories.kept {
                    let none = BTreeMap::new();
                    let kept = content.kept.get(client).unwrap_or(&none);
                    let from = self.states.last().and_then(|last| last.progress.get(client));
                    let from = from.map_or(0, |reached| *reached.start());
                    // One after the other: nothing past the one after the last that was answered can be there yet.
                    let in_flight = self.answered.get(client).map_or(1, |answered| answered + 1);
                    let reached = if self.histories.doubts.get(&(*client, in_flight)) == Some(kept) {
                        doubtful.insert(*client);
                        in_flight..=in_flight
                    } else {
                        let there = (from..=in_flight).find(|at| history.get(*at) == Some(kept));
                        if there.is_none() {
                            wrong.push(format!("client {client} was at {from} ({:?}), now {kept:?}", history[from]));
                        }
                        let first = there.unwrap_or(from);
                        let alike = history[first..].iter().take_while(|other| **other == history[first]);
                        first..=first + alike.count() - 1
                    };
                    progress.insert(*client, reached);
                }
                for what in wrong {
                    self.complain(Violation::Wrong, what);
                }
                self.by_digest.entry(content.digest).or_default().push(self.states.len());
                self.states.push(State { content, at, progress, doubtful });
            }
        }
    }

    /// Counts an image, unless it is one of the last of its kind and no promise was made since.
    fn is_new(&mut self, image: &Files, choice: Choice) -> bool {
        let recent = self.recent.entry(choice).or_default();
        if recent.iter().any(|(floor, other)| *floor == self.floor && other == image) {
            return false;
        }
        recent.truncate(RECENT_MAX - 1);
        recent.push_front((self.floor, image.clone()));
        self.findings.images += 1;
        true
    }

    /// Lets SQLite recover an image, and reads it.
    fn open(&mut self, image: &Files) -> Result<Content, String> {
        content::put(image, self.scratch.path());
        let connection = content::connect(self.scratch.path()).map_err(|error| error.to_string())?;
        let digest = content::digest(&connection)?;
        let known = self.by_digest.get(&digest).and_then(|states| states.last());
        let content = match known {
            Some(state) => self.states[*state].content.clone(),
            None => content::read(&connection, digest)?,
        };
        drop(connection);
        if self.sample_every > 0 && self.findings.images.is_multiple_of(self.sample_every) {
            content::put(image, self.scratch.path());
            (self.sample)(self.scratch.path(), &content);
            self.findings.samples += 1;
        }
        Ok(content)
    }

    fn judge(&mut self, image: &Files, choice: Choice, at: Instant) {
        if !self.is_new(image, choice) {
            return;
        }
        let content = match self.open(image) {
            Err(why) => return self.complain(Violation::Corrupt, format!("{choice:?}: {why}")),
            Ok(content) => content,
        };
        let Some(found) = self.by_digest.get(&content.digest).and_then(|states| states.last()).copied() else {
            let what = format!("{choice:?}: kept {:?}, lazy {:?}", content.kept, content.lazy);
            return self.complain(Violation::NeverCommitted, what);
        };
        if found < self.floor {
            let what = format!("{choice:?}: state {found}, promised {} of {}", self.floor, self.states.len());
            return self.complain(Violation::SyncedLost, what);
        }
        let Some(next) = self.states.get(found + 1) else { return };
        let lost = |(client, answered): (&usize, &usize)| answered.saturating_sub(self.states[found].reached(*client));
        let answers = self.answered.iter().map(lost).sum();
        let commits = self.states.len() - 1 - found;
        let findings = &mut self.findings;
        findings.images_behind += u64::from(answers > 0);
        findings.behind_answers = findings.behind_answers.max(answers);
        findings.behind_commits = findings.behind_commits.max(commits);
        findings.behind_time = findings.behind_time.max(at - next.at);
    }

    /// Takes a promise down, and checks that a kill now would not break it.
    fn note(&mut self, mark: &Mark) {
        let kept: Box<dyn Fn(&State) -> bool> = match mark {
            Mark::Opened => Box::new(|state| state.content.is_ours),
            Mark::Acknowledged { client, operation, synced: _ } => {
                self.answered.insert(*client, *operation);
                Box::new(|state| state.reached(*client) >= *operation)
            }
            Mark::Touched { client, count } => {
                self.touched.insert(*client, *count);
                return;
            }
            Mark::Flushed(before) => Box::new(|state| {
                before.iter().all(|(client, (operation, touches))| {
                    state.reached(*client) >= *operation && state.content.lazy.get(client).unwrap_or(&0) >= touches
                })
            }),
        };
        let Some(last) = self.states.last().filter(|last| kept(last)) else {
            return self.complain(Violation::KillLost, format!("{mark:?}"));
        };
        for (client, count) in &last.content.lazy {
            // One may be counted and not answered yet.
            if *count > self.touched.get(client).copied().unwrap_or(0) + 1 {
                let what = format!("client {client} was answered {:?} touches, {count} are counted", self.touched);
                return self.complain(Violation::Wrong, what);
            }
        }
        if !matches!(mark, Mark::Acknowledged { synced: false, .. }) {
            let mut states = (self.floor..self.states.len()).filter(|state| kept(&self.states[*state]));
            let first = states.clone().find(|state| self.states[*state].doubtful.is_empty()).or_else(|| states.next());
            self.floor = first.expect("the last does").max(self.floor);
        }
    }

    fn complain(&mut self, violation: Violation, what: impl fmt::Display) {
        let (index, event) = &self.place;
        self.findings.violations.push((violation, format!("step {index}, {event}: {what}")));
    }
}

/// An event without its bytes.
struct Brief<'a>(&'a Event<Mark>);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Write { name, offset, bytes } => write!(formatter, "write {name} {offset}+{}", bytes.len()),
            other => other.fmt(formatter),
        }
    }
}
