//! A load: clients that create, save, touch, rotate and delete, each in a population of its own.
//!
//! The requests of one session come from one task, so their order is known, also where several are in flight at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sessile::{
    Change, Durability, Engine, Error, Filter, NewSession, Order, Outcome, Query, Record, Result, Session, Summary,
    Version,
};

use super::journal::{Answer, Entry, Found, Journal, KEY, Payload, Step, TAG, now_us};
use crate::Random;

/// The longest page of a list.
const PAGE: usize = 1_000;
/// How long a client waits before it asks again what it was not told.
const AGAIN: Duration = Duration::from_millis(5);

/// What a load is made of.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many clients.
    pub clients: u32,
    /// How many sessions each has, at most.
    pub sessions_per_client: u32,
    /// The most bytes of padding in a session's data.
    pub pad_max: u32,
    /// Whether clients ask for what concerns all sessions, which writes all touches: else only the timer does.
    pub engine_wide: bool,
    /// Whether clients lie: saves and updates are entered as answered before they are asked for.
    pub lies: bool,
    /// How long a client pauses between two requests.
    pub pause: Option<Duration>,
}

impl Load {
    /// Returns how many sessions there are at most.
    pub fn keys(&self) -> u32 {
        self.clients * self.sessions_per_client
    }

    /// Finds what sessions there are and starts the clients, who go on until told to stop. Numbers of requests come from
    /// `ops`.
    pub async fn start<J: Journal>(
        &self,
        engine: &Engine,
        journal: &Arc<J>,
        ops: &Arc<AtomicU64>,
        random: &mut Random,
    ) -> Clients {
        let mut own: Vec<Vec<Own>> = (0..self.clients).map(|_| Vec::new()).collect();
        for key in 0..self.keys() {
            own[(key % self.clients) as usize].push(Own { key, session: None, version: None, stale: None });
        }
        for record in read_load(engine).await.expect("the sessions there are can be read") {
            let key = record.metadata()[KEY].parse::<u32>().expect("a key");
            let session = engine.session(record.id()).expect("a valid id");
            own[(key % self.clients) as usize][(key / self.clients) as usize].session = Some(session);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = own.into_iter().zip(0..).map(|(own, number)| {
            let client = Client {
                number,
                engine: engine.clone(),
                journal: Arc::clone(journal),
                ops: Arc::clone(ops),
                load: self.clone(),
            };
            tokio::spawn(client.run(own, random.split(), Arc::clone(&stop)))
        });
        Clients { tasks: tasks.collect(), stop }
    }
}

/// Reads every session there is.
///
/// # Errors
/// Those of a list and of a get.
pub async fn read_all(engine: &Engine) -> Result<Vec<Record>> {
    read_where(engine, |_| true).await
}

/// Reads every session of a load.
///
/// # Errors
/// Those of a list and of a get.
pub async fn read_load(engine: &Engine) -> Result<Vec<Record>> {
    read_where(engine, |summary| summary.metadata().contains_key(KEY)).await
}

async fn read_where(engine: &Engine, wanted: fn(&Summary) -> bool) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut next = None;
    loop {
        let mut query = Query::new(Filter::all()).order(Order::Oldest).limit(PAGE);
        if let Some(cursor) = next {
            query = query.after(cursor);
        }
        let page = engine.list(query).await?;
        for summary in page.items.iter().filter(|summary| wanted(summary)) {
            let id = summary.id().expect("ids are not hashed");
            if let Some(record) = engine.session(id)?.get().await? {
                records.push(record);
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(records);
        }
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// Tells the clients to stop after the requests they have in flight, and waits for them.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended().await;
    }

    /// Waits until the clients have stopped by themselves, because the engine was closed.
    pub async fn ended(self) {
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
    }
}

/// A session of a client, as far as the client knows.
struct Own {
    key: u32,
    session: Option<Session>,
    version: Option<Version>,
    /// A version that it no longer has.
    stale: Option<Version>,
}

struct Client<J> {
    number: u32,
    engine: Engine,
    journal: Arc<J>,
    ops: Arc<AtomicU64>,
    load: Load,
}

/// What came of a request.
struct Reply {
    answer: Answer,
    session: Option<Session>,
    version: Option<Version>,
}

impl Reply {
    fn done() -> Self {
        Self { answer: Answer::Done { id: None }, session: None, version: None }
    }

