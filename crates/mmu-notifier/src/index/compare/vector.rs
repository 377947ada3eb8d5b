//! Vectors of x86-64, with `std` only: a kernel must not touch their registers unasked.
//!
//! What the processor has is found out when an index is made: AVX-512, AVX2, or neither. To the language a vector load
//! of what another thread stores would be a data race, however the processor sees it. So the loads stand in
//! inline assembly, which is judged by the processor: each lane is read as a whole, in some order, as relaxed
//! loads would be; and behind the loads before them, since x86-64 keeps loads in order.

#![expect(unsafe_code, reason = "vector instructions stand in inline assembly")]

use core::arch::asm;
use core::mem::offset_of;

use super::{Words, count_all_up_to, count_up_to, overlapping};
use crate::index::page::Page;

/// How entries are compared on this machine.
///
/// # Invariants
/// Made by [`best`](Self::best): the processor has what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) enum Compare {
    /// One after the other.
    Scalar,
    /// Four at a time, with AVX2 and POPCNT.
    Avx2,
    /// Eight at a time.
    Avx512,
}

impl Compare {
    /// The best that this machine has.
    pub(in crate::index) fn best() -> Self {
        if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bw") {
            Compare::Avx512
        } else if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("popcnt") {
            Compare::Avx2
        } else {
            Compare::Scalar
        }
    }

    /// The entries whose key is at most `last` and whose maximum is at least `first`, as bits.
    #[inline]
    pub(in crate::index) fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        match self {
            Compare::Scalar => overlapping(keys, maxima, first, last),
            // SAFETY: by the invariant.
            Compare::Avx2 => !unsafe { avx2::outside(keys, maxima, first, last) },
            // SAFETY: by the invariant.
            Compare::Avx512 => unsafe { avx512::overlapping(keys, maxima, first, last) },
        }
    }

    /// How many keys are at most `bound`.
    #[inline]
    pub(in crate::index) fn count_all_up_to(self, keys: &Words, bound: u64) -> usize {
        match self {
            Compare::Scalar => count_all_up_to(keys, bound),
            // SAFETY: by the invariant.
            Compare::Avx2 => unsafe { avx2::count_up_to(keys, bound) },
            // SAFETY: by the invariant.
            Compare::Avx512 => unsafe { avx512::up_to(keys, bound) }.count_ones() as usize,
        }
    }

    /// Of keys that ascend, how many are at most `bound`.
    #[inline]
    pub(in crate::index) fn count_up_to(self, keys: &Words, bound: u64) -> usize {
        match self {
            Compare::Scalar => count_up_to(keys, bound),
            // SAFETY: by the invariant.
            Compare::Avx2 => unsafe { avx2::count_up_to(keys, bound) },
            // SAFETY: by the invariant.
            Compare::Avx512 => unsafe { avx512::up_to(keys, bound) }.trailing_ones() as usize,
        }
    }

    /// Has the line of this address fetched.
    #[inline]
    pub(in crate::index) fn prefetch(self, address: *const ()) {
        // SAFETY: a prefetch of any address changes nothing and fails silently.
        unsafe {
            asm!("prefetcht0 [{address}]", address = in(reg) address, options(readonly, nostack, preserves_flags));
        }
    }

    /// Has what a search compares in a page fetched.
    #[inline]
    pub(in crate::index) fn prefetch_page(self, page: *const ()) {
        (0..LINES_COMPARED).for_each(|line| self.prefetch(page.wrapping_byte_add(64 * line)));
    }
}

// A load that crosses a line takes twice as long.
const _: () = assert!(offset_of!(Page, key) % 64 == 0 && offset_of!(Page, max) % 64 == 0);

/// How many cache lines of a page a search compares.
const LINES_COMPARED: usize = offset_of!(Page, item) / 64;

mod avx512 {
    use core::arch::asm;

    use super::Words;

