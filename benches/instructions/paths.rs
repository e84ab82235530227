//! The paths of the engine whose instructions are counted, through its public face.
//!
//! All that could differ from run to run stands still: a runtime of one thread, a clock that does not move, so that no timer is
//! due before the shutdown. The shutdown belongs to the count: what operations leave to be done later, the flush of a touch,
//! the fold of a save into its row, the checkpoint, is done there.

use std::{hint::black_box, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sessile::{Clock, Durability, Engine, NewSession, Session, Timestamp};
use sessile_harness::payload::{Payloads, user};
use tokio::task::JoinSet;

/// Sessions in the file.
const SESSIONS: usize = 8_192;
/// Requests in flight while the file is filled and sessions are brought into memory.
const TOGETHER: usize = 256;
/// Requests in flight at once where they come together.
const JOINED: usize = 64;
const PAYLOAD_BYTES: usize = 400;
/// When the clock stands.
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Path {
    /// A touch of a session in memory.
    Touch,
    /// A read of a session in memory, with its JSON decoded.
    Get,
    /// The same of a session that is not in memory.
    GetCold,
    /// A new session.
    Create,
    /// New data, committed.
    Save,
    /// The same, many at once.
    SaveJoined,
    /// A touch, committed.
    TouchCommitted,
    /// The same, many at once.
    TouchCommittedJoined,
    /// A change by a function, committed.
    Update,
}

impl Path {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Touch,
        Self::Get,
        Self::GetCold,
        Self::Create,
        Self::Save,
        Self::SaveJoined,
        Self::TouchCommitted,
        Self::TouchCommittedJoined,
        Self::Update,
    ];

    /// Returns the name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns how many operations are counted, at the least: enough that what does not depend on their number is lost
    /// among them.
    pub fn operations(self) -> usize {
        match self {
            Self::Touch | Self::Get => 65_536,
            // Of a batch of its own each time, or so: it is the batches that differ from run to run.
            Self::SaveJoined | Self::TouchCommittedJoined => SESSIONS / 2,
            Self::TouchCommitted => SESSIONS / 4,
            Self::GetCold | Self::Create | Self::Save | Self::Update => SESSIONS / 8,
        }
    }

    /// Returns how often it is counted, to take the median: where it hangs on the threads' order how many requests go into a
    /// batch, or how often one looks for them in vain, a count is now and then far from the others.
    pub fn rounds(self) -> usize {
        match self {
            Self::SaveJoined | Self::TouchCommitted | Self::TouchCommittedJoined => 3,
            _ => 1,
        }
    }

    /// Returns by how many percent a count may differ from the baseline: more than counts of the same code ever did.
    pub fn tolerance_percent(self) -> f64 {
        match self {
            Self::Get | Self::GetCold => 3.0,
            Self::SaveJoined | Self::TouchCommitted | Self::TouchCommittedJoined => 10.0,
            _ => 5.0,
        }
    }

    /// Returns how many sessions the operations are of. What reaches storage is of another session each time, in the run with
    /// twice as many, too.
    fn sessions(self) -> usize {
        match self {
            Self::Touch | Self::Get => 512,
            _ => 2 * self.operations(),
        }
    }
}

/// Makes a file with sessions.
pub fn fill(file: &std::path::Path) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let engine = open(file).await?;
        create_all(&engine).await?;
        Ok(engine.shutdown().await?)
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}

async fn open(file: &std::path::Path) -> Result<Engine, sessile::OpenError> {
    Engine::builder(file).clock(Arc::new(StoppedClock)).open().await
}

/// Runs a path so many times on an engine of its own, from the opening of a copy of the file to the shutdown.
pub fn run(path: Path, operations: usize, filled: &std::path::Path) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("sessions.db");
    std::fs::copy(filled, &file)?;
    runtime()?.block_on(async {
        let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES));
        let engine = open(&file).await?;
        let sessions =
            (0..path.sessions()).map(|session| engine.session(id(session))).collect::<Result<Vec<_>, _>>()?;
        if path != Path::GetCold {
            bring_into_memory(&sessions, path == Path::Update).await?;
        }
        let ran = World { engine: engine.clone(), sessions, payloads }.run(path, operations).await;
        engine.shutdown().await?;
        ran
    })
}

