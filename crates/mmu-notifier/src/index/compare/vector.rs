//! Vectors of x86-64, with `std` only: a kernel must not touch their registers unasked.
//!
//! What the processor has is found out when an index is made: AVX-512, AVX2, or neither. To the language a vector load
//! of what another thread stores would be a data race, however the processor sees it. So the loads stand in
//! inline assembly, which is judged by the processor: each lane is read as a whole, in some order, as relaxed
//! loads would be; and behind the loads before them, since x86-64 keeps loads in order.

#![expect(unsafe_code, reason = "vector instructions stand in inline assembly")]

use core::arch::asm;
use core::mem::offset_of;

use super::{FEW, Kind, SIGN, Scalar, Words};
use crate::index::page::Page;

/// How entries are compared on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) enum Compare {
    /// One after the other.
    Scalar(Scalar),
    /// Four at a time.
    Avx2(Avx2),
    /// Eight at a time.
    Avx512(Avx512),
}

/// The processor has AVX2 and POPCNT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) struct Avx2(());

/// The processor has AVX-512 F and BW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) struct Avx512(());

impl Avx2 {
    fn if_there() -> Option<Self> {
        (std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("popcnt")).then_some(Avx2(()))
    }
}

impl Avx512 {
    fn if_there() -> Option<Self> {
        let there = std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bw");
        there.then_some(Avx512(()))
    }
}

impl Compare {
    /// The best that this machine has.
    pub(in crate::index) fn best() -> Self {
        let best = Avx512::if_there().map(Compare::Avx512).or_else(|| Avx2::if_there().map(Compare::Avx2));
        best.unwrap_or(Compare::Scalar(Scalar))
    }
}

/// Says something with the kind of a [`Compare`].
macro_rules! of_kind {
    ($compare:expr, $kind:ident => $say:expr) => {
        match $compare {
            $crate::index::compare::Compare::Avx2($kind) => $say,
            $crate::index::compare::Compare::Avx512($kind) => $say,
            $crate::index::compare::Compare::Scalar($kind) => $say,
        }
    };
}

pub(in crate::index) use of_kind;

/// Says in a register whether a key, so many bytes from the first, is below the bound.
macro_rules! is_below {
    ($to:literal, $at:literal) => {
        concat!(
            "xor {",
            $to,
            ":e}, {",
            $to,
            ":e}\n",
            "cmp [{keys} + ",
            $at,
            "], {bound}\n",
            "setl {",
            $to,
            ":l}"
        )
    };
}

/// Of the first [`FEW`] keys, of which the first is below `bound`, how many are. By hand, as compilers take a register for
/// each of them, and save so many first.
#[inline(always)]
fn count_few_below(keys: &Words, bound: u64) -> usize {
    const { assert!(FEW == 8) };
    let below: u64;
    // SAFETY: it reads the array only, and what it changes is named.
    unsafe {
        asm!(
            is_below!("below", "8"),
            is_below!("others", "16"),
            is_below!("more", "24"),
            "lea {below:e}, [{below} + {more} + 1]",
            is_below!("more", "32"),
            "add {others:e}, {more:e}",
            is_below!("more", "40"),
            "add {below:e}, {more:e}",
            is_below!("more", "48"),
            "add {others:e}, {more:e}",
            is_below!("more", "56"),
            "add {below:e}, {more:e}",
            "add {below:e}, {others:e}",
            keys = in(reg) keys, bound = in(reg) bound ^ SIGN,
            below = out(reg) below, others = out(reg) _, more = out(reg) _,
            options(readonly, nostack)
        );
    }
    below as usize
}

/// Has the line of this address fetched.
#[inline(always)]
fn prefetch(address: *const ()) {
    // SAFETY: a prefetch of any address changes nothing and fails silently.
    unsafe {
        asm!("prefetcht0 [{address}]", address = in(reg) address, options(readonly, nostack, preserves_flags));
    }
}

/// Has what a search compares in a page fetched.
#[inline(always)]
fn prefetch_page(page: *const ()) {
    (0..LINES_COMPARED).for_each(|line| prefetch(page.wrapping_byte_add(64 * line)));
}

/// Has what tells the entries of a leaf fetched, in their order.
#[inline(always)]
fn prefetch_entries(leaf: *const ()) {
    let head = 0..offset_of!(Page, key) / 64;
    let items = LINES_COMPARED..size_of::<Page>() / 64;
    head.chain(items).for_each(|line| prefetch(leaf.wrapping_byte_add(64 * line)));
}

