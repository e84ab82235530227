//! A client that holds the engine to its word: of every session it knows what may be true by the answers it has had,
//! and whatever contradicts that is a wrong answer.
//!
//! `Ok` leaves what was asked for, an error that did not happen leaves what was, one that may have happened leaves both.
//! A read leaves what it shows, and is wrong if that was not possible.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sessile::{
    CauseKind, Change, Durability, Engine, Error, Filter, InterruptedBy, NewSession, Outcome, Query, Record, Session,
    Timestamp,
};

/// How much later than its deadline an answer may come on a busy machine, before it counts as a hang.
const GRACE: Duration = Duration::from_secs(10);

/// How often a client tries what must succeed: a deadline that suits a matrix of faults may be short for a busy machine.
const TRIES: usize = 20;
/// The name of an answer that came from the caller's own timer.
const LATE: &str = "Interrupted by its deadline";

/// What a client has found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Answers that cannot be true.
    pub wrong: Vec<String>,
    /// Requests that were not answered.
    pub hangs: Vec<String>,
    pub requests: u64,
    pub acknowledged: u64,
    /// Errors by their kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// What the database said, each kind once.
    pub causes: Vec<CauseKind>,
}

impl Findings {
    pub fn add(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
        self.hangs.extend(other.hangs);
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        other.causes.into_iter().for_each(|kind| self.note_cause(kind));
    }

    /// Notes what the database said.
    pub fn note_cause(&mut self, kind: CauseKind) {
        if !self.causes.contains(&kind) {
            self.causes.push(kind);
        }
    }

    pub fn refused(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What a session holds: a number that says which write it was, and as much beside it as was asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    n: u64,
    padding: String,
}

/// What may be true of a session.
#[derive(Debug, Clone)]
struct Known {
    /// The number that it holds, `None` for no session.
    states: BTreeSet<Option<u64>>,
    /// The least and the most touches that it shows.
    touches: (u64, u64),
    /// Those that are durable.
    touches_durable: u64,
}

impl Known {
    fn absent() -> Self {
        Self { states: BTreeSet::from([None]), touches: (0, 0), touches_durable: 0 }
    }

    fn may_be_there(&self) -> bool {
        self.states.iter().any(Option::is_some)
    }

    fn is_there(&self) -> bool {
        !self.states.contains(&None)
    }
}

/// The client.
pub struct Client {
    engine: Engine,
    known: BTreeMap<String, Known>,
    /// What a rotation in doubt may have left under an id that nobody was told.
    strays: Vec<BTreeSet<Option<u64>>>,
    next: u64,
    deadline: Duration,
    durability: Durability,
    /// Bytes beside the number.
    pub padding: usize,
    pub findings: Findings,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks this engine, each request within `deadline`, which must be the engine's own.
    pub fn new(engine: &Engine, deadline: Duration) -> Self {
        Self {
            engine: engine.clone(),
            known: BTreeMap::new(),
            strays: Vec::new(),
            next: 0,
            deadline,
            durability: Durability::Committed,
            padding: 20,
            findings: Findings::default(),
        }
    }

    /// Makes a client of another engine that knows what this one does, of a file that holds the same.
    pub fn known_to(&self, engine: &Engine, deadline: Duration) -> Self {
        let (known, next) = (self.known.clone(), self.next);
        Self { known, next, ..Self::new(engine, deadline) }
    }

