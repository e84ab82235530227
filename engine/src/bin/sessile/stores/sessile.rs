//! This engine.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use sessile::{Durability, Engine, Filter, NewSession, Session};
use sessile_harness::{
    ledger::{Ledger, Verified},
    payload::{Payloads, user},
    plan::{Op, Plan},
    store::{Client, Pace, Store},
    world::{Item, Share, World},
};
use tokio::{task::JoinSet, time::sleep};

use super::{name::StoreName, raw::save_cycles};

/// How many tasks fill, warm and verify; enough to keep the storage thread busy.
const HELPERS: usize = 256;
/// How often to look whether something is still in a log; rarely, because looking costs as well.
const GLANCE: Duration = Duration::from_millis(20);

/// An engine.
#[derive(Debug)]
pub(crate) struct Sessile {
    engine: Engine,
}

impl Store for Sessile {
    type Client = SessileClient;

    const NAME: &'static str = StoreName::Sessile.as_str();

    async fn create(path: &Path, plan: &Plan) -> anyhow::Result<Self> {
        // Fewer than by default, so that some sessions are cold.
        let live_max = plan.live_max();
        let builder = Engine::builder(path).live_sessions_max(live_max).sessions_in_memory_max(live_max);
        Ok(Self { engine: builder.open().await? })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        let mut helpers = JoinSet::new();
        for helper in 0..HELPERS {
            let (engine, payloads) = (self.engine.clone(), payloads.clone());
            helpers.spawn(async move {
                let mut created = Vec::new();
                for session in (helper..sessions).step_by(HELPERS) {
                    created.push((create(&engine, session, &payloads).await?, session));
                }
                anyhow::Ok(created)
            });
        }
        let mut created = join(helpers).await?.concat();
        created.sort_unstable_by_key(|&(_, session)| session);
        Ok(created.into_iter().map(|(id, _)| id).collect())
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], op: Op) -> anyhow::Result<Vec<SessileClient>> {
        let mut clients = Vec::with_capacity(shares.len());
        for share in shares {
            let handle = |session: usize| self.engine.session(&*world.ids[session]);
            let sessions = if op.is_for_live() {
                share.owned.iter().map(|owned| handle(owned.session)).collect::<Result<_, _>>()?
            } else {
                Vec::new()
            };
            clients.push(SessileClient {
                engine: self.engine.clone(),
                world: world.clone(),
                sessions,
                created: Vec::new(),
            });
        }
        warm(clients.iter().flat_map(|client| client.sessions.iter().cloned()).collect()).await?;
        Ok(clients)
    }

    fn measured(op: Op) -> Op {
        op
    }

    async fn settle(&self) -> anyhow::Result<()> {
        Ok(self.engine.flush().await?)
    }

    async fn rest(&self) -> anyhow::Result<()> {
        loop {
            let stats = self.engine.stats();
            if stats.saves_in_log + stats.touches_in_log + stats.sessions_unindexed == 0 {
                return Ok(());
            }
            sleep(GLANCE).await;
        }
    }

    fn batches(&self) -> Option<u64> {
        Some(self.engine.stats().batches)
    }

    fn live_sessions(&self) -> Option<usize> {
        Some(self.engine.stats().live_sessions)
    }

    fn operations_min(op: Op) -> u64 {
        save_cycles(op)
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(self.engine.shutdown().await?)
    }

    async fn verify(path: &Path, ledger: Arc<Ledger>) -> anyhow::Result<Verified> {
        let engine = Engine::builder(path).open().await?;
        let mut verified = ledger.verified();
        verified.add_count(engine.count(Filter::all()).await?);
        let mut helpers = JoinSet::new();
        for helper in 0..HELPERS {
            let (engine, ledger) = (engine.clone(), ledger.clone());
            helpers.spawn(async move {
                let mut faults = Vec::new();
                for place in (helper..ledger.len()).step_by(HELPERS) {
                    let record = engine.session(ledger.id(place))?.get().await?;
                    let found = record.as_ref().map(|record| (&record.bytes()[..], Some(record.touch_count())));
                    faults.extend(ledger.check(place, found));
                }
                anyhow::Ok(faults)
            });
        }
        for fault in join(helpers).await?.concat() {
            verified.add(fault);
        }
        engine.shutdown().await?;
        Ok(verified)
    }
}

async fn create(engine: &Engine, session: usize, payloads: &Payloads) -> anyhow::Result<Box<str>> {
    let new = NewSession::new().user(user(session)).data(&payloads.of(session, 0));
    Ok(engine.create(new).await?.id().as_str().into())
}

/// Makes sessions live: an update that is refused brings their actors up and writes nothing, a get their records.
async fn warm(sessions: Vec<Session>) -> anyhow::Result<()> {
    let sessions = Arc::new(sessions);
    let mut helpers = JoinSet::new();
    for helper in 0..HELPERS {
        let sessions = sessions.clone();
        helpers.spawn(async move {
            for session in sessions.iter().skip(helper).step_by(HELPERS) {
                let refused = session.try_update(|_: &mut serde_json::Value| Err::<(), ()>(())).await?;
                assert!(refused.is_err(), "nothing else is said");
                session.get().await?;
            }
            anyhow::Ok(())
        });
    }
    join(helpers).await.map(drop)
}

async fn join<T: 'static>(helpers: JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    helpers.join_all().await.into_iter().collect()
}

/// A part of a service: it holds the handles of the sessions it serves.
#[derive(Debug)]
pub(crate) struct SessileClient {
    engine: Engine,
    world: Arc<World>,
    sessions: Vec<Session>,
    created: Vec<(Box<str>, usize)>,
}

impl Client for SessileClient {
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        for &Item { session, place, sequence } in items {
            match op {
                Op::Create => {
                    let id = create(&self.engine, session, &self.world.payloads).await?;
                    self.created.push((id, session));
                }
                Op::Get => read(&self.sessions[place]).await?,
                // As with a cookie: there is an id and no handle yet.
                Op::GetCold => read(&self.engine.session(&*self.world.ids[session])?).await?,
                Op::Save => {
                    self.sessions[place].save(&self.world.payloads.of(session, sequence)).await?;
                }
                Op::Touch => self.sessions[place].touch().await?,
                Op::TouchCommitted => self.sessions[place].touch_with(Durability::Committed).await?,
            }
        }
        Ok(())
    }

    fn pace(op: Op) -> Pace {
        match op {
            Op::Get | Op::Touch => Pace::Instant,
            Op::Create | Op::GetCold | Op::Save | Op::TouchCommitted => Pace::Waits,
        }
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}

async fn read(session: &Session) -> anyhow::Result<()> {
    let Some(record) = session.get().await.context("get failed")? else { bail!("a session is gone") };
    black_box(record.bytes());
    Ok(())
}
