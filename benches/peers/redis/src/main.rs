//! Redis as a store of sessions, to be measured beside Sessile: over one multiplexed connection and with a pool, its log
//! synced each second and after each command.

mod server;
mod store;

use std::process::ExitCode;

use sessile_harness::{
    peer::{self, Peer, Task},
    store::Store,
};

use self::store::Redis;

struct Program;

impl Peer for Program {
    async fn about() -> anyhow::Result<String> {
        let output = std::process::Command::new("redis-server").arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
        Ok(format!("Redis {version}"))
    }

    async fn run(task: Task) -> anyhow::Result<()> {
        match task.store() {
            <Redis<false, false>>::NAME => task.run::<Redis<false, false>>().await,
            <Redis<false, true>>::NAME => task.run::<Redis<false, true>>().await,
            <Redis<true, false>>::NAME => task.run::<Redis<true, false>>().await,
            <Redis<true, true>>::NAME => task.run::<Redis<true, true>>().await,
            _ => Err(task.unknown()),
        }
    }
}

fn main() -> ExitCode {
    peer::main::<Program>(sessile_harness::runtime().enable_io())
}
