//! The engine as it is judged: both of its faces, and, for the proof that the rig bites, bugs in front of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ractor::{RpcReplyPort, rpc::CallResult};
use sessile::{
    Data, Durability, Engine, Error, NewSession, Result, Session, SessionId, Timestamp, actor::EngineMessage,
};

use crate::{
    family::Family,
    history::{Answer, Call, List, NEVER, Seen},
    model::appended,
};

/// How an operation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Handle,
    Message,
}

/// A mistake that an engine, or a service around one, could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A get is answered from a cache of the service's own.
    ServeStale,
    /// A save is answered before it happens.
    AnswerEarly,
    /// A touch is acknowledged and not counted.
    DropTouch,
    /// A touch is counted twice.
    CountTwice,
    /// An update whose outcome is unknown is sent again.
    RetryUpdate,
    /// A save whose outcome is unknown is sent again.
    RetrySave,
    /// A save that happened is answered "it did not".
    DenySave,
    /// A save of a session that is gone makes it anew.
    Revive,
    /// A save takes no notice of the version it depends on.
    ForgetCondition,
    /// A rotation leaves the old id alive.
    KeepOldId,
    /// A deletion is acknowledged and does not happen.
    KeepDeleted,
    /// A get shows an earlier time of activity.
    StepBack,
    /// Each save gives a new version, though it changes nothing.
    MoveVersion,
}

/// What operations are asked of.
#[derive(Debug)]
pub struct Subject {
    pub engine: Engine,
    bug: Option<Bug>,
    /// The cache of [`Bug::ServeStale`].
    cache: Mutex<HashMap<SessionId, Seen>>,
}

/// A bug shows once in so many times.
const BUG_SHOWS_ONE_IN: u64 = 4;
/// How long a blind retry waits.
const BACKOFF: Duration = Duration::from_millis(2);

impl Subject {
    /// Puts a bug in front of an engine, or none.
    pub fn new(engine: Engine, bug: Option<Bug>) -> Arc<Self> {
        Arc::new(Self { engine, bug, cache: Mutex::default() })
    }

    /// Asks for an operation, and awaits its answer.
    pub async fn perform(
        self: &Arc<Self>,
        family: &Arc<Family>,
        session: &Session,
        way: Way,
        call: &Call,
        dice: u64,
    ) -> Result<Answer> {
        let ask = |call: Call| {
            let (this, family, session) = (Arc::clone(self), Arc::clone(family), session.clone());
            async move { this.ask(&family, &session, way, &call).await }
        };
        let shows = dice.is_multiple_of(BUG_SHOWS_ONE_IN);
        let Some(bug) = self.bug else { return ask(call.clone()).await };
        match (bug, call) {
            (Bug::ServeStale, Call::Get) => {
                let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                let cached = cache().get(session.id()).cloned();
                if let (true, Some(seen)) = (shows, cached) {
                    return Ok(Answer::Seen(Some(seen)));
                }
                let answer = ask(call.clone()).await?;
                if let Answer::Seen(Some(seen)) = &answer {
                    cache().insert(session.id().clone(), seen.clone());
                }
                Ok(answer)
            }
            (Bug::AnswerEarly, Call::Write(write)) if shows && write.expected.is_none() => {
                // Those that would be refused are not lied about: the engine knows its sessions.
                match session.get().await? {
                    Some(_) => drop(tokio::spawn(ask(call.clone()))),
                    None => return Err(Error::NotFound),
                }
                Ok(Answer::Written(None))
            }
            (Bug::DropTouch, Call::Touch { .. }) if shows => match session.get().await? {
                Some(_) => Ok(Answer::Done),
                None => Err(Error::NotFound),
            },
            (Bug::CountTwice, Call::Touch { .. }) if shows => {
                drop(ask(call.clone()).await);
                ask(call.clone()).await
            }
            (Bug::RetryUpdate, Call::Update { .. }) | (Bug::RetrySave, Call::Write(_)) => match ask(call.clone()).await
            {
                Err(Error::Interrupted { .. }) => {
                    tokio::time::sleep(BACKOFF).await;
                    ask(call.clone()).await
                }
                answer => answer,
            },
            (Bug::DenySave, Call::Write(_)) if shows => {
                ask(call.clone()).await?;
                Err(Error::Overloaded { waited: Duration::ZERO })
            }
            (Bug::Revive, Call::Write(write)) => match ask(call.clone()).await {
                Err(Error::NotFound) => {
                    let data = write.data.clone().unwrap_or_default();
                    ask(Call::Create { data, or_existing: true, idle: NEVER, end: NEVER }).await?;
                    Ok(Answer::Written(None))
                }
                answer => answer,
            },
            (Bug::ForgetCondition, Call::Write(write)) => {
                ask(Call::Write(crate::history::Write { expected: None, ..write.clone() })).await
            }
            (Bug::KeepOldId, Call::Rotate(_)) => {
                let answer = ask(call.clone()).await?;
                ask(Call::Create { data: List::default(), or_existing: true, idle: NEVER, end: NEVER }).await?;
                Ok(answer)
            }
            (Bug::KeepDeleted, Call::Delete) if shows => Ok(Answer::Deleted(session.get().await?.is_some())),
            (Bug::StepBack, Call::Get) if shows => Ok(match ask(call.clone()).await? {
                Answer::Seen(Some(seen)) => {
                    Answer::Seen(Some(Seen { last_active: seen.last_active - 10_000_000, ..seen }))
                }
                answer => answer,
            }),
            (Bug::MoveVersion, Call::Write(_)) => {
                drop(session.apply(sessile::Change::new().metadata("save", dice.to_string())).await);
                ask(call.clone()).await
            }
            _ => ask(call.clone()).await,
        }
    }

