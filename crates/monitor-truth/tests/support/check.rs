//! The comparison: each start of the kernel within a memory call of a thread lies in a bracket that the thread has open.
//!
//! A line of the trace is `COMM-THREAD [PROCESSOR] FLAGS TIME: EVENT`. Threads are looked at one by one, each in its own
//! order; what one does never counts for another.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// The huge page whose split the kernel tells of as a whole.
const HUGE: u64 = 1 << 21;
/// Brackets that a thread can have open: two of one call, the same for a signal's handler in between, and a fork.
const DEEPEST: usize = 8;

/// What the kernel told in one kind of place.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) covered: usize,
    /// Whole huge pages of which a bracket holds a part, beside a start that is covered: the kernel splits its own tables
    /// at the edge of a change, and no address behind the edge changes its page.
    pub(crate) splits: usize,
    pub(crate) uncovered: usize,
}

impl Starts {
    pub(crate) fn all(&self) -> usize {
        self.covered + self.splits + self.uncovered
    }
}

/// The verdict.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Programs that were watched: an exec counts anew.
    pub(crate) programs: usize,
    pub(crate) brackets: usize,
    /// In calls of memory.
    pub(crate) calls: Starts,
    /// In calls that fork.
    pub(crate) forks: Starts,
    /// In no call: page faults.
    pub(crate) outside: usize,
    /// Behind the exit, which the monitor has told of as a whole.
    pub(crate) after_exit: usize,
    /// What is wrong, the first few.
    pub(crate) wrong: Vec<String>,
}

impl Verdict {
    fn starts(&mut self, call: &Call) -> &mut Starts {
        if call.is_fork { &mut self.forks } else { &mut self.calls }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { programs, brackets, calls, forks, outside, after_exit, .. } = self;
        write!(
            f,
            "{programs:3} programs {brackets:7} brackets | in calls {:6}: covered {:6}",
            calls.all(),
            calls.covered
        )?;
        write!(f, " split {} uncovered {}", calls.splits, calls.uncovered)?;
        write!(
            f,
            " | in forks {:4}: covered {:4} uncovered {}",
            forks.all(),
            forks.covered,
            forks.uncovered
        )?;
        write!(f, " | faults {outside} after exit {after_exit}")
    }
}

#[derive(Default)]
struct Thread {
    process: u64,
    call: Option<Call>,
    open: Vec<(u64, u64)>,
}

/// A call that a thread is in.
#[derive(Default)]
struct Call {
    name: String,
    is_fork: bool,
    has_covered: bool,
    /// Lines that may be of splits.
    splits: Vec<String>,
}

/// Compares what a trace holds.
#[derive(Default)]
struct Comparison {
    threads: HashMap<u64, Thread>,
    /// Who made a thread: one that has written no mark yet is of its maker's process.
    makers: HashMap<u64, u64>,
    released: HashSet<u64>,
    verdict: Verdict,
}

/// Judges the lines of a trace.
pub(crate) fn judge(trace: &str) -> Verdict {
    let mut comparison =
        Comparison { makers: trace.lines().filter_map(made).collect(), ..Comparison::default() };
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        if comparison.take(line).is_none() {
            comparison.verdict.wrong.push(format!("not understood: {line}"));
        }
    }
    comparison.verdict
}

/// The thread and the event of a line.
fn parts(line: &str) -> Option<(u64, &str)> {
    const COMM: usize = 16;
    let (thread, rest) = line.get(COMM..)?.strip_prefix('-')?.split_once(' ')?;
    Some((thread.parse().ok()?, rest.split_once(": ")?.1))
}

/// The thread that a line says was made, and its maker. The line may come behind those of the new thread.
fn made(line: &str) -> Option<(u64, u64)> {
    let (maker, event) = parts(line)?;
    let (call, result) = event.strip_prefix("sys_clone")?.split_once(" -> ")?;
    let thread = matches!(call, "" | "3").then(|| hexadecimal(result)).flatten()?;
    Some((thread, maker)).filter(|(thread, _)| *thread != 0)
}

