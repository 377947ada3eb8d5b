//! The lines that the C program prints, and our own child processes too: name, n, nanoseconds.

use std::fmt;

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// It may hold single spaces.
    pub(crate) row: String,
    /// Subscribers, or threads.
    pub(crate) n: u64,
    /// Nanoseconds an operation, or what else the row's name says.
    pub(crate) figure: f64,
}

impl Line {
    /// Reads a line; none if it is not of this form.
    pub(crate) fn parse(text: &str) -> Option<Line> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let figure: f64 = words.pop()?.parse().ok()?;
        let n = words.pop()?.parse().ok()?;
        if words.is_empty() || !figure.is_finite() || figure < 0.0 {
            return None;
        }
        Some(Line { row: words.join(" "), n, figure })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<50} {:>10} {:>14.3}", self.row, self.n, self.figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_spaces() {
        let line = Line::parse("interval/invalidate-hit threads             2      309.0").unwrap();
        assert_eq!(line, Line { row: "interval/invalidate-hit threads".into(), n: 2, figure: 309.0 });
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let line = Line { row: "invalidate/list".into(), n: 16, figure: 56.125 };
        assert_eq!(Line::parse(&line.to_string()), Some(line));
    }

    #[test]
    fn anything_else_is_no_line() {
        for text in ["", "warnings 0", "16 56.0", "list x 56.0", "list 1 nan", "list 1 -2.0", "list 1 2.0 ns"]
        {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
