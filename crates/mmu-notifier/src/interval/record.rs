//! The records of an owned subscription: each a node and what it leads to, in one slot of the space's [`Records`](crate::records::Records).
//!
//! The first record holds the notifier. A resize makes a second one, which leads to the first; a third takes the
//! place of the second. Which kind a node's record is follows from its table, and its space too: see
//! [`table`](super::table).

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem;
use core::ptr::NonNull;

use super::node::{Callbacks, Node, Sequence, SequenceBy};
use super::table::SpaceOf;
use super::{Answer, Notifier, Options};
use crate::address::Range;
use crate::diagnostics;
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;

/// The first node, and the notifier. Its space stands in the table of the node; all records of a type are one holder of it.
///
/// # Invariants
/// `node` is the first field: its address is that of the record.
#[repr(C)]
pub(super) struct First<N> {
    node: Node,
    pub(super) notifier: N,
}

/// The node of a resize.
///
/// # Invariants
/// `node` is the first field; `first` is the record of the same subscription, which is freed with or after it.
#[repr(C)]
struct Moved<N> {
    node: Node,
    first: NonNull<First<N>>,
}

/// A record of a subscription of the notifier `N`, which begins with its node.
trait Record<N> {
    /// Whether it leads to the first one.
    const MOVED: bool;

    /// # Safety
    /// The node is that of a record of this type, which is alive.
    unsafe fn first(node: NonNull<Node>) -> NonNull<First<N>>;

    /// # Safety
    /// As for [`Callbacks::free`].
    unsafe fn free(node: NonNull<Node>);
}

impl<N: Notifier> First<N> {
    /// Makes one with a node for `range`; gives the notifier back if there is no memory.
    #[inline]
    pub(super) fn make(
        space: &AddressSpaceRef,
        subscriptions: &Subscriptions,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<NonNull<Self>, N> {
        let Some(of_type) =
            subscriptions.tables.get(Table::<N, Self>::CALLBACKS, Layout::new::<Self>(), space)
        else {
            return Err(notifier);
        };
        let Some(table) = Node::table_with(of_type, options) else { return Err(notifier) };
        // SAFETY: the table lives as long as the space, which the caller holds, and then the record with all of its type; or it
        // is a box that goes with the node.
        let node = || unsafe { Node::with_table(range, table) };
        let Some(first) = allocate(space, subscriptions, of_type) else {
            drop(node());
            return Err(notifier);
        };
        // SAFETY: it is memory of this layout that nobody uses.
        unsafe { first.write(First { node: node(), notifier }) };
        Ok(first)
    }
}

/// Makes a further node of a subscription, with the options of the one that it replaces; none if there is no memory.
pub(super) fn make_moved<N: Notifier>(
    first: NonNull<First<N>>,
    subscriptions: &Subscriptions,
    range: Range,
    old: &Node,
) -> Option<NonNull<Node>> {
    // SAFETY: the subscription, whose node it is, keeps a holder.
    let space = unsafe { space_of(old).held() };
    let of_type =
        subscriptions.tables.get(Table::<N, Moved<N>>::CALLBACKS, Layout::new::<Moved<N>>(), space)?;
    let table = Node::table_with(of_type, old.options())?;
    // SAFETY: as in `First::make`.
    let node = unsafe { Node::with_table(range, table) };
    let moved = allocate(space, subscriptions, of_type)?;
    // SAFETY: it is memory of this layout that nobody uses.
    unsafe { moved.write(Moved { node, first }) };
    Some(moved.cast())
}

/// Memory for a record of the type that the table is for; none if there is no more. The first record makes a holder of the
/// space for all of that type.
#[inline]
fn allocate<R>(
    space: &AddressSpaceRef,
    subscriptions: &Subscriptions,
    of_type: &Callbacks,
) -> Option<NonNull<R>> {
    // SAFETY: the caller holds the space.
    let slots = unsafe { of_type.space.as_ref()?.slots() };
    // Given back with the last one. (Under the lock, so that the child of a fork finds both or neither.)
    let hold = || mem::forget(space.clone());
    subscriptions.records.allocate(slots, Layout::new::<R>(), hold).map(NonNull::cast)
}

/// Gives the memory of a record back, and behind the last one of its type their holder.
///
/// # Safety
/// It came from [`allocate`] for this space and layout, and is not used any more.
#[inline]
unsafe fn free(space: SpaceOf, memory: NonNull<u8>, layout: Layout) {
    // SAFETY: the records of the type are a holder, of which this is one.
    let held = unsafe { space.held() };
    // SAFETY: as above.
    let slots = unsafe { space.slots() };
    // SAFETY: as promised by the caller.
    let is_last = unsafe { held.watched().records.free(slots, memory, layout) };
    if is_last {
        // SAFETY: it is that of the records, which are gone.
        drop(unsafe { space.take() });
    }
}

/// The space of the record of a node.
#[inline]
pub(super) fn space_of(node: &Node) -> &SpaceOf {
    node.space().expect("the tables of owned subscriptions name their space")
}

/// Takes a record apart, and gives the notifier.
///
/// # Safety
/// - It was made by [`First::make`] and not inserted since.
/// - The caller holds the space.
pub(super) unsafe fn take_apart<N>(first: NonNull<First<N>>) -> N {
    // SAFETY: made by `First::make`, and not used any more, as promised by the caller.
    let First { node, notifier } = unsafe { first.read() };
    // SAFETY: what stood there is here.
    unsafe { free(*space_of(&node), first.cast(), Layout::new::<First<N>>()) };
    notifier
}

/// The first record of the subscription that a node belongs to.
///
/// # Safety
/// The node is that of a record of a subscription of `N`, which is alive.
#[inline]
pub(super) unsafe fn first_of<N>(node: NonNull<Node>) -> NonNull<First<N>> {
    // SAFETY: as promised by the caller.
    if unsafe { node.as_ref() }.is_moved() {
        // SAFETY: its table is that of a `Moved<N>`, which is alive.
        unsafe { Moved::first(node) }
    } else {
        node.cast()
    }
}

/// Frees the record of a node that a resize has made, and not the first one.
///
/// # Safety
/// The node was made by [`make_moved`] for the same type; no start knows it, and it is not used again.
pub(super) unsafe fn free_moved<N>(node: NonNull<Node>) {
    // SAFETY: as promised by the caller.
    let space = *space_of(unsafe { node.as_ref() });
    // SAFETY: as promised by the caller.
    unsafe { drop_and_free(node.cast::<Moved<N>>(), &space) };
}

/// Drops a record, and gives its memory back, also if the drop panics.
///
/// # Safety
/// It is one of this space and its slots, and is not used any more.
#[inline]
unsafe fn drop_and_free<R>(record: NonNull<R>, space: &SpaceOf) {
    struct Memory(SpaceOf, NonNull<u8>, Layout);

    impl Drop for Memory {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: it came from there with this layout, and what it held is gone.
            unsafe { free(self.0, self.1, self.2) };
        }
    }

