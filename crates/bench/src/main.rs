//! Measures the library: beside a C program of the same work, named by `--reference`, and alone.
//!
//! The program runs itself as a child process for each set of rows ([`rows`]), as it runs the C program, so
//! that every run starts with a fresh heap. Both print lines of the same form ([`mod@line`]); they run in turn for
//! several rounds ([`rounds`]), and what came out becomes a [`report`]: a [`table`] or JSON ([`json`]), and a [`picture`].
//!
//! What is measured is the public interface as a user calls it ([`subject`]), never a shorter path.

mod args;
mod c_interface;
mod child;
mod cores;
mod count;
mod derived;
mod failure;
mod heap;
mod json;
mod limits;
mod line;
mod machine;
mod picture;
mod progress;
mod random;
mod report;
mod rounds;
mod rows;
mod samples;
mod subject;
mod table;
mod targets;
mod unit;
mod work;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    if let Some(subject) = args.child {
        rows::run(subject, &args.work());
        return Ok(());
    }
    let before = machine::describe();
    let (samples, rounds) = rounds::run(args)?;
    let machine = before + &machine::describe_after(args, rounds);
    let report = report::build(&samples);
    if let Some(path) = &args.svg {
        picture::write(path, &report, &machine)?;
    }
    if args.json {
        eprint!("{machine}");
        println!("{}", json::of(&report));
    } else {
        print!("{machine}\n{}", table::of(&report));
    }
    Ok(())
}
