//! A balanced tree of intervals that stand in their users' memory: an AVL tree by start, equal starts in order of
//! insertion, each node with the highest `last` below it.
//!
//! Insert and erase are O(log n) and allocate nothing; a search is O(log n + hits) and keeps no stack, as nodes know
//! their parents. Written from the textbooks: Adelson-Velsky and Landis for the balance, Cormen et al. for the
//! maxima.

use crate::node::{Link, Node};

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Option<Link>,
}

impl Tree {
    /// Finds the first interval that overlaps `start..=last`.
    #[inline]
    pub(crate) fn first(&self, start: u64, last: u64) -> Option<Link> {
        let root = self.root?;
        if root.max.get() < start {
            return None;
        }
        leftmost(root, start, last)
    }

    /// Adds a node, behind those of the same start.
    pub(crate) fn insert(&mut self, node: Link) {
        let (start, last) = (node.start.get(), node.last.get());
        let (mut above, mut side, mut at) = (None, LEFT, self.root);
        while let Some(here) = at {
            if here.max.get() < last {
                here.max.set(last);
            }
            side = usize::from(start >= here.start.get());
            above = at;
            at = here.child[side].get();
        }
        node.child[LEFT].set(None);
        node.child[RIGHT].set(None);
        node.parent.set(above);
        node.max.set(last);
        node.balance.set(0);
        match above {
            None => self.root = Some(node),
            Some(above) => {
                above.child[side].set(Some(node));
                self.grown(above, side);
            }
        }
    }

    /// Takes a node of this tree out.
    pub(crate) fn erase(&mut self, node: Link) {
        match (node.child[LEFT].get(), node.child[RIGHT].get()) {
            (Some(left), Some(right)) => self.erase_inner(node, left, right),
            (left, right) => {
                let above = node.parent.get();
                let side = above.map_or(LEFT, |above| side_of(above, node));
                self.put_in_place(node, left.or(right));
                if let Some(above) = above {
                    narrow(above);
                    self.shrunk(above, side);
                }
            }
        }
    }

    /// Takes out a node with two children: the next one in order goes into its place.
    fn erase_inner(&mut self, node: Link, left: Link, right: Link) {
        let mut heir = right;
        while let Some(lower) = heir.child[LEFT].get() {
            heir = lower;
        }
        let (from, side) = match heir.parent.get() {
            Some(above) if heir != right => {
                let below = heir.child[RIGHT].get();
                above.child[LEFT].set(below);
                if let Some(below) = below {
                    below.parent.set(Some(above));
                }
                heir.child[RIGHT].set(Some(right));
                right.parent.set(Some(heir));
                (above, LEFT)
            }
            _ => (heir, RIGHT),
        };
        heir.child[LEFT].set(Some(left));
        left.parent.set(Some(heir));
        heir.balance.set(node.balance.get());
        // What stands above was computed from this maximum, so that `narrow` may stop where nothing changes.
        heir.max.set(node.max.get());
        self.put_in_place(node, Some(heir));
        narrow(from);
        narrow(heir);
        self.shrunk(from, side);
    }

    /// Restores the balance after the subtree at `side` of `at` grew by one.
    fn grown(&mut self, mut at: Link, mut side: usize) {
        loop {
            let lean = at.balance.get() + toward(side);
            at.balance.set(lean);
            match lean {
                0 => return,
                -1 | 1 => match at.parent.get() {
                    None => return,
                    Some(above) => {
                        side = side_of(above, at);
                        at = above;
                    }
                },
                _ => {
                    self.rebalance(at);
                    return;
                }
            }
        }
    }

    /// Restores the balance after the subtree at `side` of `at` shrank by one.
    fn shrunk(&mut self, mut at: Link, mut side: usize) {
        loop {
            let lean = at.balance.get() - toward(side);
            at.balance.set(lean);
            let top = match lean {
                -1 | 1 => return,
                0 => at,
                _ => match self.rebalance(at) {
                    Height::Less(top) => top,
                    Height::Same => return,
                },
            };
            let Some(above) = top.parent.get() else { return };
            side = side_of(above, top);
            at = above;
        }
    }

