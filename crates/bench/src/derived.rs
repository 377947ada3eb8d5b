//! Rows that follow from others: ratios of two of the library's own times.

use crate::report::{Row, ratio};
use crate::samples::Samples;
use crate::targets;

/// Name, n, and the rows above and below the line.
type Derived = (&'static str, u64, (&'static str, u64), (&'static str, u64));

const ALONE: &str = "interval/invalidate-hit threads, own counters [kernel-like]";
const BATCH: &str = "invalidate/64 ranges as a batch [kernel-like]";
const SINGLY: &str = "invalidate/64 ranges singly [kernel-like]";

const DERIVED: &[Derived] = &[
    ("interval/invalidate-hit, 2 threads to 1 [own]", 2, (ALONE, 2), (ALONE, 1)),
    ("invalidate/64 ranges, as a batch to singly [own]", 64, (BATCH, 64), (SINGLY, 64)),
];

/// Those whose parts were measured.
pub(crate) fn rows(samples: &Samples) -> impl Iterator<Item = Row> + use<'_> {
    DERIVED.iter().filter_map(|&(name, n, above, below)| {
        let (figure, spread) = ratio(samples.ours(above.0, above.1), samples.ours(below.0, below.1));
        figure?;
        Some(Row { name: name.into(), n, figure, spread, target: targets::of(name, n), ..Row::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Line;
    use crate::samples::Column;

    #[test]
    fn our_cost_with_two_threads_to_that_with_one() {
        let mut samples = Samples::default();
        assert_eq!(rows(&samples).count(), 0);
        for (n, figure) in [(1, 30.0), (2, 15.0)] {
            samples.add(Column::Ours, Line { row: ALONE.into(), n, figure });
        }
        let row = rows(&samples).next().unwrap();
        assert_eq!((row.figure, row.ours, row.target), (Some(0.5), None, Some(0.6)));
    }
}
