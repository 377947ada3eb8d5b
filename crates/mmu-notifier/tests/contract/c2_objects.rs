//! C2: spaces, users and holders, the map lock, ranges and events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mmu_notifier::interval::Options;
use mmu_notifier::{
    Address, AddressSpace, Event, Invalidation, LockAllError, Owner, Permissions, PrimaryMmu, Range,
    RangeError,
};

use super::harness::{Recorder, background, range, within};
use super::probe::{Listed, Probe, insert, register};

#[test]
fn c2_1_users_and_holders_count_as_strong_and_weak_do() {
    within(|| {
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let second = holder.upgrade().expect("a user is left");
        drop(space);
        assert!(holder.upgrade().is_some(), "one of two users is left");
        drop(second);
        assert!(holder.upgrade().is_none(), "a space never comes back");
        assert!(holder.clone().upgrade().is_none());
    });
}

#[test]
fn c2_1_a_subscriber_is_a_holder_and_no_user() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let (listed, _) = register(&space, "N", &log);
        drop(space);
        log.expect(&["S exit", "N release"]);
        let token = sub.read_begin();
        assert!(!sub.read_retry(token));
        assert_eq!(sub.range(), range(0x1000, 0x2000));
        sub.remove();
        listed.unregister();
        log.expect(&[]);
    });
}

/// Goes with the space that it is the primary MMU of.
struct Goes(Arc<AtomicBool>);

impl PrimaryMmu for Goes {
    fn lock_all(&self) -> Result<(), LockAllError> {
        Ok(())
    }

    fn unlock_all(&self) {}
}

impl Drop for Goes {
    fn drop(&mut self) {
        assert!(!self.0.swap(true, Relaxed), "freed twice");
    }
}

#[test]
fn c2_1_a_space_goes_with_its_last_user_or_its_last_subscriber() {
    within(|| {
        let log = Recorder::new();
        let space = |gone: &Arc<AtomicBool>| {
            let made = AddressSpace::builder().primary(Goes(gone.clone())).build().expect("memory");
            drop(register(&made, "N", &log));
            made
        };
        let gone = Arc::new(AtomicBool::new(false));
        drop(space(&gone));
        assert!(gone.load(Relaxed), "whose subscriber went before");

        let gone = Arc::new(AtomicBool::new(false));
        let user = space(&gone);
        let subscribers = [register(&user, "N", &log), register(&user, "N", &log)];
        drop(user);
        let [first, second] = subscribers;
        drop(first);
        assert!(!gone.load(Relaxed), "one of two is left");
        drop(second);
        assert!(gone.load(Relaxed));

        let gone = Arc::new(AtomicBool::new(false));
        let user = space(&gone);
        let late = register(&user, "N", &log);
        user.release();
        drop(late);
        assert!(!gone.load(Relaxed), "whose exit was made while it had a user");
        drop(user);
        assert!(gone.load(Relaxed));
    });
}

#[test]
fn c2_2_it_has_notifiers_from_the_first_registration_of_any_kind_on() {
    within(|| {
        let log = Recorder::new();
        let (by_insert, by_list) = (AddressSpace::new(), AddressSpace::new());
        let (by_get, by_nobody) = (AddressSpace::new(), AddressSpace::new());
        for space in [&by_insert, &by_list, &by_get, &by_nobody] {
            assert!(!space.has_notifiers());
        }
        drop(insert(&by_insert, "S", range(1, 2), &log));
        drop(register(&by_list, "N", &log));
        let made = by_get.get(1, |_| Ok::<_, ()>(Listed::new(&Probe::new("G", &log))));
        made.expect("a shared notifier").put();
        by_nobody.register_nobody().expect("a registration of nobody");
        for space in [&by_insert, &by_list, &by_get, &by_nobody] {
            assert!(space.has_notifiers(), "and it stays so when all are gone");
        }
    });
}

#[test]
fn c2_2_an_invalidation_before_the_first_insert_leaves_no_trace() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_listed, _) = register(&space, "N", &log);
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let token = sub.try_read_begin().expect("nobody is busy for it");
        active.end();
        assert!(!sub.read_retry(token));
        log.expect(&["N start", "N range", "N end"]);
    });
}

#[test]
fn c2_2_nobody_registered_makes_an_invalidation_leave_its_trace() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        space.register_nobody().expect("a registration of nobody");
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        assert!(sub.try_read_begin().is_none(), "it began after the registration of nobody");
        active.end();
        assert!(sub.try_read_begin().is_some());
        log.expect(&[]);
    });
}

#[test]
fn c2_3_register_get_and_the_first_insert_take_the_map_lock() {
    within(|| {
        let log = Recorder::new();
        type Call = Box<dyn FnOnce(&AddressSpace, &Recorder) + Send>;
        let calls: [(&str, Call); 3] = [
            ("register", Box::new(|space, log| drop(register(space, "N", log)))),
            (
                "get",
                Box::new(|space, log| {
                    let made = space.get(7, |_| Ok::<_, ()>(Listed::new(&Probe::new("G", log))));
                    made.expect("a shared notifier").put();
                }),
            ),
            ("the first insert", Box::new(|space, log| drop(insert(space, "S", range(1, 2), log)))),
        ];
        for (what, call) in calls {
            let space = AddressSpace::new();
            let held = space.map_lock();
            let (user, record) = (space.clone(), log.clone());
            let caller = background(move || call(&user, &record));
            caller.assert_waits(what);
            drop(held);
            caller.join();
        }
    });
}

