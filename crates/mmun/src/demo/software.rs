//! A machine in software, for where there is no io_uring: [`Pages`] is memory behind a page table,
//! [`Table`] a secondary MMU that keeps copies of its entries.
//!
//! A frame lives as long as somebody keeps it, as a pinned page does: a device that keeps an old entry
//! writes to a frame that no program sees any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use mmu_notifier::{Address, Range};

use super::device::{BUFFER, Bank, Device, Memory, lock};

const FRAME: usize = 4096;

/// Where the addresses of the buffers begin, and how far apart they are.
const BASE: u64 = 0x10_0000;
const APART: u64 = 2 * BUFFER as u64;

type Frame = Arc<Mutex<Box<[u8]>>>;

/// Makes the devices and buffers of that many readers.
pub(super) fn banks(readers: usize, buffers: usize) -> Vec<Bank<Table>> {
    let mut addresses = (0u64..).map(|index| Address::new(BASE + index * APART));
    (0..readers)
        .map(|_| Bank {
            device: Arc::new(Table::new(buffers)),
            memories: addresses.by_ref().take(buffers).map(Pages::new).collect(),
        })
        .collect()
}

/// One buffer: the page table entries of its addresses, and the pages that were moved away.
pub(super) struct Pages {
    start: Address,
    mapped: Vec<Frame>,
    away: Vec<Frame>,
}

impl Pages {
    fn new(start: Address) -> Self {
        Pages { start, mapped: new_frames(), away: new_frames() }
    }
}

impl Memory for Pages {
    fn range(&self) -> Range {
        Range::from_len(self.start, BUFFER as u64).expect("the buffers lie far below the top")
    }

    fn fill(&mut self, bytes: &[u8]) {
        for (frame, part) in self.mapped.iter().zip(bytes.chunks(FRAME)) {
            lock(frame)[..part.len()].copy_from_slice(part);
        }
    }

    fn shows(&self, bytes: &[u8]) -> bool {
        self.mapped.iter().zip(bytes.chunks(FRAME)).all(|(frame, part)| lock(frame)[..part.len()] == *part)
    }

    fn unmap_and_map(&mut self) -> io::Result<()> {
        self.mapped.clear();
        self.mapped = new_frames();
        Ok(())
    }

    fn map_over(&mut self) -> io::Result<()> {
        self.mapped = new_frames();
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        self.mapped.fill_with(new_frame);
        Ok(())
    }

    fn exchange(&mut self) -> io::Result<()> {
        std::mem::swap(&mut self.mapped, &mut self.away);
        Ok(())
    }
}

/// The secondary MMU: in each slot the frames of a buffer, as they were when it was registered.
pub(super) struct Table(Vec<Mutex<Vec<Frame>>>);

impl Table {
    fn new(slots: usize) -> Self {
        Table((0..slots).map(|_| Mutex::default()).collect())
    }
}

impl Device for Table {
    type Memory = Pages;

    fn register(&self, slot: u32, memory: &Pages) -> io::Result<()> {
        *lock(&self.0[slot as usize]) = memory.mapped.clone();
        Ok(())
    }

    fn clear(&self, slot: u32) {
        lock(&self.0[slot as usize]).clear();
    }

    fn read(
        &self,
        slot: u32,
        _memory: &mut Pages,
        file: &File,
        offset: u64,
        length: usize,
    ) -> io::Result<usize> {
        let frames = lock(&self.0[slot as usize]);
        if frames.is_empty() {
            return Err(io::Error::other("nothing is registered in this slot"));
        }
        let mut done = 0;
        for frame in frames.iter().take(length.div_ceil(FRAME)) {
            let part = FRAME.min(length - done);
            let more = file.read_at(&mut lock(frame)[..part], offset + done as u64)?;
            done += more;
            if more < part {
                break;
            }
        }
        Ok(done)
    }
}

fn new_frames() -> Vec<Frame> {
    (0..BUFFER / FRAME).map(|_| new_frame()).collect()
}

fn new_frame() -> Frame {
    Arc::new(Mutex::new(vec![0; FRAME].into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_the_frames_that_were_there() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let Bank { device, mut memories } = banks(1, 1).remove(0);
        let memory = &mut memories[0];
        device.register(0, memory).unwrap();
        let mut expected = [0; FRAME + 1];
        file.read_exact_at(&mut expected, 0).unwrap();
        assert_eq!(device.read(0, memory, &file, 0, expected.len()).unwrap(), expected.len());
        assert!(memory.shows(&expected));
        for change in
            [Pages::unmap_and_map, Pages::map_over, Pages::discard, Pages::exchange as fn(&mut _) -> _]
        {
            change(memory).unwrap();
            device.read(0, memory, &file, 0, expected.len()).unwrap();
            assert!(!memory.shows(&expected));
        }
        device.clear(0);
        assert!(device.read(0, memory, &file, 0, 1).is_err());
    }
}
