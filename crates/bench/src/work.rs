//! How much is measured: sizes, numbers of turns, and which rows.

use std::time::Duration;

use clap::ValueEnum;

/// What one run measures.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// The largest number of intervals.
    pub(crate) max: u64,
    pub(crate) scale: Scale,
    /// Only rows whose name contains this.
    pub(crate) filter: Option<String>,
    pub(crate) rows: Rows,
}

/// Which rows run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rows {
    /// All.
    All,
    /// Those that the C program lacks.
    Lacking,
}

/// How often each row does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As often as the C program.
    Full,
    /// As seldom as shows that it runs.
    Smoke,
}

impl Work {
    /// Says whether a row of this name is wanted.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.filter.as_deref().is_none_or(|part| row.contains(part))
    }

    /// How many turns a loop makes that makes `full` in a full run.
    pub(crate) fn turns(&self, full: u64) -> u64 {
        match self.scale {
            Scale::Full => full,
            Scale::Smoke => (full / 10_000).clamp(1, 100),
        }
    }

    /// How long threads run that run so many milliseconds in a full run.
    pub(crate) fn time(&self, full: u64) -> Duration {
        match self.scale {
            Scale::Full => Duration::from_millis(full),
            Scale::Smoke => Duration::from_millis(full.min(5)),
        }
    }

    /// Powers of ten from 1 to the largest number of intervals.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> + use<> {
        let max = self.max;
        std::iter::successors(Some(1), |size: &u64| size.checked_mul(10)).take_while(move |size| *size <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_ten_up_to_the_largest() {
        let work = |max| Work { max, scale: Scale::Full, filter: None, rows: Rows::All };
        assert_eq!(work(1_000).sizes().collect::<Vec<_>>(), [1, 10, 100, 1_000]);
        assert_eq!(work(999).sizes().collect::<Vec<_>>(), [1, 10, 100]);
    }

    #[test]
    fn a_filter_is_a_part_of_the_name() {
        let work = Work { max: 1, scale: Scale::Smoke, filter: Some("miss".into()), rows: Rows::All };
        assert!(work.wants("interval/invalidate-miss") && !work.wants("invalidate/list"));
        assert_eq!((work.turns(2_000_000), work.turns(7)), (100, 1));
    }
}
