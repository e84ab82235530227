//! The storage thread: receives commands, makes batches, runs the worker, and outlives its faults (rule R17).
//!
//! ```text
//!   STARTING ──▶ RUNNING ──panic, COMMIT in doubt, failed sync──▶ RECOVERING ──▶ RUNNING
//!                   │                                               │   └─too often─▶ FAILED
//!                   └────────────── Shutdown, or nobody left ───────┴──▶ CLOSED ◀──────┘
//! ```
//!
//! The outer loop owns the mailbox's end, the worker's tables and the batch in hand, and runs the rest under
//! `catch_unwind`; so the queue survives what befalls a batch, and every request in the batch is answered.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    admission::Admission,
    backend::Backend,
    batch::Batch,
    clock::{EngineClock, micros},
    command::Command,
    error::{Cause, CauseKind, Error, InterruptedBy, OpenError},
    health::Phase,
    mailbox::{Inbox, Mailbox, Received, mailbox},
    panic::contain,
    shared::{Shared, Work},
    worker::{Broken, Settings, Worker},
};

/// The first pause before the connection is opened anew; doubled at each failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What an attempt may take.
const REOPEN_TIME: Duration = Duration::from_millis(50);
/// Attempts to reopen before the thread gives up: half a minute of trouble.
const REOPEN_ATTEMPTS_MAX: u32 = 36;
/// Faults in a row, none of whose connections committed anything, before the thread gives up.
const FAULTS_IN_A_ROW_MAX: u32 = 8;

/// How long the thread looks for the next command before it sleeps: what going to sleep and being woken costs.
const WATCH: Duration = Duration::from_micros(30);
/// A wait is short that a watch would have spared: being woken is a part of it.
const SHORT_WAIT: Duration = Duration::from_micros(100);
/// Short waits in a row after which the thread watches. Random arrivals seldom have as many, and a watch in vain ends it.
const SHORT_WAITS: u32 = 8;

/// What the storage thread tells its observer.
#[derive(Debug, Clone)]
pub enum Event {
    /// The connection is given up, because of this.
    Recovering(Cause),
    /// The connection is open again.
    Recovered,
    /// The thread has given up.
    Failed(Cause),
    /// The thread has ended; what went wrong at the end, if anything.
    Closed(Option<Cause>),
}

/// What the thread is made of.
pub struct Parts<B> {
    /// Opens the database, on the thread.
    pub open: Box<dyn FnOnce() -> Result<B, OpenError> + Send>,
    /// What the worker goes by.
    pub settings: Settings,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The bound on what is in flight. `Shutdown` comes when it is closed and nothing is.
    pub admission: Arc<Admission>,
    /// What others may read.
    pub shared: Arc<Shared>,
    /// Hears whether the database opened.
    pub opened: Box<dyn FnOnce(Result<(), OpenError>) + Send>,
    /// Hears what becomes of the thread.
    pub observer: Box<dyn Fn(Event) + Send>,
}

/// Starts the thread.
pub fn spawn<B: Backend + 'static>(parts: Parts<B>) -> std::io::Result<(Mailbox<Command>, JoinHandle<()>)> {
    let (sender, inbox) = mailbox();
    let thread = std::thread::Builder::new().name("sessile-storage".to_owned());
    Ok((sender, thread.spawn(move || run(parts, inbox))?))
}

fn run<B: Backend>(parts: Parts<B>, inbox: Inbox<Command>) {
    let Parts { open, settings, clock, admission, shared, opened, observer } = parts;
    // Whatever ends this function, nobody takes the thread for alive.
    let _closed = ClosedGuard(Arc::clone(&shared));
    let make = || {
        let (clock, shared) = (Arc::clone(&clock), Arc::clone(&shared));
        Worker::new(open()?, settings, clock, shared).map_err(|cause| OpenError::Storage { cause })
    };
    // In the application's clock or subscriber, say: it is told, like any other reason not to open.
    let worker = match contain(make).unwrap_or_else(|text| Err(OpenError::Storage { cause: panicked(&text) })) {
        Ok(worker) => worker,
        Err(error) => return opened(Err(error)),
    };
    opened(Ok(()));
    let mut thread = Thread {
        worker,
        inbox,
        waiting: VecDeque::new(),
        batch: Batch::new(),
        admission,
        shared,
        clock,
        observer,
        rhythm: Rhythm::default(),
        is_over: false,
    };
    // Nobody waits for an end that is not told, whatever panics on the way to it.
    let trouble = contain(|| thread.run()).unwrap_or_else(|text| Some(panicked(&text)));
    let Thread { worker, observer, shared, .. } = thread;
    // Closes the connection and unlocks the file, before anybody hears of the end.
    drop(worker);
    if let Some(cause) = &trouble {
        shared.closed_with(cause.clone());
    }
    shared.vitals.enter(Phase::Closed);
    observer(Event::Closed(trouble));
}

struct ClosedGuard(Arc<Shared>);

impl Drop for ClosedGuard {
    fn drop(&mut self) {
        self.0.vitals.enter(Phase::Closed);
    }
}

