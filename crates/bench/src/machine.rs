//! Where the figures come from: machine, kernel, compiler, and how much was measured.

use std::fs;
use std::thread;

use crate::args::Args;
use crate::{cores, limits};

/// Some lines that stand above the figures: the machine before it measures.
pub(crate) fn describe() -> String {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let kernel = file("/proc/sys/kernel/osrelease");
    let load = file("/proc/loadavg");
    let lines = format!(
        "machine   {} x {cpus}, load {} before\nkernel    {}\ncompiler  {}{}\n",
        model(&file("/proc/cpuinfo")),
        or_unknown(load.split_whitespace().next()),
        or_unknown(Some(kernel.trim())),
        env!("COMPILER"),
        if cfg!(debug_assertions) { ", NOT OPTIMISED: use cargo run --release" } else { "" },
    );
    lines + &cores("before") + &limits::describe()
}

/// The machine after it measured so many rounds, and how much that was.
pub(crate) fn describe_after(args: &Args, rounds: u32) -> String {
    let mut line = format!("measured  {rounds} rounds, up to {} intervals", args.work().max);
    if rounds < args.rounds() {
        line += &format!("; time was up for {}", args.rounds());
    }
    if rounds < 5 {
        line += "; a target asks for five rounds";
    }
    cores("after") + &line + "\n"
}

/// How much of the machine was to be had; if it is less than all, others were at it.
fn cores(when: &str) -> String {
    match cores::of_two_threads() {
        Some(cores) => format!("cores     {cores:.2} for two threads {when}\n"),
        None => String::new(),
    }
}

/// The processor's name, out of `/proc/cpuinfo`.
fn model(cpuinfo: &str) -> &str {
    let named = cpuinfo.lines().find(|line| line.starts_with("model name"));
    or_unknown(named.and_then(|line| line.split_once(": ")).map(|(_, name)| name))
}

fn or_unknown(name: Option<&str>) -> &str {
    name.filter(|name| !name.is_empty()).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_what_follows_the_colon() {
        assert_eq!(model("processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n"), "Some CPU @ 2GHz");
        assert_eq!(model(""), "unknown");
    }
}
