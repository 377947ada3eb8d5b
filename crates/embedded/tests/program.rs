//! The program, run where there is an operating system: it asserts all that it claims.

use std::process::Command;

#[test]
fn the_program_runs_to_its_end() {
    let output = Command::new(env!("CARGO_BIN_EXE_embedded")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(report, "20 faults, 7 TLB flushes, 5 invalidations heard by the other device\n");
}
