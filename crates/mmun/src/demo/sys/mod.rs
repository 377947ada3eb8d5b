//! The real machine: memory mapped by the kernel ([`Mapping`]), and io_uring as its secondary MMU
//! ([`Ring`]).
//!
//! All of the demo's unsafe code stands here. What it relies on is that each buffer is an exclusive
//! resource: a [`Mapping`] owns its addresses, everything that touches its bytes or its mapping takes it
//! by reference, and everything that changes them, the kernel's I/O included, by exclusive reference.
#![expect(unsafe_code, reason = "maps memory, and hands its addresses to io_uring")]

mod memory;
mod ring;

use std::io;
use std::sync::Arc;

use super::device::{Bank, Device};
use super::files::Source;

pub(super) use memory::Mapping;
pub(super) use ring::Ring;

/// Sets up one ring a reader, each with its buffers. Nothing is registered yet.
///
/// A ring for each reader keeps locks off its I/O; the rings are plain ones, as one that was set up for
/// a single issuer would refuse that the threads which change mappings clear its slots.
pub(super) fn banks(readers: usize, buffers: usize) -> io::Result<Vec<Bank<Ring>>> {
    (0..readers)
        .map(|_| {
            let device = Arc::new(Ring::new(buffers as u32)?);
            let memories = (0..buffers).map(|_| Mapping::new()).collect::<io::Result<_>>()?;
            Ok(Bank { device, memories })
        })
        .collect()
}

/// Tries whether this kernel lets this user do what the demo does: register that many buffers, and read
/// a file.
pub(super) fn probe(source: &Source, readers: usize, buffers: usize) -> io::Result<()> {
    let mut banks = banks(readers, buffers)?;
    for bank in &banks {
        for (index, memory) in bank.memories.iter().enumerate() {
            bank.device.register(index as u32, memory)?;
        }
    }
    for Bank { device, memories } in &mut banks {
        device.read(0, &mut memories[0], source.file(), 0, 1)?;
    }
    Ok(())
}
