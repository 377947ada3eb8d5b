//! The result as a table for people.

use std::fmt::Write;

use crate::report::Row;

/// The table, with a line at its end that counts what meets its target.
pub(crate) fn of(rows: &[Row]) -> String {
    let head = ["row", "n", "C ns", "kernel-like ns", "ours ns", "ratio", "min - max", "target", "met"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let mut table = aligned(&lines);
    if rows.iter().any(Row::is_twin_off) {
        table += "(x C) how far kernel-like is from the C program, where that is more than 30 %\n";
    }
    let judged: Vec<bool> = rows.iter().filter_map(Row::met).collect();
    let met = judged.iter().filter(|met| **met).count();
    let _ = writeln!(table, "{met} of {} targets met", judged.len());
    table
}

fn cells(row: &Row) -> [String; 9] {
    let off = row.twin_to_reference().filter(|_| row.is_twin_off());
    [
        row.name.clone(),
        row.n.to_string(),
        time(row.reference),
        off.map_or(String::new(), |ratio| format!("({ratio:.2} x C) ")) + &time(row.twin),
        time(row.ours),
        ratio(row.figure),
        row.spread.map_or("-".into(), |(least, most)| format!("{} - {}", short(least), short(most))),
        ratio(row.target),
        row.met().map_or("-", |met| if met { "yes" } else { "no" }).into(),
    ]
}

/// Lines of columns, the first flush left, the others flush right.
fn aligned(lines: &[[String; 9]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut table = String::new();
    for line in lines {
        let _ = write!(table, "{:<1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(widths).skip(1) {
            let _ = write!(table, "  {cell:>width$}");
        }
        table.push('\n');
    }
    table
}

fn time(figure: Option<f64>) -> String {
    figure.map_or("-".into(), |figure| format!("{figure:.1}"))
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), short)
}

fn short(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, figure: Option<f64>) -> Row {
        Row {
            name: name.into(),
            n: 1,
            reference: Some(10.0),
            twin: None,
            ours: Some(4.0),
            c_interface: None,
            figure,
            spread: figure.map(|figure| (figure, figure)),
            target: Some(0.5),
        }
    }

    #[test]
    fn a_line_for_each_row_and_one_that_counts() {
        let table = of(&[row("fast", Some(0.4)), row("slow", Some(0.6)), row("alone", None)]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["fast", "1", "10.0", "-", "4.0", "0.40", "0.40", "-", "0.40", "0.50", "yes"]);
        assert_eq!(lines[2].last(), Some(&"no"));
        assert_eq!(lines[3].last(), Some(&"-"));
        assert_eq!(table.lines().last(), Some("1 of 2 targets met"));
    }

    #[test]
    fn a_twin_that_is_off_says_by_how_much() {
        let table = of(&[Row { twin: Some(14.0), ..row("list", Some(0.4)) }]);
        assert!(table.contains("(1.40 x C) 14.0"), "{table}");
        let table = of(&[Row { twin: Some(11.0), ..row("list", Some(0.4)) }]);
        assert!(!table.contains("x C"), "{table}");
    }
}
