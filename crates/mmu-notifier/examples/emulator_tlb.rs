//! For authors of emulators and JITs: a software TLB and a cache of decoded blocks over guest memory.
//!
//! A guest has two address spaces, and each has something that copies of it depend on:
//!
//! * *virtual*: changed by writes to the guest's page table. The TLB and the blocks depend on it.
//! * *physical*: its contents are code. A store to a page with code in it changes what blocks were made of.
//!
//! A [`Block`] watches the virtual range that it was fetched from, and each piece of physical memory that it was
//! decoded from: one that runs over the end of a page has two, far apart. It is not told of anything. Before
//! each run, and behind each of its stores, the CPU compares a few sequence numbers, as generated code would:
//! one load and one comparison each. The [`Tlb`] is told, and clears its entries under its lock; a hit takes none.
//!
//! The guest patches its own code and remaps its own data all the time, and a device on another thread rewrites
//! code as well. In the end registers must be the same as without any cache.
//!
//! ```sh
//! cargo run --release -p mmu-notifier --example emulator_tlb
//! ```

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mmu_notifier::interval::{Answer, Notifier, ReadToken, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Event, Invalidation, Range};

const PAGE: u64 = 4096;
const PAGES: usize = 8;
/// Instructions of a block at the most.
const LONGEST: usize = 16;

/// A guest virtual address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Virtual(u64);

/// A guest physical address.
#[derive(Clone, Copy)]
struct Physical(u64);

fn range(start: u64, length: u64) -> Range {
    Range::from_len(start, length).expect("no address of this guest is near the top")
}

/// An instruction: four bits each of operation, destination and source, then an immediate in the upper half.
#[derive(Clone, Copy)]
enum Op {
    AddImmediate {
        to: usize,
        value: u32,
    },
    Add {
        to: usize,
        from: usize,
    },
    Load {
        to: usize,
        at: usize,
    },
    Store {
        at: usize,
        from: usize,
    },
    /// Puts frame 6 or 7, by the lowest bit of `from`, beneath a page.
    Remap {
        page: usize,
        from: usize,
    },
    /// Counts down, and jumps unless it is 0 then. Ends a block.
    Loop {
        counter: usize,
        target: Virtual,
    },
    Halt,
}

impl Op {
    fn decode(word: u32) -> Op {
        let (to, from) = (word as usize >> 4 & 15, word as usize >> 8 & 15);
        let value = word >> 16;
        match word & 15 {
            1 => Op::AddImmediate { to, value },
            2 => Op::Add { to, from },
            3 => Op::Load { to, at: from },
            4 => Op::Store { at: to, from },
            5 => Op::Remap { page: value as usize, from },
            6 => Op::Loop { counter: to, target: Virtual(u64::from(value)) },
            _ => Op::Halt,
        }
    }

    fn changes_memory(self) -> bool {
        matches!(self, Op::Store { .. } | Op::Remap { .. })
    }

    fn ends_block(self) -> bool {
        matches!(self, Op::Loop { .. } | Op::Halt)
    }
}

fn encode(op: u32, to: u32, from: u32, value: u32) -> u32 {
    op | to << 4 | from << 8 | value << 16
}

/// The machine: memory, the page table, and the two spaces in which changes of them are announced.
struct Machine {
    virtual_space: AddressSpace,
    physical_space: AddressSpace,
    memory: Vec<AtomicU32>,
    frames: [AtomicU64; PAGES],
}

impl Machine {
    /// The program begins 20 bytes before the end of virtual page 1, and runs on into page 2.
    const ENTRY: Virtual = Virtual(2 * PAGE - 20);

    fn new() -> Machine {
        let machine = Machine {
            virtual_space: AddressSpace::new(),
            physical_space: AddressSpace::new(),
            memory: (0..PAGES as u64 * PAGE / 4).map(|_| AtomicU32::new(0)).collect(),
            // Virtual pages 1 and 2, the code, are not neighbours in memory.
            frames: [0, 5, 3, 0, 6, 0, 0, 0].map(AtomicU64::new),
        };
        let (outer, inner) = (Self::ENTRY.0 as u32, Self::ENTRY.0 as u32 + 4);
        let program = [
            encode(1, 1, 0, 20),    // outer: r1 = 20
            encode(3, 3, 4, 0),     // inner: r3 = [r4], the data
            encode(2, 2, 3, 0),     //        r2 += r3
            encode(1, 2, 0, 1),     //        r2 += 1
            encode(1, 2, 0, 2),     //        r2 += 2
            encode(1, 5, 0, 7),     //        r5 += 7: in page 2, and patched below
            encode(2, 2, 5, 0),     //        r2 += r5
            encode(6, 1, 0, inner), //        loop r1, inner
            encode(2, 7, 8, 0),     // r7 += r8: the patched instruction, with another immediate
            encode(4, 6, 7, 0),     // [r6] = r7: patch it
            encode(1, 9, 0, 1),     // r9 += 1
            encode(5, 0, 9, 4),     // put the other frame beneath page 4
            encode(6, 0, 0, outer), // loop r0, outer
            encode(0, 0, 0, 0),     // halt
        ];
        for (index, word) in program.into_iter().enumerate() {
            let at = Virtual(Self::ENTRY.0 + 4 * index as u64);
            machine.word(machine.walk(at)).store(word, Ordering::Relaxed);
        }
        machine.word(Physical(6 * PAGE)).store(1000, Ordering::Relaxed);
        machine.word(Physical(7 * PAGE)).store(3, Ordering::Relaxed);
        machine
    }

