//! Who else patches: tools that overwrite the first instruction of a function with a jump.

#![expect(unsafe_code, reason = "questions to the dynamic linker")]

use core::ffi::{CStr, c_void};
use std::string::{String, ToString};

/// The file that the jump at the head of `munmap` leads to, if there is one.
pub(super) fn owner() -> Option<String> {
    // SAFETY: the name ends with a zero.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"munmap".as_ptr()) };
    let target = jump(function as usize)?;
    // SAFETY: all zero is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: the linker fills it in, or says that it knows nothing of the address.
    let known = unsafe { libc::dladdr(target as *const c_void, &raw mut info) } != 0;
    if !known || info.dli_fname.is_null() {
        return Some("somebody without a name".to_string());
    }
    // SAFETY: the linker's name ends with a zero.
    Some(unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned())
}

/// Where the code at `address` jumps to, if it begins with a jump as patching tools write it.
fn jump(address: usize) -> Option<usize> {
    if address == 0 {
        return None;
    }
    // SAFETY: it is the head of a function, behind which there are more than that many bytes.
    let code = unsafe { core::slice::from_raw_parts(address as *const u8, 16) };
    match *code {
        // jmp to a distance.
        [0xe9, a, b, c, d, ..] => {
            let distance = i32::from_le_bytes([a, b, c, d]) as isize;
            Some((address + 5).wrapping_add_signed(distance))
        }
        // mov $address, %r11; jmp *%r11.
        [0x49, 0xbb, a, b, c, d, e, f, g, h, 0x41, 0xff, 0xe3, ..] => {
            Some(usize::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        _ => None,
    }
}
