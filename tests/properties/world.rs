//! The engine beside the model: every operation is asked of both, and their answers compared.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use sessile::{
    Change, Engine, Error, Filter, NewSession, Order, Query, Result, Serial, Session, Summary, Timestamp, Version,
    testing::{Faults, ManualClock},
};
use sessile_tests::{START, soon};
use tempfile::TempDir;

use crate::{
    asked::{change, durability, json, open, shifted},
    model::{Flaw, Model, Refusal, SECOND, Session as Modelled},
    operation::{Conditions, Data, IDS, Operation, Options, Set, USERS, WORDS},
};

/// Faults of one run: more find nothing new, and each costs a reopening.
const FAULTS_MAX: u32 = 4;
/// By what time must move on so that the engine looks at the wall: it does so every 50 ms.
const WALL_LOOK: i64 = 60_000;

/// What differs, in words.
pub(crate) type Verdict = Result<(), String>;

/// Leaves the function if two values differ.
macro_rules! same {
    ($what:expr, $actual:expr, $expected:expr) => {
        let (actual, expected) = (&$actual, &$expected);
        if actual != expected {
            return Err(format!("{}: {actual:?}, not {expected:?}", $what));
        }
    };
}

pub(crate) use same;

/// An engine, its model, and what is known of both.
pub(crate) struct World {
    pub(crate) engine: Engine,
    clock: Arc<ManualClock>,
    directory: TempDir,
    pub(crate) model: Model,
    /// The ids by their numbers.
    pub(crate) names: Vec<String>,
    handles: HashMap<usize, Session>,
    /// Versions by the states that they stand for.
    pub(crate) versions: BTreeMap<u64, Version>,
    /// Serials by the order of birth.
    pub(crate) serials: BTreeMap<u64, Serial>,
    /// A fault is ordered and has not come yet.
    is_armed: bool,
    restarts: u64,
    faults: u32,
}

/// What became of a request.
enum Came<T> {
    Answer(Result<T>),
    /// By a fault that was ordered.
    Interrupted,
}

impl World {
    pub(crate) async fn open(options: Options, flaw: Option<Flaw>) -> Self {
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let engine = open(&directory, &clock, &options).await;
        Self {
            engine,
            clock,
            directory,
            model: Model::new(options, START.as_micros(), flaw),
            names: IDS.map(str::to_owned).to_vec(),
            handles: HashMap::new(),
            versions: BTreeMap::new(),
            serials: BTreeMap::new(),
            is_armed: false,
            restarts: 0,
            faults: 0,
        }
    }