    fn registers(rounds: u32) -> [u32; 16] {
        let mut r = [0; 16];
        r[0] = rounds;
        r[4] = 4 * PAGE as u32;
        r[6] = 2 * PAGE as u32; // the patched instruction
        (r[7], r[8]) = (encode(1, 5, 0, 7), 1 << 16);
        r
    }

    fn word(&self, at: Physical) -> &AtomicU32 {
        &self.memory[at.0 as usize / 4]
    }

    /// Walks the page table.
    fn walk(&self, at: Virtual) -> Physical {
        let frame = self.frames[(at.0 / PAGE) as usize].load(Ordering::Relaxed);
        Physical(frame * PAGE + at.0 % PAGE)
    }

    /// A store, announced to whoever made something of what is there.
    fn store(&self, at: Physical, value: u32) {
        let what = Invalidation::new(range(at.0, 4), Event::ProtectionPage);
        self.physical_space.invalidate(what, || self.store_quietly(at, value));
    }

    fn store_quietly(&self, at: Physical, value: u32) {
        self.word(at).store(value, Ordering::Relaxed);
    }

    /// Every change of the page table comes through here.
    fn remap(&self, page: usize, frame: u64) {
        let write = || self.frames[page].store(frame, Ordering::Relaxed);
        self.virtual_space.invalidate(range(page as u64 * PAGE, PAGE), write);
    }
}

/// Virtual pages and the frames beneath them. An entry is the frame plus one, 0 for none.
#[derive(Default)]
struct Tlb {
    entries: [AtomicU64; PAGES],
    /// Taken to fill and to clear; a hit takes nothing.
    changing: Mutex<()>,
}

impl Notifier for Tlb {
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        let _changing = self.changing.lock().unwrap();
        for (page, entry) in self.entries.iter().enumerate() {
            if range(page as u64 * PAGE, PAGE).overlaps(what.range()) {
                entry.store(0, Ordering::Relaxed);
            }
        }
        Answer::Done
    }
}

/// Nobody is told: the sequence says it all.
type Watch = Subscription<fn(&Invalidation) -> Answer>;

/// Instructions that were decoded once, and what they depend on.
struct Block {
    ops: Vec<Op>,
    frames: Vec<usize>,
    depends_on: Vec<(Watch, ReadToken)>,
}

impl Block {
    /// Decodes the block at `start`. May run on any thread, beside stores and remaps.
    fn make(machine: &Machine, start: Virtual) -> Block {
        loop {
            // Not protected yet: how long it is, is a guess.
            let length = Self::decode(machine, start).len() as u64 * 4;
            let (mut depends_on, mut frames) = (Vec::new(), Vec::new());
            watch(&machine.virtual_space, range(start.0, length), &mut depends_on);
            for (at, length) in pieces(start, length) {
                let at = machine.walk(at);
                watch(&machine.physical_space, range(at.0, length), &mut depends_on);
                frames.push((at.0 / PAGE) as usize);
            }
            let block = Block { ops: Self::decode(machine, start), frames, depends_on };
            if block.ops.len() as u64 * 4 == length && block.is_fresh() {
                return block;
            }
        }
    }

    fn decode(machine: &Machine, start: Virtual) -> Vec<Op> {
        let mut ops = Vec::new();
        for index in 0..LONGEST as u64 {
            let at = machine.walk(Virtual(start.0 + 4 * index));
            let op = Op::decode(machine.word(at).load(Ordering::Relaxed));
            ops.push(op);
            if op.ends_block() {
                break;
            }
        }
        ops
    }

    /// What generated code does before it goes on: a load and a comparison for each dependency.
    fn is_fresh(&self) -> bool {
        self.depends_on.iter().all(|(watch, token)| watch.sequence() == token.sequence())
    }
}

