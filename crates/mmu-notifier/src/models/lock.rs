//! The lock of a mirror: an ordinary taker and one that goes first, while the lock is held, both get it, one
//! after the other. A wake-up that is lost would show as a deadlock, two holders at once as a lost addition.

use std::sync::Arc;

use loom::thread;

use super::check;
use crate::mirror::lock::Lock;

#[test]
fn whoever_waits_for_the_lock_gets_it() {
    check(2, || {
        let lock = Arc::new(Lock::new(0));
        let held = lock.try_lock().ok().unwrap();
        let threads = [0, 1].map(|first| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let guard = if first == 1 { lock.lock_first() } else { lock.lock(None) };
                *guard.ok().unwrap() += 1;
            })
        });
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*lock.try_lock().ok().unwrap(), 2);
    });
}
