//! A trace of its own: an instance of tracefs that follows the programs that this thread starts, and nobody else.

#![allow(unsafe_code, reason = "the number of a thread")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The system calls that are traced, with their starts and ends: those of memory, those that fork, exec.
pub(crate) const CALLS: [&str; 16] = [
    "munmap",
    "mmap",
    "mprotect",
    "pkey_mprotect",
    "mremap",
    "madvise",
    "process_madvise",
    "brk",
    "shmdt",
    "shmat",
    "remap_file_pages",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "execve",
];

/// Memory for all processors' buffers together, in KiB.
const ROOM: usize = 256 << 10;

/// An instance, removed when dropped.
pub(crate) struct Trace {
    folder: PathBuf,
}

impl Trace {
    /// Makes one whose name ends with `name`.
    ///
    /// # Errors
    /// What this machine lacks.
    pub(crate) fn make(name: &str) -> Result<Trace, String> {
        if !Path::new("/dev/kvm").exists() {
            return Err("no /dev/kvm".into());
        }
        fs::File::options().write(true).open("/dev/kvm").map_err(|error| format!("/dev/kvm: {error}"))?;
        let folder = root()?.join("instances").join(format!("monitor-truth-{}-{name}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let trace = Trace { folder };
        trace.set_up()?;
        Ok(trace)
    }

    fn set_up(&self) -> Result<(), String> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.put("trace_clock", "global")?;
        self.put("buffer_size_kb", &(ROOM / processors).max(4096).to_string())?;
        // What does not fit is dropped, and counted.
        self.put("options/overwrite", "0")?;
        self.put("options/event-fork", "1")?;
        // SAFETY: it only answers.
        let thread = unsafe { libc::gettid() };
        self.put("set_event_pid", &thread.to_string())?;
        self.put("events/kvm/kvm_unmap_hva_range/enable", "1")?;
        for call in CALLS {
            for half in ["enter", "exit"] {
                let event = format!("events/syscalls/sys_{half}_{call}/enable");
                // Not every kernel has every call.
                if self.folder.join(&event).exists() {
                    self.put(&event, "1")?;
                }
            }
        }
        self.put("tracing_on", "1")
    }

    fn put(&self, file: &str, text: &str) -> Result<(), String> {
        let file = self.folder.join(file);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// The file that marks are written to.
    pub(crate) fn marker(&self) -> PathBuf {
        self.folder.join("trace_marker")
    }

    /// Stops, and gives all lines and the number of events that were lost.
    pub(crate) fn read(&self) -> (String, u64) {
        self.put("tracing_on", "0").expect("it could be switched on");
        let text = fs::read(self.folder.join("trace")).expect("a trace can be read");
        (String::from_utf8_lossy(&text).into_owned(), self.lost())
    }

    fn lost(&self) -> u64 {
        let processors = fs::read_dir(self.folder.join("per_cpu")).expect("there are processors");
        let of_one = |processor: fs::DirEntry| {
            let stats = fs::read_to_string(processor.path().join("stats")).expect("each counts");
            let counts = ["overrun:", "commit overrun:", "dropped events:"];
            let count = |line: &str| {
                counts.iter().find_map(|name| line.strip_prefix(name)?.trim().parse::<u64>().ok())
            };
            stats.lines().filter_map(count).sum::<u64>()
        };
        processors.flatten().map(of_one).sum()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // While somebody still writes to it, it stays: the next boot removes it.
        let _ = self.put("tracing_on", "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The folder of tracefs, mounted if nobody has.
fn root() -> Result<PathBuf, String> {
    const PLACE: &str = "/sys/kernel/tracing";
    let find = || {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let tracefs = |line: &str| {
            let mut words = line.split(' ');
            let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "tracefs").then(|| PathBuf::from(place))
        };
        mounts.lines().find_map(tracefs)
    };
    if find().is_none() {
        let _ = Command::new("mount").args(["-t", "tracefs", "tracefs", PLACE]).output();
    }
    let found = find().ok_or("no tracefs, and it cannot be mounted")?;
    let event = found.join("events/kvm/kvm_unmap_hva_range/enable");
    match fs::File::options().write(true).open(&event) {
        Ok(_) => Ok(found),
        Err(error) => Err(format!("{}: {error}", event.display())),
    }
}
