//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::work::{Scale, Work};

/// Measures mmu-notifier, beside a C program of the same work
#[derive(Parser)]
#[command(name = "bench", version)]
pub(crate) struct Args {
    /// The C program to measure beside; `PATH MAX` prints lines of `name n nanoseconds`
    #[arg(long, value_name = "PATH")]
    pub(crate) reference: Option<PathBuf>,

    /// Print one JSON list to stdout: an object for each row and n
    #[arg(long)]
    pub(crate) json: bool,

    /// Take about a minute: at most 10,000 intervals, three rounds
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only show that everything runs: tiny sizes, one round; the figures mean nothing
    #[arg(long, conflicts_with = "quick")]
    pub(crate) smoke: bool,

    /// Only the rows whose name contains this (the C program runs all of its own nevertheless)
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) rows: Option<String>,

    /// How often each program runs (5; 3 with --quick)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// The largest number of intervals (1,000,000; 10,000 with --quick)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    max: Option<u64>,

    /// Measure in this process, and print lines as the C program does
    #[arg(long, hide = true, value_name = "SUBJECT")]
    pub(crate) child: Option<Subject>,
}

/// Whose rows a child process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// The library.
    Ours,
}

impl Args {
    /// How often each program runs.
    pub(crate) fn rounds(&self) -> u32 {
        let usual = if self.smoke {
            1
        } else if self.quick {
            3
        } else {
            5
        };
        self.rounds.unwrap_or(usual)
    }

    /// What is to be measured, and how much of it.
    pub(crate) fn work(&self) -> Work {
        let usual = if self.smoke {
            100
        } else if self.quick {
            10_000
        } else {
            1_000_000
        };
        Work {
            max: self.max.unwrap_or(usual),
            scale: if self.smoke { Scale::Smoke } else { Scale::Full },
            filter: self.rows.clone(),
        }
    }
}
