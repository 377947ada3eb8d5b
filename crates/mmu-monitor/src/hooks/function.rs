//! The bounds of functions, from the table that every object carries for unwinding: it is there in stripped ones too.

use core::ops::Range;

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, NativeEndian, UnwindSection};

use super::object::Object;

/// The functions of one object.
pub(super) struct Functions<'o> {
    object: &'o Object,
    bases: BaseAddresses,
}

impl<'o> Functions<'o> {
    pub(super) fn of(object: &'o Object) -> Self {
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(object.table.start as u64)
            .set_text(object.text.start as u64);
        Functions { object, bases }
    }

    /// The function around `address`, half-open; none if the table has none.
    pub(super) fn around(&self, address: usize) -> Option<Range<usize>> {
        let bytes = self.object.table();
        let header = EhFrameHdr::new(bytes, NativeEndian).parse(&self.bases, 8).ok()?;
        let gimli::Pointer::Direct(frames) = header.eh_frame_ptr() else { return None };
        let bases = self.bases.clone().set_eh_frame(frames);
        let frames =
            EhFrame::new(bytes.get((frames as usize).checked_sub(self.object.table.start)?..)?, NativeEndian);
        let table = header.table()?;
        let entry = table.fde_for_address(&frames, &bases, address as u64, EhFrame::cie_from_offset).ok()?;
        let start = entry.initial_address() as usize;
        Some(start..start + entry.len() as usize)
    }
}
