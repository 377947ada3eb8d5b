//! `mmun demo`: registered buffers as a secondary MMU that everybody has.
//!
//! io_uring pins the pages of a registered (fixed) buffer. Change the mapping afterwards, and a
//! `READ_FIXED` into the buffer still reports success, but the data is not there. The demo shows this on
//! real files, and that it is over once the buffers' registrations are kept by MMU notifiers.
//!
//! What is compared. Two halves run the same load (`load`): readers read parts of files through a few
//! registered buffers, and compare each with an ordinary `pread`; mutators unmap, replace, discard and
//! move the buffers' memory, through an explicit event source (`explicit`). In the first half the
//! buffers are registered once and nobody subscribes. In the second each buffer is subscribed
//! (`buffer`), and registered anew after a change.
//!
//! Why that is fair. A change *during* a use would spoil any comparison (or crash the program),
//! registered or not. So in both halves the program's accesses, from filling the buffer over the I/O to
//! the comparison, and the mutators' system calls take the buffer's lock, as a program without io_uring
//! would have to as well. What is left to go wrong is the one thing that no lock of the program reaches:
//! a registration that stands for pages of the past. The lock gives the second half nothing: there the
//! drain has waited for every use before the system call, and no use begins before its end. The buffer
//! is filled with bytes unlike the file's before each read, so that none is right by chance; and a file
//! that was itself written meanwhile counts for neither side.

mod buffer;
mod device;
mod explicit;
mod files;
mod load;
mod progress;
mod random;
mod report;
mod software;
mod sys;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use files::Source;
use load::{BUFFERS, Half, Load, LoadError, READERS};
use progress::Progress;
use report::Report;

/// Show on registered buffers of io_uring what MMU notifiers are for.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files to read [default: some that every machine has]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Run for so many seconds in all
    #[arg(long, value_name = "N", default_value = "5", value_parser = seconds)]
    seconds: Duration,

    /// Pick what is read and changed from this number [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print the numbers as one JSON object
    #[arg(long)]
    json: bool,

    /// Use a secondary MMU in software in place of io_uring
    #[arg(long)]
    software: bool,
}

/// The exit status if the library let a wrong read through.
const WRONG: u8 = 1;
/// The exit status if the demo could not be run.
const FAILED: u8 = 2;

/// Runs the demo, and reports.
pub fn run(args: &Args) -> ExitCode {
    match show(args) {
        Ok(Report { with, .. }) if with.wrong_reads > 0 => ExitCode::from(WRONG),
        Ok(_) => ExitCode::SUCCESS,
        Err(message) => {
            // Not eprintln, which panics where stderr is closed.
            let _ = writeln!(std::io::stderr(), "mmun demo: {message}");
            ExitCode::from(FAILED)
        }
    }
}

fn show(args: &Args) -> Result<Report, String> {
    let sources = sources(&args.files)?;
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    let load = Load { sources: &sources, seed, length: args.seconds / 2 };
    let device = choose(args, &sources[0]);
    say(&format!(
        "{}, {} buffers of 64 KiB, {}, {:.1} s, --seed {seed}",
        report::files(sources.len()),
        READERS * BUFFERS,
        device.name(),
        args.seconds.as_secs_f64(),
    ));
    let report = compare(device, &load).map_err(|error| error.to_string())?;
    let text = if args.json { report.json() } else { report.text(device.name(), sources.len()) };
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Who closed the pipe has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the report: {error}"))
        }
        _ => Ok(report),
    }
}

fn sources(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    let sources = if files.is_empty() {
        files::usual()
    } else {
        files::given(files).map_err(|error| error.to_string())?
    };
    if sources.is_empty() {
        return Err("found no file to read here: name one".into());
    }
    Ok(sources)
}

/// Which secondary MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ring,
    Software,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ring => "io_uring",
            Kind::Software => "a secondary MMU in software",
        }
    }
}

/// Takes io_uring if the kernel has it and this user may use it.
fn choose(args: &Args, source: &Source) -> Kind {
    if args.software {
        return Kind::Software;
    }
    match sys::probe(source, READERS, BUFFERS) {
        Ok(()) => Kind::Ring,
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::OutOfMemory => ": more than ulimit -l lets this user lock",
                _ => "",
            };
            say(&format!(
                "no io_uring with registered buffers here ({error}{hint}); a software MMU takes its place"
            ));
            Kind::Software
        }
    }
}

/// Runs the two halves, each on a machine of its own.
fn compare(kind: Kind, load: &Load<'_>) -> Result<Report, LoadError> {
    let progress = Progress::new(load.length * 2);
    let half = |half| match kind {
        Kind::Ring => {
            load::run(half, sys::banks(READERS, BUFFERS).map_err(LoadError::Register)?, load, &progress)
        }
        Kind::Software => load::run(half, software::banks(READERS, BUFFERS), load, &progress),
    };
    let report = half(Half::Without).and_then(|without| Ok(Report { without, with: half(Half::With)? }));
    progress.finish();
    report
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "mmun demo: {line}");
}

/// Reads a time in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "must be a number of seconds from 0.1 to 86400".into())
}

#[cfg(test)]
mod tests;