    /// Asks an operation of both.
    pub(crate) async fn perform(&mut self, operation: &Operation) -> Verdict {
        match operation {
            Operation::Create { name, sets, or_existing } => self.create(*name, sets, *or_existing).await,
            Operation::Get { name } => self.get(self.known(*name)).await,
            Operation::Touch { name } => {
                let session = self.session(*name);
                let came = self.came(session.touch().await);
                self.touched(*name, came).await
            }
            Operation::TouchWith { name, synced } => {
                let session = self.session(*name);
                let came = self.came(session.touch_with(durability(*synced)).await);
                self.touched(*name, came).await
            }
            Operation::Save { name, data, synced } => {
                let session = self.session(*name).with_durability(durability(*synced));
                let came = match json(data) {
                    Some(value) => session.save(&value).await,
                    None => session.apply(change(&[Set::Data(data.clone())], START, |_| None)).await,
                };
                let came = self.came(came);
                self.written(*name, &[Set::Data(data.clone())], came).await
            }
            Operation::SaveIf { name, version, data } => {
                let sets = [Set::Data(data.clone()), Set::IfVersion(*version)];
                let session = self.session(*name);
                let seen = self.seen(*name, *version).map(|state| self.versions[&state]);
                let came = match (seen, json(data)) {
                    (Some(version), Some(value)) => session.save_if(version, &value).await,
                    _ => session.apply(self.change(*name, &sets)).await,
                };
                let came = self.came(came);
                self.written(*name, &sets, came).await
            }
            Operation::Apply { name, sets } => {
                let came = self.session(*name).apply(self.change(*name, sets)).await;
                let came = self.came(came);
                self.written(*name, sets, came).await
            }
            Operation::Update { name, add } => self.update(*name, *add, false).await,
            Operation::TryUpdate { name, add, refuses } => self.update(*name, *add, *refuses).await,
            Operation::PanickingUpdate { name } => {
                let panics = |_: &mut i64| std::panic::resume_unwind(Box::new("a closure's own"));
                let came = self.session(*name).update(panics).await;
                let came = self.came(came);
                let expected = match self.model.clone().update(self.known(*name), 0, true) {
                    Ok(_) => Refusal::Panicked,
                    Err(refusal) => refusal,
                };
                let unchanged = self.model.clone();
                self.settle("an update that panics", came, Err(expected), unchanged, |_, (), ()| Ok(())).await
            }
            Operation::Rotate { name, sets } => self.rotate(*name, sets).await,
            Operation::Delete { name } => {
                let came = self.session(*name).delete().await;
                let came = self.came(came);
                let mut next = self.model.clone();
                let there = next.delete(self.known(*name));
                self.settle("delete", came, Ok(there), next, |_, actual, expected| {
                    same!("delete", actual, expected);
                    Ok(())
                })
                .await
            }
            Operation::List { conditions, order, limit } => self.list(conditions, *order, *limit).await,
            Operation::Count { conditions } => {
                let conditions = self.resolved(conditions);
                let came = self.engine.count(self.filter(&conditions)).await;
                let came = self.came(came);
                let expected = self.model.list(&self.names, &conditions, 0).len() as u64;
                self.settle("count", came, Ok(expected), self.model.clone(), |_, actual, expected| {
                    same!("count", actual, expected);
                    Ok(())
                })
                .await
            }
            Operation::DeleteWhere { conditions } => {
                let conditions = self.resolved(conditions);
                let came = self.engine.delete_where(self.filter(&conditions)).await;
                let came = self.came(came);
                let mut next = self.model.clone();
                let gone = next.delete_where(&self.names, &conditions);
                self.settle("delete_where", came, Ok(gone), next, |_, actual, expected| {
                    same!("delete_where", actual, expected);
                    Ok(())
                })
                .await
            }
            Operation::Sweep => self.sweep().await,
            Operation::Flush => {
                let came = self.engine.flush().await;
                let came = self.came(came);
                self.settle("flush", came, Ok(()), self.model.clone(), |_, (), ()| Ok(())).await
            }
            Operation::Advance { milliseconds } => {
                self.advance(*milliseconds as i64 * 1_000);
                Ok(())
            }
            Operation::StepBack { seconds } => {
                self.clock.step_back(Duration::from_secs(*seconds));
                self.model.step(-(*seconds as i64) * SECOND);
                Ok(())
            }
            Operation::StepForward { seconds } => {
                self.clock.step_forward(Duration::from_secs(*seconds));
                self.model.step(*seconds as i64 * SECOND);
                self.advance(WALL_LOOK);
                // A step that nobody looked at is none, once it was taken back.
                self.get(0).await
            }
            Operation::Restart { options } => self.restart(options).await,
            Operation::Fault { panics, happened } => {
                if self.faults < FAULTS_MAX {
                    self.faults += 1;
                    self.is_armed = true;
                    let faults = Faults::of(&self.engine);
                    if *panics { faults.interrupt(*happened) } else { faults.fail_commit(*happened) }
                }
                Ok(())
            }
        }
    }

    /// Compares everything: each session by its id, and the lists.
    pub(crate) async fn compare(&mut self) -> Verdict {
        for name in 0..self.names.len() {
            self.get(name).await?;
        }
        for order in 0..3 {
            self.list(&Conditions::default(), order, 3).await?;
        }
        Ok(())
    }

    pub(crate) async fn close(mut self) -> Verdict {
        self.compare().await?;
        self.disarm().await;
        soon("a shutdown", self.engine.shutdown()).await.map_err(|error| format!("shutdown: {error:?}"))
    }

    fn advance(&mut self, micros: i64) {
        self.clock.advance(Duration::from_micros(micros.cast_unsigned()));
        self.model.advance(micros);
    }

