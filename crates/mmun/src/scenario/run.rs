//! A run: one file, step by step.
//!
//! A step begins when every thread is idle or asleep. It is given to its thread, and when every thread is
//! idle or asleep again all that it did and let others do is known: so the output does not depend on who
//! is faster. Printed are, in this order, what the callbacks of the step said, the step, and for each step
//! that waited before, in order of their lines, its callbacks and its end if it has finished.

use std::collections::HashMap;
use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::call::{Outcome, Stage};
use super::frees::Frees;
use super::journal::Journal;
use super::library::Library;
use super::lock::locked;
use super::names::Names;
use super::script::{Malformed, Script, Step};
use super::settle::Watch;
use super::verb::Verb;
use super::wind_up;
use super::worker::{Finished, Task, Worker};

/// Why a run stopped.
#[derive(Debug)]
pub(super) enum Error {
    /// An error of the file.
    Line { line: usize, what: String },
    /// The output could not be written.
    Output(io::Error),
}

/// Plays a script on the library and prints what happens.
///
/// # Errors
/// The first error of the file; what was printed before stands.
pub(super) fn play<L: Library>(script: &Script, out: &mut dyn Write) -> Result<(), Error> {
    let _alone = alone();
    let mut run = Run::<L>::new(out);
    let played = run.steps(script).and_then(|()| run.end_of_file().map_err(Error::Output));
    wind_up::wind_up(run.into_cast());
    played
}

/// One run at a time: each watches the threads of the whole process.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    locked(&ALONE)
}

/// How long a step is waited for before all threads are looked at: most steps finish at once.
const AT_ONCE: Duration = Duration::from_micros(200);

/// The threads of a run and what their steps are made on.
pub(super) struct Cast<L: Library> {
    pub(super) names: Names<L>,
    pub(super) journal: Arc<Journal>,
    pub(super) workers: HashMap<String, Worker<Outcome<L>>>,
    pub(super) sender: Sender<Finished<Outcome<L>>>,
    pub(super) receiver: Receiver<Finished<Outcome<L>>>,
    pub(super) watch: Watch,
    /// The steps that still wait, in order of their lines.
    pub(super) waiting: Vec<Step>,
}

struct Run<'o, L: Library> {
    cast: Cast<L>,
    frees: Frees,
    /// What came of steps and is not printed yet.
    finished: HashMap<usize, Option<Outcome<L>>>,
    out: &'o mut dyn Write,
}

impl<'o, L: Library> Run<'o, L> {
    fn new(out: &'o mut dyn Write) -> Self {
        let (sender, receiver) = channel();
        let cast = Cast {
            names: Names::new(),
            journal: Arc::new(Journal::default()),
            workers: HashMap::new(),
            sender,
            receiver,
            watch: Watch::new(),
            waiting: Vec::new(),
        };
        Run { cast, frees: Frees::default(), finished: HashMap::new(), out }
    }

    fn into_cast(mut self) -> Cast<L> {
        for outcome in self.finished.into_values().flatten() {
            outcome.apply(&mut self.cast.names);
        }
        self.cast
    }

    fn steps(&mut self, script: &Script) -> Result<(), Error> {
        for step in &script.steps {
            let step = step.as_ref().map_err(|Malformed { line, what }| failed(*line, what.clone()))?;
            self.begin(step).and_then(|()| self.settle(step.line)).map_err(|what| failed(step.line, what))?;
            self.print(step).map_err(Error::Output)?;
        }
        Ok(())
    }

    /// Gives a step to its thread.
    fn begin(&mut self, step: &Step) -> Result<(), String> {
        let cast = &mut self.cast;
        if let Some(last) = cast.waiting.iter().find(|waiting| waiting.thread == step.thread) {
            return Err(format!(
                "the thread `{}` still waits in its step of line {}",
                step.thread, last.line
            ));
        }
        let mut stage = Stage {
            names: &mut cast.names,
            frees: &mut self.frees,
            journal: &cast.journal,
            waiting: &cast.waiting,
        };
        let call = stage.prepare(step)?;
        cast.journal.begin(step.line);
        let task = Task { line: step.line, invalidation: invalidation_of(&step.verb), call };
        cast.worker(&step.thread)?.give(task);
        Ok(())
    }

