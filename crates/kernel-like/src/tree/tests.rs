//! The tree against a plain vector, with random operations, and its shape after each.

use std::cell::Cell;

use super::{LEFT, RIGHT, Tree, next};
use crate::invalidation::{Answer, Invalidation};
use crate::node::{Link, Node};

fn never(_: Link, _: &Invalidation, _: u64) -> Answer {
    Answer::Done
}

/// Nodes stay until the process ends, as links to them do.
#[expect(unsafe_code, reason = "links to leaked nodes")]
fn node(start: u64, last: u64) -> Link {
    let node = Box::leak(Box::new(Node::new(never)));
    node.start.set(start);
    node.last.set(last);
    // SAFETY: it is never freed.
    unsafe { Link::new(std::ptr::NonNull::from(node)) }
}

/// Checks balances, maxima and parents below `at`; gives height and nodes in order.
fn check(at: Option<Link>, above: Option<Link>, order: &mut Vec<Link>) -> i8 {
    let Some(at) = at else { return 0 };
    assert_eq!(at.parent.get(), above);
    let left = check(at.child[LEFT].get(), Some(at), order);
    order.push(at);
    let right = check(at.child[RIGHT].get(), Some(at), order);
    assert_eq!(at.balance.get(), right - left);
    assert!((-1..=1).contains(&at.balance.get()));
    assert_eq!(at.max.get(), super::widest(&at));
    1 + left.max(right)
}

fn random(state: &Cell<u64>) -> u64 {
    let mut x = state.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state.set(x);
    x
}

#[test]
fn random_operations_agree_with_a_vector() {
    for seed in 1..=40 {
        println!("seed {seed}");
        let rng = Cell::new(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let rnd = |n: u64| random(&rng) % n;
        let room = [8, 100, 10_000][seed as usize % 3];
        let (mut tree, mut model) = (Tree::default(), Vec::<Link>::new());
        for _ in 0..600 {
            if rnd(5) < 3 {
                let start = rnd(room);
                let new = node(start, start + rnd(room) * rnd(2) + rnd(3));
                let place = model.partition_point(|other| other.start.get() <= start);
                model.insert(place, new);
                tree.insert(new);
            } else if !model.is_empty() {
                let gone = model.remove(rnd(model.len() as u64) as usize);
                tree.erase(gone);
            }
            let mut order = Vec::new();
            check(tree.root, None, &mut order);
            assert_eq!(order, model);
            let (start, length) = (rnd(room), rnd(room));
            let last = start + length;
            let hits = std::iter::successors(tree.first(start, last), |&at| next(at, start, last));
            let expected = model.iter().copied().filter(|n| n.start.get() <= last && n.last.get() >= start);
            assert!(hits.eq(expected), "hits of {start}..={last}");
        }
    }
}

#[test]
fn the_last_address_and_equal_ranges() {
    let mut tree = Tree::default();
    let nodes: Vec<_> = (0..100).map(|_| node(5, u64::MAX)).collect();
    nodes.iter().for_each(|&node| tree.insert(node));
    let top = std::iter::successors(tree.first(u64::MAX, u64::MAX), |&at| next(at, u64::MAX, u64::MAX));
    assert!(top.eq(nodes.iter().copied()));
    assert!(tree.first(0, 4).is_none());
    nodes.iter().for_each(|&node| tree.erase(node));
    assert!(tree.root.is_none());
}
