//! A scenario file, line by line.
//!
//! A line that is malformed is an error only when the run comes to it, since what is printed before
//! stands: so the script keeps the error in the place of the step.

use super::verb::Verb;
use super::words::{is_name, not_a_name};

/// The thread of a step that names none.
const MAIN: &str = "main";

/// A file that was read.
pub(super) struct Script {
    /// What the file is about: its first comment, as a rule the clauses that it proves.
    pub(super) about: Option<String>,
    /// Its steps in order of their lines.
    pub(super) steps: Vec<Result<Step, Malformed>>,
}

/// One call of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) thread: String,
    /// The verb and its arguments, as written.
    pub(super) written: String,
    pub(super) verb: Verb,
}

/// A line that is no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Script {
    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Script {
        let first = text.lines().next().unwrap_or_default();
        let about = first.strip_prefix('#').map(|comment| comment.trim().to_string());
        let lines = text.lines().zip(1..);
        let steps = lines.filter_map(|(text, line)| parse_line(line, text)).collect();
        Script { about, steps }
    }
}

/// Reads a line; one without a step is none.
fn parse_line(line: usize, text: &str) -> Option<Result<Step, Malformed>> {
    let code = text.split('#').next().unwrap_or_default();
    let words: Vec<&str> = code.split_whitespace().collect();
    if words.is_empty() {
        None
    } else {
        Some(parse_step(line, &words).map_err(|what| Malformed { line, what }))
    }
}

fn parse_step(line: usize, words: &[&str]) -> Result<Step, String> {
    let thread = words.first().and_then(|word| word.strip_suffix(':'));
    let call = if thread.is_some() { &words[1..] } else { words };
    let thread = thread.unwrap_or(MAIN);
    if !is_name(thread) {
        return Err(not_a_name(thread));
    }
    let verb = Verb::parse(call)?;
    Ok(Step { line, thread: thread.to_string(), written: call.join(" "), verb })
}