impl Comparison {
    fn take(&mut self, line: &str) -> Option<()> {
        let (thread, event) = parts(line)?;
        if let Some(range) = event.strip_prefix("kvm_unmap_hva_range: mmu notifier unmap range: ") {
            let (start, end) = range.split_once(" -- ")?;
            self.kernel_start(thread, (hexadecimal(start)?, hexadecimal(end)?), line);
        } else if let Some(mark) = event.strip_prefix("tracing_mark_write: ") {
            self.mark(thread, mark, line)?;
        } else if let Some((call, result)) = event.split_once(" -> ") {
            self.leave(thread, call.strip_prefix("sys_")?, result);
        } else {
            let name = event.strip_prefix("sys_")?.split_once('(')?.0.to_owned();
            let is_fork = ["clone", "clone3", "fork", "vfork"].contains(&name.as_str());
            self.thread(thread).call = Some(Call { name, is_fork, ..Call::default() });
        }
        Some(())
    }

    fn thread(&mut self, number: u64) -> &mut Thread {
        self.threads.entry(number).or_default()
    }

    fn leave(&mut self, number: u64, name: &str, result: &str) {
        let thread = self.thread(number);
        let call = thread.call.take().unwrap_or_default();
        if name == "execve" && result == "0x0" {
            *thread = Thread::default();
        }
        let starts = self.verdict.starts(&call);
        if call.has_covered {
            starts.splits += call.splits.len();
        } else {
            starts.uncovered += call.splits.len();
            call.splits.iter().for_each(|line| self.wrong(&format!("not covered, in {name}"), line));
        }
    }

    fn mark(&mut self, number: u64, mark: &str, line: &str) -> Option<()> {
        let mut words = mark.split(' ');
        let (word, process) = (words.next()?, words.next()?.parse().ok()?);
        self.thread(number).process = process;
        let mut range = || Some((hexadecimal(words.next()?)?, hexadecimal(words.next()?)?));
        match word {
            "ready" => self.verdict.programs += 1,
            "released" => drop(self.released.insert(process)),
            "bracket+" => self.open(number, range()?, line),
            "bracket-" => self.close(number, range()?, line),
            _ => return None,
        }
        Some(())
    }

    fn open(&mut self, number: u64, range: (u64, u64), line: &str) {
        self.verdict.brackets += 1;
        let thread = self.thread(number);
        thread.open.push(range);
        if thread.open.len() > DEEPEST {
            self.wrong("too many are open", line);
        }
    }

    fn close(&mut self, number: u64, range: (u64, u64), line: &str) {
        let thread = self.thread(number);
        let is_inside = thread.call.is_some();
        match thread.open.iter().rposition(|open| *open == range) {
            Some(place) => drop(thread.open.remove(place)),
            // A child ends the bracket around the fork, which its parent began.
            None if range == (0, u64::MAX) => {}
            None => self.wrong("an end without a start", line),
        }
        if is_inside {
            self.wrong("an end before the call is over", line);
        }
    }

    /// The process of a thread, 0 if nobody knows.
    fn process(&self, thread: u64) -> u64 {
        let maker = |thread: &u64| self.makers.get(thread).copied();
        // As many generations as there are threads, if numbers were used twice.
        let mut line = std::iter::successors(Some(thread), maker).take(self.makers.len() + 1);
        let known =
            |thread| self.threads.get(&thread).map(|thread| thread.process).filter(|process| *process != 0);
        line.find_map(known).unwrap_or(0)
    }

    fn kernel_start(&mut self, number: u64, (start, end): (u64, u64), line: &str) {
        let is_over = self.released.contains(&self.process(number));
        let thread = self.threads.entry(number).or_default();
        let (first, last) = (start, end - 1);
        let is_covered = thread.open.iter().any(|open| open.0 <= first && last <= open.1);
        let is_touched = thread.open.iter().any(|open| open.0 <= last && first <= open.1);
        let is_huge = start % HUGE == 0 && end - start == HUGE;
        let Some(call) = &mut thread.call else {
            self.verdict.outside += 1;
            return;
        };
        if is_covered {
            call.has_covered = true;
            self.verdict.starts(call).covered += 1;
        } else if is_over {
            self.verdict.after_exit += 1;
        } else if is_huge && is_touched {
            call.splits.push(line.to_owned());
        } else {
            self.verdict.starts(call).uncovered += 1;
            let what = format!("not covered, in {}", call.name);
            self.wrong(&what, line);
        }
    }

    fn wrong(&mut self, what: &str, line: &str) {
        const ENOUGH: usize = 20;
        if self.verdict.wrong.len() < ENOUGH {
            self.verdict.wrong.push(format!("{what}: {line}"));
        }
    }
}

fn hexadecimal(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()
}
