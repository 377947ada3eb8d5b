//! The program `tests/c/churn.c`, which changes its mappings in all ways at once, under the monitor: it ends, each page holds
//! what it must, and the monitor missed nothing.
//!
//! `MONITOR_SOAK_SECONDS` says for how long the soak goes on (without it, once and short), by turns with the C library's
//! allocator and with others that are installed. The seed counts up from `MONITOR_SOAK_SEED` (else the time); it is printed.

#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::programs::{Scratch, has};
use support::run::{counted, covered, finish};

/// Libraries that come and go: more than the linker has room for at first.
const PLUGINS: usize = 24;

/// The program, compiled.
struct Churn {
    scratch: Scratch,
    plugins: Vec<PathBuf>,
}

impl Churn {
    fn compile(name: &str) -> Option<Churn> {
        if !has("gcc") {
            return None;
        }
        let scratch = Scratch::make(name);
        let source = |name: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name);
        let gcc = |to: &Path, more: &[&str], from: &[&str]| {
            let mut gcc = Command::new("gcc");
            gcc.args(["-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]).args(more).arg("-o").arg(to);
            finish("gcc", gcc.args(from.iter().map(source)).args(["-pthread", "-ldl"]));
        };
        gcc(&scratch.0.join("churn"), &[], &["churn.c", "arena.c"]);
        let plugins: Vec<_> =
            (0..PLUGINS).map(|number| scratch.0.join(format!("plugin{number}.so"))).collect();
        gcc(&plugins[0], &["-shared", "-fPIC"], &["plugin.c"]);
        for plugin in &plugins[1..] {
            std::fs::copy(&plugins[0], plugin).expect("there is room");
        }
        Some(Churn { scratch, plugins })
    }

    fn command(&self, seed: u64, rounds: u32) -> Command {
        let mut command = Command::new(self.scratch.0.join("churn"));
        command.args([seed.to_string(), "4".into(), rounds.to_string()]).args(&self.plugins);
        command
    }
}

/// Allocators that the distribution has; each that is missing is said to be missing.
fn allocators() -> Vec<(&'static str, Option<PathBuf>)> {
    const FOLDERS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let find =
        |file: &str| FOLDERS.iter().map(|folder| Path::new(folder).join(file)).find(|path| path.exists());
    let mut found = vec![("glibc", None)];
    for (name, files) in [
        ("jemalloc", ["libjemalloc.so.2", "libjemalloc.so.1"]),
        ("mimalloc", ["libmimalloc.so.2", "libmimalloc.so.2.0"]),
    ] {
        match files.into_iter().find_map(find) {
            Some(path) => found.push((name, Some(path))),
            None => println!("{name:12} skipped: not here"),
        }
    }
    found
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

#[test]
fn the_kernel_tells_nothing_that_the_monitor_does_not() {
    let Some(churn) = Churn::compile("truth") else { return };
    for (name, allocator) in allocators() {
        covered(&format!("churn {name}"), 2000, allocator.as_deref(), &mut churn.command(1, 600));
    }
}

#[test]
fn a_program_leaves_while_its_threads_are_busy() {
    let Some(churn) = Churn::compile("leave") else { return };
    for seed in 1..4 {
        covered("leave", 200, None, &mut churn.command(seed, 0));
        assert!(!counted("leave", None, &mut churn.command(seed, 0)).is_empty());
    }
}

#[test]
fn soak() {
    let Some(churn) = Churn::compile("soak") else { return };
    let length = variable("MONITOR_SOAK_SECONDS").map(Duration::from_secs);
    let rounds = if length.is_some() { 3000 } else { 500 };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let first = variable("MONITOR_SOAK_SEED").unwrap_or_else(now);
    let (began, allocators) = (Instant::now(), allocators());
    let (mut told, mut seed) = (0, first);
    while seed == first || length.is_some_and(|length| began.elapsed() < length) {
        for (name, allocator) in &allocators {
            let name = format!("{name}, seed {seed}");
            for (starts, ends) in counted(&name, allocator.as_deref(), &mut churn.command(seed, rounds)) {
                assert_eq!(starts, ends, "{name}: each start has its end");
                told += starts;
            }
        }
        // Every so often with the kernel as the judge.
        if seed % 4 == 0 {
            covered(&format!("seed {seed}"), 2000, None, &mut churn.command(seed, 600));
        }
        seed += 1;
    }
    println!("soak: seeds {first} to {}, {told} changes told, in {:?}", seed - 1, began.elapsed());
    assert!(told > 1000, "the preload was not there");
}
