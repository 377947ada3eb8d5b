//! Claims: who takes a hazard, out of the book or out of the reserve, has it alone until it gives it back, and
//! finds all that was stored under the claim before.
//!
//! The statistics of a hazard are counted without a read-modify-write, so two holders at once, or one that does
//! not see the one before, lose a count. A break shows as a lost count, or a lost hazard.

use std::sync::Arc;
use std::vec::Vec;

use loom::thread;

use super::{book, check};
use crate::hazard::{Book, Claim};
use crate::platform::without_light_barriers;

/// Claims, publishes, retires, gives back.
fn call(book: &Book, first: u64) {
    let claim = book.claim(None);
    let identity = match claim {
        Claim::One(hazard) => {
            let identity = hazard.next_identity();
            hazard.publish(identity, (first, first), 0, 1);
            assert_eq!(hazard.bounds(), (first, first), "somebody else has this hazard");
            identity
        }
        Claim::Crowd(_) => claim.announce((first, first), 0),
    };
    claim.unpin();
    claim.activate(identity);
    assert!(claim.is_active(identity));
    claim.retire(identity);
    claim.count(1);
    claim.give_back();
}

/// Two threads share what is there; the reserve of two is empty in some orders.
#[test]
fn a_shared_hazard_has_one_holder() {
    check(6, || {
        let book = Arc::new(book());
        assert!(book.refill(0));
        let other = book.clone();
        let thread = thread::spawn(move || {
            call(&other, 1);
            call(&other, 2);
        });
        call(&book, 3);
        thread.join().unwrap();
        let sum = book.sum();
        assert_eq!((sum.starts, sum.hits, sum.active), (3, 3, 0));
    });
}

/// The same between two heavy barriers.
#[test]
fn who_claims_a_hazard_sees_what_was_stored_under_the_claim_before() {
    without_light_barriers(|| {
        check(6, || {
            let book = Arc::new(book());
            assert!(book.refill(0));
            let other = book.clone();
            let thread = thread::spawn(move || call(&other, 1));
            call(&book, 3);
            thread.join().unwrap();
            let sum = book.sum();
            assert_eq!((sum.starts, sum.hits, sum.active), (2, 2, 0));
        });
    });
}

/// Three threads for two hazards: one may have to join the crowd.
#[test]
fn nobody_is_left_without_a_claim() {
    check(2, || {
        let book = Arc::new(book());
        assert!(book.refill(0));
        let threads = [1, 2].map(|first| {
            let book = book.clone();
            thread::spawn(move || call(&book, first))
        });
        call(&book, 3);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(book.sum().starts, 3);
        assert_eq!((book.sum().active, book.crowd.calling()), (0, 0));
    });
}

/// The reserve is popped by two threads and filled by a third.
#[test]
fn what_leaves_the_reserve_leaves_it_once() {
    check(2, || {
        let book = Arc::new(book());
        assert!(book.refill(0));
        let threads = [1, 2].map(|_| {
            let book = book.clone();
            thread::spawn(move || book.claim(None).as_ptr() as usize)
        });
        assert!(book.refill(1));
        let mut claimed: Vec<usize> = threads.map(|thread| thread.join().unwrap()).to_vec();
        claimed.push(book.claim(None).as_ptr() as usize);
        claimed.retain(|hazard| *hazard != 0);
        claimed.sort_unstable();
        claimed.dedup();
        // There were at least three for three threads.
        assert_eq!(claimed.len(), 3);
        assert_eq!(book.iter().count(), 3);
    });
}
