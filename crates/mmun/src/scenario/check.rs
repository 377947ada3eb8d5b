//! `mmun scenario --check`: compares what happened with the `.out` beside each file.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use similar::TextDiff;

use super::{DIFFERS, Interface, UNUSABLE, complain, play, read};

/// What came of the files so far.
#[derive(Default)]
struct Tally {
    same: usize,
    differ: usize,
    unusable: usize,
}

/// Compares each file and sums up on stderr.
pub(super) fn all(files: &[PathBuf], interface: Interface) -> ExitCode {
    let mut tally = Tally::default();
    for file in files {
        match compare(file, interface, &mut io::stdout().lock()) {
            Ok(true) => tally.same += 1,
            Ok(false) => tally.differ += 1,
            Err(message) => {
                complain(&message);
                tally.unusable += 1;
            }
        }
    }
    complain(&tally.to_string());
    // An error of a file says more than a difference.
    match tally {
        Tally { unusable: 1.., .. } => ExitCode::from(UNUSABLE),
        Tally { differ: 1.., .. } => ExitCode::from(DIFFERS),
        Tally { .. } => ExitCode::SUCCESS,
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { same, differ, unusable } = self;
        let files = same + differ + unusable;
        write!(f, "{files} scenarios: {same} as expected, {differ} differ, {unusable} with an error")
    }
}

/// Runs a file and says whether it printed what is expected; if not, prints the difference to `out`.
fn compare(file: &Path, interface: Interface, out: &mut dyn Write) -> Result<bool, String> {
    let mut printed = Vec::new();
    play(file, interface, &mut printed)?;
    let printed = String::from_utf8_lossy(&printed);
    let beside = file.with_extension("out");
    let expected = match fs::read(&beside) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: cannot be read: {error}", beside.display())),
    };
    if expected.as_deref() == Some(&*printed) {
        return Ok(true);
    }
    explain(file);
    if expected.is_none() {
        complain(&format!("{}: is missing: it holds the expected output", beside.display()));
    }
    let diff = TextDiff::from_lines(expected.as_deref().unwrap_or_default(), &printed);
    let (old, new) = (beside.display().to_string(), format!("{} as it ran", file.display()));
    write!(out, "{}", diff.unified_diff().header(&old, &new))
        .map_err(|error| format!("{}: cannot write the difference: {error}", file.display()))?;
    Ok(false)
}

/// Says on stderr what a file that differs is about.
fn explain(file: &Path) {
    let about = read(file).ok().and_then(|script| script.about);
    let about = about.unwrap_or_else(|| "it has no head comment".to_string());
    complain(&format!("{}: differs ({about})", file.display()));
}
