//! Runs the conformance suite: every scenario prints what is expected of it, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_scenario_prints_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let scenarios = scenarios(&folder);
    assert!(!scenarios.is_empty(), "{} holds scenarios", folder.display());
    let run = Command::new(env!("CARGO_BIN_EXE_mmun"))
        .args(["scenario", "--check"])
        .args(&scenarios)
        .output()
        .unwrap();
    let (diff, rest) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{diff}\n{rest}", run.status);
    assert!(rest.contains(&format!("{0} scenarios: {0} as expected", scenarios.len())), "{rest}");
}

fn scenarios(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let mut scenarios: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "scn")).collect();
    scenarios.sort();
    scenarios
}
