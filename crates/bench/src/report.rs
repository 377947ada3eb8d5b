//! What came out: medians, what is compared with the target, and whether that is met.

use crate::c_interface;
use crate::derived;
use crate::samples::{Sample, Samples, median};
use crate::targets;
use crate::unit::Unit;

/// One row of the result. Times are in nanoseconds an operation, medians.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) n: u64,
    /// That of the C program.
    pub(crate) reference: Option<f64>,
    /// That of the plain twin.
    pub(crate) twin: Option<f64>,
    /// That of the library, through the interface that the row names.
    pub(crate) ours: Option<f64>,
    /// That of the library through its C interface.
    pub(crate) c_interface: Option<f64>,
    /// What the row's [`Unit`] says; a ratio is that of the medians.
    pub(crate) figure: Option<f64>,
    /// The smallest and the largest figure of a round.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) target: Option<f64>,
}

impl Row {
    /// Says whether the figure is at or below the target.
    pub(crate) fn met(&self) -> Option<bool> {
        Some(self.figure? <= self.target?)
    }

    /// The twin's time to that of the C program, where both have the row.
    pub(crate) fn twin_to_reference(&self) -> Option<f64> {
        Some(self.twin? / self.reference?)
    }

    /// Says whether the twin is further from the C program than 30 %, so that it says less of kernels.
    pub(crate) fn is_twin_off(&self) -> bool {
        self.twin_to_reference().is_some_and(|ratio| !(0.7..=1.3).contains(&ratio))
    }

    pub(crate) fn unit(&self) -> Unit {
        Unit::of(&self.name)
    }
}

/// Makes the rows of what was measured, and those that follow from it.
pub(crate) fn build(samples: &Samples) -> Vec<Row> {
    samples.iter().map(of_sample).chain(derived::rows(samples)).chain(c_interface::rows(samples)).collect()
}

fn of_sample(sample: &Sample) -> Row {
    let (ours, reference, twin) = (&sample.ours, &sample.reference, &sample.twin);
    let (figure, spread) = match Unit::of(&sample.row) {
        Unit::ToReference => ratio(ours, reference),
        Unit::ToTwin => ratio(ours, twin),
        Unit::ToOwn | Unit::ToRust => (None, None),
        Unit::Microseconds => alone(ours, 1_000.0),
        Unit::Bytes => alone(ours, 1.0),
    };
    Row {
        name: sample.row.clone(),
        n: sample.n,
        reference: median(reference),
        twin: median(twin),
        ours: median(ours),
        c_interface: median(&sample.c_interface),
        figure,
        spread,
        target: targets::of(&sample.row, sample.n),
    }
}

/// A figure and its spread.
type Figure = (Option<f64>, Option<(f64, f64)>);

/// The ratio of the medians, and the smallest and largest ratio of figures of the same round.
pub(crate) fn ratio(above: &[f64], below: &[f64]) -> Figure {
    let ratio = median(above).zip(median(below)).map(|(above, below)| above / below);
    (ratio, spread(above.iter().zip(below).map(|(above, below)| above / below)))
}

fn alone(figures: &[f64], one: f64) -> Figure {
    (median(figures).map(|figure| figure / one), spread(figures.iter().map(|figure| figure / one)))
}

fn spread(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    figures.fold(None, |spread, figure| {
        let (least, most) = spread.unwrap_or((figure, figure));
        Some((f64::min(least, figure), f64::max(most, figure)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Line;
    use crate::samples::Column;

    fn build_one(row: &str, n: u64, figures: [&[f64]; 3]) -> Row {
        let mut samples = Samples::default();
        for (column, figures) in [Column::Reference, Column::Twin, Column::Ours].into_iter().zip(figures) {
            figures.iter().for_each(|&figure| samples.add(column, Line { row: row.into(), n, figure }));
        }
        build(&samples).remove(0)
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let row = build_one("invalidate/list", 4, [&[10.0, 20.0, 30.0], &[], &[5.0, 8.0, 30.0]]);
        assert_eq!((row.reference, row.ours, row.figure), (Some(20.0), Some(8.0), Some(0.4)));
        assert_eq!((row.spread, row.target, row.met()), (Some((0.4, 1.0)), Some(0.5), Some(true)));
    }

    #[test]
    fn without_a_reference_there_is_no_ratio() {
        let row = build_one("invalidate/list", 4, [&[], &[9.0], &[5.0]]);
        assert_eq!((row.figure, row.spread, row.met()), (None, None, None));
    }

    #[test]
    fn the_twin_is_compared_where_the_name_says_so() {
        let row = build_one("exit [kernel-like]", 1_000_000, [&[], &[10.0], &[5.0]]);
        assert_eq!((row.figure, row.met()), (Some(0.5), Some(true)));
    }

    #[test]
    fn a_twin_that_is_off_is_marked() {
        let row = |twin: f64| build_one("invalidate/list", 1, [&[10.0], &[twin], &[5.0]]);
        assert!(row(14.0).is_twin_off() && row(6.0).is_twin_off() && !row(12.0).is_twin_off());
    }

    #[test]
    fn microseconds_and_bytes_are_figures_of_their_own() {
        let row = build_one("interval/remove while others never pause [us]", 1, [&[], &[], &[2_500.0]]);
        assert_eq!((row.ours, row.figure, row.met()), (Some(2_500.0), Some(2.5), Some(true)));
        let row = build_one("subscription [bytes]", 1_000_000, [&[], &[88.0], &[120.0]]);
        assert_eq!((row.figure, row.met()), (Some(120.0), Some(false)));
    }
}
