//! The binary `mmun`: reads the command line and hands over to the module of the subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mmun::{demo, scenario};

/// MMU notifiers at the command line.
#[derive(Parser)]
#[command(name = "mmun", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenario files: who calls what on which thread, step by step
    Scenario(scenario::Args),
    /// Show the library at work
    Demo(demo::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Scenario(args) => scenario::run(&args),
        Command::Demo(args) => demo::run(&args),
    }
}