    fn version(version: Version) -> Self {
        Self { version: Some(version), ..Self::done() }
    }

    fn session(session: Session) -> Self {
        let id = session.id().as_str().to_owned();
        Self { answer: Answer::Done { id: Some(id) }, session: Some(session), version: None }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let answer = match &error {
            Error::NotFound => Answer::Absent,
            Error::Conflict { .. } => Answer::Conflict,
            Error::AlreadyExists => Answer::Existing,
            Error::Closed => Answer::Closed,
            error if error.outcome() == Outcome::MayHaveHappened => Answer::Doubt,
            error => Answer::Refused { error: format!("{error:?}") },
        };
        Self { answer, session: None, version: None }
    }
}

impl<J: Journal> Client<J> {
    async fn run(self, mut own: Vec<Own>, mut random: Random, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if let Some(pause) = self.load.pause {
                tokio::time::sleep(pause).await;
            }
            let one = random.below(own.len() as u64);
            let one = usize::try_from(one).expect("an index");
            let is_open = match random.below(200) {
                0 if self.load.engine_wide => self.delete_where(&mut own).await,
                1..5 if self.load.engine_wide => {
                    let reply = self.ask(None, None, None, Step::Flush).await;
                    !matches!(reply.answer, Answer::Closed)
                }
                _ => self.go_on(&mut own[one], &mut random).await,
            };
            if !is_open {
                return;
            }
            // A load of touches alone would never let the others in.
            tokio::task::yield_now().await;
        }
    }

    /// Does one thing, or several at once, to one session. Returns false once the engine is closed.
    async fn go_on(&self, own: &mut Own, random: &mut Random) -> bool {
        let mut steps = self.plan(own, random);
        if self.load.lies {
            // Of the first of several it is certain how it will be answered.
            steps.truncate(1);
        }
        let key = Some(own.key);
        let session = own.session.as_ref();
        let mut replies = Vec::new();
        match &steps[..] {
            [a] => replies.push(self.ask(key, session, own.stale_or_current(a), a.clone()).await),
            [a, b] => {
                // Polled in this order, so that they are admitted in this order.
                let (a, b) =
                    tokio::join!(self.ask(key, session, None, a.clone()), self.ask(key, session, None, b.clone()));
                replies.extend([a, b]);
            }
            [a, b, c] => {
                let (a, b, c) = tokio::join!(
                    self.ask(key, session, None, a.clone()),
                    self.ask(key, session, None, b.clone()),
                    self.ask(key, session, None, c.clone()),
                );
                replies.extend([a, b, c]);
            }
            _ => unreachable!("a plan has one to three steps"),
        }
        let (mut is_open, mut is_in_doubt) = (true, false);
        for (step, reply) in steps.iter().zip(replies) {
            is_open &= !matches!(reply.answer, Answer::Closed);
            is_in_doubt |=
                matches!(reply.answer, Answer::Doubt) && !matches!(step, Step::Touch { .. } | Step::Get { .. });
            own.note(step, reply);
        }
        if is_in_doubt { self.resolve(own).await } else { is_open }
    }