    /// # Safety
    /// The processor has AVX-512 F and BW.
    #[inline]
    pub(super) unsafe fn overlapping(keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        let found: u32;
        // SAFETY: it reads the two arrays only, and what it changes is named. Registers from 16 on need no
        // vzeroupper.
        unsafe {
            asm!(
                "vpbroadcastq zmm16, {last}",
                "vpbroadcastq zmm17, {first}",
                "vpcmpuq k1, zmm16, [{keys}], 5",
                "vpcmpuq k2, zmm16, [{keys} + 64], 5",
                "vpcmpuq k3, zmm16, [{keys} + 128], 5",
                "vpcmpuq k4, zmm16, [{keys} + 192], 5",
                "vpcmpuq k1 {{k1}}, zmm17, [{maxima}], 2",
                "vpcmpuq k2 {{k2}}, zmm17, [{maxima} + 64], 2",
                "vpcmpuq k3 {{k3}}, zmm17, [{maxima} + 128], 2",
                "vpcmpuq k4 {{k4}}, zmm17, [{maxima} + 192], 2",
                "kunpckbw k1, k2, k1",
                "kunpckbw k3, k4, k3",
                "kunpckwd k1, k3, k1",
                "kmovd {found:e}, k1",
                keys = in(reg) keys, maxima = in(reg) maxima, first = in(reg) first, last = in(reg) last,
                found = lateout(reg) found,
                out("xmm16") _, out("xmm17") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _,
                options(readonly, nostack, preserves_flags)
            );
        }
        found
    }

    /// # Safety
    /// The processor has AVX-512 F and BW.
    #[inline]
    pub(super) unsafe fn up_to(keys: &Words, bound: u64) -> u32 {
        let found: u32;
        // SAFETY: as above.
        unsafe {
            asm!(
                "vpbroadcastq zmm16, {bound}",
                "vpcmpuq k1, zmm16, [{keys}], 5",
                "vpcmpuq k2, zmm16, [{keys} + 64], 5",
                "vpcmpuq k3, zmm16, [{keys} + 128], 5",
                "vpcmpuq k4, zmm16, [{keys} + 192], 5",
                "kunpckbw k1, k2, k1",
                "kunpckbw k3, k4, k3",
                "kunpckwd k1, k3, k1",
                "kmovd {found:e}, k1",
                keys = in(reg) keys, bound = in(reg) bound, found = lateout(reg) found,
                out("xmm16") _, out("k1") _, out("k2") _, out("k3") _, out("k4") _,
                options(readonly, nostack, preserves_flags)
            );
        }
        found
    }
}

mod avx2 {
    use core::arch::asm;

    use super::Words;

    /// AVX2 compares signed numbers: with the highest bit flipped they stand in the order of unsigned ones.
    const FLIP: u64 = 1 << 63;

    /// Eight entries, from `at` bytes on: into `to` a double word each, all ones if it is outside. Those at 2 and 3 change
    /// places with those at 4 and 5.
    macro_rules! eight_outside {
        ($to:literal, $at:literal) => {
            concat!(
                "vpxor ymm3, ymm2, [{keys} + ",
                $at,
                "]\n",
                "vpxor ymm4, ymm2, [{maxima} + ",
                $at,
                "]\n",
                "vpcmpgtq ymm3, ymm3, ymm1\n",
                "vpcmpgtq ymm4, ymm0, ymm4\n",
                "vpor ymm3, ymm3, ymm4\n",
                "vpxor ymm5, ymm2, [{keys} + ",
                $at,
                " + 32]\n",
                "vpxor ymm6, ymm2, [{maxima} + ",
                $at,
                " + 32]\n",
                "vpcmpgtq ymm5, ymm5, ymm1\n",
                "vpcmpgtq ymm6, ymm0, ymm6\n",
                "vpor ymm5, ymm5, ymm6\n",
                "vshufps ",
                $to,
                ", ymm3, ymm5, 0x88"
            )
        };
    }

