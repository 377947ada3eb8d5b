//! The C programs of `tests/c` and `examples`, which use the header alone: compiled and run, as C11 and as C++17.
//!
//! `ci/c` runs them under valgrind and with AddressSanitizer too, and from an installed prefix.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The static library.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| testkit::built::folder(&["mmu-notifier-c"]).join("libmmu_notifier.a"))
}

/// Compiles and runs a program of this crate; skipped, aloud, without a compiler.
fn run(compiler: &str, standard: &str, source: &str) {
    if Command::new(compiler).arg("--version").output().is_err() {
        return println!("skipped: no {compiler} here");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = source.replace(['/', '.'], "-");
    let program = library().with_file_name(format!("{name}-{compiler}-{}", std::process::id()));
    let language = if standard.contains("++") { "c++" } else { "c" };
    let compiled = Command::new(compiler)
        .args(["-g", "-O1", standard])
        .args(WARNINGS)
        .args(cfg!(debug_assertions).then_some("-DDEBUG_LIBRARY"))
        .arg("-I")
        .arg(root.join("include"))
        .args(["-x", language])
        .arg(root.join(source))
        .args(["-x", "none", "-o"])
        .arg(&program)
        .arg(library())
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .expect("the compiler runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().expect("what was compiled runs");
    let _ = std::fs::remove_file(&program);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("ok\n"), "{source}: {stdout}{stderr}");
}

#[test]
fn c10_structures_have_the_layout_of_the_header() {
    run("gcc", "-std=gnu11", "tests/c/layout.c");
}

#[test]
fn c10_intervals() {
    run("gcc", "-std=gnu11", "tests/c/interval.c");
    run("g++", "-std=gnu++17", "tests/c/interval.c");
}

#[test]
fn c10_the_list() {
    run("gcc", "-std=gnu11", "tests/c/list.c");
    run("g++", "-std=gnu++17", "tests/c/list.c");
}

#[test]
fn c10_c7_5_misuse_is_diagnosed_and_harmless() {
    run("gcc", "-std=gnu11", "tests/c/misuse.c");
    run("g++", "-std=gnu++17", "tests/c/misuse.c");
}

#[test]
fn c10_p1_threads() {
    run("gcc", "-std=gnu11", "tests/c/threads.c");
    run("g++", "-std=gnu++17", "tests/c/threads.c");
}

#[test]
fn c10_c2_2_an_insert_beside_a_first_registration_that_fails() {
    run("gcc", "-std=gnu11", "tests/c/first.c");
    run("g++", "-std=gnu++17", "tests/c/first.c");
}

#[test]
fn c10_c3_9_c8_3_calls_within_callbacks() {
    run("gcc", "-std=gnu11", "tests/c/inside.c");
    run("g++", "-std=gnu++17", "tests/c/inside.c");
}

#[test]
fn c10_c7_4_without_memory_each_call_gives_its_error() {
    if !cfg!(target_env = "gnu") {
        return println!("skipped: the allocator of this C library cannot be stood in for");
    }
    run("gcc", "-std=gnu11", "tests/c/memory.c");
    run("g++", "-std=gnu++17", "tests/c/memory.c");
}

#[test]
fn examples() {
    for source in ["examples/page_cache.c", "examples/mirror.c", "examples/two_pass.c"] {
        run("gcc", "-std=gnu11", source);
    }
}
