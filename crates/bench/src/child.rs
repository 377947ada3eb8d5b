//! Running a program that prints [`Line`]s.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::failure::Failure;
use crate::line::Line;

/// Runs a program to its end, and gives each line that it prints to `each` as it comes.
pub(crate) fn run(command: &mut Command, mut each: impl FnMut(Line)) -> Result<(), Failure> {
    let program = PathBuf::from(command.get_program());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = Running(child.map_err(|error| Failure::NotStarted(program.clone(), error))?);
    let stdout = child.0.stdout.take().expect("its output was asked for");
    for text in BufReader::new(stdout).lines() {
        let text = text.map_err(|error| Failure::NotRead(program.clone(), error))?;
        match Line::parse(&text) {
            Some(line) => each(line),
            None => return Err(Failure::NotALine(program, text)),
        }
    }
    let status = child.0.wait().map_err(|error| Failure::NotRead(program.clone(), error))?;
    if status.success() { Ok(()) } else { Err(Failure::Ended(program, status)) }
}

/// A process that does not outlive the interest in it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str) -> (Vec<Line>, Result<(), Failure>) {
        let mut lines = Vec::new();
        let result = run(Command::new("sh").args(["-c", script]), |line| lines.push(line));
        (lines, result)
    }

    #[test]
    fn lines_of_a_program_that_ends_well() {
        let (lines, result) = run_shell("echo 'a/b c   10     1.5'; echo noise >/dev/null");
        assert!(result.is_ok());
        assert_eq!(lines, [Line { row: "a/b c".into(), n: 10, figure: 1.5 }]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |script| run_shell(script).1.unwrap_err().to_string();
        assert!(message("echo hello").contains("`hello`"));
        assert!(message("exit 3").contains('3'));
        let missing = run(&mut Command::new("./no-such-program"), |_| ()).unwrap_err().to_string();
        assert!(missing.contains("no-such-program") && missing.contains("--reference"));
    }
}
