//! What the hooks cost: the same calls without and with them, in turn.
//!
//! ```sh
//! cargo run --release -p mmu-monitor --example cost
//! ```
//!
//! Each figure is the median of the rounds; a round measures both, one after the other. `watched` has 1,000 other ranges
//! subscribed, none of which is hit.

#[cfg(target_os = "linux")]
mod linux {
    #![expect(unsafe_code, reason = "the calls that are measured")]

    use std::sync::Barrier;
    use std::time::Instant;

    use mmu_monitor::hooks::HOOKS;
    use mmu_monitor::{Monitor, Source};
    use mmu_notifier::interval::Answer;
    use mmu_notifier::{Invalidation, Range};

    const PAGE: usize = 4096;

    type Work = fn(&mut State);

    /// One page of a thread's own.
    struct State(*mut libc::c_void);

    fn map() -> *mut libc::c_void {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping.
        unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) }
    }

    fn getppid(_: &mut State) {
        // SAFETY: it only asks.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }

    fn madvise(state: &mut State) {
        // SAFETY: the page is this thread's own.
        unsafe { libc::madvise(state.0, PAGE, libc::MADV_DONTNEED) };
    }

    /// Advice that takes nothing away: the hooks look at it, and let it pass.
    fn harmless(state: &mut State) {
        // SAFETY: the page is this thread's own.
        unsafe { libc::madvise(state.0, PAGE, libc::MADV_NORMAL) };
    }

    fn mprotect(state: &mut State) {
        // SAFETY: the page is this thread's own.
        unsafe { libc::mprotect(state.0, PAGE, libc::PROT_READ | libc::PROT_WRITE) };
    }

    fn mmap_munmap(state: &mut State) {
        // SAFETY: the page is this thread's own.
        unsafe { libc::munmap(state.0, PAGE) };
        state.0 = map();
    }

    /// Nanoseconds a call, with so many threads.
    fn measure(work: Work, threads: usize, calls: u32) -> f64 {
        let barrier = Barrier::new(threads);
        let one = || {
            let mut state = State(map());
            barrier.wait();
            let begun = Instant::now();
            (0..calls).for_each(|_| work(&mut state));
            begun.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect::<Vec<_>>()
        });
        all.iter().sum::<f64>() / threads as f64
    }

    fn median(mut figures: Vec<f64>) -> f64 {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    /// Measures one row.
    fn row(name: &str, work: Work, threads: usize, (rounds, calls): (usize, u32)) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            HOOKS.disarm();
            without.push(measure(work, threads, calls));
            HOOKS.arm().expect("it worked before");
            with.push(measure(work, threads, calls));
        }
        let (without, with) = (median(without), median(with));
        println!(
            "{name:14} {threads:7} {without:10.1} {with:10.1} {:8.1} {:7.3}",
            with - without,
            with / without
        );
    }

    pub(super) fn main() {
        let monitor = match Monitor::start_with(&"hooks".parse().expect("a source")) {
            Ok(monitor) => monitor,
            Err(reason) => return println!("skipped: {reason}"),
        };
        // As a test it only has to run.
        let size = if cfg!(debug_assertions) { (1, 100) } else { (15, 20_000) };
        let calls: [(&str, Work); 5] = [
            ("getppid", getppid),
            ("harmless", harmless),
            ("madvise", madvise),
            ("mprotect", mprotect),
            ("munmap+mmap", mmap_munmap),
        ];
        let mut watched = Vec::new();
        for (title, subscriptions) in [("nobody watches", 0), ("1,000 other ranges are watched", 1000_u64)] {
            watched.extend((0..subscriptions).map(|number| {
                let range = Range::from_len(0x1000 + number * 0x4000, 0x1000).expect("a range");
                monitor.space().insert(range, |_: &Invalidation| Answer::Done).expect("a subscription")
            }));
            println!("\n{title}\n{:14} threads plain, ns  hooks, ns    more   ratio", "call");
            for (name, work) in calls {
                [1, 2].into_iter().for_each(|threads| row(name, work, threads, size));
            }
        }
        let mut times = Vec::new();
        for _ in 0..size.0 {
            HOOKS.disarm();
            let begun = Instant::now();
            HOOKS.arm().expect("it worked before");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        println!("\nstarting: {:.1} ms, self-test included", median(times));
    }
}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the monitor is of Linux");
}

#[cfg(all(test, target_os = "linux"))]
#[test]
fn runs() {
    linux::main();
}
