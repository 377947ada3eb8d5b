//! The one table of errors: what each of the core's says in C (the end of clause C10).

use std::convert::Infallible;
use std::ffi::{c_int, c_void};

use notifier::interval::InsertErrorKind;
use notifier::list::{GetError, RegisterErrorKind};

pub(crate) const EINTR: c_int = 4;
pub(crate) const EAGAIN: c_int = 11;
pub(crate) const ENOMEM: c_int = 12;
pub(crate) const EINVAL: c_int = 22;
pub(crate) const EOVERFLOW: c_int = 75;

/// A negative errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) const BAD_ARGUMENT: Errno = Errno(-EINVAL);

impl Errno {
    /// As `ERR_PTR` makes it.
    pub(crate) fn as_ptr<T>(self) -> *mut T {
        core::ptr::without_provenance_mut::<c_void>(self.0 as isize as usize).cast()
    }
}

/// 0, or the error.
pub(crate) fn answer(result: Result<(), Errno>) -> c_int {
    result.map_or_else(|error| error.0, |()| 0)
}

impl From<InsertErrorKind> for Errno {
    fn from(error: InsertErrorKind) -> Self {
        match error {
            InsertErrorKind::OutOfMemory => Errno(-ENOMEM),
            InsertErrorKind::LockAll(error) => Errno(error.0.get()),
            _ => BAD_ARGUMENT,
        }
    }
}

impl From<RegisterErrorKind> for Errno {
    fn from(error: RegisterErrorKind) -> Self {
        match error {
            RegisterErrorKind::OutOfMemory => Errno(-ENOMEM),
            RegisterErrorKind::LockAll(error) => Errno(error.0.get()),
            _ => BAD_ARGUMENT,
        }
    }
}

impl From<GetError<Infallible>> for Errno {
    fn from(error: GetError<Infallible>) -> Self {
        match error {
            GetError::Overflow => Errno(-EOVERFLOW),
            GetError::OutOfMemory => Errno(-ENOMEM),
            GetError::LockAll(error) => Errno(error.0.get()),
            _ => BAD_ARGUMENT,
        }
    }
}
