//! How many cores two threads get: fewer than two, if others use the machine, and then the rows with threads say
//! little.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Lets two threads run for a tenth of a second, and says how many cores they had; none if the system does not
/// tell.
pub(crate) fn of_two_threads() -> Option<f64> {
    let time = Duration::from_millis(100);
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(move || share(time)));
        threads.into_iter().map(|thread| thread.join().ok().flatten()).sum()
    })
}

/// Runs for some time, and gives the part of it that this thread really ran.
fn share(time: Duration) -> Option<f64> {
    let (begin, before) = (Instant::now(), ran()?);
    let mut turns = 0u64;
    while begin.elapsed() < time {
        turns = black_box(turns + 1);
    }
    Some((ran()? - before) / begin.elapsed().as_nanos() as f64)
}

/// Nanoseconds that this thread has run.
fn ran() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_get_at_most_two_cores() {
        if let Some(cores) = of_two_threads() {
            assert!(cores > 0.0 && cores < 2.5, "{cores}");
        }
    }
}
