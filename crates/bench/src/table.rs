//! The result as a table for people.

use std::fmt::Write;

use crate::report::Row;

/// The table, with a line at its end that counts what meets its target.
pub(crate) fn of(rows: &[Row]) -> String {
    let mut table = String::new();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
    let head = ["n", "C ns", "ours ns", "ratio", "min - max", "target", "met"];
    let _ = writeln!(
        table,
        "{:width$} {:>9} {:>12} {:>12} {:>7} {:>15} {:>7} {:>4}",
        "row", head[0], head[1], head[2], head[3], head[4], head[5], head[6]
    );
    for row in rows {
        let met = row.met().map(|met| if met { "yes" } else { "no" });
        let _ = writeln!(
            table,
            "{:width$} {:>9} {:>12} {:>12} {:>7} {:>15} {:>7} {:>4}",
            row.name,
            row.n,
            figure(row.reference),
            figure(row.ours),
            ratio(row.ratio),
            row.spread.map_or("-".into(), |(least, most)| format!("{least:.2} - {most:.2}")),
            ratio(row.target),
            met.unwrap_or("-"),
        );
    }
    let judged: Vec<bool> = rows.iter().filter_map(Row::met).collect();
    let met = judged.iter().filter(|met| **met).count();
    let _ = writeln!(table, "{met} of {} targets met", judged.len());
    table
}

fn figure(figure: Option<f64>) -> String {
    figure.map_or("-".into(), |figure| format!("{figure:.1}"))
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_row_and_one_that_counts() {
        let row = |name: &str, ratio| Row {
            name: name.into(),
            n: 1,
            reference: Some(10.0),
            ours: Some(4.0),
            ratio,
            spread: ratio.map(|ratio| (ratio, ratio)),
            target: Some(0.5),
        };
        let table = of(&[row("fast", Some(0.4)), row("slow", Some(0.6)), row("alone", None)]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["fast", "1", "10.0", "4.0", "0.40", "0.40", "-", "0.40", "0.50", "yes"]);
        assert_eq!(lines[2].last(), Some(&"no"));
        assert_eq!(lines[3].last(), Some(&"-"));
        assert_eq!(table.lines().last(), Some("1 of 2 targets met"));
    }
}
