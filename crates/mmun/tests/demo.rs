//! `mmun demo`, as a user runs it.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs the program, and fails loudly if it does not end.
fn demo(arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmun"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    // What it prints is far less than a pipe holds, so it never waits for us to read.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("mmun demo {arguments:?} hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn numbers(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(json: &Value, half: &str, name: &str) -> u64 {
    json[half][name].as_u64().unwrap_or_else(|| panic!("no count {half}.{name} in {json}"))
}

fn check(json: &Value) {
    assert!(count(json, "with", "reads") > 0, "{json}");
    assert_eq!(count(json, "with", "wrong_reads"), 0, "{json}");
    assert!(count(json, "without", "wrong_reads") * 2 > count(json, "without", "reads"), "{json}");
    assert!(count(json, "with", "invalidations") > 0 && count(json, "without", "hits") == 0, "{json}");
}

#[test]
fn registered_buffers_are_wrong_without_the_library_and_right_with_it() {
    let output = demo(&["--seconds", "1", "--json"]);
    let json = numbers(&output);
    assert_eq!(count(&json, "with", "wrong_reads"), 0, "{json}");
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("no io_uring") {
        eprintln!("skipped: io_uring with registered buffers is not to be had here: {words}");
        return;
    }
    check(&json);
}

#[test]
fn the_machine_in_software_shows_the_same() {
    let output = demo(&["--seconds", "1", "--json", "--software", "--seed", "7"]);
    check(&numbers(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--seed 7"));
}

#[test]
fn the_table_has_a_sentence_before_and_after() {
    let output = demo(&["--seconds", "0.4", "--software", env!("CARGO_BIN_EXE_mmun")]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
    assert!(at("threads read 1 file into") < at("\n  wrong reads"), "{text}");
    assert!(at("\n  seconds") < at("With it none was wrong"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_ends_it_with_2() {
    for path in ["/no/such/file", "/"] {
        let output = demo(&["--software", path]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(&format!("cannot read {path}: ")),
            "{output:?}"
        );
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