/// What outlives a fault.
struct Thread<B> {
    worker: Worker<B>,
    inbox: Inbox<Command>,
    /// Taken from the mailbox and not yet in a batch.
    waiting: VecDeque<Command>,
    /// In hand: on a fault, answered `Interrupted`.
    batch: Batch,
    admission: Arc<Admission>,
    shared: Arc<Shared>,
    clock: Arc<EngineClock>,
    observer: Box<dyn Fn(Event) + Send>,
    rhythm: Rhythm,
    /// `Shutdown` has come: nothing is in flight, and nothing can come any more.
    is_over: bool,
}

/// How fast commands follow one another: whether the thread does better to stay awake for the next one.
///
/// A caller who does one thing after another sends the next command a moment after the last answer; to sleep in between
/// costs both more than the moment. Who comes at random moments is worth no watch.
#[derive(Debug, Default)]
struct Rhythm {
    /// Short waits in a row.
    short: u32,
}

impl Rhythm {
    /// Returns how long to look into the mailbox before going to sleep.
    fn watch(&self) -> Duration {
        if self.short >= SHORT_WAITS { WATCH } else { Duration::ZERO }
    }

    /// Notes how long it took until a command came.
    fn came_after(&mut self, waited: Duration) {
        let is_watching = self.short >= SHORT_WAITS;
        let is_short = waited < if is_watching { WATCH } else { SHORT_WAIT };
        self.short = if is_short { (self.short + 1).min(SHORT_WAITS) } else { 0 };
    }
}

/// How a pause of recovery ended.
enum Pause {
    Over,
    Close,
}

impl<B: Backend> Thread<B> {
    /// Serves until the end; returns what went wrong there.
    fn run(&mut self) -> Option<Cause> {
        let mut faults = 0;
        loop {
            let commits = self.shared.counters.commits.read();
            let mut broken = match contain(|| self.serve()) {
                Ok(Ok(())) => break,
                Ok(Err(broken)) => broken,
                Err(text) => died(&text),
            };
            let has_worked = self.shared.counters.commits.read() > commits;
            faults = if has_worked { 1 } else { faults + u32::from(!passes(broken.cause.kind)) };
            loop {
                match contain(|| self.recover(broken, faults)) {
                    Ok(Ok(())) => break,
                    Ok(Err(cause)) => return Some(self.fail(cause)),
                    // In the application's clock or subscriber, say. It counts as one more fault.
                    Err(text) => broken = died(&text),
                }
                faults += 1;
                if faults > FAULTS_IN_A_ROW_MAX {
                    return Some(self.fail(broken.cause));
                }
            }
        }
        match contain(|| self.worker.close()) {
            Ok(Ok(())) => None,
            Ok(Err(cause)) => Some(cause),
            Err(text) => Some(panicked(&text)),
        }
    }

    /// Receives and runs batches. Returns at the end, or when the connection must be given up.
    fn serve(&mut self) -> Result<(), Broken> {
        loop {
            if self.waiting.is_empty() && !self.receive() {
                return Ok(());
            }
            self.make_batch();
            if !self.batch.commands.is_empty() {
                let run = self.worker.run(&mut self.batch.commands);
                // Whoever was not answered is in the batch still: the fault's business.
                run?;
                self.batch.clear();
            }
            self.worker.tick(&mut self.batch.commands)?;
            if self.is_over {
                return Ok(());
            }
        }
    }

    /// Waits for a command or for the next timer. Returns false at the end.
    fn receive(&mut self) -> bool {
        let began = Instant::now();
        let idle = Duration::from_micros(self.worker.idle_for().cast_unsigned());
        let watched = self.watch(began, self.rhythm.watch().min(idle));
        match watched.unwrap_or_else(|| self.inbox.receive(began.checked_add(idle))) {
            Received::Command(command) => {
                self.rhythm.came_after(began.elapsed());
                self.waiting.push_back(command);
            }
            Received::TimedOut => {}
            Received::Disconnected => return false,
        }
        true
    }

    /// Looks for a command without going to sleep.
    fn watch(&self, began: Instant, watch: Duration) -> Option<Received<Command>> {
        while began.elapsed() < watch {
            match self.inbox.try_receive() {
                Received::TimedOut => std::hint::spin_loop(),
                received => return Some(received),
            }
        }
        None
    }

    /// Moves what waits into a batch, up to its bounds; what stands alone comes alone.
    fn make_batch(&mut self) {
        while !self.batch.is_full() {
            let command = match self.waiting.pop_front() {
                Some(command) => command,
                None => match self.inbox.try_receive() {
                    Received::Command(command) => command,
                    Received::TimedOut | Received::Disconnected => return,
                },
            };
            match command {
                Command::Dirty => self.worker.flush_soon(),
                Command::Retire(held) => self.worker.release(&held),
                Command::CheckForeign => self.worker.look_for_foreign_writes(),
                Command::Shutdown => self.is_over = true,
                #[cfg(feature = "testing")]
                Command::Fault(fault) => self.worker.order(fault),
                command => {
                    if let Err(command) = self.batch.push(command) {
                        self.waiting.push_front(command);
                        return;
                    }
                    self.shared.counters.commands.add(1);
                }
            }
        }
    }

