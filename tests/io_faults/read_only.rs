//! Files that cannot be written any more, while they are open: the filesystem turns read-only, as Linux does to a disk
//! that fails, or somebody forbids it for the files alone.

use std::{path::Path, process::Command, time::Duration};

use sessile::{CauseKind, Durability, Engine, Health, OpenError};
use sessile_tests::{eventually, not_run, soon};

use super::{
    promises::Client,
    volume::{Kind, on_volumes},
};

/// The deadline of requests: shorter than the trouble lasts here, longer than a disk takes for a sync.
const DEADLINE: Duration = Duration::from_millis(400);

/// Asks for everything while nothing can be written; nothing may be acknowledged that needs it.
async fn is_refused(engine: &Engine, client: &mut Client) {
    for round in 0..2 {
        assert!(!client.save("a").await, "a save was acknowledged");
        assert!(!client.create(&format!("new-{round}")).await, "a create was acknowledged");
        assert!(!client.touch("b", Some(Durability::Committed)).await, "a durable touch was acknowledged");
        assert!(!client.flush().await, "a flush was acknowledged");
        client.get("b").await;
        client.delete("c").await;
    }
    match engine.health() {
        Health::Degraded { cause, .. } => {
            assert!(matches!(cause.kind, CauseKind::ReadOnly | CauseKind::Io), "{cause:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_filesystem_that_turns_read_only_refuses_and_loses_nothing() {
    on_volumes("a filesystem that turns read-only", &[Kind::Ext4], async |volume| {
        let engine = Engine::builder(volume.path()).request_timeout(DEADLINE).open().await.unwrap();
        let mut client = Client::new(&engine, DEADLINE);
        for id in ["a", "b", "c"] {
            assert!(client.create(id).await && client.touch(id, None).await);
        }
        // The disk itself is to have all of it: what comes after is a mount anew.
        client.promising(Durability::Synced);
        for id in ["a", "b", "c"] {
            assert!(client.save(id).await);
        }
        assert!(client.flush().await);
        if let Err(why) = volume.turn_read_only() {
            not_run(format_args!("a filesystem that turns read-only: {why}"));
            return;
        }
        is_refused(&engine, &mut client).await;
        soon("the shutdown", engine.shutdown()).await.unwrap_err();
        let error = Engine::builder(volume.path()).open().await.unwrap_err();
        assert!(matches!(error, OpenError::NotWritable { .. } | OpenError::Storage { .. }), "{error:?}");
        volume.mount_again().unwrap();
        let engine = Engine::builder(volume.path()).open().await.unwrap();
        client.reconnect(&engine, false);
        client.read_all().await;
        client.works_again("d").await;
        assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
        engine.shutdown().await.unwrap();
        println!(
            "figure: read_only_filesystem requests={} refused={} wrong_acknowledgements=0 hangs=0",
            client.findings.requests,
            client.findings.refused()
        );
    });
}

fn immutable(paths: &[&Path], on: bool) -> Result<(), String> {
    let output = Command::new("chattr").arg(if on { "+i" } else { "-i" }).args(paths).output();
    let output = output.map_err(|error| format!("chattr: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

#[test]
fn files_forbidden_and_allowed_again_while_open_are_written_again() {
    on_volumes("files that are read-only for a while", &[Kind::Ext4], async |volume| {
        let engine = Engine::builder(volume.path()).request_timeout(DEADLINE).open().await.unwrap();
        let mut client = Client::new(&engine, DEADLINE);
        for id in ["a", "b", "c"] {
            assert!(client.create(id).await && client.touch(id, None).await);
        }
        let log = volume.directory().join("sessions.db-wal");
        let files = [volume.path(), log];
        let files = [files[0].as_path(), files[1].as_path()];
        if let Err(why) = immutable(&files, true) {
            not_run(format_args!("files that are read-only for a while: {why}"));
            return;
        }
        is_refused(&engine, &mut client).await;
        immutable(&files, false).unwrap();
        eventually("they are written again", async || matches!(engine.health(), Health::Ready)).await;
        client.works_again("d").await;
        client.read_all().await;
        engine.shutdown().await.unwrap();
        let engine = Engine::builder(volume.path()).open().await.unwrap();
        client.reconnect(&engine, true);
        client.read_all().await;
        assert!(client.findings.wrong.is_empty() && client.findings.hangs.is_empty(), "{:#?}", client.findings);
        println!(
            "figure: read_only_files requests={} refused={} wrong_acknowledgements=0 hangs=0",
            client.findings.requests,
            client.findings.refused()
        );
    });
}
