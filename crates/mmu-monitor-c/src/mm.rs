//! This process as a `struct mm_struct` of the library `libmmu_notifier`: that library's starts and ends of it follow the
//! monitor's.
//!
//! The two libraries know each other by the names of C alone, looked up when the space is asked for.

#![expect(unsafe_code, reason = "functions of another library, and an exported one")]

use std::ffi::{CStr, c_int, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use mmu_notifier::{Event, Invalidation};
use monitor::{Follower, Place};

use crate::border::{call, keep};
use crate::start::running;

/// A `struct mmu_notifier_range`, as far as who starts one writes it; `tests/c/mm.c` compares it with the header.
#[repr(C)]
struct Range {
    vma: *mut c_void,
    mm: *mut c_void,
    start: c_ulong,
    end: c_ulong,
    flags: c_uint,
    event: c_uint,
    owner: *mut c_void,
    private: [c_ulong; 9],
}

const _: () = assert!(size_of::<Range>() <= size_of::<Place>() && align_of::<Range>() <= align_of::<Place>());

const BLOCKABLE: c_uint = 1;

type Start = unsafe extern "C" fn(*mut Range) -> c_int;
type End = unsafe extern "C" fn(*mut Range, bool);
type WithMm = unsafe extern "C" fn(*mut c_void);

/// The space, and what is called to tell of it.
struct Mm {
    mm: *mut c_void,
    start: Start,
    end: End,
    get: WithMm,
    put: WithMm,
}

// SAFETY: the space is meant to be shared, and functions are everybody's.
unsafe impl Send for Mm {}
// SAFETY: as above.
unsafe impl Sync for Mm {}

impl Follower for Mm {
    fn start(&self, what: &Invalidation, place: &mut Place) {
        let event = match what.event() {
            Event::Unmap => 0,
            Event::ProtectionVma => 2,
            Event::ProtectionPage => 3,
            Event::Release => 5,
            _ => 1,
        };
        let (first, last) = (what.range().start().get(), what.range().last().get());
        let range = Range {
            vma: ptr::null_mut(),
            mm: self.mm,
            start: first,
            // The last byte of all has no address behind it.
            end: last.saturating_add(1),
            flags: BLOCKABLE,
            event,
            owner: ptr::null_mut(),
            private: [0; 9],
        };
        let place = ptr::from_mut(place).cast::<Range>();
        // SAFETY: the place is large enough.
        unsafe { place.write(range) };
        // SAFETY: the range stays where it is until its end. One that may block is never refused.
        unsafe { (self.start)(place) };
    }

    fn end(&self, place: &mut Place) {
        // SAFETY: `start` began it there.
        unsafe { (self.end)(ptr::from_mut(place).cast(), false) };
    }

    fn release(&self) {
        // SAFETY: the user that this is, given back once.
        unsafe { (self.put)(self.mm) };
    }
}

/// A function of the other library; none if it is not there.
fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

fn make() -> Option<Mm> {
    let alloc = find(c"mm_alloc")?;
    let (start, end) =
        (find(c"__mmu_notifier_invalidate_range_start")?, find(c"__mmu_notifier_invalidate_range_end")?);
    let (get, put, grab) = (find(c"mmget")?, find(c"mmput")?, find(c"mmgrab")?);
    // SAFETY: the function of that name has this type.
    let alloc = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut c_void>(alloc) };
    // SAFETY: it asks for nothing.
    let mm = unsafe { alloc() };
    if mm.is_null() {
        return None;
    }
    // SAFETY: the function of that name has this type.
    let start = unsafe { core::mem::transmute::<*mut c_void, Start>(start) };
    // SAFETY: as above.
    let end = unsafe { core::mem::transmute::<*mut c_void, End>(end) };
    // SAFETY: as above.
    let [get, put, grab] =
        [get, put, grab].map(|found| unsafe { core::mem::transmute::<*mut c_void, WithMm>(found) });
    // Mappings change behind the exit too, so it is held for ever.
    // SAFETY: just made.
    unsafe { grab(mm) };
    Some(Mm { mm, start, end, get, put })
}

/// The one space of this process, made once.
fn mm() -> Result<&'static Mm, String> {
    static MM: OnceLock<Mm> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let monitor = running()?;
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mm) = MM.get() {
        return Ok(mm);
    }
    let made = make().ok_or("libmmu_notifier is not there, or has no memory: link with -lmmu_notifier")?;
    let mm = MM.get_or_init(|| made);
    if monitor.follow(mm) {
        Ok(mm)
    } else {
        Err(String::from("another space follows this process already, or there is no memory"))
    }
}

#[unsafe(no_mangle)]
extern "C" fn mmu_monitor_mm() -> *mut c_void {
    call("mmu_monitor_mm", || match mm() {
        Ok(mm) => {
            // SAFETY: the space has a user, which this is.
            unsafe { (mm.get)(mm.mm) };
            mm.mm
        }
        Err(error) => {
            keep(error);
            ptr::null_mut()
        }
    })
}
