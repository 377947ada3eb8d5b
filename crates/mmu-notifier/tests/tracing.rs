//! What the feature `tracing` tells, seen by a subscriber that writes everything down.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mmu_notifier::interval::{Answer, Notifier, Options, Sequence};
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::{AddressSpace, Batch, Event, Invalidation, Owner, Range};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber, info};

/// One line an event, and one where a span is entered or left.
#[derive(Clone, Default)]
struct Notes {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
    /// Panic at each event.
    hostile: bool,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // The id of a space depends on what ran before.
        match field.name() {
            "space" => Ok(()),
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        }
        .unwrap();
    }
}

impl Notes {
    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        assert!(!self.hostile, "a hostile subscriber");
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "mmu_notifier" || metadata.target() == "device"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        self.note(line.0);
        // ORDERING: a plain count.
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.note(line.0);
    }

    fn enter(&self, _: &Id) {
        self.note("enter".to_owned());
    }

    fn exit(&self, _: &Id) {
        self.note("exit".to_owned());
    }
}

/// A device that says so when it is called.
struct Device;

impl Notifier for Device {
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        info!(target: "device", "flush");
        if what.is_blockable() { Answer::Done } else { Answer::Refused }
    }
}

impl list::Notifier for Device {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        Ok(())
    }
}

fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).unwrap()
}

#[test]
fn the_life_of_an_interval_is_told() {
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), || {
        let space = AddressSpace::builder().label("guest").build().unwrap();
        space.invalidate(range(0, 1), || ());
        assert_eq!(notes.take(), [""; 0], "nothing of a space that nobody watches");

        let device = space.insert_with(range(16, 32), Options::new().label("tlb"), Device).unwrap();
        assert_eq!(notes.take(), [r#"TRACE inserted label="guest" range=0x10..0x20 subscriber="tlb""#]);

        space.invalidate(range(0, 16), || ());
        assert_eq!(
            notes.take(),
            [
                r#"TRACE started label="guest" range=0x0..0x10 event=Unmap blockable=true hits=0"#,
                r#"TRACE ending label="guest" range=0x0..0x10"#,
            ]
        );

        let clear = Invalidation::new(range(0, 17), Event::Clear).with_owner(Owner::new(7).unwrap());
        space.invalidate(clear, || info!(target: "device", "the change"));
        assert_eq!(
            notes.take(),
            [
                r#"span start label="guest" range=0x0..0x11 ranges=1"#,
                "enter",
                "INFO flush",
                r#"TRACE started label="guest" range=0x0..0x11 event=Clear owner=7 blockable=true hits=1"#,
                "exit",
                "INFO the change",
                r#"TRACE ending label="guest" range=0x0..0x11"#,
            ]
        );

        space.try_invalidate(clear, || ()).unwrap_err();
        assert_eq!(
            notes.take(),
            [
                r#"span start label="guest" range=0x0..0x11 ranges=1"#,
                "enter",
                "INFO flush",
                r#"DEBUG refused label="guest" range=0x0..0x11 event=Clear owner=7"#,
                "exit",
            ]
        );

        let device = device.resize(range(64, 65)).unwrap();
        device.remove();
        assert_eq!(
            notes.take(),
            [
                r#"TRACE inserted label="guest" range=0x40..0x41 subscriber="tlb""#,
                r#"TRACE removing label="guest" range=0x10..0x20 subscriber="tlb""#,
                r#"TRACE removing label="guest" range=0x40..0x41 subscriber="tlb""#,
            ]
        );
    });
}

#[test]
fn a_batch_is_told_range_by_range() {
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), || {
        let space = AddressSpace::new();
        let device = space.insert(Range::ALL, Device).unwrap();
        notes.take();
        let mut batch = Batch::new(&space);
        batch.push(range(0, 1)).unwrap();
        batch.push(range(8, 9)).unwrap();
        batch.start().end();
        let lines = notes.take();
        let told = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert_eq!((told("started"), told("hits=2"), told("ending")), (2, 2, 2), "{lines:#?}");
        assert_eq!((told("span start range=0x0..0x1 ranges=2"), told("enter")), (1, 1), "{lines:#?}");
        device.detach();
        assert_eq!(notes.take(), ["TRACE removing range=0x0..=top"]);
    });
}

#[test]
fn the_list_and_the_exit_are_told() {
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), || {
        let space = AddressSpace::new();
        let first = space.register(Device).unwrap();
        let second = space.register(Device).unwrap();
        let shared = space.get(0, |_| Ok::<_, ()>(Device)).unwrap();
        first.unregister();
        shared.put();
        let level = ["DEBUG registered", "DEBUG registered", "DEBUG registered"];
        assert_eq!(notes.take(), [&level[..], &["DEBUG unregistering", "DEBUG put"]].concat());

        drop(space);
        assert_eq!(notes.take(), ["span exit", "enter", "exit"]);
        drop(second);
        assert_eq!(notes.take(), ["DEBUG unregistering"]);
    });
}

#[test]
fn a_subscriber_that_panics_disturbs_nothing() {
    let notes = Notes { hostile: true, ..Notes::default() };
    tracing::subscriber::with_default(notes.clone(), || {
        let space = AddressSpace::new();
        let tlb = space.insert(range(0, 8), Quiet).unwrap();
        let registration = space.register(Quiet).unwrap();
        let token = tlb.read_begin();
        space.invalidate(range(0, 4), || ());
        assert!(tlb.read_retry(token));
        assert!(tlb.try_read_begin().is_some(), "not busy: the end came");
        let tlb = tlb.resize(range(0, 4)).unwrap();
        space.invalidate(range(0, 4), || ());
        drop(space);
        drop((tlb, registration));
    });
    assert!(notes.take().len() > 6);
}

/// Says nothing by itself.
struct Quiet;

impl Notifier for Quiet {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

impl list::Notifier for Quiet {}
