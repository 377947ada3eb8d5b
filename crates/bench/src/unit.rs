//! What the figure of a row is: a ratio to the C program, or what the row's name says in brackets at its end.

/// What is compared with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The library's time to that of the C program.
    ToReference,
    /// The library's time to that of the plain twin.
    ToTwin,
    /// A ratio of two times of the library itself.
    ToOwn,
    /// The time through the C interface to that through the Rust interface.
    ToRust,
    /// The library's time, in microseconds.
    Microseconds,
    /// Memory.
    Bytes,
}

impl Unit {
    /// What the figure of the row with this name is.
    pub(crate) fn of(row: &str) -> Unit {
        let units = [
            ("[kernel-like]", Unit::ToTwin),
            ("[own]", Unit::ToOwn),
            ("[C interface]", Unit::ToRust),
            ("[us]", Unit::Microseconds),
            ("[bytes]", Unit::Bytes),
        ];
        let unit = units.iter().find(|(end, _)| row.ends_with(end));
        unit.map_or(Unit::ToReference, |(_, unit)| *unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_stands_at_the_end_of_the_name() {
        assert_eq!(Unit::of("interval/remove"), Unit::ToReference);
        assert_eq!(Unit::of("exit [kernel-like]"), Unit::ToTwin);
        assert_eq!(Unit::of("subscription [bytes]"), Unit::Bytes);
    }
}
