//! Any bytes as a scenario file: reading it never panics, and each error names a line that the file has.
//!
//! The steps are only read, never run: a scenario may ask for any number of threads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mmun::scenario::malformed;

fuzz_target!(|bytes: &[u8]| {
    let lines = String::from_utf8_lossy(bytes).lines().count();
    let mut last = 0;
    for (line, what) in malformed(bytes) {
        assert!(last < line && line <= lines, "line {line} of {lines}, after line {last}: {what}");
        assert!(!what.is_empty(), "line {line}: an error that says nothing");
        last = line;
    }
});
