//! Charts of lines: nanoseconds an operation against the number of intervals or threads, both on logarithmic axes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::{color, label, line, time};
use super::{Area, Drawn, not_drawn};
use crate::report::Row;
use crate::samples::Column;

/// Which rows a chart shows, and what its n are.
pub(super) struct Chart {
    title: &'static str,
    rows: &'static [&'static str],
    n: &'static str,
}

const fn of(title: &'static str, rows: &'static [&'static str], n: &'static str) -> Chart {
    Chart { title, rows, n }
}

pub(super) const CHARTS: &[Chart] = &[
    of("Invalidation, no hit", &["interval/invalidate-miss"], "intervals"),
    of("Invalidation, 1 hit", &["interval/invalidate-1-hit"], "intervals"),
    of("Invalidation, 100 hits", &["interval/invalidate-100-hits"], "intervals"),
    of("Read begin + retry", &["interval/read-begin+retry"], "intervals"),
    of("Insert, random order", &["interval/insert-random"], "intervals"),
    of("Remove", &["interval/remove"], "intervals"),
    of("Invalidation, walk of a list", &["invalidate/list", "invalidate/list [kernel-like]"], "subscribers"),
    of(
        "Threads that invalidate apart, own counters",
        &["interval/invalidate-hit threads, own counters [kernel-like]"],
        "threads",
    ),
    of("Threads that read", &["interval/read threads", "interval/read threads [kernel-like]"], "threads"),
];

/// Draws a chart; nothing if its rows were not measured.
pub(super) fn draw(area: &Area<'_>, what: &Chart, rows: &[Row]) -> Drawn {
    let columns = [Column::Reference, Column::Twin, Column::CInterface, Column::Ours]
        .map(|column| (column, points(what, rows, column)));
    let all: Vec<(f64, f64)> = columns.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let (left, right) = bounds(all.iter().map(|point| point.0));
    let (low, high) = bounds(all.iter().map(|point| point.1));
    // Whole decades, so that the axis has marks.
    let (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf((high * 1.01).log10().ceil()));
    let mut chart = ChartBuilder::on(area)
        .caption(what.title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        // Room for the names at the lines' ends.
        .build_cartesian_2d(
            (left..right * (right / left).powf(0.3).max(3.0)).log_scale(),
            (low..high).log_scale(),
        )
        .map_err(not_drawn)?;
    chart
        .configure_mesh()
        .x_desc(what.n)
        .y_desc("ns an operation")
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(&|n| short(*n))
        .y_label_formatter(&|ns| short(*ns))
        .light_line_style(WHITE)
        .draw()
        .map_err(not_drawn)?;
    for (column, points) in &columns {
        line(&mut chart, *column, points)?;
    }
    let names = places(&columns, high / low).into_iter().map(|(column, place)| {
        let style = ("sans-serif", 14).into_font().color(&color(column));
        let beside = style.pos(Pos::new(HPos::Left, VPos::Center));
        EmptyElement::at(place) + Text::new(label(column), (10, 0), beside)
    });
    chart.draw_series(names).map_err(not_drawn)?;
    Ok(())
}

/// Where the name of each line stands: beside its last point, but names that would meet are moved apart.
fn places(columns: &[(Column, Vec<(f64, f64)>)], height: f64) -> Vec<(Column, (f64, f64))> {
    let end = |(column, points): &(Column, Vec<(f64, f64)>)| points.last().map(|end| (*column, *end));
    let mut ends: Vec<_> = columns.iter().filter_map(end).collect();
    ends.sort_by(|one, other| one.1.1.total_cmp(&other.1.1));
    // The height of a line of text, as a factor on the axis.
    let apart = height.powf(0.08);
    let mut least = 0.0;
    for (_, (_, y)) in &mut ends {
        *y = f64::max(*y, least);
        least = *y * apart;
    }
    ends
}

/// The points of a program's line, from left to right.
fn points(what: &Chart, rows: &[Row], column: Column) -> Vec<(f64, f64)> {
    let wanted = rows.iter().filter(|row| what.rows.contains(&row.name.as_str()));
    let points = wanted.filter_map(|row| Some((row.n as f64, time(row, column)?)));
    let mut points: Vec<_> = points.filter(|(n, ns)| *n > 0.0 && *ns > 0.0).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), value| (f64::min(low, value), f64::max(high, value)))
}

/// A number with few characters.
fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{}M", rounded(number / 1e6)),
        1e3.. => format!("{}k", rounded(number / 1e3)),
        _ => rounded(number),
    }
}

fn rounded(number: f64) -> String {
    if number < 10.0 { format!("{}", (number * 10.0).round() / 10.0) } else { format!("{number:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_meet() {
        let ends = [(Column::Ours, vec![(1.0, 9.0), (10.0, 10.0)]), (Column::Twin, vec![(10.0, 10.1)])];
        let places = places(&ends, 100.0);
        assert_eq!(places[0], (Column::Ours, (10.0, 10.0)));
        assert!(places[1].1.1 > 14.0, "{places:?}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.2, 3.0, 20.0, 1_500.0, 1e6].map(short), ["0.2", "3", "20", "1.5k", "1M"]);
    }
}
