//! A Redis server of our own: on a free port of the loopback interface, with its files in a directory of ours, ended with
//! the store.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use bb8::ManageConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult, aio::MultiplexedConnection};
use sessile_harness::measure::{Usage, resident_bytes, resident_bytes_of};
use tokio::time::sleep;

/// How often to ask a server that starts, reading its log, whether it is ready.
const ATTEMPTS: u32 = 3_000;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// Connects to the server. Without timeouts: they would cost each command a timer, and the other stores have none.
#[derive(Debug, Clone)]
pub(crate) struct Connector(redis::Client);

impl ManageConnection for Connector {
    type Connection = MultiplexedConnection;
    type Error = RedisError;

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        self.0.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn is_valid(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        redis::cmd("PING").query_async(connection).await
    }

    fn has_broken(&self, _connection: &mut MultiplexedConnection) -> bool {
        false
    }
}

/// A server that runs.
pub(crate) struct Server {
    process: Child,
    connector: Connector,
    directory: PathBuf,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start(directory: &Path, append_fsync: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", append_fsync])
            // Kind to Redis: what a rewrite of the log takes is not counted.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no redis-server"),
            process => process.context("redis-server does not start")?,
        };
        let connector = Connector(redis::Client::open(format!("redis://127.0.0.1:{port}/"))?);
        let mut server = Self { process, connector, directory: directory.to_owned() };
        server.wait_until_ready().await?;
        server.cpu().context("the system does not tell what the server uses")?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            if let Some(status) = self.process.try_wait()? {
                bail!("redis-server ended: {status}");
            }
            let answer = async { redis::cmd("PING").query_async::<()>(&mut self.connect().await?).await };
            if answer.await.is_ok() {
                return Ok(());
            }
            sleep(ATTEMPT_INTERVAL).await;
        }
        bail!("redis-server does not answer")
    }

    /// Returns how to connect.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.connector.connect().await
    }

    /// Ends the server, everything written.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        // There is no answer: the server is gone.
        let _ = redis::cmd("SHUTDOWN").query_async::<()>(&mut connection).await;
        for _ in 0..ATTEMPTS {
            if self.process.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(ATTEMPT_INTERVAL).await;
        }
        bail!("redis-server does not end")
    }

    /// Returns what this process and the server have used. What Redis writes to files is its log.
    pub(crate) fn usage(&self) -> Usage {
        Usage { cpu: Usage::now().cpu + self.cpu().unwrap_or_default(), written_bytes: self.log_bytes().ok() }
    }

    /// Returns the memory that this process and the server hold.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        Some(resident_bytes()? + resident_bytes_of(&self.process.id().to_string())?)
    }

    /// Returns the server's CPU time: the first number of each thread's `schedstat`, in nanoseconds.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            total += Duration::from_nanos(text.split_whitespace().next().context("it is empty")?.parse()?);
        }
        Ok(total)
    }

    fn log_bytes(&self) -> anyhow::Result<u64> {
        let mut total = 0;
        for file in fs::read_dir(self.directory.join("appendonlydir"))? {
            total += file?.metadata()?.len();
        }
        Ok(total)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless something failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
