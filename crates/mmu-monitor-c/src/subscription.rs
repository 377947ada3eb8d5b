//! Subscriptions of C: to everything, over the core's list, or to a range, over its intervals.

#![expect(unsafe_code, reason = "functions of C, and exported ones")]

use std::ffi::{c_int, c_void};

use mmu_notifier::interval::{self, Answer, Sequence};
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::{Event, Invalidation, Range};

use crate::border::{call, keep};
use crate::start::running;

/// A change as the header has it.
#[repr(C)]
#[allow(non_camel_case_types, reason = "a name of C")]
pub(crate) struct mmu_monitor_change {
    first: u64,
    last: u64,
    event: c_int,
}

impl From<&Invalidation> for mmu_monitor_change {
    fn from(what: &Invalidation) -> Self {
        let event = match what.event() {
            Event::Unmap => 0,
            Event::Clear => 1,
            Event::ProtectionVma => 2,
            Event::ProtectionPage => 3,
            Event::Release => 4,
            _ => 5,
        };
        mmu_monitor_change { first: what.range().start().get(), last: what.range().last().get(), event }
    }
}

type Callback = unsafe extern "C" fn(*const mmu_monitor_change, *mut c_void);

/// A function of C, and what it is given.
#[derive(Clone, Copy)]
struct Function {
    callback: Option<Callback>,
    data: *mut c_void,
}

// SAFETY: the data is only passed on; the header says that callbacks run in any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    fn run(&self, what: &Invalidation) {
        if let Some(callback) = self.callback {
            // SAFETY: the caller's function, of that type.
            unsafe { callback(&what.into(), self.data) };
        }
    }
}

/// A subscriber to everything.
struct Everything {
    start: Function,
    end: Function,
}

impl list::Notifier for Everything {
    fn release(&self) {
        self.start.run(&Invalidation::new(Range::ALL, Event::Release));
    }

    fn invalidate_range_start(&self, what: &Invalidation) -> Result<(), WouldBlock> {
        self.start.run(what);
        Ok(())
    }

    fn invalidate_range_end(&self, what: &Invalidation) {
        self.end.run(what);
    }
}

/// A subscriber to a range.
struct Part(Function);

impl interval::Notifier for Part {
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        self.0.run(what);
        Answer::Done
    }
}

/// What C holds a pointer to.
#[allow(non_camel_case_types, reason = "a name of C")]
enum mmu_monitor_subscription {
    Everything { _registration: list::Registration<Everything> },
    Part(interval::Subscription<Part>),
}

fn given(made: Result<mmu_monitor_subscription, String>) -> *mut mmu_monitor_subscription {
    match made {
        Ok(subscription) => Box::into_raw(Box::new(subscription)),
        Err(error) => {
            keep(error);
            std::ptr::null_mut()
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_subscribe(
    start: Option<Callback>,
    end: Option<Callback>,
    data: *mut c_void,
) -> *mut mmu_monitor_subscription {
    let function = |callback| Function { callback, data };
    let make = || {
        let space = running()?.space();
        let registration = space.register(Everything { start: function(start), end: function(end) });
        let registration = registration.map_err(|error| error.to_string())?;
        Ok(mmu_monitor_subscription::Everything { _registration: registration })
    };
    call("mmu_monitor_subscribe", || given(make()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_subscribe_range(
    address: *const c_void,
    length: usize,
    start: Option<Callback>,
    data: *mut c_void,
) -> *mut mmu_monitor_subscription {
    let make = || {
        let range = Range::from_len(address, length as u64).map_err(|error| error.to_string())?;
        let subscription = running()?.space().insert(range, Part(Function { callback: start, data }));
        Ok(mmu_monitor_subscription::Part(subscription.map_err(|error| error.to_string())?))
    };
    call("mmu_monitor_subscribe_range", || given(make()))
}

/// The subscription to a range behind a pointer; ends the program for another one, which has no tokens.
///
/// # Safety
/// - The pointer is NULL or was given by a subscribe call, and not given back yet.
unsafe fn part<'s>(
    subscription: *const mmu_monitor_subscription,
    name: &'static str,
) -> &'s interval::Subscription<Part> {
    // SAFETY: as the caller promises.
    match unsafe { subscription.as_ref() } {
        Some(mmu_monitor_subscription::Part(part)) => part,
        _ => {
            eprintln!("mmu_monitor: {name}: takes a subscription of mmu_monitor_subscribe_range");
            std::process::abort();
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_read_begin(subscription: *const mmu_monitor_subscription) -> u64 {
    call("mmu_monitor_read_begin", || {
        // SAFETY: the caller's subscription.
        let part = unsafe { part(subscription, "mmu_monitor_read_begin") };
        part.read_begin().sequence().get()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_read_retry(
    subscription: *const mmu_monitor_subscription,
    token: u64,
) -> bool {
    call("mmu_monitor_read_retry", || {
        // SAFETY: the caller's subscription.
        let part = unsafe { part(subscription, "mmu_monitor_read_retry") };
        part.sequence().get() != token
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_unsubscribe(subscription: *mut mmu_monitor_subscription) {
    call("mmu_monitor_unsubscribe", || {
        if !subscription.is_null() {
            // SAFETY: the caller's subscription, which was made by `given` and is given back.
            drop(unsafe { Box::from_raw(subscription) });
        }
    });
}
