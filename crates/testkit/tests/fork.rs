//! C7.3: a child process uses the spaces of its parent, whose other threads it does not have.
//!
//! A program of its own, so that no thread of another test stands under a lock at the moment of the fork.
#![cfg(unix)]

use testkit::run::watched;
use testkit::threads::{Elsewhere, fork_beside};

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_between_start_and_end() {
    watched("fork", |_| fork_beside(Elsewhere::BetweenStartAndEnd));
}

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_in_an_interval_callback() {
    watched("fork", |_| fork_beside(Elsewhere::InIntervalCallback));
}

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_in_a_list_callback() {
    watched("fork", |_| fork_beside(Elsewhere::InListCallback));
}