    /// Maps the number of a name to one that there is.
    pub(crate) fn known(&self, name: usize) -> usize {
        name % self.names.len()
    }

    fn session(&mut self, name: usize) -> Session {
        let name = self.known(name);
        let make = || self.engine.session(self.names[name].as_str()).unwrap();
        if self.model.options.keeps_handles { self.handles.entry(name).or_insert_with(make).clone() } else { make() }
    }

    /// Returns a state whose version is known: a session's own, or one of the last.
    fn seen(&self, name: usize, ago: usize) -> Option<u64> {
        let state = match ago {
            0 => self.model.find(self.known(name))?.state,
            ago => *self.versions.keys().nth_back(ago - 1)?,
        };
        self.versions.contains_key(&state).then_some(state)
    }

    fn change(&self, name: usize, sets: &[Set]) -> Change {
        let now = Timestamp::from_micros(self.model.now());
        change(sets, now, |ago| self.seen(name, ago).map(|state| self.versions[&state]))
    }

    /// Tells a fault that was ordered from all other answers.
    fn came<T>(&mut self, answer: Result<T>) -> Came<T> {
        let was_armed = self.is_armed;
        self.notice();
        match answer {
            Err(Error::Interrupted { .. }) if was_armed => Came::Interrupted,
            answer => Came::Answer(answer),
        }
    }

    fn notice(&mut self) {
        let restarts = self.engine.stats().restarts;
        if restarts > self.restarts {
            (self.restarts, self.is_armed) = (restarts, false);
        }
    }

    /// Lets a fault that is ordered come.
    async fn disarm(&mut self) {
        self.notice();
        if self.is_armed {
            let flushed = self.engine.flush().await;
            self.notice();
            assert!(flushed.is_err() || !self.is_armed, "a fault that was ordered came");
            self.is_armed = false;
        }
    }

    /// Compares an answer with what the model expects; the model goes on as `next` if it was done.
    async fn settle<T, E: std::fmt::Debug>(
        &mut self,
        what: &str,
        came: Came<T>,
        expected: std::result::Result<E, Refusal>,
        next: Model,
        compare: impl FnOnce(&mut Self, T, E) -> Verdict,
    ) -> Verdict {
        match (came, expected) {
            (Came::Answer(Ok(actual)), Ok(expected)) => {
                self.model = next;
                compare(self, actual, expected)
            }
            (Came::Answer(Err(error)), Err(refusal)) => {
                if self.is_named(&error, &refusal) {
                    Ok(())
                } else {
                    Err(format!("{what}: {error:?}, not {refusal:?}"))
                }
            }
            (Came::Answer(Ok(_)), Err(refusal)) => Err(format!("{what}: done, not {refusal:?}")),
            (Came::Answer(Err(error)), Ok(expected)) => Err(format!("{what}: {error:?}, not {expected:?}")),
            (Came::Interrupted, Err(_)) => self.compare_by_get().await.map_err(|verdict| format!("{what}: {verdict}")),
            (Came::Interrupted, Ok(_)) => self.either(what, next).await,
        }
    }

    /// After an interruption: what was asked for happened or did not, whole; its activity may be lost.
    async fn either(&mut self, what: &str, next: Model) -> Verdict {
        self.find_lost_id(&next).await?;
        let before = self.model.clone();
        let with_activity_of = |model: &Model, other: &Model| {
            let mut mixed = model.clone();
            for session in &mut mixed.sessions {
                if let Some(other) = other.sessions.iter().find(|other| other.born == session.born) {
                    (session.last_active_at, session.touches) = (other.last_active_at, other.touches);
                }
            }
            mixed.advance(0);
            mixed
        };
        let mut verdicts = Vec::new();
        for candidate in
            [next.clone(), before.clone(), with_activity_of(&next, &before), with_activity_of(&before, &next)]
        {
            self.model = candidate;
            match self.compare_by_get().await {
                Ok(()) => return Ok(()),
                Err(verdict) => verdicts.push(verdict),
            }
        }
        Err(format!("{what} was interrupted, and is neither done nor not: {verdicts:?}"))
    }

