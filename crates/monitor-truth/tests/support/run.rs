//! Runs a program under the preload, within a time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testkit::built::folder;

use super::check::{Verdict, judge};
use super::trace::Trace;

/// A deadlock is a failed test: far more than any program here takes.
const LONGEST: Duration = Duration::from_secs(150);

/// The preload that writes into the trace.
fn truth() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| folder(&["monitor-truth"]).join("libmonitor_truth.so"))
}

/// The preload that users have.
fn monitor() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| folder(&["mmu-monitor-c"]).join("libmmu_monitor.so"))
}

/// A preload, and an allocator's library behind it if there is one.
fn both(first: &Path, allocator: Option<&Path>) -> OsString {
    let mut list = first.as_os_str().to_owned();
    if let Some(allocator) = allocator {
        list.push(":");
        list.push(allocator);
    }
    list
}

/// Runs `command` with `sources` and compares.
///
/// # Errors
/// What this machine lacks.
pub(crate) fn watched(
    name: &str,
    sources: &str,
    allocator: Option<&Path>,
    command: &mut Command,
) -> Result<Verdict, String> {
    let trace = Trace::make(name)?;
    command.env("LD_PRELOAD", both(truth(), allocator)).env("MMU_MONITOR", sources);
    finish(name, command.env("MONITOR_TRUTH_MARKER", trace.marker()));
    let (lines, lost) = trace.read();
    let mut verdict = judge(&lines);
    if lost > 0 {
        verdict.wrong.push(format!("{lost} events were lost"));
    }
    println!("{name:12} {sources:8} {verdict}");
    Ok(verdict)
}

/// Watches a program with hooks: nothing may be uncovered, and there must have been something to cover.
pub(crate) fn covered(name: &str, least: usize, allocator: Option<&Path>, command: &mut Command) {
    match watched(name, "hooks", allocator, command) {
        Err(lacking) => println!("{name:12} skipped: {lacking}"),
        Ok(verdict) => {
            assert!(verdict.wrong.is_empty(), "{name}: {:#?}", verdict.wrong);
            assert!(verdict.programs > 0, "{name}: the preload was not there");
            let all = verdict.calls.all();
            assert!(all >= least, "{name}: only {all} kernel starts in calls, where {least} were expected");
        }
    }
}

/// Runs a program under the preload that users have, and gives the numbers of starts and ends of each program.
pub(crate) fn counted(name: &str, allocator: Option<&Path>, command: &mut Command) -> Vec<(u64, u64)> {
    command.env("LD_PRELOAD", both(monitor(), allocator)).env("MMU_MONITOR", "hooks");
    let output = finish(name, command.env("MMU_MONITOR_REPORT", "stderr"));
    let report = String::from_utf8(output.stderr).expect("it is text");
    let before = |line: &str, word| {
        let number = line.split(word).next().and_then(|text| text.rsplit(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{name}: no report: {report}"))
    };
    report.lines().map(|line| (before(line, " starts ("), before(line, " ends"))).collect()
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn finish(name: &str, command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    if !ends(&mut child) {
        let state = state(child.id());
        let _ = child.kill();
        panic!("{name}: still running after {LONGEST:?}\n{state}");
    }
    let output = child.wait_with_output().expect("it has ended");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{stdout}{stderr}", output.status);
    output
}

/// Waits; programs here write less than a pipe holds.
fn ends(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < LONGEST {
        if child.try_wait().expect("it is our child").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// What each thread of a process waits for.
fn state(process: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of_one = |task: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        format!("{:?}: in {} call {}\n", task.file_name(), read("wchan"), read("syscall").trim())
    };
    tasks.map(of_one).collect()
}
