//! One line a row: its ratio on a logarithmic scale, with the spread of the rounds and the target.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style::color;
use super::{Area, Drawn, WIDTH, not_drawn};
use crate::report::Row;
use crate::samples::Column;
use crate::unit::Unit;

/// The height of a row.
const LINE: i32 = 16;
/// Above the first row.
const TOP: i32 = 70;
/// Where the scale begins and ends.
const LEFT: i32 = 520;
const RIGHT: i32 = WIDTH as i32 - 60;
/// What the scale begins and ends with.
const LEAST: f64 = 0.01;
const MOST: f64 = 30.0;

/// Rows whose figure is a ratio.
fn shown(rows: &[Row]) -> Vec<&Row> {
    let is_ratio =
        |row: &&Row| matches!(row.unit(), Unit::ToReference | Unit::ToTwin | Unit::ToOwn | Unit::ToRust);
    rows.iter().filter(is_ratio).filter(|row| row.figure.is_some()).collect()
}

pub(super) fn height(rows: &[Row]) -> u32 {
    let lines = shown(rows).len() as i32;
    if lines == 0 { 0 } else { (TOP + (lines + 1) * LINE + 20) as u32 }
}

pub(super) fn draw(area: &Area<'_>, rows: &[Row]) -> Drawn {
    let rows = shown(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let bottom = TOP + rows.len() as i32 * LINE;
    text(
        area,
        "Time of ours to that of C, or of what the name says: less is better",
        (20, 16),
        16,
        HPos::Left,
    )?;
    let legend = "disc: meets its target (bar) · cross: does not · diamond: has none · line: least to most of the rounds";
    text(area, legend, (20, 36), 12, HPos::Left)?;
    for ratio in [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0] {
        let shade = if ratio == 1.0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) };
        let ends = vec![(x(ratio), TOP - LINE), (x(ratio), bottom)];
        area.draw(&PathElement::new(ends, shade)).map_err(not_drawn)?;
        text(area, &format!("{ratio}"), (x(ratio), TOP - LINE - 6), 12, HPos::Center)?;
    }
    for (number, row) in rows.iter().enumerate() {
        draw_row(area, row, TOP + number as i32 * LINE)?;
    }
    Ok(())
}

fn draw_row(area: &Area<'_>, row: &Row, y: i32) -> Drawn {
    let Some(figure) = row.figure else { return Ok(()) };
    text(area, &format!("{}, n {}", row.name, row.n), (LEFT - 12, y), 12, HPos::Right)?;
    let color = color(Column::Ours);
    if let Some((least, most)) = row.spread {
        let ends = vec![(x(least), y), (x(most), y)];
        area.draw(&PathElement::new(ends, color.stroke_width(2))).map_err(not_drawn)?;
    }
    if let Some(target) = row.target {
        let ends = vec![(x(target), y - 6), (x(target), y + 6)];
        area.draw(&PathElement::new(ends, BLACK.stroke_width(3))).map_err(not_drawn)?;
    }
    let at = (x(figure), y);
    match row.met() {
        Some(true) => area.draw(&Circle::new(at, 5, color.filled())),
        Some(false) => area.draw(&Cross::new(at, 5, color.stroke_width(3))),
        None => area.draw(&Polygon::new(diamond(at), color.filled())),
    }
    .map_err(not_drawn)?;
    text(area, &number(figure), (RIGHT + 12, y), 12, HPos::Left)
}

fn number(figure: f64) -> String {
    if figure < 0.1 { format!("{figure:.3}") } else { format!("{figure:.2}") }
}

fn diamond((x, y): (i32, i32)) -> Vec<(i32, i32)> {
    vec![(x - 5, y), (x, y - 5), (x + 5, y), (x, y + 5)]
}

/// Where a ratio lies; beyond the scale, at its end.
fn x(ratio: f64) -> i32 {
    let part = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + (part * f64::from(RIGHT - LEFT)).round() as i32
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, side: HPos) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(not_drawn)
}
