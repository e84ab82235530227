//! Sessions as JSON texts in Redis, each with an expiry. A save replaces what is there and creates nothing; a touch renews
//! the expiry.

use std::{hint::black_box, path::Path, sync::Arc};

use anyhow::{Context, bail};
use bb8::Pool;
use redis::{Cmd, FromRedisValue, aio::MultiplexedConnection, cmd, pipe};
use sessile_harness::{
    ledger::{Ledger, Verified},
    measure::Usage,
    payload::Payloads,
    plan::{Op, Plan},
    store::{Client, Pace, Store},
    world::{Item, Share, World},
};

use crate::server::{Connector, Server};

/// Two weeks, as with the other stores.
const LIFETIME_S: u32 = 14 * 24 * 3_600;
/// Connections in the pool.
const CONNECTIONS: u32 = 64;
/// How many commands go out together while filling and verifying.
const CHUNK: usize = 1_000;

/// Redis. Pooled, or over one connection that all clients share; its log synced after each command, or each second.
pub(crate) struct Redis<const IS_POOLED: bool, const IS_SYNCED: bool> {
    server: Server,
    connections: Connections,
}

/// How clients reach the server.
#[derive(Clone)]
pub(crate) enum Connections {
    /// One for all: what they send at the same time goes out together.
    Multiplexed(MultiplexedConnection),
    /// One for each while it waits.
    Pooled(Pool<Connector>),
}

impl Connections {
    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> anyhow::Result<T> {
        match self {
            Self::Multiplexed(connection) => Ok(command.query_async(connection).await?),
            Self::Pooled(pool) => Ok(command.query_async(&mut *pool.get().await?).await?),
        }
    }
}

impl<const IS_POOLED: bool, const IS_SYNCED: bool> Redis<IS_POOLED, IS_SYNCED> {
    const APPEND_FSYNC: &'static str = if IS_SYNCED { "always" } else { "everysec" };
}

impl<const IS_POOLED: bool, const IS_SYNCED: bool> Store for Redis<IS_POOLED, IS_SYNCED> {
    type Client = RedisStoreClient;

    const NAME: &'static str = match (IS_POOLED, IS_SYNCED) {
        (false, false) => "redis/multiplexed-everysec",
        (false, true) => "redis/multiplexed-always",
        (true, false) => "redis/pooled-everysec",
        (true, true) => "redis/pooled-always",
    };

    async fn create(path: &Path, _plan: &Plan) -> anyhow::Result<Self> {
        let server = Server::start(path, Self::APPEND_FSYNC).await?;
        let connections = if IS_POOLED {
            // Without a check at each checkout, which would double the round trips.
            let pool = Pool::builder().max_size(CONNECTIONS).min_idle(CONNECTIONS).test_on_check_out(false);
            Connections::Pooled(pool.build(server.connector().clone()).await?)
        } else {
            Connections::Multiplexed(server.connect().await?)
        };
        Ok(Self { server, connections })
    }

    async fn fill(&self, sessions: usize, payloads: &Arc<Payloads>) -> anyhow::Result<Vec<Box<str>>> {
        let mut connection = self.server.connect().await?;
        let ids: Vec<Box<str>> = (0..sessions).map(|_| new_id()).collect();
        for (chunk, ids) in ids.chunks(CHUNK).enumerate() {
            let mut pipe = pipe();
            for (place, id) in ids.iter().enumerate() {
                pipe.add_command(create(id, &payloads.json(chunk * CHUNK + place, 0))).ignore();
            }
            pipe.query_async::<()>(&mut connection).await?;
        }
        Ok(ids)
    }

    async fn clients(&self, world: &Arc<World>, shares: &[Share], _op: Op) -> anyhow::Result<Vec<RedisStoreClient>> {
        let client = |_: &Share| RedisStoreClient {
            connections: self.connections.clone(),
            world: world.clone(),
            created: Vec::new(),
        };
        Ok(shares.iter().map(client).collect())
    }

    fn usage(&self) -> Usage {
        self.server.usage()
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.server.resident_bytes()
    }

    async fn close(self) -> anyhow::Result<()> {
        drop(self.connections);
        self.server.stop().await
    }

    async fn verify(path: &Path, ledger: Arc<Ledger>) -> anyhow::Result<Verified> {
        let server = Server::start(path, Self::APPEND_FSYNC).await?;
        let mut connection = server.connect().await?;
        let mut verified = ledger.verified();
        verified.add_count(cmd("DBSIZE").query_async(&mut connection).await?);
        let places: Vec<usize> = (0..ledger.len()).collect();
        for places in places.chunks(CHUNK) {
            let mut command = cmd("MGET");
            for &place in places {
                command.arg(ledger.id(place));
            }
            let found: Vec<Option<Vec<u8>>> = command.query_async(&mut connection).await?;
            for (&place, data) in places.iter().zip(&found) {
                // It counts no touches.
                if let Some(fault) = ledger.check(place, data.as_ref().map(|data| (&data[..], None))) {
                    verified.add(fault);
                }
            }
        }
        server.stop().await?;
        Ok(verified)
    }
}

/// A part of a service.
pub(crate) struct RedisStoreClient {
    connections: Connections,
    world: Arc<World>,
    created: Vec<(Box<str>, usize)>,
}

impl Client for RedisStoreClient {
    async fn perform(&mut self, op: Op, items: &[Item]) -> anyhow::Result<()> {
        for &Item { session, sequence, .. } in items {
            if op == Op::Create {
                let id = new_id();
                self.connections.query::<()>(&create(&id, &self.world.payloads.json(session, sequence))).await?;
                self.created.push((id, session));
                continue;
            }
            let id = &*self.world.ids[session];
            let is_there = match op {
                Op::Get | Op::GetCold => {
                    let data: Option<Vec<u8>> = self.connections.query(cmd("GET").arg(id)).await?;
                    black_box(data).is_some()
                }
                Op::Touch | Op::TouchCommitted => self.connections.query(cmd("EXPIRE").arg(id).arg(LIFETIME_S)).await?,
                Op::Create | Op::Save => {
                    let data = self.world.payloads.json(session, sequence);
                    let mut save = cmd("SET");
                    save.arg(id).arg(data).arg("XX").arg("EX").arg(LIFETIME_S);
                    self.connections.query::<Option<String>>(&save).await.context("save failed")?.is_some()
                }
            };
            if !is_there {
                bail!("a session is gone");
            }
        }
        Ok(())
    }

    fn pace(_op: Op) -> Pace {
        Pace::Waits
    }

    fn created(self) -> Vec<(Box<str>, usize)> {
        self.created
    }
}

fn create(id: &str, data: &str) -> Cmd {
    let mut command = cmd("SET");
    command.arg(id).arg(data).arg("NX").arg("EX").arg(LIFETIME_S);
    command
}

fn new_id() -> Box<str> {
    format!("{:032x}", fastrand::u128(..)).into()
}