    /// Gives the connection up and opens another.
    fn recover(&mut self, broken: Broken, faults: u32) -> Result<(), Cause> {
        let Broken { cause, by } = broken;
        tracing::error!(%cause, code = cause.code, "the connection is given up");
        let vitals = &self.shared.vitals;
        vitals.next_generation();
        vitals.enter(Phase::Recovering);
        self.shared.counters.restarts.add(1);
        self.shared.trouble(Work::Writing, &cause, self.clock.now());
        for command in self.batch.commands.drain(..) {
            command.refuse(Error::Interrupted { by });
        }
        self.batch.clear();
        (self.observer)(Event::Recovering(cause.clone()));
        if faults >= FAULTS_IN_A_ROW_MAX {
            return Err(cause);
        }
        let mut pause = BACKOFF_FIRST;
        let mut last = cause;
        let mut attempts = 0;
        while attempts < REOPEN_ATTEMPTS_MAX {
            match contain(|| self.worker.reopen()) {
                Ok(Ok(())) => {
                    self.shared.vitals.next_generation();
                    self.shared.vitals.enter(Phase::Running);
                    self.shared.recovered();
                    (self.observer)(Event::Recovered);
                    return Ok(());
                }
                Ok(Err(cause)) => last = cause,
                Err(text) => last = panicked(&text),
            }
            tracing::warn!(cause = %last, "the database cannot be opened again yet");
            if !self.worker.is_durable() || last.kind == CauseKind::Replaced {
                break;
            }
            if let Pause::Close = self.pause(pause, &last) {
                break;
            }
            pause = (pause * 2).min(BACKOFF_MAX);
            attempts += u32::from(!passes(last.kind));
        }
        Err(last)
    }

    /// Waits, collects what comes, and answers what cannot wait until the next attempt is made.
    fn pause(&mut self, pause: Duration, cause: &Cause) -> Pause {
        let until = Instant::now() + pause;
        let ends = self.clock.monotonic().saturating_add(micros(pause + REOPEN_TIME));
        // Before its caller gives up by itself, and takes for in doubt what nobody has begun with.
        let hold = |waiting: &mut VecDeque<Command>, mut command: Command| {
            if command.reply_mut().is_some_and(|reply| reply.deadline() <= ends) {
                command.refuse(unavailable(cause));
            } else {
                waiting.push_back(command);
            }
        };
        for command in std::mem::take(&mut self.waiting) {
            hold(&mut self.waiting, command);
        }
        let mut is_past = false;
        while !is_past {
            match self.inbox.receive(Some(until)) {
                Received::Command(Command::Shutdown) | Received::Disconnected => self.is_over = true,
                Received::Command(command) => hold(&mut self.waiting, command),
                Received::TimedOut => is_past = true,
            }
            // What waits here keeps `Shutdown` from coming.
            if self.is_over || self.admission.is_closed() {
                return Pause::Close;
            }
        }
        Pause::Over
    }

    /// Answers everything `Unavailable` until the end, of which it returns the cause.
    fn fail(&mut self, cause: Cause) -> Cause {
        self.shared.vitals.next_generation();
        self.shared.vitals.enter(Phase::Failed);
        // It may be the clock or the subscriber that fails.
        let since = contain(|| self.clock.now()).unwrap_or_default();
        drop(contain(|| self.shared.trouble(Work::Writing, &cause, since)));
        drop(contain(|| tracing::error!(%cause, "storage has given up")));
        (self.observer)(Event::Failed(cause.clone()));
        for command in self.batch.commands.drain(..) {
            command.refuse(Error::Interrupted { by: InterruptedBy::StorageDied });
        }
        for command in self.worker.give_up().chain(self.waiting.drain(..)) {
            command.refuse(unavailable(&cause));
        }
        while !self.is_over {
            match self.inbox.receive(None) {
                Received::Command(Command::Shutdown) | Received::Disconnected => self.is_over = true,
                Received::Command(command) => command.refuse(unavailable(&cause)),
                Received::TimedOut => {}
            }
        }
        cause
    }
}

/// Returns whether such a trouble ends by itself or by an operator's hand: then giving up would be worse.
fn passes(kind: CauseKind) -> bool {
    matches!(kind, CauseKind::Full | CauseKind::Busy)
}

fn unavailable(cause: &Cause) -> Error {
    let message = format!("storage is reopening: {cause}").into();
    Error::Unavailable { cause: Cause { kind: CauseKind::Recovering, code: cause.code, message } }
}

fn panicked(text: &str) -> Cause {
    Cause::new(CauseKind::Other, format_args!("the storage thread panicked: {text}"))
}

fn died(text: &str) -> Broken {
    Broken { cause: panicked(text), by: InterruptedBy::StorageDied }
}
