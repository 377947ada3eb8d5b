//! The C programs of `tests/c`: linked with the library, and under it as a preload.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The library; that of the C interface lies beside it.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        testkit::built::folder(&["mmu-monitor-c", "mmu-notifier-c"]).join("libmmu_monitor.so")
    })
}

/// A file that is removed when dropped.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn made(name: &str) -> Made {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Made(std::env::temp_dir().join(format!("mmu-monitor-c-{}-{count}-{name}", std::process::id())))
}

/// Compiles a program of this crate; none, said aloud, without a compiler.
fn compile(compiler: &str, standard: &str, source: &str, more: &[&str]) -> Option<Made> {
    if Command::new(compiler).arg("--version").output().is_err() {
        println!("skipped: no {compiler} here");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = made(source);
    let language = if standard.contains("++") { "c++" } else { "c" };
    let compiled = Command::new(compiler)
        .args(["-g", "-O1", standard])
        .args(WARNINGS)
        .arg("-I")
        .arg(root.join("include"))
        .args(["-x", language])
        .arg(root.join("tests/c").join(source))
        .args(["-x", "none", "-o"])
        .arg(&program.0)
        .args(more)
        .args(["-pthread", "-ldl"])
        .output()
        .expect("the compiler runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    Some(program)
}

/// Runs a program that prints `ok`. One that hangs is a failure.
fn run(command: &mut Command) -> Output {
    const LONGEST: Duration = Duration::from_secs(60);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("what was compiled runs");
    let began = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if began.elapsed() > LONGEST {
            let _ = child.kill();
            panic!("{command:?}: still running after {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("it has ended");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("ok\n"), "{command:?}: {stdout}{stderr}");
    output
}

fn linked(compiler: &str, standard: &str) {
    let library = library();
    if let Some(program) = compile(compiler, standard, "api.c", &[&library.to_string_lossy()]) {
        // It is found by its soname.
        let folder = made("folder");
        std::fs::create_dir_all(&folder.0).unwrap();
        let link = Made(folder.0.join("libmmu_monitor.so.0"));
        std::os::unix::fs::symlink(library, &link.0).unwrap();
        run(Command::new(&program.0).env("LD_LIBRARY_PATH", &folder.0).env_remove("MMU_MONITOR"));
        drop(link);
        let _ = std::fs::remove_dir(&folder.0);
    }
}

#[test]
fn every_call_of_the_header() {
    linked("gcc", "-std=gnu11");
    linked("g++", "-std=gnu++17");
}

#[test]
fn the_process_is_an_mm_of_the_c_interface() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mmu-notifier-c/include");
    let [monitor, notifier] =
        ["libmmu_monitor.so", "libmmu_notifier.so"].map(|name| library().with_file_name(name));
    let more = [&include, &monitor, &notifier].map(|path| path.to_string_lossy());
    let more = ["-I", &more[0], &more[1], &more[2]];
    let Some(program) = compile("gcc", "-std=gnu11", "mm.c", &more) else { return };
    let folder = made("folder");
    std::fs::create_dir_all(&folder.0).unwrap();
    let links =
        [(monitor, "libmmu_monitor.so.0"), (notifier, "libmmu_notifier.so.0")].map(|(library, soname)| {
            let link = Made(folder.0.join(soname));
            std::os::unix::fs::symlink(library, &link.0).unwrap();
            link
        });
    let mut command = Command::new(&program.0);
    run(command.env("LD_LIBRARY_PATH", &folder.0).env_remove("MMU_MONITOR"));
    drop(links);
    let _ = std::fs::remove_dir(&folder.0);
}

#[test]
fn loaded_while_threads_run() {
    if let Some(program) = compile("gcc", "-std=gnu11", "late.c", &[]) {
        let output = run(Command::new(&program.0).arg(library()).env_remove("MMU_MONITOR"));
        print!("{}", errors(output));
    }
}

#[test]
fn the_stack_of_a_small_thread_is_enough() {
    // Frames of a debug build are larger than threads of 16 KiB have room for; the numbers are printed all the same.
    const MOST: u64 = if cfg!(debug_assertions) { 24 << 10 } else { 8 << 10 };
    // Symbols are bound before, lest the linker's own work be measured.
    let Some(program) = compile("gcc", "-std=gnu11", "stack.c", &["-Wl,-z,now"]) else { return };
    let mut command = Command::new(&program.0);
    // With a subscriber, the report's.
    let output = run(command.env("LD_PRELOAD", library()).env("MMU_MONITOR_REPORT", "stderr"));
    let text = String::from_utf8(output.stdout).expect("it is text");
    let words: Vec<_> = text.split_whitespace().collect();
    println!("{}{text}", String::from_utf8_lossy(&output.stderr));
    let most = number(&words, words.iter().position(|word| *word == "bytes").map(|place| place - 1));
    assert!((1..=MOST).contains(&most), "{text}");
}

/// The program `closed` with its library, under the preload.
fn closed(what: &[(&str, &str)]) -> Option<Output> {
    let program = compile("gcc", "-std=gnu11", "closed.c", &[])?;
    let plugin = compile("gcc", "-std=gnu11", "plugin.c", &["-shared", "-fPIC"])?;
    let mut command = Command::new(&program.0);
    command.arg(&plugin.0).env_remove("MMU_MONITOR").env("LD_PRELOAD", library());
    Some(run(command.envs(what.iter().copied())))
}

fn errors(output: Output) -> String {
    String::from_utf8(output.stderr).expect("it is text")
}

/// Numbers in a report, by the word before or behind them.
fn number(words: &[&str], place: Option<usize>) -> u64 {
    place.and_then(|place| words.get(place)?.parse().ok()).unwrap_or_else(|| panic!("no number: {words:?}"))
}

#[test]
fn a_thread_local_of_a_closed_library_is_not_freed_inside_free() {
    let Some(output) = closed(&[("MMU_MONITOR_REPORT", "stderr")]) else { return };
    let report = errors(output);
    let words: Vec<_> = report.split([' ', ',', '(', ')', '\n']).filter(|word| !word.is_empty()).collect();
    let place = |wanted: &str| words.iter().position(|word| *word == wanted);
    let starts = number(&words, place("starts").map(|place| place - 1));
    let clears = number(&words, place("clear").map(|place| place + 1));
    let ends = number(&words, place("ends").map(|place| place - 1));
    assert!(clears >= 10, "the tops of arenas were not given back: {report}");
    assert_eq!(starts, ends, "{report}");
}

#[test]
fn a_report_goes_into_a_file() {
    let file = made("report");
    if let Some(output) = closed(&[("MMU_MONITOR_REPORT", &file.0.to_string_lossy())]) {
        assert_eq!(errors(output), "");
        let report = std::fs::read_to_string(&file.0).expect("it was written");
        assert!(report.lines().count() == 1 && report.contains(" starts ("), "{report}");
    }
}

#[test]
fn a_report_comes_from_a_program_that_closes_stderr() {
    let mut echo = Command::new("/bin/echo");
    let output = run(echo.arg("ok").env("LD_PRELOAD", library()).env("MMU_MONITOR_REPORT", "stderr"));
    let report = errors(output);
    assert!(report.lines().count() == 1 && report.contains(" starts ("), "{report}");
}

#[test]
fn a_word_that_names_no_source_is_one_line_and_no_monitor() {
    let output = closed(&[("MMU_MONITOR", "hocks"), ("MMU_MONITOR_REPORT", "stderr")]);
    if let Some(text) = output.map(errors) {
        assert!(text.lines().count() == 1 && text.contains("hocks") && text.contains("hooks"), "{text}");
    }
}

#[test]
fn off_is_silent() {
    let output = closed(&[("MMU_MONITOR", "off"), ("MMU_MONITOR_REPORT", "stderr")]);
    if let Some(text) = output.map(errors) {
        assert_eq!(text, "");
    }
}
