//! Runs the conformance suite: every scenario prints what is expected of it, byte for byte, whichever interface of the
//! library carries its calls.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_scenario_prints_what_is_expected() {
    assert_as_expected(&["--via", "rust"]);
}

#[test]
fn every_scenario_prints_what_is_expected_via_c() {
    let library = c_library();
    assert_as_expected(&["--via", "c", "--library", library.to_str().unwrap()]);
}

/// The shared library of C.
fn c_library() -> PathBuf {
    testkit::built::folder(&["mmu-notifier-c"]).join(format!("{DLL_PREFIX}mmu_notifier{DLL_SUFFIX}"))
}

fn assert_as_expected(interface: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let scenarios = scenarios(&folder);
    assert!(!scenarios.is_empty(), "{} holds scenarios", folder.display());
    let run = Command::new(env!("CARGO_BIN_EXE_mmun"))
        .args(["scenario", "--check"])
        .args(interface)
        .args(&scenarios)
        .output()
        .unwrap();
    let (diff, rest) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{diff}\n{rest}", run.status);
    // Nothing else: no finding of the library either.
    let count = scenarios.len();
    assert_eq!(rest, format!("{count} scenarios: {count} as expected, 0 differ, 0 with an error\n"));
}

fn scenarios(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let mut scenarios: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "scn")).collect();
    scenarios.sort();
    scenarios
}
