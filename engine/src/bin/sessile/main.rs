//! The `sessile` command: measures the engine on this machine, and looks into its databases.

mod bench;
mod database;
mod format;
mod get;
mod list;
mod load;
mod scale;
mod stats;
mod stores;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// An embeddable session engine: measure it, and look into its databases.
#[derive(Debug, Parser)]
#[command(name = "sessile", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
    Load(load::Options),
    Scale(scale::Options),
    List(list::Options),
    Get(get::Options),
    Stats(stats::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has enough of it: `sessile list | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // It may quote what is in a file, such as the names of its tables.
            eprintln!("sessile: {}", format::text(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = sessile_harness::runtime().build()?;
    runtime.block_on(async {
        match command {
            Command::Bench(options) => bench::run(options).await,
            Command::Load(options) => load::run(options).await,
            Command::Scale(options) => scale::run(options).await,
            Command::List(options) => list::run(options).await,
            Command::Get(options) => get::run(options).await,
            Command::Stats(options) => stats::run(options).await,
        }
    })
}

/// Prints to standard output; unlike `println!`, without a panic when nobody reads it.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    Ok(output.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
