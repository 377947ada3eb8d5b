//! What came out: medians, their ratio, and whether that meets its target.

use crate::samples::{Sample, Samples, median};
use crate::targets;

/// One row of the result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) n: u64,
    /// Nanoseconds an operation of the C program, median.
    pub(crate) reference: Option<f64>,
    /// Nanoseconds an operation of the library, median.
    pub(crate) ours: Option<f64>,
    /// That of the medians.
    pub(crate) ratio: Option<f64>,
    /// The smallest and largest ratio of a round.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) target: Option<f64>,
}

impl Row {
    /// Says whether the ratio is at or below the target.
    pub(crate) fn met(&self) -> Option<bool> {
        Some(self.ratio? <= self.target?)
    }
}

/// Makes the rows of what was measured.
pub(crate) fn build(samples: &Samples) -> Vec<Row> {
    samples.iter().map(of_sample).collect()
}

fn of_sample(sample: &Sample) -> Row {
    let (reference, ours) = (median(&sample.reference), median(&sample.ours));
    Row {
        name: sample.row.clone(),
        n: sample.n,
        reference,
        ours,
        ratio: ours.zip(reference).map(|(ours, reference)| ours / reference),
        spread: spread(&sample.ours, &sample.reference),
        target: targets::of(&sample.row, sample.n),
    }
}

/// The smallest and largest ratio of figures of the same round.
fn spread(above: &[f64], below: &[f64]) -> Option<(f64, f64)> {
    let ratios = above.iter().zip(below).map(|(above, below)| above / below);
    ratios.fold(None, |spread, ratio| {
        let (least, most) = spread.unwrap_or((ratio, ratio));
        Some((f64::min(least, ratio), f64::max(most, ratio)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Line;
    use crate::samples::Column;

    fn samples(row: &str, n: u64, reference: &[f64], ours: &[f64]) -> Samples {
        let mut samples = Samples::default();
        let mut add = |column, figures: &[f64]| {
            figures.iter().for_each(|&figure| samples.add(column, Line { row: row.into(), n, figure }));
        };
        add(Column::Reference, reference);
        add(Column::Ours, ours);
        samples
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let samples = samples("invalidate/list", 4, &[10.0, 20.0, 30.0], &[5.0, 8.0, 30.0]);
        let rows = build(&samples);
        assert_eq!((rows[0].reference, rows[0].ours, rows[0].ratio), (Some(20.0), Some(8.0), Some(0.4)));
        assert_eq!(rows[0].spread, Some((0.4, 1.0)));
        assert_eq!((rows[0].target, rows[0].met()), (Some(0.5), Some(true)));
    }

    #[test]
    fn without_a_reference_there_is_no_ratio() {
        let rows = build(&samples("invalidate/list", 4, &[], &[5.0]));
        assert_eq!((rows[0].ratio, rows[0].spread, rows[0].met()), (None, None, None));
    }
}
