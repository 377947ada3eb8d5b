//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::samples::Column;
use crate::work::{Rows, Scale, Work};

/// Measures mmu-notifier, beside a C program of the same work and beside a plain twin of the kernel's way
#[derive(Parser)]
#[command(name = "bench", version)]
pub(crate) struct Args {
    /// The C program to measure beside; `PATH MAX` prints lines of `name n nanoseconds`
    #[arg(long, value_name = "PATH")]
    pub(crate) reference: Option<PathBuf>,

    /// Measure the plain twin too, as --reference does
    #[arg(long)]
    kernel_like: bool,

    /// Measure the C interface too: compiles a C program, and compares it with the Rust interface
    #[arg(long)]
    pub(crate) c_interface: bool,

    /// Print one JSON list to stdout: an object for each row and n
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a picture to this file
    #[arg(long, visible_alias = "picture", value_name = "PATH")]
    pub(crate) svg: Option<PathBuf>,

    /// Take a minute at the most: up to 10,000 intervals, three rounds
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only show that everything runs: tiny sizes, one round; the figures mean nothing
    #[arg(long, conflicts_with = "quick")]
    pub(crate) smoke: bool,

    /// Only the rows whose name contains this (the C program cannot choose: it runs more)
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) rows: Option<String>,

    /// How often each program runs, however long it takes (else 5, or 3 with --quick, if ten minutes or one suffice)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// The largest number of intervals (1,000,000; 10,000 with --quick)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    max: Option<u64>,

    /// Measure in this process, and print lines as the C program does
    #[arg(long, hide = true, value_name = "SUBJECT")]
    pub(crate) child: Option<Subject>,

    /// Which rows a child runs
    #[arg(long, hide = true, value_name = "SET", default_value = "all")]
    set: Rows,
}

/// Whose rows a child process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// The library.
    Ours,
    /// The plain twin.
    KernelLike,
}

impl Args {
    /// Who is measured, in the order of the first round.
    pub(crate) fn columns(&self) -> Vec<Column> {
        let reference = self.reference.as_ref().map(|_| Column::Reference);
        let twin = (self.reference.is_some() || self.kernel_like).then_some(Column::Twin);
        let c_interface = self.c_interface.then_some(Column::CInterface);
        // Ours beside each of the others, however the order is turned.
        reference.into_iter().chain(c_interface).chain([Column::Ours]).chain(twin).collect()
    }

    /// How often each program runs.
    pub(crate) fn rounds(&self) -> u32 {
        let usual = match self.size() {
            Size::Smoke => 1,
            Size::Quick => 3,
            Size::Whole => 5,
        };
        self.rounds.unwrap_or(usual)
    }

    /// How long a run may take: ten minutes or one, unless the number of rounds is asked for.
    pub(crate) fn time(&self) -> Option<Duration> {
        let seconds = if self.quick { 60 } else { 600 };
        self.rounds.is_none().then_some(Duration::from_secs(seconds))
    }

    /// In how many rounds the twin runs the C program's rows too: enough to see how far it is from that.
    pub(crate) fn whole_rounds_of_twin(&self) -> u32 {
        if self.quick { 1 } else { 3 }
    }

    /// What is to be measured, and how much of it.
    pub(crate) fn work(&self) -> Work {
        let (max, scale) = match self.size() {
            Size::Smoke => (100, Scale::Smoke),
            Size::Quick => (10_000, Scale::Full),
            Size::Whole => (1_000_000, Scale::Full),
        };
        let max = self.max.unwrap_or(max);
        Work { max, scale, filter: self.rows.clone(), rows: self.set }
    }

    fn size(&self) -> Size {
        match (self.smoke, self.quick) {
            (true, _) => Size::Smoke,
            (_, true) => Size::Quick,
            _ => Size::Whole,
        }
    }
}

enum Size {
    Smoke,
    Quick,
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Args {
        Args::parse_from(line.split(' '))
    }

    #[test]
    fn alone_without_a_reference() {
        assert_eq!(parse("bench").columns(), [Column::Ours]);
        assert_eq!(parse("bench --kernel-like").columns(), [Column::Ours, Column::Twin]);
        assert_eq!(parse("bench --c-interface").columns(), [Column::CInterface, Column::Ours]);
        assert_eq!(parse("bench --reference ./c").columns(), [Column::Reference, Column::Ours, Column::Twin]);
    }

    #[test]
    fn a_whole_run_has_five_rounds_up_to_a_million() {
        let args = parse("bench");
        assert_eq!((args.rounds(), args.work().max), (5, 1_000_000));
        let args = parse("bench --quick --rounds 7");
        assert_eq!((args.rounds(), args.work().max), (7, 10_000));
    }
}
