//! What the tests of this crate share.

#![allow(dead_code, reason = "each program uses its part")]

pub(crate) mod check;
pub(crate) mod programs;
pub(crate) mod run;
pub(crate) mod trace;
