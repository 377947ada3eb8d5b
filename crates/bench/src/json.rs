//! The result as JSON: one list, an object for each row and n.

use serde_json::{Value, json};

use crate::report::Row;
use crate::unit::Unit;

/// The whole list.
pub(crate) fn of(rows: &[Row]) -> Value {
    rows.iter().map(object).collect()
}

fn object(row: &Row) -> Value {
    // Bytes are no nanoseconds: they stand in `ratio` only.
    let time = |figure: Option<f64>| figure.filter(|_| row.unit() != Unit::Bytes);
    json!({
        "row": row.name,
        "n": row.n,
        "reference_ns": row.reference,
        "kernel_like_ns": time(row.twin),
        "ours_ns": time(row.ours),
        "c_interface_ns": row.c_interface,
        "ratio": row.figure,
        "ratio_min": row.spread.map(|spread| spread.0),
        "ratio_max": row.spread.map(|spread| spread.1),
        "target": row.target,
        "met": row.met(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_has_not_is_null() {
        let row = Row { name: "invalidate/list".into(), n: 64, ours: Some(2.5), ..Row::default() };
        let value = of(&[row]);
        assert_eq!(value[0]["row"], "invalidate/list");
        assert_eq!((&value[0]["n"], &value[0]["ours_ns"]), (&json!(64), &json!(2.5)));
        for key in ["reference_ns", "kernel_like_ns", "ratio", "target", "met"] {
            assert_eq!(value[0].get(key), Some(&Value::Null), "{key}");
        }
    }

    #[test]
    fn a_figure_that_is_no_time_stands_in_ratio() {
        let row = Row {
            name: "subscription [bytes]".into(),
            n: 1,
            twin: Some(88.0),
            ours: Some(120.0),
            figure: Some(120.0),
            target: Some(112.0),
            ..Row::default()
        };
        let value = of(&[row]);
        assert_eq!((&value[0]["ours_ns"], &value[0]["kernel_like_ns"]), (&Value::Null, &Value::Null));
        assert_eq!((&value[0]["ratio"], &value[0]["met"]), (&json!(120.0), &json!(false)));
    }
}
