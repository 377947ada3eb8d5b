//! The rounds: the programs run in turn, and the order is turned round from round to round.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::args::Args;
use crate::child;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::rows;
use crate::samples::{Column, Samples};

/// Runs all rounds.
pub(crate) fn run(args: &Args) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    let mut columns = args.columns();
    let progress = Progress::new(args.rounds(), columns.len());
    for round in 1..=args.rounds() {
        for &column in &columns {
            one(args, round, column, &mut samples, &progress)?;
            progress.is_through(round, column);
        }
        // ABCCBA: what the machine does meanwhile concerns all alike.
        columns.reverse();
    }
    progress.finish();
    match &args.rows {
        Some(part) if samples.is_empty() => Err(Failure::NoRow(part.clone())),
        _ => Ok(samples),
    }
}

/// Runs one program once.
fn one(
    args: &Args,
    round: u32,
    column: Column,
    samples: &mut Samples,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut command = match (column, &args.reference) {
        (Column::Reference, Some(path)) => reference(args, path),
        (Column::Twin, _) => ourselves(args, "kernel-like", round <= args.whole_rounds_of_twin())?,
        _ => ourselves(args, "ours", true)?,
    };
    let work = args.work();
    child::run(&mut command, |line| {
        progress.is_at(round, column, &line.row);
        if work.wants(&line.row) {
            samples.add(column, line);
        }
    })
}

/// The C program takes the largest number of intervals, and runs everything up to it.
fn reference(args: &Args, path: &Path) -> Command {
    let work = args.work();
    let max = if rows::are_intervals_wanted(&work) { work.max } else { 0 };
    let mut command = Command::new(path);
    command.arg(max.to_string());
    command
}

/// This program as a child, with the same arguments.
fn ourselves(args: &Args, subject: &str, all: bool) -> Result<Command, Failure> {
    let program = env::current_exe().map_err(|error| Failure::NotStarted("bench".into(), error))?;
    let mut command = Command::new(program);
    command.args(["--child", subject, "--max", &args.work().max.to_string()]);
    command.args(["--set", if all { "all" } else { "lacking" }]);
    if args.smoke {
        command.arg("--smoke");
    }
    if let Some(part) = &args.rows {
        command.args(["--rows", part]);
    }
    Ok(command)
}