fn watch(space: &AddressSpace, range: Range, depends_on: &mut Vec<(Watch, ReadToken)>) {
    let nothing: fn(&Invalidation) -> Answer = |_| Answer::Done;
    let watch = space.insert(range, nothing).expect("the guest is running");
    let token = watch.read_begin();
    depends_on.push((watch, token));
}

/// Cuts a virtual range at page boundaries.
fn pieces(start: Virtual, length: u64) -> impl Iterator<Item = (Virtual, u64)> {
    let (mut at, end) = (start.0, start.0 + length);
    std::iter::from_fn(move || {
        let next = end.min((at / PAGE + 1) * PAGE);
        let piece = (at < end).then_some((Virtual(at), next - at));
        at = next;
        piece
    })
}

/// How often things happened.
#[derive(Default)]
struct Counts {
    executed: u64,
    decoded: u64,
    blocks: u64,
    stale: u64,
    tlb_fills: u64,
}

/// A CPU with caches. Nothing of it is shared but what the library calls: the TLB.
struct Cpu<'m> {
    blocks: HashMap<Virtual, Block>,
    core: Core<'m>,
}

/// All of a CPU but its blocks, one of which it runs.
struct Core<'m> {
    machine: &'m Machine,
    tlb: Subscription<Tlb>,
    /// Frames that this CPU made blocks of; its stores elsewhere have nobody to tell. (A device cannot know, and
    /// always announces.)
    has_code: [bool; PAGES],
    counts: Counts,
}

impl<'m> Cpu<'m> {
    fn new(machine: &'m Machine) -> Self {
        let whole = range(0, PAGES as u64 * PAGE);
        let tlb = machine.virtual_space.insert(whole, Tlb::default()).expect("the guest is running");
        let core = Core { machine, tlb, has_code: [false; PAGES], counts: Counts::default() };
        Cpu { blocks: HashMap::new(), core }
    }

    /// Runs until the guest halts.
    fn run(&mut self, mut r: [u32; 16]) -> [u32; 16] {
        let mut next = Some(Machine::ENTRY);
        while let Some(pc) = next {
            let known = self.blocks.get(&pc);
            if !known.is_some_and(Block::is_fresh) {
                self.core.counts.stale += u64::from(known.is_some());
                self.blocks.insert(pc, self.core.make(pc));
            }
            next = self.core.run(&self.blocks[&pc], pc, &mut r);
        }
        r
    }
}

impl Core<'_> {
    fn make(&mut self, pc: Virtual) -> Block {
        let block = Block::make(self.machine, pc);
        block.frames.iter().for_each(|&frame| self.has_code[frame] = true);
        self.counts.blocks += 1;
        self.counts.decoded += block.ops.len() as u64;
        block
    }

    /// Runs a block that is fresh; returns where to go on, or nothing at the end.
    fn run(&mut self, block: &Block, start: Virtual, r: &mut [u32; 16]) -> Option<Virtual> {
        let mut pc = start;
        for &op in &block.ops {
            self.counts.executed += 1;
            pc = execute(self, op, pc, r)?;
            // It may have overwritten itself.
            if op.changes_memory() && !block.is_fresh() {
                break;
            }
        }
        Some(pc)
    }

    fn translate(&mut self, at: Virtual) -> Physical {
        let page = (at.0 / PAGE) as usize;
        let entry = self.tlb.entries[page].load(Ordering::Relaxed);
        let frame = if entry == 0 { self.fill(page) } else { entry - 1 };
        Physical(frame * PAGE + at.0 % PAGE)
    }

    fn fill(&mut self, page: usize) -> u64 {
        self.counts.tlb_fills += 1;
        loop {
            let token = self.tlb.read_begin();
            let frame = self.machine.walk(Virtual(page as u64 * PAGE)).0 / PAGE;
            let _changing = self.tlb.changing.lock().unwrap();
            if !self.tlb.read_retry(token) {
                self.tlb.entries[page].store(frame + 1, Ordering::Relaxed);
                return frame;
            }
        }
    }
}

/// Memory as instructions see it.
trait Bus {
    fn load(&mut self, at: Virtual) -> u32;
    fn store(&mut self, at: Virtual, value: u32);
    fn remap(&mut self, page: usize, frame: u64);
}

impl Bus for Core<'_> {
    fn load(&mut self, at: Virtual) -> u32 {
        let at = self.translate(at);
        self.machine.word(at).load(Ordering::Relaxed)
    }

    fn store(&mut self, at: Virtual, value: u32) {
        let at = self.translate(at);
        if self.has_code[(at.0 / PAGE) as usize] {
            self.machine.store(at, value);
        } else {
            self.machine.store_quietly(at, value);
        }
    }

    fn remap(&mut self, page: usize, frame: u64) {
        self.machine.remap(page, frame);
    }
}

