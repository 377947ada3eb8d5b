//! The border: calls from C, which no panic leaves, and the text of the last error.

#![expect(unsafe_code, reason = "an exported function")]

use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Display, Write};
use std::thread_local;

const LONGEST: usize = 512;

thread_local! {
    static ERROR: RefCell<Text> = const { RefCell::new(Text { bytes: [0; LONGEST], length: 0 }) };
}

/// Text with a zero behind it; what does not fit is cut off.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.len().min(LONGEST - 1 - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        Ok(())
    }
}

/// Ends the program if it is dropped: a panic is passing.
struct Border(&'static str);

impl Drop for Border {
    #[cold]
    fn drop(&mut self) {
        eprintln!("mmu_monitor: a panic within {}", self.0);
        std::process::abort();
    }
}

/// Runs the body of the call with this name.
#[inline(always)]
pub(crate) fn call<R>(name: &'static str, body: impl FnOnce() -> R) -> R {
    let border = Border(name);
    let result = body();
    core::mem::forget(border);
    result
}

/// Keeps what went wrong for `mmu_monitor_error`.
pub(crate) fn keep(error: impl Display) {
    ERROR.with_borrow_mut(|text| {
        *text = Text { bytes: [0; LONGEST], length: 0 };
        // It always takes what fits.
        let _ = write!(text, "{error}");
    });
}

/// 0, or -1 with the error kept.
pub(crate) fn answer(result: Result<(), impl Display>) -> i32 {
    result.map_or_else(
        |error| {
            keep(error);
            -1
        },
        |()| 0,
    )
}

#[unsafe(no_mangle)]
extern "C" fn mmu_monitor_error() -> *const c_char {
    // The place is the thread's own, and stays.
    ERROR.with(|text| text.as_ptr().cast::<Text>().cast())
}
