//! A sandbox that takes `membarrier` away in the middle of a run, in a process of its own: what was quick before it
//! closed is waited for behind it, and who waits is woken (decision 0007).

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "prctl")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use mmu_notifier::{AddressSpace, Invalidation, Range, interval, list};

/// An instruction of classic BPF.
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    instructions: *const Instruction,
}

// SAFETY: the signature is that of Linux.
unsafe extern "C" {
    fn prctl(option: i32, ...) -> i32;
    fn syscall(number: i64, ...) -> i64;
}

const MEMBARRIER: u32 = if cfg!(target_arch = "x86_64") { 324 } else { 283 };

/// Makes `membarrier` fail with EPERM in this thread and in those that it starts; false where that is not to be had.
fn close() -> bool {
    const NO_NEW_PRIVS: i32 = 38;
    const SET_SECCOMP: i32 = 22;
    const FILTER: usize = 2;
    let instructions = [
        // The number of the call.
        Instruction { code: 0x20, if_true: 0, if_false: 0, operand: 0 },
        Instruction { code: 0x15, if_true: 0, if_false: 1, operand: MEMBARRIER },
        Instruction { code: 0x06, if_true: 0, if_false: 0, operand: 0x0005_0001 },
        Instruction { code: 0x06, if_true: 0, if_false: 0, operand: 0x7fff_0000 },
    ];
    let program = Program { len: 4, instructions: instructions.as_ptr() };
    // SAFETY: no pointers are passed.
    let alone = unsafe { prctl(NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize) };
    // SAFETY: the program and its instructions are alive for the time of the call, which copies them.
    alone == 0 && unsafe { prctl(SET_SECCOMP, FILTER, &raw const program) } == 0
}

/// Stays in its callback until told, if it is told to.
struct Slow {
    stays: Arc<AtomicBool>,
    entered: mpsc::SyncSender<()>,
    dropped_in: Arc<AtomicU32>,
    inside: Arc<AtomicU32>,
}

impl Slow {
    fn call(&self) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.stays.swap(false, Ordering::SeqCst) {
            self.entered.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.dropped_in.store(self.inside.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }
}

impl list::Notifier for Slow {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), list::WouldBlock> {
        self.call();
        Ok(())
    }
}

impl interval::Notifier for Slow {
    fn invalidate(&self, _: &Invalidation, _: interval::Sequence) -> interval::Answer {
        self.call();
        interval::Answer::Done
    }
}

#[test]
fn what_was_quick_before_a_sandbox_closed_is_waited_for() {
    let range = Range::new(0x1000u64, 0x3000u64).unwrap();
    let (stays, inside, dropped_in) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (sender, entered) = mpsc::sync_channel(1);
    let slow = || Slow {
        stays: stays.clone(),
        entered: sender.clone(),
        dropped_in: dropped_in.clone(),
        inside: inside.clone(),
    };
    let space = AddressSpace::new();
    let registration = space.register(slow()).unwrap();
    // So many walks without a change make the list quick.
    (0..5000).for_each(|_| space.invalidate(range, || ()));
    let subscription = space.insert(range, slow()).unwrap();
    if !close() {
        eprintln!("skipped: no seccomp filter is to be had here");
        return;
    }
    // SAFETY: it asks which barriers there are.
    let answer = unsafe { syscall(MEMBARRIER.into(), 0usize, 0usize, 0usize) };
    assert_eq!(answer, -1, "the sandbox did not close");
    let walk = |space: mmu_notifier::AddressSpaceRef| {
        stays.store(true, Ordering::SeqCst);
        let walker =
            thread::spawn(move || space.invalidate(range, || thread::sleep(Duration::from_millis(50))));
        entered.recv().unwrap();
        walker
    };

    // A walk in which the callback of the interval stays; the reader waits until it is over.
    let walker = walk((*space).clone());
    let seq = subscription.read_begin();
    assert_eq!(inside.load(Ordering::SeqCst), 0, "the reader did not wait for the callback");
    assert!(!subscription.read_retry(seq));
    walker.join().unwrap();

    // The same for a remove, and then for an unregister.
    let walker = walk((*space).clone());
    drop(subscription);
    assert_eq!(dropped_in.swap(0, Ordering::SeqCst), 1, "removed under its own callback");
    walker.join().unwrap();
    let walker = walk((*space).clone());
    drop(registration);
    assert_eq!(dropped_in.swap(0, Ordering::SeqCst), 1, "unregistered under its own callback");
    walker.join().unwrap();

    // A bell that is made behind it works as well.
    let late = AddressSpace::new();
    let subscription = late.insert(range, slow()).unwrap();
    let walker = walk((*late).clone());
    let seq = subscription.read_begin();
    assert!(!subscription.read_retry(seq));
    walker.join().unwrap();
}
