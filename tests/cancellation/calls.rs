//! Every public call that is awaited, in one place, with what it does to the session it is tried on.

use std::{collections::BTreeSet, future::Future, pin::Pin};

use sessile::{
    Change, Data, Durability, Error, Filter, NewSession, Query, SessionId,
    actor::{EngineMessage, ractor::rpc::CallResult},
};

use crate::ground::{Content, Seen, Trial};

/// How a call ended.
pub(crate) type Answer = Result<(), Error>;

/// A call under way.
pub(crate) type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A call to try.
pub(crate) struct Call {
    /// Where it is declared.
    pub(crate) name: &'static str,
    pub(crate) ask: fn(&Trial) -> Asked,
    /// Turns what was seen before the call into what is seen after it.
    pub(crate) happen: fn(&mut Seen),
}

impl Call {
    pub(crate) fn is_message(&self) -> bool {
        self.name.starts_with("EngineMessage")
    }

    pub(crate) fn is_sweep(&self) -> bool {
        self.name.to_lowercase().ends_with("sweep")
    }
}

/// The calls that end an engine or make one: `lifecycle.rs` has them.
const ELSEWHERE: [&str; 3] = ["Engine::shutdown", "EngineBuilder::open", "EngineBuilder::open_linked"];

macro_rules! session {
    ($name:ident, $happen:expr, |$session:ident, $trial:ident| $call:expr) => {
        Call {
            name: concat!("Session::", stringify!($name)),
            ask: |$trial| {
                let $session = $trial.session.clone();
                Box::pin($call)
            },
            happen: $happen,
        }
    };
}

macro_rules! engine {
    ($name:ident, $happen:expr, |$engine:ident, $trial:ident| $call:expr) => {
        Call {
            name: concat!("Engine::", stringify!($name)),
            ask: |$trial| {
                let $engine = $trial.engine.clone();
                Box::pin($call)
            },
            happen: $happen,
        }
    };
}

macro_rules! message {
    ($name:ident, $happen:expr, |$id:ident| $make:ident($($argument:expr),*)) => {
        Call {
            name: concat!("EngineMessage::", stringify!($name)),
            ask: |trial| {
                let (actor, $id) = (trial.engine.actor(), trial.session.id().clone());
                let message = move |reply| EngineMessage::$make($($argument,)* reply);
                Box::pin(async move { answer(actor.call(message, None).await) })
            },
            happen: $happen,
        }
    };
}

/// Every call.
pub(crate) fn all() -> Vec<Call> {
    vec![
        session!(get, nothing, |session, _trial| async move { session.get().await.map(drop) }),
        session!(touch, touched, |session, _trial| async move { session.touch().await }),
        session!(touch_with, touched, |session, _trial| async move { session.touch_with(Durability::Synced).await }),
        session!(save, saved, |session, _trial| async move { session.save("b").await.map(drop) }),
        session!(save_if, saved, |session, trial| {
            let version = trial.version;
            async move { session.save_if(version, "b").await.map(drop) }
        }),
        session!(apply, applied, |session, _trial| async move { session.apply(both()).await.map(drop) }),
        session!(update, saved, |session, _trial| async move { session.update(to_b).await }),
        session!(try_update, saved, |session, _trial| async move { session.try_update(to_b_or_not).await.map(drop) }),
        session!(rotate, rotated, |session, _trial| async move { session.rotate(both()).await.map(drop) }),
        session!(delete, deleted, |session, _trial| async move { session.delete().await.map(drop) }),
        engine!(create, created, |engine, trial| {
            let new = fresh(trial);
            async move { engine.create(new).await.map(drop) }
        }),
        engine!(get_or_create, created, |engine, trial| {
            let new = fresh(trial);
            async move { engine.get_or_create(new).await.map(drop) }
        }),
        engine!(list, nothing, |engine, _trial| async move { engine.list(Query::new(Filter::all())).await.map(drop) }),
        engine!(count, nothing, |engine, _trial| async move { engine.count(Filter::all()).await.map(drop) }),
        engine!(delete_where, deleted, |engine, trial| {
            let filter = Filter::all().user(trial.user.as_str());
            async move { engine.delete_where(filter).await.map(drop) }
        }),
        engine!(sweep, swept, |engine, _trial| async move { engine.sweep().await.map(drop) }),
        engine!(flush, nothing, |engine, _trial| async move { engine.flush().await }),
        message!(Create, created, |id| create(fresh_of(&id))),
        message!(GetOrCreate, created, |id| get_or_create(fresh_of(&id))),
        message!(Get, nothing, |id| get(id)),
        message!(Save, saved, |id| save(id, Data::encode("b").expect("it encodes"))),
        message!(Apply, applied, |id| apply(id, both())),
        message!(Update, saved, |id| update(id, Box::new(|value| *value = "b".into()))),
        message!(Touch, touched, |id| touch(id)),
        message!(TouchWith, touched, |id| touch_with(id, Durability::Committed)),
        Call {
            name: "EngineMessage::CastTouch",
            ask: |trial| {
                let (actor, id) = (trial.engine.actor(), trial.session.id().clone());
                Box::pin(async move {
                    actor.cast(EngineMessage::cast_touch(id)).expect("the actor lives");
                    Ok(())
                })
            },
            happen: touched,
        },
        message!(Rotate, rotated, |id| rotate(id, both())),
        message!(Delete, deleted, |id| delete(id)),
        message!(List, nothing, |_id| list(Query::new(Filter::all()))),
        message!(Count, nothing, |_id| count(Filter::all())),
        message!(DeleteWhere, deleted, |id| delete_where(Filter::all().id_prefix(id.as_str()))),
        message!(Sweep, swept, |_id| sweep()),
        message!(Flush, nothing, |_id| flush()),
    ]
}

