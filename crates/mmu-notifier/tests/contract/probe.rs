//! A subscriber of both kinds whose callbacks do what a test wants: record, block, refuse, panic, call back.
//!
//! The same [`Probe`] is handed in as an interval notifier (in its `Arc`) and as a list notifier (in
//! [`Listed`], which also records when it is dropped).

use std::sync::{Arc, Mutex};

use mmu_notifier::interval::{self, Answer, Sequence, Subscription};
use mmu_notifier::list::{self, Registration, WouldBlock};
use mmu_notifier::{Address, AddressSpaceRef, Event, Invalidation, Pte, Range};

use super::harness::{Gate, Recorder, lock};

/// What a probe does besides recording.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It accepts.
    Accepts,
    /// It refuses whenever it may not block.
    Refuses,
    /// It refuses always, though that is a bug.
    RefusesAlways,
    /// It answers that it has begun.
    Begins,
}

type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// A subscriber that records its callbacks under its name.
pub(crate) struct Probe {
    name: String,
    log: Recorder,
    /// Each callback passes it after it was recorded.
    pub(crate) gate: Gate,
    manner: Mutex<Manner>,
    young: Mutex<bool>,
    hook: Mutex<Option<Hook>>,
    heard: Mutex<Vec<Invalidation>>,
    sequences: Mutex<Vec<Sequence>>,
}

impl Probe {
    /// Makes a probe that accepts.
    pub(crate) fn new(name: &str, log: &Recorder) -> Arc<Probe> {
        Arc::new(Probe {
            name: name.to_owned(),
            log: log.clone(),
            gate: Gate::default(),
            manner: Mutex::new(Manner::Accepts),
            young: Mutex::new(false),
            hook: Mutex::new(None),
            heard: Mutex::default(),
            sequences: Mutex::default(),
        })
    }

    /// Changes its manner.
    pub(crate) fn set(&self, manner: Manner) {
        *lock(&self.manner) = manner;
    }

    /// Changes what its young callbacks answer.
    pub(crate) fn set_young(&self, young: bool) {
        *lock(&self.young) = young;
    }

    /// Has each callback run `hook` with its kind (`"invalidate"`, `"finish"`, `"start"`, `"end"`,
    /// `"release"`, ...), outside every lock of the probe.
    pub(crate) fn on(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Has the next callback of this kind run `hook`, once.
    pub(crate) fn once(&self, kind: &'static str, hook: impl FnOnce() + Send + 'static) {
        let once = Mutex::new(Some(hook));
        self.on(move |now| {
            let taken = if now == kind { lock(&once).take() } else { None };
            if let Some(hook) = taken {
                hook();
            }
        });
    }

    /// Forgets the hook, and all that it keeps alive.
    pub(crate) fn quiet(&self) {
        let hook = lock(&self.hook).take();
        drop(hook);
    }

    /// Gives the invalidations that it heard of.
    pub(crate) fn heard(&self) -> Vec<Invalidation> {
        lock(&self.heard).clone()
    }

    /// Gives the sequences that it was called with.
    pub(crate) fn sequences(&self) -> Vec<Sequence> {
        lock(&self.sequences).clone()
    }

    fn called(&self, kind: &str) {
        self.log.note(format!("{} {kind}", self.name));
        self.gate.pass();
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook(kind);
        }
    }

    fn refuses(&self, invalidation: &Invalidation) -> bool {
        match *lock(&self.manner) {
            Manner::Refuses => !invalidation.is_blockable(),
            Manner::RefusesAlways => true,
            Manner::Accepts | Manner::Begins => false,
        }
    }

    fn young(&self) -> bool {
        self.called("young");
        *lock(&self.young)
    }
}

impl interval::Notifier for Probe {
    fn invalidate(&self, invalidation: &Invalidation, seq: Sequence) -> Answer {
        lock(&self.heard).push(*invalidation);
        lock(&self.sequences).push(seq);
        self.called(if invalidation.event() == Event::Release { "exit" } else { "invalidate" });
        if self.refuses(invalidation) {
            Answer::Refused
        } else if *lock(&self.manner) == Manner::Begins {
            Answer::Begun
        } else {
            Answer::Done
        }
    }

    fn finish(&self, _invalidation: &Invalidation) {
        self.called("finish");
    }
}

/// A probe on the list; records its own drop if asked to.
pub(crate) struct Listed {
    probe: Arc<Probe>,
    noted: bool,
}

impl Listed {
    /// Puts a probe on the list, silently dropped.
    pub(crate) fn new(probe: &Arc<Probe>) -> Listed {
        Listed { probe: probe.clone(), noted: false }
    }

    /// Puts a probe on the list whose free is a callback too.
    pub(crate) fn freed(probe: &Arc<Probe>) -> Listed {
        Listed { probe: probe.clone(), noted: true }
    }

    /// The probe within.
    pub(crate) fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if self.noted {
            self.probe.called("free");
        }
    }
}

impl list::Notifier for Listed {
    fn release(&self) {
        self.probe.called("release");
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        lock(&self.probe.heard).push(*invalidation);
        self.probe.called("start");
        if self.probe.refuses(invalidation) { Err(WouldBlock) } else { Ok(()) }
    }

    fn invalidate_range_end(&self, _invalidation: &Invalidation) {
        self.probe.called("end");
    }

    fn invalidate_range(&self, _range: Range) {
        self.probe.called("range");
    }

    fn clear_flush_young(&self, _range: Range) -> bool {
        self.probe.young()
    }

    fn clear_young(&self, _range: Range) -> bool {
        self.probe.young()
    }

    fn test_young(&self, _address: Address) -> bool {
        self.probe.young()
    }

    fn change_pte(&self, address: Address, pte: Pte) {
        self.probe.called(&format!("pte {address} {}", pte.0));
    }
}

/// A subscription of a probe.
pub(crate) type Sub = Subscription<Arc<Probe>>;

/// Inserts a new probe and gives both.
pub(crate) fn insert(space: &AddressSpaceRef, name: &str, range: Range, log: &Recorder) -> (Sub, Arc<Probe>) {
    let probe = Probe::new(name, log);
    (space.insert(range, probe.clone()).expect("an insert"), probe)
}

/// Registers a new probe and gives both.
pub(crate) fn register(
    space: &AddressSpaceRef,
    name: &str,
    log: &Recorder,
) -> (Registration<Listed>, Arc<Probe>) {
    let probe = Probe::new(name, log);
    (space.register(Listed::new(&probe)).expect("a registration"), probe)
}

/// A place from which a callback can take something once.
pub(crate) fn slot<T>(value: T) -> Arc<Mutex<Option<T>>> {
    Arc::new(Mutex::new(Some(value)))
}

/// Takes what is in the place, without holding its lock afterwards.
pub(crate) fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    lock(slot).take()
}