    let _memory = Memory(*space, record.cast(), Layout::new::<R>());
    // SAFETY: as promised by the caller.
    unsafe { record.drop_in_place() };
}

/// Frees all records of a subscription.
///
/// # Safety
/// - The node is that of a record of a subscription of `N`, and the last one.
/// - No start knows the nodes, and they are not used again.
#[inline]
pub(super) unsafe fn free_all<N>(node: NonNull<Node>) {
    // SAFETY: as promised by the caller.
    let first = unsafe { first_of::<N>(node) };
    // By its own table: the slots of the other type are longer.
    // SAFETY: the first record is alive.
    let space = *space_of(unsafe { first.cast::<Node>().as_ref() });
    if node.cast() != first {
        // SAFETY: a node of its own, made by a resize; as promised by the caller.
        unsafe { free_moved::<N>(node) };
    }
    // SAFETY: made by `First::make`; as promised by the caller.
    unsafe { drop_and_free(first, &space) };
}

impl<N> Record<N> for First<N> {
    const MOVED: bool = false;

    unsafe fn first(node: NonNull<Node>) -> NonNull<First<N>> {
        node.cast()
    }

    unsafe fn free(node: NonNull<Node>) {
        // SAFETY: as promised by the caller.
        unsafe { free_all::<N>(node) };
    }
}

impl<N> Record<N> for Moved<N> {
    const MOVED: bool = true;

    unsafe fn first(node: NonNull<Node>) -> NonNull<First<N>> {
        // SAFETY: as promised by the caller.
        unsafe { (*node.cast::<Moved<N>>().as_ptr()).first }
    }

    unsafe fn free(node: NonNull<Node>) {
        // SAFETY: as promised by the caller.
        unsafe { free_all::<N>(node) };
    }
}

/// The callbacks of a subscriber of one type, for records of one type.
struct Table<N, R>(PhantomData<(N, R)>);

impl<N: Notifier, R: Record<N>> Table<N, R> {
    const CALLBACKS: &'static Callbacks = &Callbacks {
        invalidate: invalidate::<N, R>,
        finish: finish::<N, R>,
        free: R::free,
        options: Options::new(),
        sequence: SequenceBy::Start,
        moved: R::MOVED,
        space: None,
    };
}

/// # Safety
/// The node is that of a record `R`, found by a start.
unsafe fn invalidate<N: Notifier, R: Record<N>>(
    node: NonNull<Node>,
    what: &Invalidation,
    seq: Sequence,
    panic: &mut Option<Payload>,
) -> Answer {
    // SAFETY: the node is readable until the start is through (I6).
    let first = unsafe { R::first(node) };
    // SAFETY: the first record goes with the last node that leads to it.
    let notifier = unsafe { &(*first.as_ptr()).notifier };
    let answer = platform::keep(panic, || diagnostics::call::<N, _>(|| notifier.invalidate(what, seq)));
    answer.unwrap_or(Answer::Refused)
}

/// # Safety
/// As for [`invalidate`].
unsafe fn finish<N: Notifier, R: Record<N>>(
    node: NonNull<Node>,
    what: &Invalidation,
    panic: &mut Option<Payload>,
) {
    // SAFETY: the node is readable until the start is through (I6).
    let first = unsafe { R::first(node) };
    // SAFETY: the first record goes with the last node that leads to it.
    let notifier = unsafe { &(*first.as_ptr()).notifier };
    platform::keep(panic, || diagnostics::call::<N, _>(|| notifier.finish(what)));
}
