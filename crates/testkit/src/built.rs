//! Libraries that tests of other crates use: for a test alone cargo builds none of another package.

use std::path::PathBuf;
use std::process::Command;

/// Brings the libraries of `packages` up to date, with the profile of the running test, and gives where they lie.
///
/// # Panics
/// They cannot be built.
pub fn folder(packages: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    // target/PROFILE/deps/test
    let folder = test.ancestors().nth(2).expect("a test lies in the folder of its profile");
    let target = folder.parent().expect("a profile lies in the target folder");
    let profile = if folder.ends_with("debug") { "dev" } else { "release" };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build");
    packages.iter().for_each(|package| _ = cargo.args(["-p", package]));
    cargo.args(["--quiet", "--profile", profile, "--target-dir"]).arg(target);
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.is_ok_and(|status| status.success()), "{packages:?} can be built");
    folder.to_owned()
}
