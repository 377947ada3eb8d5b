//! `mmun scenario` as a program: what goes to stdout and stderr, and the exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Makes a folder of its own with these files.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        fs::write(folder.join(file), text).unwrap();
    }
    folder
}

fn mmun(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmun"));
    command.current_dir(folder).arg("scenario").args(arguments).output().unwrap()
}

#[track_caller]
fn assert_output(output: &Output, exit: i32, stdout: &str, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(output.status.code(), Some(exit));
}

const RIGHT: (&str, &str) = ("right.scn", "# C1: a space\nspace A\n");
const RIGHT_OUT: (&str, &str) = ("right.out", "2 main space A -> ok\n");
const WRONG: (&str, &str) = ("wrong.scn", "space A\nsapce B\nspace C\n");

#[test]
fn a_file_is_run() {
    let folder = folder("run", &[RIGHT]);
    assert_output(&mmun(&folder, &["right.scn"]), 0, RIGHT_OUT.1, "");
    assert_output(&mmun(&folder, &["--via", "rust", "right.scn"]), 0, RIGHT_OUT.1, "");
}

#[test]
fn an_error_of_a_file_names_file_and_line() {
    let folder = folder("error", &[RIGHT, WRONG]);
    let output = mmun(&folder, &["wrong.scn", "right.scn"]);
    let stdout = "1 main space A -> ok\n2 main space A -> ok\n";
    assert_output(&output, 2, stdout, "wrong.scn:2: unknown verb `sapce`\n");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let output = mmun(&folder("nothing", &[]), &["nothing.scn"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("nothing.scn: cannot be read: "));
}

#[test]
fn a_c_library_that_is_not_there_is_an_error_that_says_what_to_do() {
    let folder = folder("via", &[RIGHT, ("text.so", "no library")]);
    for library in ["nothing.so", "text.so"] {
        let output = mmun(&folder, &["--via", "c", "--library", library, "right.scn"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("--via c: ") && stderr.contains(library), "{stderr}");
        assert!(stderr.ends_with("builds it beside mmun; --library names another one\n"), "{stderr}");
    }
}

#[test]
fn a_check_that_holds_prints_the_sum_alone() {
    let output = mmun(&folder("same", &[RIGHT, RIGHT_OUT]), &["--check", "right.scn"]);
    assert_output(&output, 0, "", "1 scenarios: 1 as expected, 0 differ, 0 with an error\n");
}

#[test]
fn a_difference_is_a_unified_diff_and_names_the_clause() {
    let folder = folder("differs", &[RIGHT, ("right.out", "2 main space A -> gone\n")]);
    let diff = "--- right.out\n+++ right.scn as it ran\n@@ -1 +1 @@\n-2 main space A -> gone\n\
                +2 main space A -> ok\n";
    let rest = "right.scn: differs (C1: a space)\n\
                1 scenarios: 0 as expected, 1 differ, 0 with an error\n";
    assert_output(&mmun(&folder, &["--check", "right.scn"]), 1, diff, rest);
}

#[test]
fn a_missing_expectation_is_a_difference() {
    let output = mmun(&folder("missing", &[RIGHT]), &["--check", "right.scn"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("+2 main space A -> ok\n"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("right.out: is missing"));
}

#[test]
fn an_error_of_a_file_goes_before_a_difference() {
    let folder = folder("both", &[RIGHT, WRONG]);
    let output = mmun(&folder, &["--check", "right.scn", "wrong.scn"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("wrong.scn:2: unknown verb `sapce`\n"), "{stderr}");
    assert!(stderr.ends_with("2 scenarios: 0 as expected, 1 differ, 1 with an error\n"), "{stderr}");
}
