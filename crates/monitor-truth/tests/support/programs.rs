//! The programs that are watched: what a machine of a developer has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder for what programs write, removed when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn make(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("monitor-truth-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for what is temporary");
        Scratch(folder)
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, content).expect("there is room");
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that is not there is said to be not there.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("{program:12} skipped: not here");
    }
    found
}

/// Threads that map, lists that grow, other programs.
pub(crate) const PYTHON: &str = r#"
import gc, mmap, random, subprocess, sys, threading
random.seed(1)
def work(number):
    for turn in range(60):
        pages = mmap.mmap(-1, 4096 * random.randrange(1, 64))
        pages[0:1] = b"x"
        if hasattr(pages, "madvise"):
            pages.madvise(mmap.MADV_DONTNEED)
        pages.resize(4096 * random.randrange(1, 64))
        large = bytearray(random.randrange(1, 4 << 20))
        large.extend(bytes(1 << 20))
        pages.close()
        items = [[n] * 20 for n in range(5000)]
        del items, large
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for turn in range(5):
    subprocess.run([sys.executable, "-c", "import json, decimal, ctypes"], check=True)
    subprocess.run(["true"], check=True, preexec_fn=gc.collect)
gc.collect()
"#;

/// A source of C that keeps a compiler busy.
pub(crate) fn c() -> String {
    let function = |n: usize| {
        format!(
            "static double f{n}(double *a, int k)\n{{\n\tdouble s = {n};\n\tfor (int i = 0; i < k; i++)\n\t\t\
             s += a[i] * a[k - i - 1] + (i & {n} ? f{n}(a, k / 2) : s);\n\treturn s;\n}}\n"
        )
    };
    let functions: String = (0..150).map(function).collect();
    let calls: String = (0..150).map(|n| format!("\ts += f{n}(a, n);\n")).collect();
    format!(
        "{functions}double all(double *a, int n)\n{{\n\tdouble s = 0;\n{calls}\treturn s;\n}}\nint main(void) {{ return 0; }}\n"
    )
}

pub(crate) const RUST: &str = r#"
use std::collections::BTreeMap;
fn main() {
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for word in "a b c a b a".split(' ') { *words.entry(word.to_owned()).or_default() += 1; }
    println!("{words:?}");
}
"#;

/// Memory that grows and goes, and other programs.
pub(crate) const PERL: &str = r#"
my @lists;
for my $turn (1 .. 20) {
    push @lists, [map { $_ x 40 } 1 .. 5000];
    @lists = () if $turn % 5 == 0;
    my $long = "";
    $long .= "x" x 100_000 for 1 .. 40 + $turn;
    undef $long;
    system("true") == 0 or die;
}
"#;

/// Threads with heaps of their own, and another program.
pub(crate) const JAVASCRIPT: &str = r#"
const { Worker, isMainThread } = require("worker_threads");
function work() {
    let kept = [];
    for (let turn = 0; turn < 20; turn++) {
        kept.push(Buffer.alloc(1 << 20, turn), Array.from({ length: 30000 }, (_, n) => ({ n })));
        if (turn % 7 == 0) kept = [];
    }
}
if (isMainThread) {
    for (let n = 0; n < 3; n++) new Worker(__filename);
    require("child_process").execFileSync("true");
}
work();
"#;

/// A repository with commits, and one program after the other over it.
pub(crate) fn repository(folder: &Path) -> Command {
    let script = r#"set -e
        git init -q . && git config user.email a@b && git config user.name a
        git config gc.auto 0
        for n in 1 2 3 4 5 6 7 8; do
            seq $n 20000 >numbers; seq 1 $n >few; git add -A; git commit -qm "commit $n"
        done
        git log --stat -p >log
        git gc -q --aggressive
        git fsck"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}
