//! `mmun scenario`: runs interleavings that are written down in `*.scn` files.
//!
//! A scenario says step by step what each of its threads calls; the run prints what happened, the same
//! on every run. The form and the output are described in the project's `docs/scenario.md`.
//!
//! The way of a file: `script` reads its lines into `verb`s, `run` gives each step to a
//! `worker`, a real thread; `call` makes the call of it, on the things that `names` knows, through a
//! `library` interface; what `subscriber`s hear goes to the `journal`; `settle` tells when every
//! thread is idle or asleep, so that the step can be printed; `wind_up` leaves nothing behind that a
//! later file could feel. `check` compares with what is expected.

mod c;
mod call;
mod check;
mod frees;
mod gate;
mod journal;
mod library;
mod lock;
mod names;
mod run;
mod rust;
mod script;
mod settle;
mod subscriber;
mod verb;
mod wind_up;
mod words;
mod worker;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use script::Script;

/// What `mmun scenario` is asked to do.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Compare with the `.out` beside each file and print a unified diff where they differ
    #[arg(long)]
    check: bool,

    /// Which interface of the library the steps call
    #[arg(long, value_enum, default_value_t = Via::Rust)]
    via: Via,

    /// The C library (libmmu_notifier.so) of `--via c`, if not the one beside this program or the installed one
    #[arg(long, env = "MMU_NOTIFIER_LIBRARY", value_name = "PATH")]
    library: Option<PathBuf>,

    /// The scenario files (`*.scn`)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// An interface of the library.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// The Rust interface
    Rust,
    /// The C interface
    C,
}

/// Plays a script through an interface of the library, and prints what happens.
type Interface = fn(&Script, &mut dyn Write) -> Result<(), run::Error>;

impl Via {
    /// Gives the interface, ready to be called.
    fn interface(self, library: Option<&Path>) -> Result<Interface, String> {
        match self {
            Via::Rust => Ok(run::play::<rust::Rust>),
            Via::C => c::C::load(library).map(|()| run::play::<c::C> as Interface),
        }
    }
}

/// The exit of a run whose output is not the expected one.
const DIFFERS: u8 = 1;

/// The exit of a run that could not be carried out as asked.
const UNUSABLE: u8 = 2;

/// Runs the files, or compares them with what is expected.
pub fn run(args: &Args) -> ExitCode {
    let interface = match args.via.interface(args.library.as_deref()) {
        Ok(interface) => interface,
        Err(message) => {
            complain(&message);
            return ExitCode::from(UNUSABLE);
        }
    };
    if args.check { check::all(&args.files, interface) } else { show(&args.files, interface) }
}

/// Runs each file and prints what happened. An error of one file does not keep the others from running.
fn show(files: &[PathBuf], interface: Interface) -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for file in files {
        if let Err(message) = play(file, interface, &mut io::stdout().lock()) {
            complain(&message);
            exit = ExitCode::from(UNUSABLE);
        }
    }
    exit
}

/// Runs one file.
///
/// # Errors
/// The message for stderr, which names the file and, where it has one, the line.
fn play(file: &Path, interface: Interface, out: &mut dyn Write) -> Result<(), String> {
    let script = read(file)?;
    interface(&script, out).map_err(|error| match error {
        run::Error::Line { line, what } => format!("{}:{line}: {what}", file.display()),
        run::Error::Output(error) => format!("{}: cannot write what happened: {error}", file.display()),
    })
}

fn read(file: &Path) -> Result<Script, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    Ok(Script::parse(&String::from_utf8_lossy(&bytes)))
}

/// Reads `bytes` as a scenario file without running it; gives the lines that are no steps, and why.
pub fn malformed(bytes: &[u8]) -> Vec<(usize, String)> {
    let script = Script::parse(&String::from_utf8_lossy(bytes));
    script.steps.into_iter().filter_map(Result::err).map(|error| (error.line, error.what)).collect()
}

/// Prints a message on stderr.
fn complain(message: &str) {
    // Nobody is left to be told if stderr is closed.
    let _ = writeln!(io::stderr(), "{message}");
}
