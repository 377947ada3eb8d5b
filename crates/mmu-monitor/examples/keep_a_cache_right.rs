//! How a program keeps a cache of its own right: here, of the checksums of buffers.
//!
//! Any copy that stands for an address works the same way: a registration with a network card, a GPU's page table.
//!
//! ```sh
//! cargo run -p mmu-monitor --example keep_a_cache_right
//! ```

#[cfg(target_os = "linux")]
fn main() {
    use std::sync::Mutex;

    use mmu_monitor::{Monitor, Operation, Origin};
    use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
    use mmu_notifier::{Invalidation, Range};

    /// What is known of one buffer.
    struct Checksum(Mutex<Option<u64>>);

    impl Notifier for Checksum {
        // Runs in the thread that unmaps, before it does: takes a lock, and nothing more.
        fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
            *self.0.lock().unwrap() = None;
            Answer::Done
        }
    }

    fn lookup(cached: &Subscription<Checksum>, buffer: &[u8]) -> u64 {
        loop {
            let token = cached.read_begin();
            if let Some(sum) = *cached.0.lock().unwrap() {
                return sum;
            }
            let sum = buffer.iter().map(|&byte| u64::from(byte)).sum();
            let mut entry = cached.0.lock().unwrap();
            // Whatever changed since the token: what was read may be of the past.
            if !cached.read_retry(token) {
                *entry = Some(sum);
                return sum;
            }
        }
    }

    let monitor = Monitor::start().expect("a monitor");
    if let Err(gap) = monitor.require(&Operation::REPLACING, &[Origin::Function, Origin::Inside]) {
        return println!("nothing may be cached here: {gap}");
    }
    let buffer = vec![1_u8; 64 << 20];
    let range = Range::of_slice(&buffer).expect("it is not empty");
    let cached = monitor.space().insert(range, Checksum(Mutex::new(None))).expect("a subscription");
    println!("the sum is {}, and is kept", lookup(&cached, &buffer));
    drop(buffer); // free() gives it back to the kernel
    println!("after the free the cache holds {:?}", cached.0.lock().unwrap());
    assert_eq!(*cached.0.lock().unwrap(), None);
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the monitor is of Linux");
}
