//! How each program looks: a colour that the colour-blind tell apart, a mark, dashes.

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::RGBColor;

use super::{Drawn, not_drawn};
use crate::report::Row;
use crate::samples::Column;

pub(super) fn color(column: Column) -> RGBColor {
    match column {
        Column::Reference => RGBColor(213, 94, 0),
        Column::Twin => RGBColor(0, 158, 115),
        Column::Ours => RGBColor(0, 92, 153),
        Column::CInterface => RGBColor(204, 121, 167),
    }
}

pub(super) fn label(column: Column) -> &'static str {
    match column {
        Column::Reference => "C",
        Column::Twin => "kernel-like",
        Column::Ours => "ours",
        Column::CInterface => "C interface",
    }
}

/// The time of a row that belongs to a column.
pub(super) fn time(row: &Row, column: Column) -> Option<f64> {
    match column {
        Column::Reference => row.reference,
        Column::Twin => row.twin,
        Column::Ours => row.ours,
        Column::CInterface => row.c_interface,
    }
}

/// A chart as this picture has them.
pub(super) type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Draws a line with marks: ours through with discs, C in long dashes with squares, the twin in short ones with
/// triangles, the C interface in middling ones with crosses.
pub(super) fn line<X, Y>(chart: &mut Chart<'_, '_, X, Y>, column: Column, points: &[(f64, f64)]) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let points = || points.iter().copied();
    let color = color(column);
    let thin = color.stroke_width(2);
    match column {
        Column::Ours => {
            chart.draw_series(LineSeries::new(points(), color.stroke_width(3))).map_err(not_drawn)?;
            let marks = points().map(|at| Circle::new(at, 4, color.filled()));
            chart.draw_series(marks).map_err(not_drawn)?;
        }
        Column::Reference => {
            chart.draw_series(DashedLineSeries::new(points(), 12, 5, thin)).map_err(not_drawn)?;
            let marks =
                points().map(|at| EmptyElement::at(at) + Rectangle::new([(-4, -4), (4, 4)], color.filled()));
            chart.draw_series(marks).map_err(not_drawn)?;
        }
        Column::Twin => {
            chart.draw_series(DashedLineSeries::new(points(), 3, 4, thin)).map_err(not_drawn)?;
            let marks = points().map(|at| TriangleMarker::new(at, 6, color.filled()));
            chart.draw_series(marks).map_err(not_drawn)?;
        }
        Column::CInterface => {
            chart.draw_series(DashedLineSeries::new(points(), 7, 3, thin)).map_err(not_drawn)?;
            let marks = points().map(|at| Cross::new(at, 5, thin));
            chart.draw_series(marks).map_err(not_drawn)?;
        }
    }
    Ok(())
}
