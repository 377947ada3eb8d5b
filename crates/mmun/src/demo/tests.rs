//! The command as a whole, on the machine in software, and its arguments.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    demo: Args,
}

fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
    Command::try_parse_from(["demo"].iter().chain(arguments)).map(|command| command.demo)
}

#[test]
fn the_defaults_are_five_seconds_and_files_of_the_machine() {
    let args = parse(&[]).unwrap();
    assert_eq!(args.seconds, Duration::from_secs(5));
    assert!(args.files.is_empty() && args.seed.is_none() && !args.json && !args.software);
}

#[test]
fn a_time_that_is_none_is_refused() {
    for text in ["0", "-1", "soon", "inf", "NaN", "1e9"] {
        let error = parse(&[&format!("--seconds={text}")]).unwrap_err().to_string();
        assert!(error.contains("--seconds") && error.contains("from 0.1 to 86400"), "{error}");
    }
    assert_eq!(parse(&["--seconds", "0.5"]).unwrap().seconds, Duration::from_millis(500));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = parse(&["/bin/sh", "/no/such/file"]).unwrap();
    let error = show(&args).unwrap_err();
    assert!(error.contains("cannot read /no/such/file"), "{error}");
    assert_eq!(run(&args), ExitCode::from(FAILED));
}

#[test]
fn in_software_the_library_keeps_every_read_right() {
    let sources = files::usual();
    let load = Load { sources: &sources, seed: 1, length: Duration::from_millis(300) };
    let report = compare(Kind::Software, &load).unwrap();
    check(&report);
}

#[test]
fn on_io_uring_the_library_keeps_every_read_right() {
    let sources = files::usual();
    if let Err(error) = sys::probe(&sources[0], READERS, BUFFERS) {
        eprintln!("skipped: no io_uring with registered buffers here ({error})");
        return;
    }
    let load = Load { sources: &sources, seed: 2, length: Duration::from_millis(300) };
    let report = compare(Kind::Ring, &load).unwrap();
    check(&report);
}

fn check(Report { without, with }: &Report) {
    assert!(without.reads > 0 && without.wrong_reads * 2 > without.reads, "{without:?}");
    assert_eq!((without.hits, without.retries), (0, 0));
    assert!(with.reads > 0, "{with:?}");
    assert_eq!(with.wrong_reads, 0, "{with:?}");
    assert_eq!(with.hits, with.invalidations, "each change is of one buffer, and each buffer is subscribed");
}
