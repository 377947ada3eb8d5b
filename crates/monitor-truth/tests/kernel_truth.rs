//! What the kernel itself tells a notifier of its own, against the monitor's brackets, on real programs.
//!
//! Needs root, `/dev/kvm` and tracefs; what is missing is said. Kernel starts within a memory call must lie in a bracket
//! of the calling thread. Those outside of calls (page faults, reclaim) are counted and printed: no source in user
//! space sees them.

#![cfg(target_os = "linux")]

mod support;

use std::process::Command;

use support::check::{Starts, judge};
use support::programs::{self, Scratch, has};
use support::run::{covered, watched};

#[test]
fn python() {
    if has("python3") {
        covered("python3", 500, None, Command::new("python3").args(["-c", programs::PYTHON]));
    }
}

#[test]
fn compilers() {
    let scratch = Scratch::make("compilers");
    if has("gcc") {
        let source = scratch.file("lists.c", &programs::c());
        covered(
            "gcc",
            4,
            None,
            Command::new("gcc").args(["-O2", "-o"]).arg(scratch.0.join("lists")).arg(source),
        );
    }
    if has("rustc") {
        let source = scratch.file("words.rs", programs::RUST);
        covered(
            "rustc",
            50,
            None,
            Command::new("rustc").args(["-O", "-o"]).arg(scratch.0.join("words")).arg(source),
        );
    }
}

#[test]
fn git() {
    if has("git") {
        let scratch = Scratch::make("git");
        covered("git", 10, None, &mut programs::repository(&scratch.0));
    }
}

#[test]
fn others() {
    let scratch = Scratch::make("others");
    if has("sort") {
        let lines: String =
            (0..400_000_u64).map(|n| format!("{}\n", n * 2_654_435_761 % 1_000_003)).collect();
        let lines = scratch.file("lines", &lines);
        let sort = ["--parallel=4", "-n", "-S", "2M", "-o", "/dev/null"];
        covered("sort", 1, None, Command::new("sort").args(sort).arg(lines));
    }
    if has("perl") {
        covered("perl", 5, None, Command::new("perl").args(["-e", programs::PERL]));
    }
}

/// Programs that compile while they run, with threads that collect garbage.
#[test]
fn virtual_machines() {
    let scratch = Scratch::make("machines");
    if has("node") {
        let script = scratch.file("work.js", programs::JAVASCRIPT);
        covered("node", 500, None, Command::new("node").arg(script));
    }
    if has("java") {
        covered("java", 100, None, Command::new("java").args(["-Xmx64m", "-version"]));
    }
}

#[test]
fn without_hooks_the_comparison_fails() {
    if !has("python3") {
        return;
    }
    match watched("no hooks", "explicit", None, Command::new("python3").args(["-c", programs::PYTHON])) {
        Err(lacking) => println!("no hooks     skipped: {lacking}"),
        Ok(verdict) => {
            assert!(verdict.calls.uncovered > 500, "{verdict}");
            assert_eq!(verdict.calls.covered, 0, "{verdict}");
            assert!(!verdict.wrong.is_empty());
        }
    }
}

/// A line as the kernel writes it.
fn line(thread: u32, event: &str) -> String {
    format!("{:>16}-{thread:<7} [000] ..... 1.000001: {event}\n", "a b: c")
}

/// One thread's lines.
fn lines(events: &[&str]) -> String {
    events.iter().map(|event| line(77, event)).collect()
}

const START: &str = "kvm_unmap_hva_range: mmu notifier unmap range: 0x00000000001000 -- 0x00000000003000";

#[test]
fn a_start_within_a_bracket_is_covered() {
    let trace = lines(&[
        "tracing_mark_write: bracket+ 70 1000 2fff",
        "sys_munmap(addr: 0x1000, len: 0x2000)",
        START,
        "sys_munmap -> 0x0",
        "tracing_mark_write: bracket- 70 1000 2fff",
        START,
    ]);
    let verdict = judge(&trace);
    assert_eq!((verdict.calls.covered, verdict.calls.all(), verdict.outside), (1, 1, 1));
    assert!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
}

const HUGE: &str = "kvm_unmap_hva_range: mmu notifier unmap range: 0x00000000000000 -- 0x00000000200000";

#[test]
fn a_split_counts_beside_a_start_that_is_covered() {
    let events = |middle: &[&str]| {
        let mut events =
            vec!["tracing_mark_write: bracket+ 70 1000 2fff", "sys_munmap(addr: 0x1000, len: 0x2000)"];
        events.extend(middle);
        events.push("sys_munmap -> 0x0");
        judge(&lines(&events)).calls
    };
    assert_eq!(events(&[HUGE, START]), Starts { covered: 1, splits: 1, uncovered: 0 });
    assert_eq!(events(&[HUGE]), Starts { covered: 0, splits: 0, uncovered: 1 });
}

#[test]
fn what_comes_behind_an_exit_is_counted_apart() {
    let new_thread = line(78, "sys_madvise(start: 0x1000, len_in: 0x2000, behavior: 4)") + &line(78, START);
    let made = line(77, "sys_clone3 -> 0x4e");
    let exit = line(77, "tracing_mark_write: released 70");
    let verdict = judge(&format!("{exit}{new_thread}{made}"));
    assert_eq!((verdict.after_exit, verdict.wrong.len()), (1, 0), "the thread is of the process that exits");
    let verdict = judge(&format!("{new_thread}{exit}{made}"));
    assert_eq!((verdict.after_exit, verdict.wrong.len()), (0, 1), "before the exit it counts");
    assert_eq!(judge(&format!("{exit}{new_thread}")).wrong.len(), 1, "nobody knows whose thread it is");
}

#[test]
fn what_is_wrong_is_found() {
    let other_thread = line(78, "tracing_mark_write: bracket+ 70 0 ffffffffffffffff");
    let wrong = |events: &[&str]| judge(&format!("{other_thread}{}", lines(events))).wrong.len();
    let (enter, leave) = ("sys_munmap(addr: 0x1000, len: 0x2000)", "sys_munmap -> 0x0");
    let (begin, end) =
        ("tracing_mark_write: bracket+ 70 1000 1fff", "tracing_mark_write: bracket- 70 1000 1fff");
    assert_eq!(wrong(&[enter, START, leave]), 1, "no bracket of this thread");
    assert_eq!(wrong(&[begin, enter, START, leave, end]), 1, "a bracket that is too narrow");
    assert_eq!(wrong(&[enter, begin, leave, end, end]), 1, "an end twice");
    assert_eq!(wrong(&[begin, enter, end, leave]), 1, "an end too early");
    assert_eq!(wrong(&[begin; 9]), 1, "ends that never come");
    assert_eq!(wrong(&["CPU:0 [LOST 3 EVENTS]"]), 1, "a line of another kind");
}
