//! The result as JSON: one list, an object for each row and n.

use serde_json::{Value, json};

use crate::report::Row;

/// The whole list.
pub(crate) fn of(rows: &[Row]) -> Value {
    rows.iter().map(object).collect()
}

fn object(row: &Row) -> Value {
    json!({
        "row": row.name,
        "n": row.n,
        "reference_ns": row.reference,
        "ours_ns": row.ours,
        "ratio": row.ratio,
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
        let row = Row {
            name: "invalidate/list".into(),
            n: 64,
            reference: None,
            ours: Some(2.5),
            ratio: None,
            spread: None,
            target: None,
        };
        let value = of(&[row]);
        assert_eq!(value[0]["row"], "invalidate/list");
        assert_eq!((&value[0]["n"], &value[0]["ours_ns"]), (&json!(64), &json!(2.5)));
        for key in ["reference_ns", "ratio", "target", "met"] {
            assert_eq!(value[0].get(key), Some(&Value::Null), "{key}");
        }
    }
}
