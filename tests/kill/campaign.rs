//! Kill after kill on one file, with a ledger that is kept across them.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use sessile::Engine;
use sessile_tests::{
    PATIENCE, Place, Random,
    load::{End, Found, Ledger, Totals, read_all},
};
use tokio::runtime::Runtime;

use crate::child::{Child, Dead, Options, died_in_checkpoint, log_reaches};

/// Touches so close together count as one moment.
const BUCKET_US: u64 = 2_000;
/// Kills before a new file is begun, so that some hit the making of one.
const KILLS_PER_FILE: u64 = 10;
/// The size of the log at which the engine begins a checkpoint while commands wait, less a little.
const LOG_BYTES_NEARLY_FULL: u64 = 31 << 20;
/// How long a load may take to fill the log before it is killed all the same.
const FILL: Duration = Duration::from_secs(4);
/// A little less than the time without writes after which the engine folds saves and moves the log. Flushes write.
const NEARLY_QUIET: Duration = Duration::from_millis(480);

/// The moment that a kill is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aim {
    /// While the file is opened, or made.
    Open,
    /// Under load.
    Load,
    /// When the log is full: in the checkpoint then, or about it.
    FullLog,
    /// When saves are folded and the log is moved, after the load has gone, or about it.
    Quiet,
    /// During a shutdown under load.
    Shutdown,
}

/// What a campaign is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) aim: Option<Aim>,
    /// What the children are told; `None` for one of several.
    pub(crate) flush_interval: Option<Duration>,
    /// What the ledger takes the flush interval to be, where the children are told another.
    pub(crate) flush_interval_claimed: Option<Duration>,
    /// The more there are, the less is written to each.
    pub(crate) sessions_per_client: u32,
    /// How long a load goes on before it is killed; `None` for a random time.
    pub(crate) load: Option<Duration>,
    pub(crate) lies: bool,
    pub(crate) engine_wide: Option<bool>,
    /// Whether a file may be killed again before it is looked at.
    pub(crate) again: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            aim: None,
            flush_interval: None,
            flush_interval_claimed: None,
            sessions_per_client: SESSIONS_PER_CLIENT,
            load: None,
            lies: false,
            engine_wide: None,
            again: true,
        }
    }
}

/// Kills and judges.
pub(crate) struct Campaign {
    random: Random,
    plan: Plan,
    runtime: Runtime,
    place: Place,
    ledger: Ledger,
    next_op: u64,
    /// How long an opening takes.
    opening: Duration,
    /// How the load of an earlier child ended that is not judged yet.
    unjudged: Option<End>,
    pub(crate) kills: u64,
    /// Kills by what they were aimed at.
    pub(crate) aimed: std::collections::BTreeMap<Aim, u64>,
    /// Kills that left a checkpoint half done.
    pub(crate) in_checkpoint: u64,
    pub(crate) totals: Vec<Totals>,
    /// From the begin of opening to the first answer.
    pub(crate) recoveries: Vec<Duration>,
}

const CLIENTS: u32 = 12;
const SESSIONS_PER_CLIENT: u32 = 10;

impl Campaign {
    pub(crate) fn new(random: Random, plan: Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        Self {
            random,
            runtime: runtime.expect("a runtime"),
            place: Place::new(),
            ledger: new_ledger(&plan),
            plan,
            next_op: 1,
            opening: Duration::from_millis(30),
            unjudged: None,
            kills: 0,
            aimed: std::collections::BTreeMap::new(),
            in_checkpoint: 0,
            totals: Vec::new(),
            recoveries: Vec::new(),
        }
    }

    /// Kills once; judges, most times. Returns what is wrong.
    pub(crate) fn round(&mut self) -> Vec<String> {
        if self.kills > 0 && self.kills.is_multiple_of(KILLS_PER_FILE) {
            let wrong = self.finish();
            if !wrong.is_empty() {
                return wrong;
            }
            (self.place, self.ledger) = (Place::new(), new_ledger(&self.plan));
        }
        let aim = self.aim();
        let (flush_interval, options) = self.options(aim);
        let dead = self.kill(aim, &options);
        self.kills += 1;
        *self.aimed.entry(aim).or_default() += 1;
        self.in_checkpoint += u64::from(died_in_checkpoint(&self.place.path()));
        self.next_op = dead.last_op(self.next_op) + 1;
        let flush_interval = self.plan.flush_interval_claimed.unwrap_or(flush_interval);
        let flush_interval_us = u64::try_from(flush_interval.as_micros()).expect("it is short");
        let end = End::Kill { at_us: dead.at_us, flush_interval_us };
        if options.clients > 0 {
            self.unjudged = Some(end);
        }
        for entry in dead.entries {
            self.ledger.enter(entry);
        }
        if self.plan.again && self.random.below(4) == 0 {
            // The next child opens a file that nobody has opened since, and is killed as it does.
            return Vec::new();
        }
        self.judge()
    }

