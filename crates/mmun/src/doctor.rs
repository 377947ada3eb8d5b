//! `mmun doctor`: what a process on this machine can hear of the changes of its own mappings.
//!
//! It starts a monitor in its own process, as `MMU_MONITOR` chooses, and prints what the sources say of themselves: which
//! work here, why others do not, and for each operation and each origin when it is told of.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mmu_monitor::{Monitor, Operation, Origin, SOURCES, Source, StartError, When};
use serde_json::{Value, json};

/// Say which changes of its mappings a process on this machine can hear of.
///
/// `MMU_MONITOR` chooses the sources: `off`, or a list of their names with commas in between.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found.
struct Report {
    sources: Vec<Found>,
    table: Vec<(Operation, Vec<When>)>,
}

/// A source, and whether it works here.
struct Found {
    name: &'static str,
    is_chosen: bool,
    result: Result<Duration, String>,
}

/// Runs the subcommand: 0 if a monitor can be had, 1 if not.
pub fn run(args: &Args) -> ExitCode {
    match examine() {
        Ok(report) => {
            print!("{}", if args.json { report.json() } else { report.text() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mmun doctor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn examine() -> Result<Report, StartError> {
    let begun = Instant::now();
    let monitor = Monitor::start()?;
    let took = begun.elapsed();
    let row = |operation| Origin::ALL.map(|origin| monitor.coverage(operation, origin)).into();
    let table = Operation::ALL.map(|operation| (operation, row(operation))).into();
    let chosen = monitor.armed();
    let find = |source: &&dyn Source| {
        let is_chosen = chosen.contains(&source.name());
        Found { name: source.name(), is_chosen, result: if is_chosen { Ok(took) } else { attempt(*source) } }
    };
    Ok(Report { sources: SOURCES.iter().map(find).collect(), table })
}

/// Tries a source that was not chosen.
fn attempt(source: &dyn Source) -> Result<Duration, String> {
    let begun = Instant::now();
    source.arm().map_err(|error| error.reason().to_owned())?;
    let took = begun.elapsed();
    source.disarm();
    Ok(took)
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::from("Sources of this process's changes of its own mappings:\n\n");
        for Found { name, is_chosen, result } in &self.sources {
            let line = match (result, is_chosen) {
                (Ok(took), true) => format!("on (started in {:.1} ms)", took.as_secs_f64() * 1e3),
                (Ok(took), false) => format!("off; would work ({:.1} ms)", took.as_secs_f64() * 1e3),
                (Err(reason), _) => format!("does not work here: {reason}"),
            };
            _ = writeln!(text, "  {name:12} {line}");
        }
        _ = writeln!(text, "\nWhat is told of, by who makes the change:\n");
        _ = write!(text, "  {:21}", "");
        Origin::ALL.iter().for_each(|origin| _ = write!(text, "{origin:>10}"));
        for (operation, row) in &self.table {
            _ = write!(text, "\n  {operation:21}");
            row.iter().for_each(|when| _ = write!(text, "{when:>10}"));
        }
        text.push_str(
            "\n
  wrapper    who calls mmu_monitor::explicit           around  before and after the change
  function   who calls the C library's functions       before  before it; its end is not seen
  inside     the C library itself: free, dlclose       after   after it; a look-up must ask
  direct     a system call instruction elsewhere       -       never: keep no copy that this could
  elsewhere  io_uring's queue, another process                 change, or pin its pages
",
        );
        text
    }

    fn json(&self) -> String {
        let source = |found: &Found| {
            json!({
                "name": found.name,
                "on": found.is_chosen,
                "works": found.result.is_ok(),
                "reason": found.result.as_ref().err(),
            })
        };
        let row = |row: &[When]| -> Value {
            let fields = Origin::ALL.iter().zip(row);
            fields
                .map(|(origin, when)| (origin.to_string(), when.to_string()))
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect()
        };
        let table: BTreeMap<_, _> =
            self.table.iter().map(|(operation, fields)| (operation.to_string(), row(fields))).collect();
        let sources: Vec<_> = self.sources.iter().map(source).collect();
        format!("{}\n", json!({ "sources": sources, "operations": table }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_a_row_and_each_source_a_line() {
        let report = examine().unwrap();
        let text = report.text();
        for operation in Operation::ALL {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("  {operation}"))),
                "{operation}: {text}"
            );
        }
        for source in SOURCES {
            assert!(text.lines().any(|line| line.starts_with(&format!("  {}", source.name()))), "{text}");
        }
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["operations"].as_object().unwrap().len(), Operation::ALL.len());
        assert_eq!(json["operations"]["munmap"]["wrapper"], "around");
        assert_eq!(json["operations"]["copy on write"]["function"], "-");
    }
}
