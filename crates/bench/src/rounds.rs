//! The rounds: the programs run in turn, and the order is turned round from round to round.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::c_interface;
use crate::child;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::rows;
use crate::samples::{Column, Samples};

/// Runs all rounds for which there is time; gives their number, too.
pub(crate) fn run(args: &Args) -> Result<(Samples, u32), Failure> {
    let mut samples = Samples::default();
    let c_interface = args.c_interface.then(c_interface::compile).transpose()?;
    let mut columns = args.columns();
    let progress = Progress::new(args.rounds(), columns.len());
    let begin = Instant::now();
    let mut round = 0;
    while round < args.rounds() && is_time(begin.elapsed(), round, args.time()) {
        round += 1;
        for &column in &columns {
            one(args, c_interface.as_deref(), round, column, &mut samples, &progress)?;
            progress.is_through(round, column);
        }
        // ABCCBA: what the machine does meanwhile concerns all alike.
        columns.reverse();
    }
    progress.finish();
    match &args.rows {
        Some(part) if samples.is_empty() => Err(Failure::NoRow(part.clone())),
        _ => Ok((samples, round)),
    }
}

/// Says whether one more round fits, if it is as long as those before.
fn is_time(taken: Duration, rounds: u32, limit: Option<Duration>) -> bool {
    limit.is_none_or(|limit| rounds == 0 || taken + taken / rounds <= limit)
}

/// Runs one program once.
fn one(
    args: &Args,
    c_interface: Option<&Path>,
    round: u32,
    column: Column,
    samples: &mut Samples,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut command = match (column, &args.reference, c_interface) {
        (Column::Reference, Some(path), _) => of_c(args, path),
        (Column::CInterface, _, Some(path)) => of_c(args, path),
        (Column::Twin, ..) => ourselves(args, "kernel-like", round <= args.whole_rounds_of_twin())?,
        _ => ourselves(args, "ours", true)?,
    };
    if args.smoke && column == Column::CInterface {
        command.arg("smoke");
    }
    let work = args.work();
    child::run(&mut command, |line| {
        progress.is_at(round, column, &line.row);
        if work.wants(&line.row) {
            samples.add(column, line);
        }
    })
}

/// A C program takes the largest number of intervals, and runs everything up to it.
fn of_c(args: &Args, path: &Path) -> Command {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_would_be_too_long_is_left_out() {
        let seconds = Duration::from_secs;
        let limit = Some(seconds(60));
        assert!(is_time(seconds(0), 0, limit) && is_time(seconds(40), 2, limit));
        assert!(!is_time(seconds(44), 2, limit));
        assert!(is_time(seconds(44), 2, None));
    }
}
