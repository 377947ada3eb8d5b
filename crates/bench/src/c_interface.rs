//! The C interface: a C program of the rows that all programs have, and its times beside those of the Rust interface.
//!
//! `c/rows.c` is compiled when it is asked for, against the header in the tree and the static library that is installed
//! (of the profile `release-c`); it prints [lines](mod@crate::line) as the others do.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::report::{Row, ratio};
use crate::samples::{Samples, median};

/// What the C interface may cost to the Rust interface.
const TARGET: f64 = 1.1;

/// Compiles the program, and says where it is: beside the library.
pub(crate) fn compile() -> Result<PathBuf, Failure> {
    let failed = |what: String| Failure::NotCompiled(what);
    let ourselves = env::current_exe().map_err(|error| failed(error.to_string()))?;
    // target/PROFILE/bench
    let target = ourselves.ancestors().nth(2).expect("a program lies in the folder of its profile");
    let library = target.join("release-c/libmmu_notifier.a");
    let program = library.with_file_name("bench-rows");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies beside others");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .args(["-O2", "-std=gnu11", "-I"])
        .arg(crates.join("mmu-notifier-c/include"))
        .arg(crates.join("bench/c/rows.c"))
        .arg(library)
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .map_err(|error| failed(format!("{}: {error}", Path::new(&compiler).display())))?;
    if output.status.success() { Ok(program) } else { Err(failed(first_error(&output.stderr))) }
}

/// The first line of a compiler's output that is an error, or else its first.
fn first_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let error = text.lines().find(|line| line.contains("error"));
    error.or_else(|| text.lines().next()).unwrap_or("the compiler says nothing").to_owned()
}

/// A row for each that was measured through both interfaces.
pub(crate) fn rows(samples: &Samples) -> impl Iterator<Item = Row> + use<'_> {
    samples.iter().filter_map(|sample| {
        let (figure, spread) = ratio(&sample.c_interface, &sample.ours);
        figure?;
        Some(Row {
            name: format!("{} [C interface]", sample.row),
            n: sample.n,
            ours: median(&sample.c_interface),
            figure,
            spread,
            target: Some(TARGET),
            ..Row::default()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Line;
    use crate::samples::Column;

    #[test]
    fn the_time_through_c_to_that_through_rust() {
        let mut samples = Samples::default();
        let line = |row: &str, figure| Line { row: row.into(), n: 1, figure };
        samples.add(Column::Ours, line("list", 20.0));
        samples.add(Column::CInterface, line("list", 21.0));
        samples.add(Column::Ours, line("exit", 20.0));
        let rows: Vec<_> = rows(&samples).collect();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].name.as_str(), rows[0].ours), ("list [C interface]", Some(21.0)));
        assert_eq!((rows[0].figure, rows[0].met()), (Some(1.05), Some(true)));
    }

    #[test]
    fn what_a_compiler_complains_of() {
        assert_eq!(first_error(b"in file a\na.c:1: error: no\nmore\n"), "a.c:1: error: no");
        assert_eq!(first_error(b"cc: not today\n"), "cc: not today");
    }
}
