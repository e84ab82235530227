//! Builds the programs and runs them.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use sessile_harness::syncs;

use crate::store::{Program, Store};

/// Where the programs are, and where their databases go.
#[derive(Debug)]
pub(crate) struct Programs {
    target: PathBuf,
    profile: String,
    directory: PathBuf,
}

impl Programs {
    /// Prepares to build with a profile of cargo, and to keep databases in `directory`.
    pub(crate) fn new(profile: &str, directory: &Path) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        Self { target, profile: profile.to_owned(), directory: directory.to_owned() }
    }

    /// Builds a program.
    pub(crate) fn build(&self, program: Program) -> anyhow::Result<()> {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--profile", &self.profile, "--bin", program.name()])
            .args(program.features())
            .arg("--manifest-path")
            .arg(program.manifest())
            .arg("--target-dir")
            .arg(&self.target)
            .status()
            .context("cargo does not start")?;
        ensure!(status.success(), "{} does not build", program.name());
        Ok(())
    }

    /// Says what a program measures, versions included.
    pub(crate) fn about(&self, program: Program) -> anyhow::Result<String> {
        let output = Command::new(env!("CARGO"))
            .args(["pkgid", "--manifest-path"])
            .arg(program.manifest())
            .arg(program.library())
            .output()?;
        let id = String::from_utf8(output.stdout)?;
        let version = id.trim().rsplit(['@', '#']).next().unwrap_or_default().to_owned();
        let library = format!("{} {version}", program.library());
        if program == Program::Sessile {
            return Ok(library);
        }
        let output = Command::new(self.path(program)).arg("about").output()?;
        Ok(format!("{library}, {}", String::from_utf8(output.stdout)?.trim()))
    }

    /// Runs a task on a store and reads its rows.
    pub(crate) fn run<R: DeserializeOwned>(
        &self,
        store: &Store,
        task: &str,
        options: &[String],
    ) -> anyhow::Result<Vec<R>> {
        self.start(Command::new(self.path(store.program)), store, task, options)
    }

    /// The same under strace, which tells the program how often files are synced.
    pub(crate) fn run_traced<R: DeserializeOwned>(
        &self,
        store: &Store,
        task: &str,
        options: &[String],
    ) -> anyhow::Result<Vec<R>> {
        let place = tempfile::tempdir_in(&self.directory)?;
        let trace = place.path().join("trace");
        // The program reads it when it begins.
        fs::write(&trace, "")?;
        let mut command = Command::new("strace");
        command
            .args(["-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e"])
            .arg(format!("trace={}", syncs::CALLS))
            .arg("-o")
            .arg(&trace)
            .arg("--")
            .arg(self.path(store.program));
        let mut options = options.to_vec();
        options.extend(["--sync-trace".to_owned(), trace.display().to_string()]);
        self.start(command, store, task, &options)
    }

    fn start<R: DeserializeOwned>(
        &self,
        mut command: Command,
        store: &Store,
        task: &str,
        options: &[String],
    ) -> anyhow::Result<Vec<R>> {
        let place = tempfile::tempdir_in(&self.directory)?;
        let json = place.path().join("rows.json");
        let output = command
            .arg(task)
            .args([store.program.store_option(), store.name])
            .args(options)
            .arg("--json")
            .arg(&json)
            .env("TMPDIR", &self.directory)
            .stdin(Stdio::null())
            .output()
            .context("it does not start")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("{}", text.trim().lines().last().unwrap_or("it failed without a word"));
        }
        Ok(serde_json::from_slice(&fs::read(&json)?)?)
    }

    fn path(&self, program: Program) -> PathBuf {
        let folder = if self.profile == "dev" { "debug" } else { &self.profile };
        self.target.join(folder).join(program.name())
    }
}

/// Says what is missing, if a program is not on the path.
pub(crate) fn missing(name: &str) -> Option<String> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("there is no {name} on the path")),
        Err(error) => Some(format!("{name} does not start: {error}")),
    }
}
