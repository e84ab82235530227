//! Opening a database that is there, to look into it.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use sessile::{Engine, OpenError};

/// Opens the engine on a database of its own. Unlike `Engine::builder`, neither makes a database nor takes one over.
pub(crate) async fn open(path: &Path) -> anyhow::Result<Engine> {
    fs::metadata(path).with_context(|| format!("there is no database at {}", path.display()))?;
    match Engine::builder(path).only_existing().open().await {
        Err(OpenError::NotOurs { found }) => bail!(
            "{} is not a database of this engine, but of {found} (one of the source document's service is taken over \
             when an application opens it with the engine)",
            path.display()
        ),
        opened => opened.with_context(|| format!("cannot open {}", path.display())),
    }
}
