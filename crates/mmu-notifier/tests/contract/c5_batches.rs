//! C5.8: one start and one end for several ranges.

use std::sync::Mutex;
use std::sync::{Arc, LazyLock};

use mmu_notifier::interval::{Answer, Notifier, Sequence};
use mmu_notifier::list::WouldBlock;
use mmu_notifier::{AddressSpace, Batch, Event, Invalidation, Range, StartError, list};

type Log = Arc<Mutex<Vec<String>>>;

struct Probe(&'static str, Log, Answer);

impl Probe {
    fn note(&self, what: &str, range: Range) {
        self.1.lock().unwrap().push(format!("{} {what} {range}", self.0));
    }
}

impl Notifier for Probe {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        self.note("invalidate", invalidation.range());
        match self.2 {
            Answer::Refused if invalidation.is_blockable() => Answer::Done,
            answer => answer,
        }
    }

    fn finish(&self, invalidation: &Invalidation) {
        self.note("finish", invalidation.range());
    }
}

impl list::Notifier for Probe {
    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        self.note("start", invalidation.range());
        let refuses = self.2 == Answer::Refused && !invalidation.is_blockable();
        // It refuses the second of two ranges: the first one is owed its end.
        if refuses && invalidation.event() == Event::Clear { Err(WouldBlock) } else { Ok(()) }
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        self.note("end", invalidation.range());
    }
}

fn page(number: u64) -> Range {
    Range::from_len(number * 0x1000, 0x1000).unwrap()
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

#[test]
fn c5_8_each_range_calls_whom_it_hits_in_the_order_given_and_one_end_frees_all() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let whole = space.insert(Range::ALL, Probe("whole", log.clone(), Answer::Begun)).unwrap();
    let third = space.insert(page(3), Probe("third", log.clone(), Answer::Done)).unwrap();
    let other = space.insert(page(9), Probe("other", log.clone(), Answer::Done)).unwrap();
    let mut batch = Batch::new(&space);
    for number in [3, 1] {
        batch.push(page(number)).unwrap();
    }
    let active = batch.start();
    let (low, high) = (page(1), page(3));
    assert_eq!(
        take(&log),
        [
            format!("whole invalidate {high}"),
            format!("third invalidate {high}"),
            format!("whole invalidate {low}"),
            format!("whole finish {high}"),
            format!("whole finish {low}"),
        ],
        "second passes come after the first passes of all ranges"
    );
    assert!(whole.try_read_begin().is_none() && third.try_read_begin().is_none());
    assert!(other.try_read_begin().is_some(), "not hit, not busy");
    active.end();
    assert!(whole.try_read_begin().is_some() && third.try_read_begin().is_some());
    // The same batch again, after its end.
    batch.start().end();
    assert_eq!(take(&log).len(), 5);
}

#[test]
fn c5_8_a_refusal_undoes_them_all() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let first = space.insert(page(1), Probe("first", log.clone(), Answer::Done)).unwrap();
    let second = space.insert(page(2), Probe("second", log.clone(), Answer::Refused)).unwrap();
    let mut batch = Batch::new(&space);
    for number in [1, 2, 3] {
        batch.push(page(number)).unwrap();
    }
    assert_eq!(batch.try_start().map(drop), Err(StartError::WouldBlock));
    assert_eq!(take(&log).len(), 2);
    assert!(first.try_read_begin().is_some() && second.try_read_begin().is_some(), "nobody stays busy");
    assert_eq!(space.stats().active, 0);
    batch.start().end();
}

#[test]
fn c5_8_the_list_hears_each_range_and_a_refusal_ends_those_before() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let _registration = space.register(Probe("list", log.clone(), Answer::Refused)).unwrap();
    let mut batch = Batch::new(&space);
    batch.push(page(1)).unwrap();
    batch.push(Invalidation::new(page(2), Event::Clear)).unwrap();
    assert_eq!(batch.try_start().map(drop), Err(StartError::WouldBlock));
    let (one, two) = (page(1), page(2));
    let heard = [format!("list start {one}"), format!("list start {two}"), format!("list end {one}")];
    assert_eq!(take(&log), heard);
    batch.start().end();
    assert_eq!(take(&log).len(), 4);
}