    /// The entries whose key is above `last` or whose maximum is below `first`.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[inline]
    pub(super) unsafe fn outside(keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        let found: u32;
        // SAFETY: it reads the two arrays only, and what it changes is named; vzeroupper clears the upper half of
        // each of the sixteen.
        unsafe {
            asm!(
                "vmovq xmm0, {first}",
                "vpbroadcastq ymm0, xmm0",
                "vmovq xmm1, {last}",
                "vpbroadcastq ymm1, xmm1",
                "vmovq xmm2, {flip}",
                "vpbroadcastq ymm2, xmm2",
                eight_outside!("ymm8", "0"),
                eight_outside!("ymm9", "64"),
                eight_outside!("ymm10", "128"),
                eight_outside!("ymm11", "192"),
                // A byte for each; then the pairs of the two halves in turn, which is their order.
                "vpackssdw ymm8, ymm8, ymm9",
                "vpackssdw ymm10, ymm10, ymm11",
                "vpacksswb ymm8, ymm8, ymm10",
                "vextracti128 xmm9, ymm8, 1",
                "vpunpcklwd xmm10, xmm8, xmm9",
                "vpunpckhwd xmm11, xmm8, xmm9",
                "vpmovmskb {found:e}, xmm10",
                "vpmovmskb {upper:e}, xmm11",
                "shl {upper:e}, 16",
                "or {found:e}, {upper:e}",
                "vzeroupper",
                keys = in(reg) keys, maxima = in(reg) maxima,
                first = in(reg) first ^ FLIP, last = in(reg) last ^ FLIP, flip = in(reg) FLIP,
                found = lateout(reg) found, upper = out(reg) _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(readonly, nostack)
            );
        }
        found
    }

    /// Eight keys, from `at` bytes on: into `to` a double word each, all ones if it is above the bound.
    macro_rules! eight_above {
        ($to:literal, $at:literal) => {
            concat!(
                "vpxor ymm3, ymm2, [{keys} + ",
                $at,
                "]\n",
                "vpxor ymm4, ymm2, [{keys} + ",
                $at,
                " + 32]\n",
                "vpcmpgtq ymm3, ymm3, ymm0\n",
                "vpcmpgtq ymm4, ymm4, ymm0\n",
                "vshufps ",
                $to,
                ", ymm3, ymm4, 0x88"
            )
        };
    }

    /// How many keys are at most `bound`.
    ///
    /// # Safety
    /// The processor has AVX2 and POPCNT.
    #[inline]
    pub(super) unsafe fn count_up_to(keys: &Words, bound: u64) -> usize {
        let above: u32;
        // SAFETY: as above.
        unsafe {
            asm!(
                "vmovq xmm0, {bound}",
                "vpbroadcastq ymm0, xmm0",
                "vmovq xmm2, {flip}",
                "vpbroadcastq ymm2, xmm2",
                eight_above!("ymm8", "0"),
                eight_above!("ymm9", "64"),
                eight_above!("ymm10", "128"),
                eight_above!("ymm11", "192"),
                // A byte for each, in whatever order.
                "vpackssdw ymm8, ymm8, ymm9",
                "vpackssdw ymm10, ymm10, ymm11",
                "vpacksswb ymm8, ymm8, ymm10",
                "vpmovmskb {above:e}, ymm8",
                "popcnt {above:e}, {above:e}",
                "vzeroupper",
                keys = in(reg) keys, bound = in(reg) bound ^ FLIP, flip = in(reg) FLIP, above = lateout(reg) above,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(readonly, nostack)
            );
        }
        keys.len() - above as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::page::FAN;
    use crate::sync::AtomicU64;

    /// What there is here beside the scalar code; the best one is tried, and AVX2 wherever it is.
    fn kinds() -> impl Iterator<Item = Compare> {
        let popcnt = std::is_x86_feature_detected!("popcnt");
        let avx2 = (popcnt && std::is_x86_feature_detected!("avx2")).then_some(Compare::Avx2);
        [Some(Compare::best()), avx2].into_iter().flatten()
    }

    #[repr(align(64))]
    struct Page([Words; 2]);

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
            let page = Page([0, 1].map(|_| core::array::from_fn(|_| AtomicU64::new(random()))));
            let Page([keys, maxima]) = &page;
            let (first, last) = (random(), random());
            let overlapping = Compare::Scalar.overlapping(keys, maxima, first, last);
            let count = Compare::Scalar.count_all_up_to(keys, last);
            for kind in kinds() {
                assert_eq!(kind.overlapping(keys, maxima, first, last), overlapping, "{kind:?}");
                assert_eq!(kind.count_all_up_to(keys, last), count, "{kind:?}");
            }
            let mut ascending = core::array::from_fn::<u64, FAN, _>(|_| random());
            ascending.sort_unstable();
            let page = Page([ascending.map(AtomicU64::new), Default::default()]);
            for bound in [random(), ascending[random() as usize % FAN]] {
                let count = Compare::Scalar.count_up_to(&page.0[0], bound);
                for kind in kinds() {
                    assert_eq!(kind.count_up_to(&page.0[0], bound), count, "{kind:?}");
                }
            }
        }
    }
}