// A load that crosses a line takes twice as long.
const _: () = assert!(offset_of!(Page, key) % 64 == 0 && offset_of!(Page, max) % 64 == 0);

/// How many cache lines of a page a search compares.
const LINES_COMPARED: usize = offset_of!(Page, item) / 64;

impl Avx512 {
    /// The entries whose key is below `bound`, as bits.
    #[inline(always)]
    fn below(self, keys: &Words, bound: u64) -> u32 {
        let found: u32;
        // SAFETY: the processor has it; it reads the array only, and what it changes is named. Registers from 16 on need no
        // vzeroupper.
        unsafe {
            asm!(
                "vpbroadcastq zmm16, {bound}",
                "vpcmpq k1, zmm16, [{keys}], 6",
                "vpcmpq k2, zmm16, [{keys} + 64], 6",
                "vpcmpq k3, zmm16, [{keys} + 128], 6",
                "vpcmpq k4, zmm16, [{keys} + 192], 6",
                "kunpckbw k1, k2, k1",
                "kunpckbw k3, k4, k3",
                "kunpckwd k1, k3, k1",
                "kmovd {found:e}, k1",
                keys = in(reg) keys, bound = in(reg) bound ^ SIGN, found = lateout(reg) found,
                out("xmm16") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _,
                options(readonly, nostack, preserves_flags)
            );
        }
        found
    }
}

impl Kind for Avx512 {
    #[inline(always)]
    fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64, live: u32) -> u32 {
        let found: u32;
        // SAFETY: the processor has it; it reads the two arrays only, and what it changes is named. Registers from 16
        // on need no vzeroupper.
        unsafe {
            asm!(
                "vpbroadcastq zmm16, {last}",
                "vpbroadcastq zmm17, {first}",
                "vpcmpq k1, zmm16, [{keys}], 5",
                "vpcmpq k2, zmm16, [{keys} + 64], 5",
                "vpcmpq k3, zmm16, [{keys} + 128], 5",
                "vpcmpq k4, zmm16, [{keys} + 192], 5",
                "vpcmpq k1 {{k1}}, zmm17, [{maxima}], 2",
                "vpcmpq k2 {{k2}}, zmm17, [{maxima} + 64], 2",
                "vpcmpq k3 {{k3}}, zmm17, [{maxima} + 128], 2",
                "vpcmpq k4 {{k4}}, zmm17, [{maxima} + 192], 2",
                "kunpckbw k1, k2, k1",
                "kunpckbw k3, k4, k3",
                "kunpckwd k1, k3, k1",
                "kmovd {found:e}, k1",
                keys = in(reg) keys, maxima = in(reg) maxima, first = in(reg) first ^ SIGN, last = in(reg) last ^ SIGN,
                found = lateout(reg) found,
                out("xmm16") _, out("xmm17") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _,
                options(readonly, nostack, preserves_flags)
            );
        }
        live & found
    }

    #[inline(always)]
    fn count_all_below(self, keys: &Words, bound: u64) -> usize {
        self.below(keys, bound).count_ones() as usize
    }

    #[inline(always)]
    fn count_below(self, keys: &Words, bound: u64) -> usize {
        self.below(keys, bound).trailing_ones() as usize
    }

    #[inline(always)]
    fn count_few_below(self, keys: &Words, bound: u64) -> usize {
        count_few_below(keys, bound)
    }

    #[inline(always)]
    fn prefetch(self, address: *const ()) {
        prefetch(address);
    }

    #[inline(always)]
    fn prefetch_page(self, page: *const ()) {
        prefetch_page(page);
    }

    #[inline(always)]
    fn prefetch_entries(self, leaf: *const ()) {
        prefetch_entries(leaf);
    }
}

/// Assembly with AVX2 that reads two arrays at the most, and changes what is named and the vector registers: vzeroupper, its
/// last instruction, clears the upper half of each of the sixteen.
macro_rules! avx2 {
    ($($part:tt)*) => {
        asm!(
            $($part)*
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(readonly, nostack)
        )
    };
}

/// The bounds of a range, in ymm0 and ymm1.
macro_rules! bounds {
    () => {
        "vmovq xmm0, {first}\nvpbroadcastq ymm0, xmm0\nvmovq xmm1, {last}\nvpbroadcastq ymm1, xmm1"
    };
}