    /// Chooses what to do next. Touches never meet a deletion in flight: which comes first would be open.
    fn plan(&self, own: &Own, random: &mut Random) -> Vec<Step> {
        let mut pad = || u32::try_from(random.below(u64::from(self.load.pad_max) + 1)).expect("it is below a u32");
        let (pad, other) = (pad(), pad());
        let chosen = format!("k{}", own.key);
        let Some(session) = &own.session else {
            let user = random.below(2) == 0;
            return match random.below(3) {
                0 => vec![Step::Create { id: None, pad, user }],
                1 => vec![Step::Create { id: Some(chosen), pad, user }],
                _ => vec![
                    Step::Create { id: Some(chosen.clone()), pad, user },
                    Step::Save { id: chosen, pad: other, synced: false },
                ],
            };
        };
        let id = session.id().as_str().to_owned();
        let save = || Step::Save { id: id.clone(), pad, synced: false };
        let update = || Step::Update { id: id.clone(), pad: other };
        let touch = || Step::Touch { id: id.clone(), committed: false };
        let delete = || Step::Delete { id: id.clone() };
        match random.below(100) {
            0..30 => vec![touch()],
            30..35 => vec![Step::Touch { id, committed: true }],
            35..46 => vec![save()],
            46..49 => vec![Step::Save { id, pad, synced: true }],
            49..58 if own.version.is_some() => vec![Step::SaveIf { id, pad }],
            58..60 if own.stale.is_some() => vec![Step::SaveStale { id, pad }],
            60..70 => vec![update()],
            70..75 => vec![Step::Apply { id, pad, user: random.below(2) == 0 }],
            75..78 => vec![Step::Rotate { id, pad }],
            78..81 => vec![delete()],
            81..84 => vec![save(), update(), save()],
            84..86 => vec![touch(), update(), touch()],
            86..88 => vec![save(), delete(), update()],
            88..90 => vec![update(), Step::Rotate { id: id.clone(), pad }, save()],
            90..92 if id == chosen => {
                vec![delete(), Step::Create { id: Some(chosen), pad, user: false }, save()]
            }
            _ => vec![Step::Get { id }],
        }
    }

    /// Deletes this client's sessions that have an owner.
    async fn delete_where(&self, own: &mut [Own]) -> bool {
        match self.ask(None, None, None, Step::DeleteWhere { client: self.number }).await.answer {
            Answer::Closed => return false,
            Answer::Refused { .. } => return true,
            // Which of them had one is found out here, too.
            _ => {}
        }
        for own in own {
            if !self.resolve(own).await {
                return false;
            }
        }
        true
    }