/// A clock that stands still.
#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A session's data, as a service would have it.
#[derive(Debug, Serialize, Deserialize)]
struct Chat {
    session: usize,
    sequence: u64,
    text: String,
}

fn id(session: usize) -> String {
    format!("session-{session}")
}

async fn create_all(engine: &Engine) -> anyhow::Result<()> {
    let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES));
    for first in (0..SESSIONS).step_by(TOGETHER) {
        let mut creating = JoinSet::new();
        for session in first..first + TOGETHER {
            let (engine, payloads) = (engine.clone(), Arc::clone(&payloads));
            creating.spawn(async move {
                let new = NewSession::with_id(id(session)).user(user(session)).data(&payloads.of(session, 0));
                engine.create(new).await
            });
        }
        creating.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// Brings records into memory, and actors up where they are asked for.
async fn bring_into_memory(sessions: &[Session], with_actors: bool) -> anyhow::Result<()> {
    for some in sessions.chunks(TOGETHER) {
        let mut reading = JoinSet::new();
        for session in some {
            let session = session.clone();
            reading.spawn(async move {
                if with_actors {
                    let refused = session.try_update(|_: &mut Chat| Err::<(), ()>(())).await?;
                    ensure!(refused.is_err(), "nothing else is said");
                }
                session.get().await?.context("it is there")
            });
        }
        reading.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    }
    // A handle remembers where its session is in memory.
    for session in sessions {
        session.get().await?;
    }
    Ok(())
}

struct World {
    engine: Engine,
    sessions: Vec<Session>,
    payloads: Arc<Payloads>,
}

impl World {
    async fn run(&self, path: Path, operations: usize) -> anyhow::Result<()> {
        match path {
            Path::SaveJoined | Path::TouchCommittedJoined => {
                for first in (0..operations).step_by(JOINED) {
                    self.joined(path, first).await?;
                }
            }
            _ => {
                for operation in 0..operations {
                    self.one(path, operation).await?;
                }
            }
        }
        Ok(())
    }

    async fn one(&self, path: Path, operation: usize) -> anyhow::Result<()> {
        let place = operation % self.sessions.len();
        let session = &self.sessions[place];
        match path {
            Path::Touch => session.touch().await?,
            Path::Get | Path::GetCold => {
                let record = session.get().await?.context("it is there")?;
                black_box(record.data::<Chat>()?);
            }
            Path::Create => {
                let new = NewSession::with_id(format!("t-{operation:09}"))
                    .user(user(place))
                    .data(&self.payloads.of(place, 0));
                black_box(self.engine.create(new).await?);
            }
            Path::Save | Path::SaveJoined => {
                session.save(&self.payloads.of(place, sequence(operation))).await?;
            }
            Path::TouchCommitted | Path::TouchCommittedJoined => session.touch_with(Durability::Committed).await?,
            Path::Update => session.update(|chat: &mut Chat| chat.sequence += 1).await?,
        }
        Ok(())
    }

    async fn joined(&self, path: Path, first: usize) -> anyhow::Result<()> {
        let mut asking = JoinSet::new();
        for operation in first..first + JOINED {
            let place = operation % self.sessions.len();
            let (session, payloads) = (self.sessions[place].clone(), Arc::clone(&self.payloads));
            asking.spawn(async move {
                match path {
                    Path::SaveJoined => session.save(&payloads.of(place, sequence(operation))).await.map(drop),
                    _ => session.touch_with(Durability::Committed).await,
                }
            });
        }
        Ok(asking.join_all().await.into_iter().collect::<Result<(), _>>()?)
    }
}

/// The number of a save; what a session was created with is number 0.
fn sequence(operation: usize) -> u64 {
    operation as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_runs_and_none_is_left_out() {
        assert_eq!(Path::ALL, Path::value_variants());
        let directory = tempfile::tempdir().unwrap();
        let filled = directory.path().join("sessions.db");
        fill(&filled).unwrap();
        for &path in Path::ALL {
            run(path, JOINED, &filled).unwrap_or_else(|error| panic!("{path:?}: {error:#}"));
        }
    }
}