    /// Makes the writes that follow promise this.
    pub fn promising(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Takes the engine opened after the last one for that, on the same file. Touches that were neither committed nor
    /// written by a shutdown that said so may be gone.
    pub fn reconnect(&mut self, engine: &Engine, was_shut_down: bool) {
        self.engine = engine.clone();
        for known in self.known.values_mut() {
            if !was_shut_down {
                known.touches.0 = known.touches_durable;
            }
        }
    }

    /// Makes each request wait so long at most.
    pub fn within(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Believes what was never said. The rig must find it out.
    pub fn believe_a_lie(&mut self, id: &str) {
        self.next += 1;
        self.known(id).states = BTreeSet::from([Some(self.next)]);
    }

    fn session(&self, id: &str) -> Session {
        self.engine.session(id).expect("a valid id").with_durability(self.durability).with_deadline(self.deadline)
    }

    fn known(&mut self, id: &str) -> &mut Known {
        self.known.entry(id.to_owned()).or_insert_with(Known::absent)
    }

    fn content(&mut self) -> Content {
        self.next += 1;
        Content { n: self.next, padding: "x".repeat(self.padding) }
    }

    /// Awaits an answer, which must come in time; `None` if it did not.
    async fn answer<T>(
        &mut self,
        what: &str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        self.findings.requests += 1;
        let began = Instant::now();
        let Ok(answer) = tokio::time::timeout(self.deadline + GRACE, asked).await else {
            self.findings.hangs.push(format!("{what}: no answer within {:?}", began.elapsed()));
            return None;
        };
        match &answer {
            Ok(_) => self.findings.acknowledged += 1,
            Err(error) => {
                let kind = kind_of(error);
                *self.findings.errors.entry(kind).or_default() += 1;
                if let Error::Storage { cause } | Error::Partial { cause, .. } = error {
                    self.findings.note_cause(cause.kind);
                }
                if kind == "untyped" {
                    self.findings.wrong.push(format!("{what}: {error:?} is no error for this"));
                }
            }
        }
        Some(answer)
    }

    /// Notes what an answer leaves of what may be true: `after` of each state with `Ok`, both where it is in doubt. A
    /// session that is not there cannot have answered `Ok`.
    fn conclude<T>(
        &mut self,
        what: &str,
        id: &str,
        answer: Option<&Result<T, Error>>,
        after: impl Fn(Option<u64>) -> Option<Option<u64>>,
    ) -> bool {
        let known = self.known(id);
        let before = known.clone();
        let happened = || before.states.iter().filter_map(|state| after(*state)).collect::<BTreeSet<_>>();
        match answer {
            Some(Ok(_)) => known.states = happened(),
            Some(Err(Error::NotFound)) => known.states.retain(Option::is_none),
            Some(Err(Error::AlreadyExists)) => known.states.retain(Option::is_some),
            Some(Err(error)) if error.outcome() == Outcome::DidNotHappen => {}
            Some(Err(_)) | None => known.states.extend(happened()),
        }
        if known.states.is_empty() {
            let said = answer.map(|answer| answer.as_ref().map(drop));
            self.findings.wrong.push(format!("{what} {id}: {said:?} contradicts {before:?}"));
            *self.known(id) = before;
            return false;
        }
        true
    }

    pub async fn create(&mut self, id: &str) -> bool {
        self.create_by(id, NewSession::with_id(id)).await
    }

    /// Creates a session that ends at a time; when that has come, [`Client::have_ended`].
    pub async fn create_until(&mut self, id: &str, at: Timestamp) -> bool {
        self.create_by(id, NewSession::with_id(id).expires_at(at)).await
    }

    async fn create_by(&mut self, id: &str, new: NewSession) -> bool {
        let content = self.content();
        let n = content.n;
        let new = new.data(&content);
        let engine = self.engine.clone();
        let answer = self.answer("create", engine.create(new)).await;
        self.conclude("create", id, answer.as_ref(), |state| state.is_none().then_some(Some(n)));
        matches!(answer, Some(Ok(_)))
    }

    pub async fn save(&mut self, id: &str) -> bool {
        let content = self.content();
        let session = self.session(id);
        let answer = self.answer("save", session.save(&content)).await;
        self.conclude("save", id, answer.as_ref(), |state| state.map(|_| Some(content.n)));
        matches!(answer, Some(Ok(_)))
    }

    pub async fn update(&mut self, id: &str) -> bool {
        let content = self.content();
        let (n, session) = (content.n, self.session(id));
        let update = session.update(move |data: &mut Content| data.n = n);
        let answer = self.answer("update", update).await;
        self.conclude("update", id, answer.as_ref(), |state| state.map(|_| Some(n)));
        matches!(answer, Some(Ok(())))
    }

    pub async fn delete(&mut self, id: &str) {
        let session = self.session(id);
        let answer = self.answer("delete", session.delete()).await;
        let was_there = match &answer {
            Some(Ok(was_there)) => Some(*was_there),
            _ => None,
        };
        self.conclude("delete", id, answer.as_ref(), |state| {
            was_there.is_none_or(|was_there| state.is_some() == was_there).then_some(None)
        });
    }

    /// Gives the session another id, and returns that.
    pub async fn rotate(&mut self, id: &str) -> Option<String> {
        let session = self.session(id);
        let answer = self.answer("rotate", session.rotate(Change::new().metadata("rotated", "yes"))).await;
        let before = self.known(id).clone();
        if !self.conclude("rotate", id, answer.as_ref(), |state| state.map(|_| None)) {
            return None;
        }
        let mut there = before;
        there.states.retain(Option::is_some);
        match answer {
            Some(Ok(rotated)) => {
                let id = rotated.id().as_str().to_owned();
                self.known.insert(id.clone(), there);
                Some(id)
            }
            Some(Err(error)) if error.outcome() == Outcome::DidNotHappen => None,
            Some(Err(_)) | None => {
                self.strays.push(there.states);
                None
            }
        }
    }

    /// Counts a message; durably if so asked.
    pub async fn touch(&mut self, id: &str, durability: Option<Durability>) -> bool {
        let session = self.session(id);
        let touched = async {
            match durability {
                None => session.touch().await,
                Some(durability) => session.touch_with(durability).await,
            }
        };
        let answer = self.answer("touch", touched).await;
        if self.conclude("touch", id, answer.as_ref(), |state| state.map(|_| state)) {
            let known = self.known(id);
            match &answer {
                Some(Ok(())) => {
                    known.touches = (known.touches.0 + 1, known.touches.1 + 1);
                    if durability.is_some() {
                        known.touches_durable = known.touches.0;
                    }
                }
                Some(Err(error)) if error.outcome() == Outcome::DidNotHappen => {}
                _ => known.touches.1 += 1,
            }
        }
        matches!(answer, Some(Ok(())))
    }

    pub async fn flush(&mut self) -> bool {
        let engine = self.engine.clone();
        let flushed = matches!(self.answer("flush", engine.flush()).await, Some(Ok(())));
        if flushed {
            self.known.values_mut().for_each(|known| known.touches_durable = known.touches.0);
        }
        flushed
    }

    /// Deletes this client's sessions whose ids begin so.
    pub async fn delete_where(&mut self, prefix: &str) {
        let engine = self.engine.clone();
        let answer = self.answer("delete_where", engine.delete_where(Filter::all().id_prefix(prefix))).await;
        let (least, most) = self.there(prefix);
        let counted = match &answer {
            Some(Ok(deleted)) => (least..=most).contains(deleted),
            Some(Err(Error::Partial { done, .. })) => *done <= most,
            _ => true,
        };
        if !counted {
            self.findings.wrong.push(format!("delete_where {prefix}: {answer:?} of {least} to {most}"));
        }
        let ids: Vec<_> = self.known.keys().filter(|id| id.starts_with(prefix)).cloned().collect();
        for id in ids {
            self.conclude("delete_where", &id, answer.as_ref(), |_| Some(None));
        }
    }

    /// Takes the sessions whose ids begin so for ended, by the clock: nobody may see them any more, swept away or not.
    pub fn have_ended(&mut self, prefix: &str) {
        for (_, known) in self.known.iter_mut().filter(|(id, _)| id.starts_with(prefix)) {
            *known = Known::absent();
        }
    }

    /// Has expired sessions swept away, of which there are so many at most.
    pub async fn sweep(&mut self, most: u64) {
        let engine = self.engine.clone();
        let answer = self.answer("sweep", engine.sweep()).await;
        if let Some(Ok(done) | Err(Error::Partial { done, .. })) = answer
            && done > most
        {
            self.findings.wrong.push(format!("sweep: {done} of {most}"));
        }
    }

    /// Counts this client's sessions whose ids begin so.
    pub async fn count(&mut self, prefix: &str) {
        let engine = self.engine.clone();
        let answer = self.answer("count", engine.count(Filter::all().id_prefix(prefix))).await;
        let (least, most) = self.there(prefix);
        if let Some(Ok(count)) = answer
            && !(least..=most).contains(&count)
        {
            self.findings.wrong.push(format!("count {prefix}: {count} of {least} to {most}"));
        }
    }

    /// Returns how many sessions of this prefix there are at least and at most.
    fn there(&self, prefix: &str) -> (u64, u64) {
        let mine = || self.known.iter().filter(|(id, _)| id.starts_with(prefix)).map(|(_, known)| known);
        let (least, most) = (mine().filter(|known| known.is_there()), mine().filter(|known| known.may_be_there()));
        (least.count() as u64, most.count() as u64)
    }

    pub async fn get(&mut self, id: &str) -> bool {
        let session = self.session(id);
        let answer = self.answer("get", session.get()).await;
        if let Some(Err(Error::NotFound)) = answer {
            self.findings.wrong.push(format!("get {id}: an error where None is meant"));
        }
        let Some(Ok(record)) = answer else { return false };
        self.see(id, record.as_ref());
        true
    }

    fn see(&mut self, id: &str, record: Option<&Record>) {
        let shown = match record.map(Record::data::<Content>) {
            Some(Err(error)) => return self.findings.wrong.push(format!("get {id}: {error:?}")),
            Some(Ok(content)) => Some(content.n),
            None => None,
        };
        let known = self.known(id);
        if !known.states.contains(&shown) {
            let wrong = format!("get {id}: shows {shown:?}, possible is {known:?}");
            return self.findings.wrong.push(wrong);
        }
        known.states = BTreeSet::from([shown]);
        let Some(count) = record.map(Record::touch_count) else { return };
        let (least, most) = known.touches;
        if (least..=most).contains(&count) {
            known.touches = (count, count);
        } else {
            self.findings.wrong.push(format!("get {id}: shows {count} touches, {least} to {most} are possible"));
        }
    }

    /// Reads every session that was ever heard of; each must be readable, and show what is possible.
    pub async fn read_all(&mut self) {
        let ids: Vec<_> = self.known.keys().cloned().collect();
        for id in ids {
            let mut tries = TRIES;
            while !self.get(&id).await {
                tries -= 1;
                if tries == 0 {
                    return self.findings.wrong.push(format!("get {id}: cannot be read"));
                }
            }
        }
    }

    /// Goes on after the faults: every kind of request must succeed.
    pub async fn works_again(&mut self, id: &str) {
        for n in 0..TRIES {
            let late = self.late();
            let id = format!("{id}-{n}");
            let mut all = self.create(&id).await;
            all &= self.save(&id).await & self.update(&id).await & self.touch(&id, None).await & self.flush().await;
            self.delete(&id).await;
            if all {
                return;
            }
            if self.late() == late {
                break;
            }
        }
        self.findings.wrong.push(format!("{id}: not everything works again: {:?}", self.findings.errors));
    }

    fn late(&self) -> u64 {
        self.findings.errors.get(LATE).copied().unwrap_or(0)
    }
}

/// Looks at all sessions of a file: each must be known to one of the clients, or be what a rotation in doubt left.
pub async fn no_strangers(engine: &Engine, clients: &mut [Client]) {
    let page = engine.list(Query::new(Filter::all()).limit(1_000)).await.expect("it can be listed");
    assert!(page.next.is_none(), "more than fit on a page");
    for summary in page.items {
        let id = summary.id().expect("ids are not hashed").as_str().to_owned();
        if clients.iter().any(|client| client.known.contains_key(&id)) {
            continue;
        }
        let record = engine.session(id.as_str()).unwrap().get().await.expect("it can be read").expect("it is listed");
        let n = record.data::<Content>().expect("it is ours").n;
        let stray = clients.iter_mut().find_map(|client| {
            let at = client.strays.iter().position(|states| states.contains(&Some(n)))?;
            Some(client.strays.swap_remove(at))
        });
        if stray.is_none() {
            clients[0].findings.wrong.push(format!("{id} holds {n}, and nobody asked for it"));
        }
    }
}

/// The name of an error that a fault may cause, or of one that any request may have.
fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Storage { .. } => "Storage",
        Error::Unavailable { .. } => "Unavailable",
        Error::Corrupt { .. } => "Corrupt",
        Error::Partial { .. } => "Partial",
        Error::Overloaded { .. } => "Overloaded",
        Error::Interrupted { by: InterruptedBy::Deadline } => LATE,
        Error::Interrupted { by: InterruptedBy::CommitUnknown } => "Interrupted in COMMIT",
        Error::Interrupted { by: InterruptedBy::StorageDied } => "Interrupted by a fault",
        Error::NotFound => "NotFound",
        Error::AlreadyExists => "AlreadyExists",
        _ => "untyped",
    }
}

/// The rig must bite: answers that nobody gave, or gave and did not keep, are found.
#[tokio::test]
async fn an_answer_that_is_not_true_is_found() {
    let place = sessile_tests::Place::new();
    let engine = place.builder().open().await.unwrap();
    let mut client = Client::new(&engine, Duration::from_secs(10));
    for id in ["kept", "lied about", "lost", "revived", "touched"] {
        assert!(client.create(id).await && client.touch(id, None).await);
    }
    client.believe_a_lie("lied about");
    // Behind the client's back: an acknowledged session is lost, a deleted one is there, a touch is not.
    client.delete("revived").await;
    engine.session("lost").unwrap().delete().await.unwrap();
    let revived = Content { n: 4, padding: String::new() };
    engine.create(NewSession::with_id("revived").data(&revived)).await.unwrap();
    client.known("touched").touches = (2, 2);
    engine.create(NewSession::with_id("stranger").data(&revived)).await.unwrap();
    client.read_all().await;
    let mut clients = [client];
    no_strangers(&engine, &mut clients).await;
    let wrong = &clients[0].findings.wrong;
    for id in ["lied about", "lost", "revived", "touched", "stranger"] {
        assert!(wrong.iter().any(|wrong| wrong.contains(id)), "{id} in {wrong:#?}");
    }
    assert_eq!(wrong.len(), 5, "{wrong:#?}");
}
