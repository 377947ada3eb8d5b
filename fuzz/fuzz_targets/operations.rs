//! Any bytes as a sequence of operations: the library and the slow model must tell the same story.
//!
//! The operations are testkit's. Bytes that have run out read as 0, so every input is a sequence, and a
//! byte more or less moves only what comes after it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mmu_notifier::{Event, Owner, Range};
use testkit::driver::Driver;
use testkit::model::Model;
use testkit::operation::{Manner, Operation, Question, SPACES, Start};

/// The longest sequence: longer ones are slow and find no more.
const LONGEST: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let (mut model, mut driver) = (Model::new(), Driver::new());
    let mut bytes = Bytes(bytes);
    for index in 0..LONGEST {
        if bytes.0.is_empty() {
            break;
        }
        compare(&mut model, &mut driver, index, &bytes.operation());
    }
    for (index, operation) in model.clearance().iter().enumerate() {
        compare(&mut model, &mut driver, LONGEST + index, operation);
    }
});

fn compare(model: &mut Model, driver: &mut Driver, index: usize, operation: &Operation) {
    let (expected, found) = (model.step(operation), driver.step(operation));
    assert_eq!(found, expected, "at {index}: {operation:?}");
}

/// What is left of the input.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn index(&mut self) -> usize {
        self.byte().into()
    }

    fn space(&mut self) -> usize {
        self.index() % SPACES
    }

    /// Gives any number, small ones from a single byte.
    fn number(&mut self) -> u64 {
        let byte = u64::from(self.byte());
        if byte < 128 { byte } else { u64::MAX - (byte - 128) }
    }

    /// Gives a small range, one at the top, one up to the top, or everything.
    fn range(&mut self) -> Range {
        let (kind, first, more) = (self.byte() % 16, u64::from(self.byte()), u64::from(self.byte()));
        match kind {
            0 => Range::ALL,
            1 => Range::to_top(first),
            2..5 => {
                let start = u64::MAX - first;
                Range::from_first_last(start, start.saturating_add(more)).expect("its start is no later")
            }
            _ => Range::from_len(first % 16, 1 + more % 8).expect("far below the top"),
        }
    }

    fn owner(&mut self) -> Option<Owner> {
        Owner::new(u64::from(self.byte() % 3))
    }

    fn manner(&mut self) -> Manner {
        [Manner::Accepts, Manner::Refuses, Manner::Begins][self.index() % 3]
    }

    /// Gives the manner of a list subscriber, which never answers that it has begun.
    fn listed_manner(&mut self) -> Manner {
        if self.yes() { Manner::Refuses } else { Manner::Accepts }
    }

    fn start(&mut self) -> Start {
        Start {
            space: self.space(),
            range: self.range(),
            event: [Event::Unmap, Event::Clear, Event::Migrate, Event::Other(9)][self.index() % 4],
            owner: self.owner(),
            blockable: self.yes(),
        }
    }

    fn question(&mut self) -> Question {
        [Question::ClearFlushYoung, Question::ClearYoung, Question::TestYoung][self.index() % 3]
    }

    // One piece, as it is the table of the operations.
    fn operation(&mut self) -> Operation {
        match self.byte() % 18 {
            0 => Operation::Insert {
                space: self.space(),
                range: self.range(),
                owner: self.owner(),
                manner: self.manner(),
            },
            1 => Operation::Remove { sub: self.index(), detach: self.yes() },
            2 => Operation::Register { space: self.space(), manner: self.listed_manner() },
            3 => Operation::Unregister { listed: self.index() },
            4 => Operation::RegisterNobody { space: self.space() },
            5 => Operation::Get { space: self.space(), key: u64::from(self.yes()) },
            6 => Operation::Put { shared: self.index() },
            7 => Operation::Synchronize,
            8 => Operation::Start(self.start()),
            9 => Operation::End { active: self.index(), only: self.yes() },
            10 => Operation::Read { sub: self.index() },
            11 => Operation::Retry { token: self.index() },
            12 => Operation::InvalidateRange { space: self.space(), range: self.range() },
            13 => Operation::Young { space: self.space(), range: self.range(), question: self.question() },
            14 => Operation::ChangePte { space: self.space(), address: self.number(), pte: self.number() },
            15 => Operation::HasNotifiers { space: self.space() },
            16 => Operation::TakeUser { space: self.space() },
            _ => Operation::DropUser { space: self.space() },
        }
    }
}