    /// An interrupted request may have made an id that its caller was not told.
    async fn find_lost_id(&mut self, next: &Model) -> Verdict {
        if next.sessions.iter().all(|session| session.name < self.names.len()) {
            return Ok(());
        }
        let page = self.engine.list(Query::new(Filter::all())).await.map_err(|error| format!("{error:?}"))?;
        let ids = page.items.iter().filter_map(Summary::id).map(|id| id.as_str().to_owned());
        let lost = ids.into_iter().find(|id| !self.names.contains(id));
        self.names.push(lost.unwrap_or_else(|| "an id that came to nothing".to_owned()));
        Ok(())
    }

    async fn compare_by_get(&mut self) -> Verdict {
        let known = (self.versions.clone(), self.serials.clone());
        for name in 0..self.names.len() {
            let verdict = self.get(name).await;
            if verdict.is_err() {
                (self.versions, self.serials) = known;
                return verdict;
            }
        }
        Ok(())
    }

    async fn create(&mut self, name: Option<usize>, sets: &[Set], or_existing: bool) -> Verdict {
        let known = name.map(|name| name % IDS.len());
        let mut new = match known {
            Some(name) => NewSession::with_id(IDS[name]),
            None => NewSession::new(),
        };
        let now = Timestamp::from_micros(self.model.now());
        let is_for_new = |set: &&Set| {
            !matches!(
                set,
                Set::ClearUser
                    | Set::RemoveMetadata(_)
                    | Set::ClearIdle
                    | Set::ClearEnd
                    | Set::KeepIdle
                    | Set::IfVersion(_)
            )
        };
        let sets: Vec<Set> = sets.iter().filter(is_for_new).cloned().collect();
        for set in &sets {
            new = match set {
                Set::Data(Data::Raw(bytes)) => new.bytes(bytes.clone()),
                Set::Data(data) => new.data(&json(data)),
                Set::User(n) => new.user(USERS[*n]),
                Set::Metadata(key, value) => new.metadata(WORDS[*key], WORDS[*value]),
                Set::IdleSeconds(seconds) => new.idle_timeout(Duration::from_secs(*seconds)),
                Set::EndsInSeconds(seconds) => new.expires_at(shifted(now, *seconds)),
                _ => new,
            };
        }
        let came = if or_existing {
            self.engine.get_or_create(new).await
        } else {
            self.engine.create(new).await.map(|session| (session, true))
        };
        let came = self.came(came);
        let mut next = self.model.clone();
        let expected = next.create(known.unwrap_or(self.names.len()), &sets, or_existing);
        self.settle("create", came, expected, next, |this, (session, created), expected| {
            same!("created", created, expected);
            match known {
                Some(name) => {
                    same!("the id", session.id().as_str(), IDS[name]);
                }
                None => this.names.push(session.id().as_str().to_owned()),
            }
            Ok(())
        })
        .await
    }

    async fn get(&mut self, name: usize) -> Verdict {
        let answer = self.session(name).get().await;
        match (self.came(answer), self.model.find(name).cloned()) {
            (Came::Interrupted, _) | (Came::Answer(Ok(None)), None) => Ok(()),
            (Came::Answer(Ok(Some(record))), Some(session)) => self.is_same(&record, &session),
            (Came::Answer(answer), expected) => Err(format!("get {}: {answer:?}, not {expected:?}", self.names[name])),
        }
    }

    async fn touched(&mut self, name: usize, came: Came<()>) -> Verdict {
        let mut next = self.model.clone();
        let expected = next.touch(self.known(name));
        self.settle("touch", came, expected, next, |_, (), ()| Ok(())).await
    }

    async fn written(&mut self, name: usize, sets: &[Set], came: Came<Version>) -> Verdict {
        let mut next = self.model.clone();
        let expected = next.write(self.known(name), sets, None, |ago| self.seen(name, ago));
        self.settle("a write", came, expected, next, |this, version, state| {
            let is_right = this.is_version(state, version);
            if is_right {
                Ok(())
            } else {
                Err(format!("a write made {version:?}, of state {state} in {:?}", this.versions))
            }
        })
        .await
    }

