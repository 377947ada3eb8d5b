//! What no caller of the public interface can bring about in a test's time.

use super::{GetError, Notifier};
use crate::space::AddressSpace;

struct Nothing;

impl Notifier for Nothing {}

#[test]
fn c4_3_one_more_than_the_most_references_is_an_error() {
    let space = AddressSpace::new();
    let get = || space.get::<Nothing, ()>(1, |_| Ok(Nothing));
    let first = get().unwrap();
    first.set_users(u32::MAX);
    assert_eq!(get().map(drop).unwrap_err(), GetError::Overflow);
    first.set_users(u32::MAX - 1);
    let last = get().unwrap();
    assert_eq!(get().map(drop).unwrap_err(), GetError::Overflow);
    first.set_users(2);
    drop(last);
    drop(first);
    crate::synchronize();
    assert_eq!(space.stats().list, 0);
}