fn answer<T>(called: Result<CallResult<Result<T, Error>>, ractor::MessagingErr<EngineMessage>>) -> Answer {
    match called.expect("the actor lives") {
        CallResult::Success(answer) => answer.map(drop),
        other => panic!("the message was not answered: {}", matches!(other, CallResult::Timeout)),
    }
}

fn to_b(data: &mut String) {
    "b".clone_into(data);
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a closure that may refuse returns")]
fn to_b_or_not(data: &mut String) -> Result<(), ()> {
    to_b(data);
    Ok(())
}

fn both() -> Change {
    Change::new().data("b").metadata("tag", "t")
}

fn fresh(trial: &Trial) -> NewSession {
    NewSession::with_id(trial.fresh.as_str()).data("new").metadata("tag", "n")
}

fn fresh_of(id: &SessionId) -> NewSession {
    NewSession::with_id(id.as_str().replace("session", "fresh")).data("new").metadata("tag", "n")
}

fn nothing(_: &mut Seen) {}

fn change(seen: &mut Seen, change: impl Fn(&mut Content)) {
    seen.session.iter_mut().for_each(&change);
    seen.owned.iter_mut().for_each(&change);
}

fn touched(seen: &mut Seen) {
    change(seen, |content| content.touches += 1);
}

fn saved(seen: &mut Seen) {
    change(seen, |content| to_b(&mut content.data));
}

fn applied(seen: &mut Seen) {
    saved(seen);
    change(seen, |content| content.tag = Some("t".to_owned()));
}

fn rotated(seen: &mut Seen) {
    applied(seen);
    seen.session = None;
}

fn deleted(seen: &mut Seen) {
    seen.session = None;
    seen.owned.clear();
}

fn created(seen: &mut Seen) {
    seen.fresh = Some(Content { data: "new".to_owned(), tag: Some("n".to_owned()), touches: 0 });
}

fn swept(seen: &mut Seen) {
    seen.over = false;
}

/// The names of the public async functions in a source.
fn awaited<'a>(kind: &str, source: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let kind = kind.to_owned();
    let names = source.split("pub async fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
    names.map(move |name| format!("{kind}::{name}"))
}

/// The names of the variants of `EngineMessage`.
fn messages(source: &str) -> impl Iterator<Item = String> {
    let body = source.split("pub enum EngineMessage {").nth(1).expect("the enum is there");
    let body = body.split("\n}").next().expect("it ends");
    let variants = body.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    variants.filter(|name| !name.starts_with(' ')).map(|name| format!("EngineMessage::{name}"))
}

#[test]
fn every_public_call_that_is_awaited_is_tried() {
    let engine = include_str!("../../engine/src/engine.rs");
    let declared: BTreeSet<_> = awaited("Engine", engine)
        .chain(awaited("Session", include_str!("../../engine/src/session.rs")))
        .chain(awaited("EngineBuilder", include_str!("../../engine/src/builder.rs")))
        .chain(messages(include_str!("../../actors/src/engine.rs")))
        .collect();
    let tried: BTreeSet<_> = all().iter().map(|call| call.name).chain(ELSEWHERE).map(str::to_owned).collect();
    assert_eq!(declared, tried);
    assert_eq!(tried.len(), all().len() + ELSEWHERE.len(), "a call is tried twice");
    // The look finds what is added.
    let more = format!("{engine}\n    pub async fn added<T>(&self) {{}}");
    assert!(awaited("Engine", &more).any(|name| name == "Engine::added" && !tried.contains(&name)));
}