    /// Looks for a session of which it is not known what became of it.
    async fn resolve(&self, own: &mut Own) -> bool {
        loop {
            match self.look_for(own.key).await {
                Ok(found) => {
                    own.session = found.as_ref().map(|found| self.engine.session(&found.id).expect("a valid id"));
                    (own.version, own.stale) = (None, None);
                    self.journal.enter(Entry::Resolved { key: own.key, found });
                    return true;
                }
                Err(Error::Closed) => return false,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn look_for(&self, key: u32) -> Result<Option<Found>> {
        let query = Query::new(Filter::all().metadata(KEY, key.to_string()));
        let page = self.engine.list(query).await?;
        let Some(summary) = page.items.first() else { return Ok(None) };
        let record = self.engine.session(summary.id().expect("ids are not hashed"))?.get().await?;
        Ok(record.map(|record| Found::read(&record).expect("the load wrote it")))
    }

    /// Asks, and enters it.
    async fn ask(&self, key: Option<u32>, session: Option<&Session>, version: Option<Version>, step: Step) -> Reply {
        let op = self.ops.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        self.journal.enter(Entry::Invoked { at_us: now_us(), op, key, step: step.clone() });
        let lies = self.load.lies && matches!(step, Step::Save { .. } | Step::Update { .. });
        if lies {
            self.journal.enter(Entry::Answered { at_us: now_us(), op, answer: Answer::Done { id: None } });
        }
        let reply = self.request(key, session, version, &step, op).await.unwrap_or_else(Reply::from);
        if !lies {
            self.journal.enter(Entry::Answered { at_us: now_us(), op, answer: reply.answer.clone() });
        }
        self.journal.took(&step, began.elapsed());
        reply
    }

    async fn request(
        &self,
        key: Option<u32>,
        session: Option<&Session>,
        version: Option<Version>,
        step: &Step,
        op: u64,
    ) -> Result<Reply> {
        let payload = |pad: u32| Payload::new(key.unwrap_or_default(), op, pad);
        let handle = |id: &str| match session {
            Some(session) if session.id().as_str() == id => session.clone(),
            _ => self.engine.session(id).expect("a valid id"),
        };
        match step {
            Step::Create { id, pad, user } => {
                let new = id.as_ref().map_or_else(NewSession::new, NewSession::with_id);
                let new = new.metadata(KEY, key.unwrap_or_default().to_string()).data(&payload(*pad));
                let new = if *user { new.user(owner(self.number)) } else { new };
                self.engine.create(new).await.map(Reply::session)
            }
            Step::Save { id, pad, synced } => {
                let session = handle(id);
                let session = if *synced { session.with_durability(Durability::Synced) } else { session };
                session.save(&payload(*pad)).await.map(Reply::version)
            }
            Step::SaveIf { id, pad } | Step::SaveStale { id, pad } => {
                let version = version.expect("a version was chosen");
                handle(id).save_if(version, &payload(*pad)).await.map(Reply::version)
            }
            Step::Update { id, pad } => {
                let pad = *pad;
                handle(id).update(move |data: &mut Payload| data.update(op, pad)).await.map(|()| Reply::done())
            }
            Step::Apply { id, pad, user } => {
                let change = Change::new().data(&payload(*pad)).metadata(TAG, op.to_string());
                let change = if *user { change.user(owner(self.number)) } else { change.clear_user() };
                handle(id).apply(change).await.map(Reply::version)
            }
            Step::Rotate { id, pad } => handle(id).rotate(Change::new().data(&payload(*pad))).await.map(Reply::session),
            Step::Delete { id } => {
                let was_there = handle(id).delete().await?;
                was_there.then(Reply::done).ok_or(Error::NotFound)
            }
            Step::DeleteWhere { client } => {
                self.engine.delete_where(Filter::all().user(owner(*client))).await.map(|_| Reply::done())
            }
            Step::Touch { id, committed: false } => handle(id).touch().await.map(|()| Reply::done()),
            Step::Touch { id, committed: true } => {
                handle(id).touch_with(Durability::Committed).await.map(|()| Reply::done())
            }
            Step::Flush => self.engine.flush().await.map(|()| Reply::done()),
            Step::Get { id } => {
                let record = handle(id).get().await?.ok_or(Error::NotFound)?;
                let found = Found::read(&record).expect("the load wrote it");
                let answer = Answer::Seen(Box::new(found));
                Ok(Reply { answer, session: None, version: Some(record.version()) })
            }
        }
    }
}

impl Own {
    /// Returns the version that a conditional save names.
    fn stale_or_current(&self, step: &Step) -> Option<Version> {
        match step {
            Step::SaveIf { .. } => self.version,
            Step::SaveStale { .. } => self.stale,
            _ => None,
        }
    }

    /// Notes what came of a request.
    fn note(&mut self, step: &Step, reply: Reply) {
        let is_done = matches!(reply.answer, Answer::Done { .. });
        let writes = !matches!(step, Step::Touch { .. } | Step::Get { .. } | Step::SaveStale { .. });
        match step {
            Step::Create { .. } if is_done => (self.session, self.stale) = (reply.session, None),
            Step::Rotate { .. } if is_done => self.session = reply.session,
            Step::Delete { .. } if is_done => (self.session, self.stale) = (None, None),
            _ => {}
        }
        if is_done && writes {
            self.stale = self.version.or(self.stale);
            self.version = reply.version;
        } else if let Some(version) = reply.version {
            self.version = Some(version);
        }
        if self.session.is_none() {
            (self.version, self.stale) = (None, None);
        }
    }
}

fn owner(client: u32) -> String {
    format!("client-{client}")
}
