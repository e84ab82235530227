//! Where the databases are made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use sessile_harness::directory::is_in_memory;
use tempfile::TempDir;

use super::name::StoreName;

/// A place for one database per store. All but a database that the user named are removed with it.
#[derive(Debug)]
pub(crate) struct Place {
    named: Option<PathBuf>,
    temporary: TempDir,
}

impl Place {
    /// Finds a place. A database that the user names must not exist: nobody's sessions are to be measured away.
    pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<Self> {
        let directory = match named {
            None => std::env::temp_dir(),
            Some(path) => {
                refuse_existing(path)?;
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
            }
        };
        let temporary = tempfile::Builder::new()
            .prefix("sessile-bench-")
            .tempdir_in(&directory)
            .with_context(|| format!("cannot make databases in {}", directory.display()))?;
        Ok(Self { named: named.map(Path::to_owned), temporary })
    }

    /// Returns the path of a store's database.
    pub(crate) fn path(&self, store: StoreName) -> PathBuf {
        match &self.named {
            Some(path) if store == StoreName::Sessile => path.clone(),
            _ => self.temporary.path().join(format!("{store}.db")),
        }
    }

    /// Returns the directory of the databases that are removed.
    pub(crate) fn directory(&self) -> &Path {
        self.temporary.path()
    }

    /// Returns the database that is kept.
    pub(crate) fn kept(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// Returns whether the place is in memory, where syncing costs nothing.
    pub(crate) fn is_in_memory(&self) -> bool {
        is_in_memory(self.directory())
    }
}

fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot use {}", path.display())),
        Ok(_) => bail!("{} exists already; name a path where nothing is", path.display()),
    }
}
