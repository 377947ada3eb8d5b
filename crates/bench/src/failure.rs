//! What can go wrong, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why there is no result.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// A program cannot be started.
    NotStarted(PathBuf, io::Error),
    /// Its output cannot be read.
    NotRead(PathBuf, io::Error),
    /// It printed something else than a result.
    NotALine(PathBuf, String),
    /// It ended with an error.
    Ended(PathBuf, ExitStatus),
    /// The program of the C interface cannot be made.
    NotCompiled(String),
    /// The picture cannot be drawn.
    NotDrawn(String),
    /// The picture cannot be written.
    NotWritten(PathBuf, io::Error),
    /// No row has such a name.
    NoRow(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotStarted(program, error) => write!(
                f,
                "{} cannot be run: {error}; --reference wants the path of a program",
                program.display()
            ),
            Failure::NotRead(program, error) => {
                write!(f, "what {} prints cannot be read: {error}", program.display())
            }
            Failure::NotALine(program, line) => write!(
                f,
                "{} printed `{line}`; a line must be a name, a whole number and nanoseconds",
                program.display()
            ),
            Failure::Ended(program, status) => {
                write!(f, "{} ended with {status}; it must end with exit code 0", program.display())
            }
            Failure::NotCompiled(error) => write!(
                f,
                "the program of --c-interface cannot be made: {error}; it wants a C compiler (cc, or what CC names), \
                 and what `cargo build --profile release-c -p mmu-notifier-c` makes"
            ),
            Failure::NotDrawn(error) => write!(f, "the picture cannot be drawn: {error}"),
            Failure::NotWritten(path, error) => write!(
                f,
                "{} cannot be written: {error}; --svg wants the path of a file in a folder that is there",
                path.display()
            ),
            Failure::NoRow(part) => write!(
                f,
                "no row's name contains `{part}`; without --rows all of them run, and show their names"
            ),
        }
    }
}

impl std::error::Error for Failure {}
