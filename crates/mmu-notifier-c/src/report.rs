//! Findings: the core's and those of the border, as text for one hook.

#![expect(unsafe_code, reason = "a C function is called")]

use std::ffi::{CStr, c_char, c_void};
use std::fmt::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use notifier::diagnostics::{self, Report};

/// What C gives to be called with each finding.
pub(crate) type Hook = unsafe extern "C" fn(*const c_char, *mut c_void);

#[derive(Clone, Copy)]
pub(crate) struct Listening {
    pub(crate) hook: Hook,
    pub(crate) data: *mut c_void,
}

// SAFETY: the data is only passed on; the user says that the hook may be called on any thread.
unsafe impl Send for Listening {}

static LISTENING: Mutex<Option<Listening>> = Mutex::new(None);
static FINDINGS: AtomicU64 = AtomicU64::new(0);

/// Sets who is told.
pub(crate) fn listen(listening: Option<Listening>) {
    diagnostics::set_hook(pass_on);
    *LISTENING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = listening;
}

/// How many findings there were, of the core and here.
pub(crate) fn count() -> u64 {
    diagnostics::findings() + FINDINGS.load(Ordering::Relaxed)
}

fn pass_on(report: &Report) {
    tell(format_args!("{report}"));
}

/// Reports misuse that the border sees: the call, and the rule.
#[cold]
pub(crate) fn misuse(call: &'static str, rule: &'static str) {
    FINDINGS.fetch_add(1, Ordering::Relaxed);
    tell(format_args!("{call}: {rule}"));
}

fn tell(text: fmt::Arguments<'_>) {
    let listening = *LISTENING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(Listening { hook, data }) = listening else { return };
    let mut line = Line { bytes: [0; LONGEST], len: 0 };
    // What does not fit is cut off.
    let _ = line.write_fmt(text);
    if let Ok(text) = CStr::from_bytes_until_nul(&line.bytes) {
        // SAFETY: the user promises that the hook may be called so.
        unsafe { hook(text.as_ptr(), data) };
    }
}

const LONGEST: usize = 512;

/// Text that is put together without an allocation. The last byte stays 0.
struct Line {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST - 1 - self.len;
        let fits = text.len().min(room);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}
