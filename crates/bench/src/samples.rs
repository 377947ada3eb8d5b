//! What was measured so far: for each row and n the figures of each program, round by round.

use crate::line::Line;

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The C program.
    Reference,
    /// The plain twin of the kernel's way.
    Twin,
    /// The library.
    Ours,
    /// The library through its C interface.
    CInterface,
}

impl Column {
    /// What a message calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Column::Reference => "the C program",
            Column::Twin => "kernel-like",
            Column::Ours => "ours",
            Column::CInterface => "the C interface",
        }
    }
}

/// The figures of one row and n.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) row: String,
    pub(crate) n: u64,
    pub(crate) reference: Vec<f64>,
    pub(crate) twin: Vec<f64>,
    pub(crate) ours: Vec<f64>,
    pub(crate) c_interface: Vec<f64>,
}

/// All figures, in the order in which their rows were first seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Takes a figure in.
    pub(crate) fn add(&mut self, column: Column, line: Line) {
        let index = self.0.iter().position(|sample| sample.row == line.row && sample.n == line.n);
        let index = index.unwrap_or_else(|| {
            self.0.push(Sample { row: line.row, n: line.n, ..Sample::default() });
            self.0.len() - 1
        });
        let sample = &mut self.0[index];
        let figures = match column {
            Column::Reference => &mut sample.reference,
            Column::Twin => &mut sample.twin,
            Column::Ours => &mut sample.ours,
            Column::CInterface => &mut sample.c_interface,
        };
        figures.push(line.figure);
    }

    /// The figures of each row and n.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter()
    }

    /// The library's figures of a row; none if it was not measured.
    pub(crate) fn ours(&self, row: &str, n: u64) -> &[f64] {
        let found = self.iter().find(|sample| sample.row == row && sample.n == n);
        found.map_or(&[], |sample| &sample.ours)
    }

    /// Says whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The middle one, or the mean of the two in the middle; none of none.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn figures_of_one_row_and_n_come_together() {
        let mut samples = Samples::default();
        let line = |n, figure| Line { row: "list".into(), n, figure };
        samples.add(Column::Reference, line(1, 5.0));
        samples.add(Column::Ours, line(4, 7.0));
        samples.add(Column::Ours, line(1, 6.0));
        let found: Vec<_> = samples.iter().map(|s| (s.n, s.reference.len(), s.ours.len())).collect();
        assert_eq!(found, [(1, 1, 1), (4, 0, 1)]);
        assert_eq!((samples.ours("list", 4), samples.ours("list", 5)), (&[7.0][..], &[][..]));
    }
}
