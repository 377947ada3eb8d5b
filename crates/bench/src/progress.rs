//! How far a run is, on standard error: a bar on a terminal, else a line for each program that has run.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::samples::Column;

/// What is shown of a run.
pub(crate) struct Progress {
    bar: ProgressBar,
    rounds: u32,
}

impl Progress {
    pub(crate) fn new(rounds: u32, columns: usize) -> Self {
        let bar = if stderr().is_terminal() {
            let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}");
            let style = style.expect("the template is well formed");
            ProgressBar::new(u64::from(rounds) * columns as u64).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        Progress { bar, rounds }
    }

    /// A row has come.
    pub(crate) fn is_at(&self, round: u32, column: Column, row: &str) {
        self.bar.set_message(format!("round {round} of {}, {}: {row}", self.rounds, column.name()));
    }

    /// A program has run.
    pub(crate) fn is_through(&self, round: u32, column: Column) {
        self.bar.inc(1);
        if self.bar.is_hidden() {
            eprintln!("round {round} of {}: {} is through", self.rounds, column.name());
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
