//! What a hook may do that is told of a finding, in a process of its own (clauses C7.2 and C9): panic, so that the panic
//! goes on out of the call, and the space is as usable as after any other callback that panics; or invalidate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mmu_notifier::diagnostics::set_hook;
use mmu_notifier::interval::Answer;
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::{AddressSpace, Invalidation, Range, diagnostics};

struct Refuses;

impl list::Notifier for Refuses {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        Err(WouldBlock)
    }
}

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// The hook is that of the process.
static HOOK: Mutex<()> = Mutex::new(());
/// What the next finding does, once.
static NEXT: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

fn with_hook(hook: diagnostics::Hook) -> MutexGuard<'static, ()> {
    let alone = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    set_hook(hook);
    alone
}

fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).unwrap()
}

fn done(_: &Invalidation) -> Answer {
    Answer::Done
}

#[test]
fn a_hook_that_invalidates_took_the_identity_of_the_start_that_it_was_told_of() {
    if !diagnostics::ENABLED {
        return;
    }
    let _hook = with_hook(|_| {
        let next = NEXT.lock().unwrap().take();
        next.into_iter().for_each(|next| next());
    });
    let space = AddressSpace::new();
    let watch = Arc::new(space.insert(range(0, 1), done).unwrap());
    space.invalidate(range(0, 1), || {});
    let held = space.downgrade();
    drop(space);
    let token = Arc::new(Mutex::new(None));
    let (user, reader, found) = (held.clone(), watch.clone(), token.clone());
    *NEXT.lock().unwrap() = Some(Box::new(move || {
        user.invalidate(range(0, 1), || {});
        let read = std::thread::spawn(move || reader.read_begin());
        *found.lock().unwrap() = Some(read.join().unwrap());
    }));
    // Behind the exit, which is a finding.
    held.invalidate(range(0, 1), || {});
    let token = token.lock().unwrap().take().expect("there was a finding");
    assert!(watch.read_retry(token), "the outer start hit it behind the read");
}

#[test]
fn a_hook_that_panics_in_a_nested_start_took_a_hazard_for_good() {
    if !diagnostics::ENABLED {
        return;
    }
    let _hook = with_hook(|report| panic!("{report}"));
    let space = AddressSpace::new();
    let far = Arc::new(space.insert(range(8, 9), done).unwrap());
    let (quiet, own) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
    let (inner, reader, found, in_own) = (space.downgrade(), far.clone(), quiet.clone(), own.clone());
    let nested = move |_: &Invalidation| {
        if in_own.load(Ordering::Relaxed) {
            // A start in the own range is a finding.
            assert!(panics(|| inner.invalidate(range(0, 1), || {})));
        } else {
            inner.invalidate(range(4, 5), || found.lock().unwrap().push(reader.try_read_begin().is_some()));
        }
        Answer::Done
    };
    // The last insert: those fill the reserve.
    let watch = space.insert(range(0, 1), nested).unwrap();
    (0..200).for_each(|_| space.invalidate(range(0, 1), || {}));
    own.store(false, Ordering::Relaxed);
    space.invalidate(range(8, 9), || {});
    // With no hazard left the nested start would be one of a crowd, and hold up readers of every range.
    space.invalidate(range(0, 1), || {});
    watch.remove();
    assert_eq!(*quiet.lock().unwrap(), [true]);
}

#[test]
fn a_hook_that_panics_left_the_start_calling_for_ever() {
    let _hook = with_hook(|report| panic!("{report}"));
    let space = AddressSpace::new();
    let watch = space.insert(Range::ALL, |_: &Invalidation| Answer::Refused).unwrap();
    assert!(panics(|| space.invalidate_start(Range::ALL)));
    assert!(watch.try_read_begin().is_some());
    watch.remove();
    let listed = space.register(Refuses).unwrap();
    assert!(panics(|| space.invalidate_start(Range::ALL)));
    assert_eq!(space.stats().active, 0);
    listed.unregister();
}