#[test]
fn c5_8_past_128_hits_each_range_finishes_those_that_it_hits_in_order() {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| (0..300).map(|page| page.to_string()).collect());
    let (space, log) = (AddressSpace::new(), Log::default());
    let pages = |part: u64| part * 30..(part + 1) * 30;
    let insert =
        |page| space.insert(self::page(page), Probe(&NAMES[page as usize], log.clone(), Answer::Begun));
    let subscriptions: Vec<_> = (0..300).map(|page| insert(page).unwrap()).collect();
    let mut batch = Batch::new(&space);
    // The eleventh hits nobody.
    let order = [5, 0, 9, 10, 3, 8, 1, 7, 2, 6, 4];
    let whole = |part| Range::new(pages(part).start << 12, pages(part).end << 12).unwrap();
    order.iter().for_each(|&part| batch.push(whole(part)).unwrap());
    for _ in 0..2 {
        let active = batch.start();
        let hits = |pass: &'static str| {
            let of_part = move |part| pages(part).map(move |page| format!("{page} {pass} {}", whole(part)));
            order.into_iter().filter(|part| *part < 10).flat_map(of_part)
        };
        assert_eq!(take(&log), hits("invalidate").chain(hits("finish")).collect::<Vec<_>>());
        active.end();
    }
    assert!(subscriptions.iter().all(|subscription| subscription.try_read_begin().is_some()));
}

#[test]
fn c5_8_a_hundred_ranges_and_more_than_there_is_room_for() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let mut batch = Batch::new(&space);
    // Pushed before anybody watches: no room was set aside for them.
    for number in 0..100 {
        batch.push(page(number)).unwrap();
    }
    assert_eq!(batch.len(), 100);
    let whole = space.insert(Range::ALL, Probe("whole", log.clone(), Answer::Done)).unwrap();
    let far = space.insert(page(500), Probe("far", log.clone(), Answer::Done)).unwrap();
    let active = batch.start();
    assert_eq!(take(&log).len(), 100, "each range calls, and nobody else");
    assert_eq!(space.stats().active, 100);
    assert!(whole.try_read_begin().is_none());
    active.end();
    assert_eq!(space.stats().active, 0);
    assert!(whole.try_read_begin().is_some() && far.try_read_begin().is_some());
}

#[test]
fn c5_8_ranges_that_hit_many_call_each_in_order() {
    let (space, called) = (AddressSpace::new(), Arc::new(Mutex::new(Vec::new())));
    let insert = |number: u64| {
        let called = called.clone();
        let callback = move |what: &Invalidation| {
            called.lock().unwrap().push((number, what.range()));
            Answer::Done
        };
        space.insert(page(number), callback).unwrap()
    };
    let all: Vec<_> = (0..400).map(insert).collect();
    let pages = |from: u64, count: u64| Range::from_len(from * 0x1000, count * 0x1000).unwrap();
    // Hits are collected 128 at a time: these fit together, or just do, or do not, or not even alone.
    let ranges =
        [(0, 100), (7, 1), (50, 27), (90, 128), (500, 9), (0, 129), (3, 1), (10, 390), (399, 20), (2, 2)];
    let mut batch = Batch::new(&space);
    ranges.iter().for_each(|&(from, count)| batch.push(pages(from, count)).unwrap());
    batch.start().end();
    let expected = ranges.iter().flat_map(|&(from, count)| {
        (from..(from + count).min(400))
            .filter(move |_| from < 400)
            .map(move |number| (number, pages(from, count)))
    });
    assert_eq!(*called.lock().unwrap(), expected.collect::<Vec<_>>());
    drop(all);
}

#[test]
fn c5_8_who_is_removed_in_the_callback_of_an_earlier_range_is_not_called() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let second = space.insert(page(2), Probe("second", log.clone(), Answer::Done)).unwrap();
    let second = Mutex::new(Some(second));
    let callback = move |_: &Invalidation| {
        drop(second.lock().unwrap().take());
        Answer::Done
    };
    let _first = space.insert(page(1), callback).unwrap();
    let mut batch = Batch::new(&space);
    for number in [1, 2] {
        batch.push(page(number)).unwrap();
    }
    batch.start().end();
    assert!(take(&log).is_empty());
    assert_eq!(Arc::strong_count(&log), 1, "what it owned is dropped");
}

#[test]
fn c5_8_an_empty_batch_does_nothing() {
    let (space, log) = (AddressSpace::new(), Log::default());
    let _whole = space.insert(Range::ALL, Probe("whole", log.clone(), Answer::Refused)).unwrap();
    let _list = space.register(Probe("list", log.clone(), Answer::Refused)).unwrap();
    let mut batch = Batch::new(&space);
    assert!(batch.is_empty());
    batch.start().end();
    batch.try_start().unwrap().end();
    assert!(take(&log).is_empty());
}