/// Four entries, from `at` bytes on, against these bounds: into `to` a quad word each, all ones if it is outside.
macro_rules! four_outside {
    ($to:literal, $other:literal, $at:expr) => {
        concat!(
            "vmovdqa ",
            $to,
            ", [{keys} + ",
            $at,
            "]\nvpcmpgtq ",
            $to,
            ", ",
            $to,
            ", ymm1\nvpcmpgtq ",
            $other,
            ", ymm0, [{maxima} + ",
            $at,
            "]\nvpor ",
            $to,
            ", ",
            $to,
            ", ",
            $other,
            "\n"
        )
    };
}

/// Eight entries in the same way: into `to` a double word each. Those at 2 and 3 change places with those at 4 and 5.
macro_rules! eight_outside {
    ($to:literal, $at:literal) => {
        concat!(
            four_outside!("ymm2", "ymm3", $at),
            four_outside!("ymm4", "ymm5", concat!($at, " + 32")),
            "vshufps ",
            $to,
            ", ymm2, ymm4, 0x88"
        )
    };
}

/// Eight keys, from `at` bytes on, against the bound in ymm0: as above, all ones if it is below.
macro_rules! eight_below {
    ($to:literal, $at:literal) => {
        concat!(
            "vpcmpgtq ymm2, ymm0, [{keys} + ",
            $at,
            "]\n",
            "vpcmpgtq ymm3, ymm0, [{keys} + ",
            $at,
            " + 32]\n",
            "vshufps ",
            $to,
            ", ymm2, ymm3, 0x88"
        )
    };
}

impl Avx2 {
    /// Those of all entries whose key is above `last` or whose maximum is below `first`.
    #[inline(always)]
    fn outside(self, keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        let found: u32;
        // SAFETY: the processor has it; it reads the two arrays only, and what it changes is named.
        unsafe {
            avx2!(
                bounds!(),
                eight_outside!("ymm8", "0"),
                eight_outside!("ymm9", "64"),
                eight_outside!("ymm10", "128"),
                eight_outside!("ymm11", "192"),
                // A byte for each, in whatever order: that will do if all are outside.
                "vpackssdw ymm8, ymm8, ymm9",
                "vpackssdw ymm10, ymm10, ymm11",
                "vpacksswb ymm8, ymm8, ymm10",
                "vpmovmskb {found:e}, ymm8",
                "cmp {found:e}, -1",
                "je 2f",
                // The pairs of the two halves in turn, which is their order.
                "vextracti128 xmm9, ymm8, 1",
                "vpunpcklwd xmm10, xmm8, xmm9",
                "vpunpckhwd xmm11, xmm8, xmm9",
                "vpmovmskb {found:e}, xmm10",
                "vpmovmskb {upper:e}, xmm11",
                "shl {upper:e}, 16",
                "or {found:e}, {upper:e}",
                "2:",
                "vzeroupper",
                keys = in(reg) keys, maxima = in(reg) maxima,
                first = in(reg) first ^ SIGN, last = in(reg) last ^ SIGN,
                found = lateout(reg) found, upper = out(reg) _,
            );
        }
        found
    }

    /// The same of the first four; the upper bits say nothing.
    #[inline(always)]
    fn outside_of_four(self, keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        let found: u32;
        // SAFETY: as above.
        unsafe {
            avx2!(
                bounds!(),
                four_outside!("ymm2", "ymm3", "0"),
                "vmovmskpd {found:e}, ymm2",
                "vzeroupper",
                keys = in(reg) keys, maxima = in(reg) maxima,
                first = in(reg) first ^ SIGN, last = in(reg) last ^ SIGN, found = lateout(reg) found,
            );
        }
        found
    }

    /// The same of the first half; the upper bits say nothing.
    #[inline(always)]
    fn outside_of_half(self, keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        let found: u32;
        // SAFETY: as above.
        unsafe {
            avx2!(
                bounds!(),
                eight_outside!("ymm8", "0"),
                eight_outside!("ymm9", "64"),
                "vpackssdw ymm8, ymm8, ymm9",
                "vpacksswb ymm8, ymm8, ymm8",
                "vpmovmskb {found:e}, ymm8",
                "cmp {found:e}, -1",
                "je 2f",
                "vextracti128 xmm9, ymm8, 1",
                "vpunpcklwd xmm8, xmm8, xmm9",
                "vpmovmskb {found:e}, xmm8",
                "2:",
                "vzeroupper",
                keys = in(reg) keys, maxima = in(reg) maxima,
                first = in(reg) first ^ SIGN, last = in(reg) last ^ SIGN, found = lateout(reg) found,
            );
        }
        found
    }
}

