//! What the demo found: the two columns of [`Counts`], as a table with words around it or as one JSON
//! object.

use std::fmt::Write;

use super::load::{BUFFERS, MUTATORS, READERS};

/// What one half counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Comparisons of a read through a registered buffer with an ordinary one.
    pub(super) reads: u64,
    /// Of these, the ones that reported success and did not deliver the data.
    pub(super) wrong_reads: u64,
    /// Changes that the mutators announced.
    pub(super) invalidations: u64,
    /// Callbacks of subscribers.
    pub(super) hits: u64,
    /// Registrations that an invalidation overtook while they were made.
    pub(super) retries: u64,
    pub(super) seconds: f64,
}

impl Counts {
    fn wrong_percent(&self) -> f64 {
        if self.reads == 0 { 0.0 } else { self.wrong_reads as f64 * 100.0 / self.reads as f64 }
    }

    fn json(&self) -> String {
        let Counts { reads, wrong_reads, invalidations, hits, retries, seconds } = self;
        format!(
            "{{\"reads\":{reads},\"wrong_reads\":{wrong_reads},\"invalidations\":{invalidations},\
             \"hits\":{hits},\"retries\":{retries},\"seconds\":{seconds:.3}}}"
        )
    }
}

/// Both halves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) without: Counts,
    pub(super) with: Counts,
}

impl Report {
    /// One object with `without` and `with`, in one line.
    pub(super) fn json(&self) -> String {
        format!("{{\"without\":{},\"with\":{}}}\n", self.without.json(), self.with.json())
    }

    /// What was done, the table, and what it shows.
    pub(super) fn text(&self, device: &str, files: usize) -> String {
        format!("{}\n{}\n{}", done(device, files), self.table(), self.shown())
    }

    fn table(&self) -> String {
        let whole = |name: &'static str, count: fn(&Counts) -> u64| {
            (name, grouped(count(&self.without)), grouped(count(&self.with)))
        };
        let rows = [
            ("", "without".to_owned(), "with".to_owned()),
            whole("reads", |counts| counts.reads),
            whole("wrong reads", |counts| counts.wrong_reads),
            whole("invalidations", |counts| counts.invalidations),
            whole("hits", |counts| counts.hits),
            whole("retries", |counts| counts.retries),
            ("seconds", format!("{:.2}", self.without.seconds), format!("{:.2}", self.with.seconds)),
        ];
        rows.iter().fold(String::new(), |mut table, (name, without, with)| {
            let _ = writeln!(table, "  {name:<13} {without:>13} {with:>13}");
            table
        })
    }

    fn shown(&self) -> String {
        let mut text = self.shown_without();
        let with = &self.with;
        if with.wrong_reads == 0 {
            let _ = writeln!(
                text,
                "With it none was wrong: each of {} changes was announced before it was made, its\n\
                 subscriber waited for the read in flight and dropped the registration ({} hits), and\n\
                 {} registrations that a change overtook were made again.",
                grouped(with.invalidations),
                grouped(with.hits),
                grouped(with.retries)
            );
        } else {
            let _ = writeln!(
                text,
                "WITH THE LIBRARY {} READS WERE WRONG: that must never be, and is a bug.",
                grouped(with.wrong_reads)
            );
        }
        text
    }

    fn shown_without(&self) -> String {
        if self.without.wrong_reads == 0 {
            return "Nothing went wrong without the library, so this run has shown nothing: \
                    try more --seconds.\n"
                .into();
        }
        format!(
            "Without the library {:.1} % of the reads reported success, but the data went to pages that are\n\
             no longer the buffer's: silent corruption.\n",
            self.without.wrong_percent()
        )
    }
}

fn done(device: &str, files: usize) -> String {
    format!(
        "{READERS} threads read {} into {} buffers registered with {device}, while {MUTATORS} others\n\
         unmapped, replaced, discarded and moved the buffers' memory; every read was compared with an\n\
         ordinary one. First nobody heard of the changes, then the buffers were subscribed to them.\n",
        self::files(files),
        READERS * BUFFERS,
    )
}

/// Says how many files.
pub(super) fn files(number: usize) -> String {
    format!("{number} file{}", if number == 1 { "" } else { "s" })
}

/// Writes a number with commas between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let without = Counts {
            reads: 1_234_567,
            wrong_reads: 1_200_000,
            invalidations: 12,
            seconds: 2.5,
            ..Counts::default()
        };
        let with =
            Counts { reads: 40_000, wrong_reads: 0, invalidations: 9, hits: 9, retries: 3, seconds: 2.504 };
        Report { without, with }
    }

    #[test]
    fn the_json_is_one_object_with_two_halves() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let keys = |value: &serde_json::Value| {
            value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(keys(&json), ["with", "without"].map(String::from).into());
        let counts =
            ["hits", "invalidations", "reads", "retries", "seconds", "wrong_reads"].map(String::from);
        assert_eq!(keys(&json["with"]), counts.clone().into());
        assert_eq!(keys(&json["without"]), counts.into());
        assert_eq!(json["without"]["wrong_reads"], 1_200_000);
        assert_eq!(json["with"]["seconds"], 2.504);
    }

    #[test]
    fn the_numbers_stand_right_aligned() {
        let table = report().table();
        assert!(table.contains("  reads             1,234,567        40,000\n"), "{table}");
        assert!(table.lines().all(|line| line.len() == table.lines().next().unwrap().len()), "{table}");
    }

    #[test]
    fn the_text_says_what_was_shown() {
        let text = report().text("io_uring", 3);
        assert!(text.contains("97.2 % of the reads") && text.contains("none was wrong"), "{text}");
        let wrong = Report { with: Counts { wrong_reads: 1, ..report().with }, ..report() };
        assert!(wrong.text("io_uring", 3).contains("1 READS WERE WRONG"));
        let nothing = Report { without: Counts::default(), ..report() };
        assert!(nothing.text("io_uring", 1).contains("has shown nothing"));
    }
}