    /// Judges what is still to be judged, and closes the account of this file.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        let wrong = self.judge();
        self.totals.push(self.ledger.totals());
        wrong
    }

    fn aim(&mut self) -> Aim {
        let chosen = self.random.below(100);
        match self.plan.aim {
            Some(aim) => aim,
            None if self.unjudged.is_some() => Aim::Open,
            None => match chosen {
                0..15 => Aim::Open,
                15..25 => Aim::FullLog,
                25..35 => Aim::Quiet,
                35..50 => Aim::Shutdown,
                _ => Aim::Load,
            },
        }
    }

    fn options(&mut self, aim: Aim) -> (Duration, Options) {
        let intervals = [20, 50, 250].map(Duration::from_millis);
        let chosen = intervals[usize::try_from(self.random.below(3)).expect("below 3")];
        // The last flush after the load has gone is to come soon, and at a known time.
        let chosen = if aim == Aim::Quiet { intervals[0] } else { chosen };
        let flush_interval = self.plan.flush_interval.unwrap_or(chosen);
        let is_fat = aim == Aim::FullLog;
        let options = Options {
            seed: self.random.next(),
            first_op: self.next_op,
            flush_interval,
            clients: if self.unjudged.is_some() { 0 } else { CLIENTS },
            sessions_per_client: self.plan.sessions_per_client,
            pad_max: if is_fat { 60_000 } else { 1_500 },
            engine_wide: self.plan.engine_wide.unwrap_or(self.random.below(3) == 0),
            lies: self.plan.lies,
            load: (aim == Aim::Quiet).then(|| Duration::from_millis(200)),
            reader: false,
        };
        (flush_interval, options)
    }

    fn kill(&mut self, aim: Aim, options: &Options) -> Dead {
        let path = self.place.path();
        let started = Instant::now();
        let mut child = Child::spawn(&path, options);
        if aim == Aim::Open {
            self.pause(self.opening);
            return child.kill();
        }
        child.ready();
        self.opening = (self.opening + started.elapsed()) / 2;
        match aim {
            Aim::Open => unreachable!("it is killed already"),
            Aim::Load => match self.plan.load {
                Some(load) => std::thread::sleep(load),
                None => self.pause(Duration::from_millis(600)),
            },
            Aim::FullLog => {
                log_reaches(&path, LOG_BYTES_NEARLY_FULL, FILL);
                self.pause(Duration::from_millis(60));
            }
            Aim::Quiet => {
                std::thread::sleep(options.load.unwrap_or_default() + options.flush_interval + NEARLY_QUIET);
                self.pause(Duration::from_millis(80));
            }
            Aim::Shutdown => {
                self.pause(Duration::from_millis(300));
                child.shut_down();
                let closing = child.milestone(PATIENCE);
                assert!(closing.is_some(), "it begins to shut down");
                self.pause(Duration::from_millis(60));
            }
        }
        child.kill()
    }

    /// Lets a random part of this time pass.
    fn pause(&mut self, most: Duration) {
        let most_us = u64::try_from(most.as_micros()).expect("it is short");
        std::thread::sleep(Duration::from_micros(self.random.below(most_us + 1)));
    }

    fn judge(&mut self) -> Vec<String> {
        let path = self.place.path();
        let began = Instant::now();
        let (recovery, found) = self.runtime.block_on(async {
            // At once: a lock that the dead process still held would be a fault.
            let engine = Engine::builder(&path).open().await.expect("it opens after a kill");
            engine.session("k0").expect("a valid id").get().await.expect("it answers");
            let recovery = began.elapsed();
            let records = read_all(&engine).await.expect("every row can be read");
            engine.shutdown().await.expect("it shuts down");
            (recovery, records.iter().map(Found::read).collect::<Result<Vec<_>, _>>())
        });
        self.recoveries.push(recovery);
        let mut wrong = self.look_inside();
        match found {
            Err(error) => wrong.push(error),
            Ok(found) => {
                // Without a load nothing was to be lost.
                let end = self.unjudged.take().unwrap_or(End::Shutdown);
                wrong.extend(self.ledger.judge(end, &found));
            }
        }
        wrong
    }

    /// Looks at the file without the engine.
    fn look_inside(&self) -> Vec<String> {
        let connection = Connection::open(self.place.path()).expect("the file opens");
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it runs");
        let mut wrong = Vec::new();
        if check != "ok" {
            wrong.push(check);
        }
        for (what, sql) in [
            (
                "rows without their other half",
                "SELECT (SELECT count(*) FROM session WHERE serial NOT IN (SELECT serial FROM activity))
                    + (SELECT count(*) FROM activity WHERE serial NOT IN (SELECT serial FROM session))",
            ),
            (
                "rows with numbers that may be given again",
                "SELECT count(*) FROM session WHERE serial >= (SELECT value FROM meta WHERE key = 'serial_next')",
            ),
        ] {
            let rows: i64 = connection.query_row(sql, [], |row| row.get(0)).expect("it runs");
            if rows != 0 {
                wrong.push(format!("{what}: {rows}"));
            }
        }
        wrong
    }
}

fn new_ledger(plan: &Plan) -> Ledger {
    Ledger::new(CLIENTS, CLIENTS * plan.sessions_per_client, BUCKET_US)
}