    async fn update(&mut self, name: usize, add: i64, refuses: bool) -> Verdict {
        let session = self.session(name);
        let sum = move |number: &mut i64| {
            *number += add;
            *number
        };
        let came = if refuses {
            session.try_update(move |number| Err::<(), i64>(sum(number))).await.map(|refused| refused.unwrap_err())
        } else {
            session.update(sum).await
        };
        let came = self.came(came);
        let mut next = self.model.clone();
        let expected = next.update(self.known(name), add, refuses);
        self.settle("an update", came, expected, next, |_, actual, expected| {
            same!("the sum", actual, expected);
            Ok(())
        })
        .await
    }

    async fn rotate(&mut self, name: usize, sets: &[Set]) -> Verdict {
        let came = self.session(name).rotate(self.change(name, sets)).await;
        let came = self.came(came);
        let mut next = self.model.clone();
        let expected = next.write(self.known(name), sets, Some(self.names.len()), |ago| self.seen(name, ago));
        self.settle("a rotation", came, expected, next, |this, session, _| {
            if this.model.options.keeps_handles {
                this.handles.insert(this.names.len(), session.clone());
            }
            this.names.push(session.id().as_str().to_owned());
            Ok(())
        })
        .await
    }

    /// Walks over all pages.
    async fn list(&mut self, conditions: &Conditions, order: u8, limit: usize) -> Verdict {
        let conditions = self.resolved(conditions);
        let expected: Vec<Modelled> = self.model.list(&self.names, &conditions, order).into_iter().cloned().collect();
        let orders = [Order::Oldest, Order::Newest, Order::RecentlyActive];
        let mut query = Query::new(self.filter(&conditions)).order(orders[usize::from(order)]).limit(limit);
        let mut found = Vec::new();
        loop {
            let page = self.engine.list(query.clone()).await;
            let page = match self.came(page) {
                Came::Answer(Ok(page)) => page,
                Came::Answer(Err(error)) => return Err(format!("list: {error:?}")),
                Came::Interrupted => return Ok(()),
            };
            same!("whether the page is full", page.items.len() == limit, page.next.is_some());
            found.extend(page.items);
            let Some(next) = page.next else { break };
            // As a web page would carry it.
            query = query.after(next.to_string().parse().unwrap());
        }
        let ids: Vec<_> = found.iter().map(|summary| summary.id().unwrap().as_str()).collect();
        let expected_ids: Vec<_> = expected.iter().map(|session| self.names[session.name].as_str()).collect();
        same!(format!("the list by {conditions:?} in order {order}"), ids, expected_ids);
        for (summary, session) in found.iter().zip(&expected) {
            self.is_listed(summary, session)?;
        }
        Ok(())
    }

    async fn sweep(&mut self) -> Verdict {
        let swept = self.engine.sweep().await;
        match self.came(swept) {
            Came::Answer(Ok(swept)) if swept <= self.model.over => self.model.over = 0,
            Came::Answer(Ok(swept)) => {
                return Err(format!("{swept} were swept away, of {} that are over", self.model.over));
            }
            Came::Answer(Err(error)) => return Err(format!("sweep: {error:?}")),
            Came::Interrupted => {}
        }
        self.compare_by_get().await
    }

    async fn restart(&mut self, options: &Options) -> Verdict {
        let old = &self.model.options;
        if old.in_memory {
            return Ok(());
        }
        let options = Options {
            in_memory: false,
            // Which sessions are over must not depend on whether a sweep came by.
            idle_seconds: old.idle_seconds,
            lifetime_seconds: old.lifetime_seconds,
            ..options.clone()
        };
        self.disarm().await;
        let handle = self.session(0);
        soon("a shutdown", self.engine.shutdown()).await.map_err(|error| format!("shutdown: {error:?}"))?;
        let closed = handle.get().await;
        if !matches!(closed, Err(Error::Closed)) {
            return Err(format!("a handle of an engine that is shut down: {closed:?}"));
        }
        self.engine = open(&self.directory, &self.clock, &options).await;
        self.handles.clear();
        self.restarts = 0;
        self.model.options = options;
        self.compare_by_get().await
    }
}
