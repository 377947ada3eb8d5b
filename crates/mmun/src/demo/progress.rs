//! The progress on stderr, for who watches a terminal.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::load::Half;

/// A bar over both halves; hidden if stderr is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts a bar that is full after that time.
    pub(super) fn new(total: Duration) -> Progress {
        let target =
            if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(millis(total)), target);
        let style = ProgressStyle::with_template("{prefix:>19} [{bar:30}] {msg}")
            .map(|style| style.progress_chars("=> "));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// Shows how far the half is.
    pub(super) fn show(&self, half: Half, elapsed: Duration, reads: u64, wrong: u64) {
        let (prefix, before) = match half {
            Half::Without => ("without the library", 0),
            Half::With => ("with the library", self.bar.length().unwrap_or(0) / 2),
        };
        self.bar.set_prefix(prefix);
        self.bar.set_message(format!("{reads} reads, {wrong} wrong"));
        self.bar.set_position(before + millis(elapsed));
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
