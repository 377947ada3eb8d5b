//! The result as one SVG picture: the ratio of each row ([`ratios`]), cost against n, and scaling with threads
//! ([`lines`]).
//!
//! Who is who shows in three ways at once, so that it needs no colours to be seen: the shape of the marks, the
//! dashes of the lines, and a name beside each ([`style`]). A title and a description stand in the file as text.

mod lines;
mod ratios;
mod style;

use std::fmt::Display;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::failure::Failure;
use crate::report::Row;

const WIDTH: u32 = 1_200;
/// The height of a chart of lines.
const CHART: u32 = 300;

/// An area of the picture.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Drawing into a string does not fail by itself; what may is a chart of impossible numbers.
type Drawn = Result<(), Failure>;

/// Draws the rows, and writes the file.
pub(crate) fn write(path: &Path, rows: &[Row], machine: &str) -> Drawn {
    let svg = draw(rows).map(|svg| described(&svg, rows, machine))?;
    fs::write(path, svg).map_err(|error| Failure::NotWritten(path.to_owned(), error))
}

fn draw(rows: &[Row]) -> Result<String, Failure> {
    let above = ratios::height(rows);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, above + 3 * CHART)).into_drawing_area();
        root.fill(&WHITE).map_err(not_drawn)?;
        let (ratios, below) = root.split_vertically(above);
        ratios::draw(&ratios, rows)?;
        for (area, chart) in below.split_evenly((3, 3)).iter().zip(lines::CHARTS) {
            lines::draw(area, chart, rows)?;
        }
        root.present().map_err(not_drawn)?;
    }
    Ok(svg)
}

fn not_drawn(error: impl Display) -> Failure {
    Failure::NotDrawn(error.to_string())
}

/// Puts a title and a description into the picture, for those who cannot see it.
fn described(svg: &str, rows: &[Row], machine: &str) -> String {
    let judged: Vec<bool> = rows.iter().filter_map(Row::met).collect();
    let met = judged.iter().filter(|met| **met).count();
    let mut description = format!("{met} of {} targets met. {}", judged.len(), machine.trim());
    for row in rows {
        if let Some(figure) = row.figure {
            description += &format!("\n{}, n {}: {figure:.3}", row.name, row.n);
        }
    }
    let text = format!(
        "<title>mmu-notifier: cost beside a kernel's C code and a plain twin of it</title>\n<desc>{}</desc>\n",
        escaped(&description)
    );
    let head = svg.find("<svg").and_then(|at| svg[at..].find('>').map(|end| at + end));
    match head {
        Some(end) => format!("{} role=\"img\">\n{text}{}", &svg[..end], &svg[end + 1..]),
        None => svg.to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, n, ours| Row {
            name: name.into(),
            n,
            reference: Some(100.0),
            twin: Some(90.0),
            ours: Some(ours),
            c_interface: Some(ours + 5.0),
            figure: Some(ours / 100.0),
            spread: Some((ours / 120.0, ours / 80.0)),
            target: Some(0.5),
        };
        vec![
            row("interval/invalidate-miss", 1, 20.0),
            row("interval/invalidate-miss", 1_000, 60.0),
            row("interval/read threads", 1, 2.0),
        ]
    }

    #[test]
    fn a_picture_says_in_words_what_it_shows() {
        let svg = described(&draw(&rows()).unwrap(), &rows(), "machine <a & b>");
        assert!(svg.starts_with("<svg") && svg.contains("role=\"img\">\n<title>"), "{}", &svg[..300]);
        assert!(svg.contains("2 of 3 targets met. machine &lt;a &amp; b&gt;"));
        assert!(svg.contains("interval/invalidate-miss, n 1000: 0.600"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw(&[]).unwrap().contains("</svg>"));
    }
}