    /// Turns a subtree whose sides differ by two.
    fn rebalance(&mut self, at: Link) -> Height {
        let heavy = usize::from(at.balance.get() > 0);
        let lean = toward(heavy);
        let below = at.child[heavy].get().expect("the heavy side has a node");
        if below.balance.get() == -lean {
            let inner = below.child[1 - heavy].get().expect("the heavy side has a node");
            let was = inner.balance.get();
            self.lift(below, inner, 1 - heavy);
            self.lift(at, inner, heavy);
            at.balance.set(if was == lean { -lean } else { 0 });
            below.balance.set(if was == -lean { lean } else { 0 });
            inner.balance.set(0);
            return Height::Less(inner);
        }
        self.lift(at, below, heavy);
        if below.balance.get() == 0 {
            at.balance.set(lean);
            below.balance.set(-lean);
            return Height::Same;
        }
        at.balance.set(0);
        below.balance.set(0);
        Height::Less(below)
    }

    /// Puts `below`, the child at `side` of `at`, above it.
    fn lift(&mut self, at: Link, below: Link, side: usize) {
        let inner = below.child[1 - side].get();
        at.child[side].set(inner);
        if let Some(inner) = inner {
            inner.parent.set(Some(at));
        }
        self.put_in_place(at, Some(below));
        below.child[1 - side].set(Some(at));
        at.parent.set(Some(below));
        below.max.set(at.max.get());
        at.max.set(widest(&at));
    }

    /// Links `new` where `old` is.
    fn put_in_place(&mut self, old: Link, new: Option<Link>) {
        let above = old.parent.get();
        match above {
            None => self.root = new,
            Some(above) => above.child[side_of(above, old)].set(new),
        }
        if let Some(new) = new {
            new.parent.set(above);
        }
    }
}

/// Finds the next interval behind `at` that overlaps `start..=last`.
#[inline]
pub(crate) fn next(mut at: Link, start: u64, last: u64) -> Option<Link> {
    loop {
        if let Some(right) = at.child[RIGHT].get() {
            if right.max.get() >= start {
                // If nothing there overlaps, then because it starts behind the range, as does all that follows.
                return leftmost(right, start, last);
            }
        }
        loop {
            let above = at.parent.get()?;
            let from_left = above.child[LEFT].get() == Some(at);
            at = above;
            if from_left {
                break;
            }
        }
        if at.start.get() > last {
            return None;
        }
        if at.last.get() >= start {
            return Some(at);
        }
    }
}

/// Finds the first overlap in a subtree that reaches up to `start` or further.
#[inline]
fn leftmost(mut at: Link, start: u64, last: u64) -> Option<Link> {
    loop {
        if let Some(left) = at.child[LEFT].get() {
            if left.max.get() >= start {
                at = left;
                continue;
            }
        }
        if at.start.get() > last {
            return None;
        }
        if at.last.get() >= start {
            return Some(at);
        }
        match at.child[RIGHT].get() {
            Some(right) if right.max.get() >= start => at = right,
            _ => return None,
        }
    }
}

/// What became of the height of a subtree that was turned.
enum Height {
    Same,
    /// Less by one, under this new top.
    Less(Link),
}

/// Computes the maxima from `at` up anew, as far as they change.
fn narrow(at: Link) {
    let mut next = Some(at);
    while let Some(at) = next {
        let max = widest(&at);
        if max == at.max.get() {
            return;
        }
        at.max.set(max);
        next = at.parent.get();
    }
}

#[inline]
fn widest(at: &Node) -> u64 {
    let below = |side: usize| at.child[side].get().map_or(0, |below| below.max.get());
    at.last.get().max(below(LEFT)).max(below(RIGHT))
}

#[inline]
fn side_of(above: Link, node: Link) -> usize {
    usize::from(above.child[RIGHT].get() == Some(node))
}

#[inline]
fn toward(side: usize) -> i8 {
    if side == LEFT { -1 } else { 1 }
}

#[cfg(test)]
mod tests;