    async fn ask(&self, family: &Family, session: &Session, way: Way, call: &Call) -> Result<Answer> {
        match way {
            Way::Handle => self.ask_by_handle(family, session, call).await,
            Way::Message => self.ask_by_message(family, session, call).await,
        }
    }

    async fn ask_by_handle(&self, family: &Family, session: &Session, call: &Call) -> Result<Answer> {
        match call {
            Call::Create { or_existing, .. } => {
                let new = new_session(session.id(), call);
                if *or_existing {
                    self.engine.get_or_create(new).await.map(|(_, created)| Answer::Created(created))
                } else {
                    self.engine.create(new).await.map(|_| Answer::Created(true))
                }
            }
            Call::Get => session.get().await.map(|record| Answer::Seen(record.map(|record| family.seen(&record)))),
            Call::Write(write) => {
                let version = match (&write.data, write.expected) {
                    (Some(data), Some(expected)) if write.note.is_none() && !write.keep_idle => {
                        session.save_if(family.version_of(expected), &data[..]).await
                    }
                    (Some(data), None) if write.note.is_none() && !write.keep_idle => session.save(&data[..]).await,
                    _ => session.apply(family.change(write)).await,
                };
                version.map(|version| Answer::Written(Some(family.version(version))))
            }
            Call::Update { add: Some(add) } => {
                let add = *add;
                let change = move |data: &mut Vec<u32>| {
                    let after = appended(data, add).to_vec();
                    std::mem::replace(data, after)
                };
                session.update(change).await.map(|before| Answer::Updated(Some(before.into())))
            }
            Call::Update { add: None } => {
                let refused = session.try_update(|data: &mut Vec<u32>| Err::<(), _>(std::mem::take(data))).await?;
                Ok(Answer::Updated(refused.err().map(Into::into)))
            }
            Call::Touch { committed: false } => session.touch().await.map(|()| Answer::Done),
            Call::Touch { committed: true } => session.touch_with(Durability::Committed).await.map(|()| Answer::Done),
            Call::Delete => session.delete().await.map(Answer::Deleted),
            Call::Rotate(write) => {
                let rotated = session.rotate(family.change(write)).await?;
                Ok(Answer::Moved(family.add_id(rotated.id().clone())))
            }
        }
    }

    async fn ask_by_message(&self, family: &Family, session: &Session, call: &Call) -> Result<Answer> {
        let id = session.id().clone();
        match call.clone() {
            Call::Create { or_existing: false, .. } => {
                let new = new_session(&id, call);
                self.send(|reply| EngineMessage::Create { new, reply }).await.map(|_| Answer::Created(true))
            }
            Call::Create { or_existing: true, .. } => {
                let new = new_session(&id, call);
                let answer = self.send(|reply| EngineMessage::GetOrCreate { new, reply }).await;
                answer.map(|(_, created)| Answer::Created(created))
            }
            Call::Get => {
                let record = self.send(|reply| EngineMessage::Get { id, reply }).await?;
                Ok(Answer::Seen(record.map(|record| family.seen(&record))))
            }
            Call::Write(write) => {
                let version = match &write.data {
                    Some(data) if write.note.is_none() && write.expected.is_none() && !write.keep_idle => {
                        let data = Data::encode(&data[..])?;
                        self.send(|reply| EngineMessage::Save { id, data, reply }).await
                    }
                    _ => {
                        let change = family.change(&write);
                        self.send(|reply| EngineMessage::Apply { id, change, reply }).await
                    }
                };
                version.map(|version| Answer::Written(Some(family.version(version))))
            }
            Call::Update { add: Some(add) } => {
                let change = Box::new(move |value: &mut serde_json::Value| {
                    let data: Vec<u32> = serde_json::from_value(value.take()).expect("a list was saved");
                    *value = appended(&data, add).to_vec().into();
                });
                let done = self.send(|reply| EngineMessage::Update { id, change, reply }).await;
                done.map(|()| Answer::Updated(None))
            }
            // A message's function cannot refuse.
            Call::Update { add: None } => self.ask_by_handle(family, session, call).await,
            Call::Touch { committed: false } => {
                self.send(|reply| EngineMessage::Touch { id, reply }).await.map(|()| Answer::Done)
            }
            Call::Touch { committed: true } => {
                let durability = Durability::Committed;
                let done = self.send(|reply| EngineMessage::TouchWith { id, durability, reply }).await;
                done.map(|()| Answer::Done)
            }
            Call::Delete => self.send(|reply| EngineMessage::Delete { id, reply }).await.map(Answer::Deleted),
            Call::Rotate(write) => {
                let change = family.change(&write);
                let rotated = self.send(|reply| EngineMessage::Rotate { id, change, reply }).await?;
                Ok(Answer::Moved(family.add_id(rotated)))
            }
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<Result<T>>) -> EngineMessage,
    ) -> Result<T> {
        match self.engine.actor().call(message, None).await {
            Ok(CallResult::Success(answer)) => answer,
            other => panic!("a message is not answered: {:?}", other.map(|_| "no answer")),
        }
    }
}

fn new_session(id: &SessionId, call: &Call) -> NewSession {
    let Call::Create { data, idle, end, .. } = call else { unreachable!("only a creation makes a session") };
    let mut new = NewSession::with_id(id).data(&data[..]);
    if *idle != NEVER {
        new = new.idle_timeout(Duration::from_micros(idle.unsigned_abs()));
    }
    if *end != NEVER {
        new = new.expires_at(Timestamp::from_micros(*end));
    }
    new
}
