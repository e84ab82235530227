//! `sessile get`: one session, with its data.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use sessile::Record;

use crate::{database, format, print};

/// Print one session with its data.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The database. It must be one of this engine, and not open in another one.
    #[arg(long, value_name = "PATH")]
    db: PathBuf,
    /// The session's id.
    #[arg(allow_hyphen_values = true)] // generated ids begin with one
    id: String,
    /// Print JSON. Data that is not JSON is in `data_hex`, in place of `data`.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let engine = database::open(&options.db).await?;
    let record = match engine.session(options.id.as_str()) {
        Ok(session) => session.get().await,
        Err(error) => Err(error),
    };
    engine.shutdown().await?;
    let record =
        record?.with_context(|| format!("no such session in {} (unknown or expired)", options.db.display()))?;
    print(&if options.json { as_json(&record)? } else { as_text(&record)? })
}

fn as_text(record: &Record) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<12} {value}");
    line("id", &format::text(record.id().as_str()))?;
    line("serial", &record.serial().to_string())?;
    line("user", &record.user().map_or_else(|| "–".to_owned(), format::text))?;
    line("created", &record.created_at().to_string())?;
    line("last active", &record.last_active_at().to_string())?;
    line("touches", &format::count(record.touch_count()))?;
    line("expires", &record.expires_at().map_or_else(|| "never".to_owned(), |at| at.to_string()))?;
    for (key, value) in record.metadata() {
        line("metadata", &format::text(&format!("{key} = {value}")))?;
    }
    if record.is_json() {
        let data: Value = record.data()?;
        write!(text, "data\n{}", format::json(&data))?;
    } else {
        write!(text, "data         {} that are not JSON", format::bytes(record.bytes().len() as f64))?;
    }
    Ok(text)
}

fn as_json(record: &Record) -> anyhow::Result<String> {
    let mut session = json!({
        "id": record.id().as_str(),
        "serial": record.serial(),
        "user": record.user(),
        "created_at": record.created_at().to_string(),
        "last_active_at": record.last_active_at().to_string(),
        "touch_count": record.touch_count(),
        "metadata": record.metadata(),
        "expires_at": record.expires_at().map(|at| at.to_string()),
    });
    if record.is_json() {
        session["data"] = record.data()?;
    } else {
        session["data_hex"] = hexadecimal(record.bytes()).into();
    }
    Ok(format::json(&session))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