impl Kind for Avx2 {
    #[inline(always)]
    fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64, live: u32) -> u32 {
        if live >> 4 == 0 {
            live & !self.outside_of_four(keys, maxima, first, last)
        } else if live >> 16 == 0 {
            live & !self.outside_of_half(keys, maxima, first, last)
        } else {
            live & !self.outside(keys, maxima, first, last)
        }
    }

    #[inline(always)]
    fn count_all_below(self, keys: &Words, bound: u64) -> usize {
        let below: u32;
        // SAFETY: as above.
        unsafe {
            avx2!(
                "vmovq xmm0, {bound}",
                "vpbroadcastq ymm0, xmm0",
                eight_below!("ymm8", "0"),
                eight_below!("ymm9", "64"),
                eight_below!("ymm10", "128"),
                eight_below!("ymm11", "192"),
                // A byte for each, in whatever order.
                "vpackssdw ymm8, ymm8, ymm9",
                "vpackssdw ymm10, ymm10, ymm11",
                "vpacksswb ymm8, ymm8, ymm10",
                "vpmovmskb {below:e}, ymm8",
                "popcnt {below:e}, {below:e}",
                "vzeroupper",
                keys = in(reg) keys, bound = in(reg) bound ^ SIGN, below = lateout(reg) below,
            );
        }
        below as usize
    }

    #[inline(always)]
    fn count_below(self, keys: &Words, bound: u64) -> usize {
        self.count_all_below(keys, bound)
    }

    #[inline(always)]
    fn count_few_below(self, keys: &Words, bound: u64) -> usize {
        count_few_below(keys, bound)
    }

    #[inline(always)]
    fn prefetch(self, address: *const ()) {
        prefetch(address);
    }

    #[inline(always)]
    fn prefetch_page(self, page: *const ()) {
        prefetch_page(page);
    }

    #[inline(always)]
    fn prefetch_entries(self, leaf: *const ()) {
        prefetch_entries(leaf);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;
    use crate::index::page::FAN;
    use crate::sync::Ordering;

    #[repr(align(64))]
    struct Page([Words; 2]);

    /// Compares a kind with the scalar one.
    fn compare_with_scalar(kind: impl Kind, random: &mut impl FnMut() -> u64) {
        let page = Page([0, 1].map(|_| core::array::from_fn(|_| Word::new(random()))));
        let Page([keys, maxima]) = &page;
        let (first, last) = (random(), random());
        for live in [u32::MAX, 0x9876_abcd, 0x8421, 0x18, 0xf, 0xa, 1, 0] {
            let overlapping = Scalar.overlapping(keys, maxima, first, last, live);
            assert_eq!(kind.overlapping(keys, maxima, first, last, live), overlapping, "{live:#x}");
        }
        assert_eq!(kind.count_all_below(keys, last), Scalar.count_all_below(keys, last));
        let mut ascending = core::array::from_fn::<u64, FAN, _>(|_| random());
        ascending.sort_unstable();
        let page = Page([ascending.map(Word::new), core::array::from_fn(|_| Word::new(0))]);
        for bound in [random(), ascending[random() as usize % FAN]] {
            assert_eq!(kind.count_below(&page.0[0], bound), Scalar.count_below(&page.0[0], bound));
        }
        page.0[0][0].store(0, Ordering::Relaxed);
        for bound in [random().max(1), ascending[1 + random() as usize % FEW].max(1)] {
            let few = page.0[0][..FEW].iter().filter(|key| key.load(Ordering::Relaxed) < bound).count();
            assert_eq!(kind.count_few_below(&page.0[0], bound), few);
            assert_eq!(Scalar.count_few_below(&page.0[0], bound), few);
        }
    }

    #[test]
    fn every_kind_finds_what_the_scalar_one_finds() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            match state >> 61 {
                0 => u64::MAX,
                1 => 0,
                2 => 1 << 63,
                3 => (1 << 63) - 1,
                4 => state >> 33 & 7,
                _ => state.rotate_left(17),
            }
        };
        for _ in 0..2_000 {
            Avx2::if_there().into_iter().for_each(|kind| compare_with_scalar(kind, &mut random));
            Avx512::if_there().into_iter().for_each(|kind| compare_with_scalar(kind, &mut random));
        }
    }
}
