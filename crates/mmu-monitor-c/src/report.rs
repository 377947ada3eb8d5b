//! What was told, counted; and the line about it that a preloaded library writes at exit.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::mem::forget;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mmu_notifier::list::{Notifier, WouldBlock};
use mmu_notifier::{Event, Invalidation};
use monitor::Monitor;

/// The variable that says where the line goes.
const VARIABLE: &str = "MMU_MONITOR_REPORT";

const EVENTS: [&str; 5] = ["unmap", "clear", "protection", "fork", "other"];

/// Starts by event, and all ends.
static STARTS: [AtomicU64; EVENTS.len()] = [const { AtomicU64::new(0) }; EVENTS.len()];
static ENDS: AtomicU64 = AtomicU64::new(0);

static PLACE: OnceLock<Place> = OnceLock::new();

/// Where the line goes.
enum Place {
    /// A copy of stderr, which many programs close before they are over, and which file that is: what lies at that
    /// number later may be the program's own.
    Stderr(File, (u64, u64)),
    /// From the root on: the program may go to another folder.
    Path(PathBuf),
}

impl Place {
    fn of(word: OsString) -> io::Result<Place> {
        if word != "stderr" {
            return std::path::absolute(word).map(Place::Path);
        }
        let file = high_copy_of_stderr()?;
        let identity = identity(&file)?;
        Ok(Place::Stderr(file, identity))
    }

    fn write(&self, line: &str) -> io::Result<()> {
        match self {
            Place::Stderr(file, which) if identity(file)? != *which => Ok(()),
            Place::Stderr(file, _) => (&*file).write_all(line.as_bytes()),
            Place::Path(path) => {
                File::options().append(true).create(true).open(path)?.write_all(line.as_bytes())
            }
        }
    }
}

/// A copy where programs have no files of their own, closed by exec.
fn high_copy_of_stderr() -> io::Result<File> {
    const HIGH: i32 = 800;
    // SAFETY: it changes nothing but the table of descriptors.
    let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, HIGH) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just given, and nobody else's.
    Ok(unsafe { File::from_raw_fd(copy) })
}

/// Which file it is.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|data| (data.dev(), data.ino()))
}

/// A subscriber to everything.
struct Counter;

impl Notifier for Counter {
    fn invalidate_range_start(&self, what: &Invalidation) -> Result<(), WouldBlock> {
        let event = match what.event() {
            Event::Unmap => 0,
            Event::Clear => 1,
            Event::ProtectionVma => 2,
            Event::ProtectionPage => 3,
            _ => 4,
        };
        STARTS[event].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        ENDS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts from now on and writes at exit, if the user wants it.
///
/// # Errors
/// There is no memory, or no place to write to.
pub(crate) fn begin(monitor: Monitor) -> Result<(), String> {
    let Some(place) = std::env::var_os(VARIABLE).filter(|place| !place.is_empty()) else { return Ok(()) };
    let place = Place::of(place).map_err(|error| format!("{VARIABLE}: {error}"))?;
    // The linker calls a constructor once.
    let _ = PLACE.set(place);
    let counter = monitor.space().register(Counter);
    // For as long as the process lives.
    forget(counter.map_err(|error| error.to_string())?);
    // SAFETY: the functions are this library's, which is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(start_anew)) };
    // SAFETY: as above.
    unsafe { libc::atexit(write) };
    Ok(())
}

/// A child counts its own. The bracket around the fork was its parent's.
extern "C" fn start_anew() {
    STARTS.iter().chain([&ENDS]).for_each(|count| count.store(0, Ordering::Relaxed));
}

extern "C" fn write() {
    if let Some(place) = PLACE.get() {
        // Where it cannot be written there is nobody to be told.
        let _ = place.write(&line());
    }
}

fn line() -> String {
    let starts = STARTS.each_ref().map(|count| count.load(Ordering::Relaxed));
    let program = std::env::current_exe().unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let by_event: Vec<_> =
        EVENTS.iter().zip(starts).map(|(event, count)| format!("{event} {count}")).collect();
    format!(
        "mmu_monitor: {name} ({}): {} starts ({}), {} ends\n",
        std::process::id(),
        starts.iter().sum::<u64>(),
        by_event.join(", "),
        ENDS.load(Ordering::Relaxed)
    )
}