#[test]
fn c2_3_later_inserts_take_no_map_lock() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        drop(insert(&space, "S", range(1, 2), &log));
        let by_nobody = AddressSpace::new();
        by_nobody.register_nobody().expect("a registration of nobody");
        for space in [space, by_nobody] {
            let held = space.map_lock();
            let (user, record) = (space.clone(), log.clone());
            background(move || drop(insert(&user, "T", range(1, 2), &record))).join();
            drop(held);
        }
    });
}

#[test]
fn c2_3_the_locked_forms_work_under_the_map_lock() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let held = space.map_lock();
        let sub = space.insert_locked(&held, range(1, 2), Options::new(), Probe::new("S", &log));
        let listed = space.register_locked(&held, Listed::new(&Probe::new("N", &log)));
        drop(held);
        space.invalidate_start(range(1, 2)).end();
        log.expect(&["S invalidate", "N start", "N range", "N end"]);
        drop((sub, listed));
    });
}

#[test]
fn c2_4_the_last_byte_of_the_space_is_covered() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "TOP", Range::to_top(u64::MAX), &log);
        let (_all, _) = insert(&space, "ALL", Range::ALL, &log);
        space.invalidate_start(Range::to_top(u64::MAX)).end();
        log.expect(&["ALL invalidate", "TOP invalidate"]);
        let active = space.invalidate_start(Range::from_len(u64::MAX - 8, 8).unwrap());
        assert!(sub.try_read_begin().is_some(), "the last byte is not in it");
        active.end();
        log.expect(&["ALL invalidate"]);
        space.invalidate_start(Range::from_len(0u64, 1).unwrap()).end();
        log.expect(&["ALL invalidate"]);
    });
}

#[test]
fn c2_4_ranges_are_half_open_and_never_empty() {
    assert_eq!(Range::new(5u64, 5u64), Err(RangeError::Empty));
    assert_eq!(Range::new(6u64, 5u64), Err(RangeError::Reversed));
    assert_eq!(Range::from_len(0u64, 0), Err(RangeError::Empty));
    assert_eq!(Range::from_len(u64::MAX, 2), Err(RangeError::PastTop));
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_low, _) = insert(&space, "L", range(0, 0x1000), &log);
        let (_high, _) = insert(&space, "H", range(0x1001, 0x2000), &log);
        space.invalidate_start(range(0x1000, 0x1001)).end();
        log.expect(&[]);
        space.invalidate_start(range(0xfff, 0x1002)).end();
        log.expect(&["L invalidate", "H invalidate"]);
    });
}

#[test]
fn c2_5_what_is_said_of_an_invalidation_reaches_both_kinds_of_subscriber() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, interval) = insert(&space, "S", Range::ALL, &log);
        let (_listed, list) = register(&space, "N", &log);
        let permissions = Permissions { read: true, write: false, execute: true };
        let events = [
            Event::Unmap,
            Event::Clear,
            Event::ProtectionVma,
            Event::ProtectionPage,
            Event::SoftDirty,
            Event::Migrate,
            Event::Exclusive,
            Event::Other(77),
        ];
        for event in events {
            let what = Invalidation::new(range(0x10, 0x20), event)
                .with_owner(Owner::new(42).unwrap())
                .with_permissions(permissions);
            let active = space.invalidate_start(what);
            assert_eq!(*active.invalidation(), what);
            active.end();
        }
        for heard in [interval.heard(), list.heard()] {
            assert_eq!(heard.iter().map(Invalidation::event).collect::<Vec<_>>(), events);
            for what in heard {
                assert_eq!(what.range(), range(0x10, 0x20));
                assert_eq!(what.owner().map(Owner::get), Some(42));
                assert_eq!(what.permissions(), Some(permissions));
                assert!(what.is_blockable());
            }
        }
    });
}

#[test]
fn c2_5_a_bare_range_is_an_unmap_and_release_is_of_the_whole_space() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, probe) = insert(&space, "S", range(0x10, 0x20), &log);
        space.invalidate(range(0x1f, 0x30), || ());
        drop(space);
        let heard = probe.heard();
        assert_eq!(heard[0], Invalidation::new(range(0x1f, 0x30), Event::Unmap));
        assert_eq!((heard[1].event(), heard[1].range()), (Event::Release, Range::ALL));
        assert!(heard[1].is_blockable());
        assert!(heard[1].range().contains(Address::new(u64::MAX)));
    });
}

#[test]
fn c2_1_a_label_names_the_space() {
    within(|| {
        let space = AddressSpace::builder().label("guest memory").build().expect("a space");
        assert_eq!(space.label(), Some("guest memory"));
        assert_eq!(space.downgrade().label(), Some("guest memory"));
        assert_eq!(AddressSpace::new().label(), None);
        let shared = Arc::new(space);
        assert!(shared.upgrade().is_some());
    });
}
