//! The rounds: both programs run in turn, and who comes first changes from round to round.

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::child;
use crate::failure::Failure;
use crate::samples::{Column, Samples};

/// Runs all rounds.
pub(crate) fn run(args: &Args) -> Result<Samples, Failure> {
    let mut samples = Samples::default();
    let mut columns = vec![Column::Ours];
    columns.extend(args.reference.as_ref().map(|_| Column::Reference));
    let progress = progress(u64::from(args.rounds()) * columns.len() as u64);
    for round in 1..=args.rounds() {
        // ABBA: what the machine does meanwhile concerns both alike.
        columns.reverse();
        for &column in &columns {
            one(args, column, &mut samples, &|row| {
                progress.set_message(format!("round {round} of {}, {}: {row}", args.rounds(), name(column)));
            })?;
            progress.inc(1);
            if progress.is_hidden() {
                eprintln!("round {round} of {}: {} is through", args.rounds(), name(column));
            }
        }
    }
    progress.finish_and_clear();
    match &args.rows {
        Some(part) if samples.is_empty() => Err(Failure::NoRow(part.clone())),
        _ => Ok(samples),
    }
}

fn name(column: Column) -> &'static str {
    match column {
        Column::Reference => "the C program",
        Column::Ours => "ours",
    }
}

/// Runs one program once.
fn one(args: &Args, column: Column, samples: &mut Samples, shown: &dyn Fn(&str)) -> Result<(), Failure> {
    let mut command = match (column, &args.reference) {
        (Column::Reference, Some(path)) => reference(args, path),
        _ => ourselves(args)?,
    };
    let work = args.work();
    child::run(&mut command, |line| {
        shown(&line.row);
        if work.wants(&line.row) {
            samples.add(column, line);
        }
    })
}

/// The C program takes the largest number of intervals, and runs everything.
fn reference(args: &Args, path: &PathBuf) -> Command {
    let mut command = Command::new(path);
    command.arg(args.work().max.to_string());
    command
}

/// This program as a child, with the same arguments.
fn ourselves(args: &Args) -> Result<Command, Failure> {
    let program = env::current_exe().map_err(|error| Failure::NotStarted("bench".into(), error))?;
    let mut command = Command::new(program);
    command.args(["--child", "ours", "--max", &args.work().max.to_string()]);
    if args.smoke {
        command.arg("--smoke");
    }
    if let Some(part) = &args.rows {
        command.args(["--rows", part]);
    }
    Ok(command)
}

fn progress(runs: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}");
    ProgressBar::new(runs).with_style(style.expect("the template is well formed"))
}