    /// Waits until every thread is idle or asleep.
    fn settle(&mut self, line: usize) -> Result<(), String> {
        let until = Instant::now() + AT_ONCE;
        while !self.finished.contains_key(&line) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(finished) = self.cast.receiver.recv_timeout(left) else { break };
            self.finished.insert(finished.line, finished.outcome);
        }
        self.cast.settle()?;
        self.finished.extend(self.cast.receiver.try_iter().map(|finished| (finished.line, finished.outcome)));
        Ok(())
    }

    fn print(&mut self, step: &Step) -> io::Result<()> {
        let before = mem::take(&mut self.cast.waiting);
        self.print_callbacks(step.line)?;
        if !self.print_end(step, "")? {
            writeln!(self.out, "{} -> waits", shown(step))?;
            self.cast.waiting.push(step.clone());
        }
        let mut still = Vec::new();
        for earlier in before {
            self.print_callbacks(earlier.line)?;
            if !self.print_end(&earlier, " (late)")? {
                still.push(earlier);
            }
        }
        still.append(&mut self.cast.waiting);
        self.cast.waiting = still;
        Ok(())
    }

    fn print_callbacks(&mut self, line: usize) -> io::Result<()> {
        let notes = self.cast.journal.take(line);
        self.print_indented(&notes)
    }

    /// Prints the result of a step if it has one, and says whether it has.
    fn print_end(&mut self, step: &Step, late: &str) -> io::Result<bool> {
        let Some(outcome) = self.finished.remove(&step.line) else { return Ok(false) };
        let freed = self.frees.of(step.line);
        self.print_indented(&freed)?;
        let result = outcome.as_ref().map_or("panicked", |outcome| outcome.result);
        writeln!(self.out, "{} -> {result}{late}", shown(step))?;
        if let Some(outcome) = outcome {
            outcome.apply(&mut self.cast.names);
        }
        Ok(true)
    }

    fn end_of_file(&mut self) -> io::Result<()> {
        if self.frees.are_due() {
            let spaces = self.cast.names.spaces();
            // One that comes to no end is the library's fault, and a free that has not run shows it.
            wind_up::apart(&self.cast, move || spaces.iter().for_each(L::sleep));
        }
        let freed = self.frees.rest();
        self.print_indented(&freed)?;
        for step in &self.cast.waiting {
            writeln!(self.out, "{} -> still waits", shown(step))?;
        }
        self.out.flush()
    }

    fn print_indented(&mut self, lines: &[String]) -> io::Result<()> {
        lines.iter().try_for_each(|line| writeln!(self.out, "    {line}"))
    }
}

impl<L: Library> Cast<L> {
    /// Gives the thread of this name, which is made at its first use.
    pub(super) fn worker(&mut self, name: &str) -> Result<&Worker<Outcome<L>>, String> {
        if !self.workers.contains_key(name) {
            let worker = Worker::spawn(name, self.sender.clone())
                .map_err(|error| format!("the thread `{name}` cannot be made: {error}"))?;
            self.workers.insert(name.to_string(), worker);
        }
        self.workers.get(name).ok_or_else(|| format!("the thread `{name}` is gone"))
    }

    /// Waits until every thread is idle or asleep.
    pub(super) fn settle(&self) -> Result<(), String> {
        let awake = |_| "a thread neither finishes nor sleeps, long after the step began".to_string();
        self.watch.wait(|| self.journal.written()).map_err(awake)
    }
}

fn failed(line: usize, what: String) -> Error {
    Error::Line { line, what }
}

fn shown(step: &Step) -> String {
    format!("{} {} {}", step.line, step.thread, step.written)
}

/// The invalidation that callbacks name while this call runs.
fn invalidation_of(verb: &Verb) -> String {
    match verb {
        Verb::Start { name, .. } | Verb::End { name } => name.clone(),
        _ => "?".to_string(),
    }
}