/// The reference: every access walks, every instruction is decoded afresh.
impl Bus for &Machine {
    fn load(&mut self, at: Virtual) -> u32 {
        self.word(self.walk(at)).load(Ordering::Relaxed)
    }

    fn store(&mut self, at: Virtual, value: u32) {
        self.store_quietly(self.walk(at), value);
    }

    fn remap(&mut self, page: usize, frame: u64) {
        self.frames[page].store(frame, Ordering::Relaxed);
    }
}

/// Executes one instruction; returns where the next one is, or nothing at the end.
fn execute(bus: &mut impl Bus, op: Op, pc: Virtual, r: &mut [u32; 16]) -> Option<Virtual> {
    match op {
        Op::AddImmediate { to, value } => r[to] = r[to].wrapping_add(value),
        Op::Add { to, from } => r[to] = r[to].wrapping_add(r[from]),
        Op::Load { to, at } => r[to] = bus.load(Virtual(r[at].into())),
        Op::Store { at, from } => bus.store(Virtual(r[at].into()), r[from]),
        Op::Remap { page, from } => bus.remap(page, 6 + u64::from(r[from] & 1)),
        Op::Loop { counter, target } => {
            r[counter] -= 1;
            if r[counter] != 0 {
                return Some(target);
            }
        }
        Op::Halt => return None,
    }
    Some(Virtual(pc.0 + 4))
}

fn run_without_caches(mut machine: &Machine, mut r: [u32; 16]) -> [u32; 16] {
    let mut next = Some(Machine::ENTRY);
    while let Some(pc) = next {
        let op = Op::decode(machine.load(pc));
        next = execute(&mut machine, op, pc, &mut r);
    }
    r
}

/// The shortest story: what is stale, and what is not.
fn blocks_know_when_they_are_stale() {
    let machine = Machine::new();
    let make = |start: u64| {
        // A compiler may run on a thread of its own.
        thread::scope(|scope| {
            scope.spawn(|| Block::make(&machine, Virtual(start))).join().expect("decoding does not panic")
        })
    };
    let spanning = make(Machine::ENTRY.0 + 4);
    assert_eq!((spanning.depends_on.len(), &spanning.frames[..]), (3, &[5, 3][..]));

    machine.store(Physical(5 * PAGE), 1);
    machine.store(Physical(3 * PAGE + 0x400), 1);
    assert!(spanning.is_fresh(), "the pages of its code, but not its bytes");
    machine.store(Physical(3 * PAGE), encode(1, 5, 0, 9));
    assert!(!spanning.is_fresh(), "its second page, far from its first byte");

    let again = make(Machine::ENTRY.0 + 4);
    machine.remap(4, 7);
    assert!(again.is_fresh(), "a page of data");
    machine.remap(2, 3);
    assert!(!again.is_fresh(), "the page table beneath its second half");
}

fn main() {
    blocks_know_when_they_are_stale();

    let rounds = 10_000;
    let (plain, machine) = (Machine::new(), Machine::new());
    let expected = run_without_caches(&plain, Machine::registers(rounds));

    let (mut cpu, done) = (Cpu::new(&machine), AtomicBool::new(false));
    let registers = thread::scope(|scope| {
        // A device that writes what is there already to the last instruction of the inner loop.
        let device = scope.spawn(|| {
            let at = Physical(3 * PAGE + 8);
            let mut writes = 0;
            while !done.load(Ordering::Relaxed) {
                machine.store(at, machine.word(at).load(Ordering::Relaxed));
                writes += 1;
                thread::sleep(Duration::from_micros(50));
            }
            writes
        });
        let registers = scope.spawn(|| cpu.run(Machine::registers(rounds))).join();
        done.store(true, Ordering::Relaxed);
        let writes: u32 = device.join().expect("the device does not panic");
        println!("a device wrote to the code {writes} times while it ran");
        registers.expect("the CPU does not panic")
    });
    let Counts { executed, decoded, blocks, stale, tlb_fills } = cpu.core.counts;
    println!("{executed} instructions executed, {decoded} decoded, in {blocks} blocks ({stale} found stale)");
    println!("{tlb_fills} walks of the page table, of which {rounds} for the page that the guest remaps");
    assert_eq!(registers, expected, "with caches the guest computes the same");
    println!("registers as without caches: r2 = {}, r5 = {}", registers[2], registers[5]);
}

#[cfg(test)]
#[test]
fn the_example_runs() {
    main();
}
