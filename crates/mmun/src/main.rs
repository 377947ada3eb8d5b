//! The binary `mmun`: reads the command line and hands over to the module of the subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use mmun::doctor;
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
    /// Say which changes of its mappings a process on this machine can hear of
    #[cfg(target_os = "linux")]
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Scenario(args) => scenario::run(&args),
        Command::Demo(args) => demo::run(&args),
        #[cfg(target_os = "linux")]
        Command::Doctor(args) => doctor::run(&args),
    }
}
