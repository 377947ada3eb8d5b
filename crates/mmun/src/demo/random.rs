//! A small seeded generator (SplitMix64, public domain), so that a seed repeats what was picked.

/// The generator. Equal seeds and streams give equal numbers.
pub(super) struct Random(u64);

impl Random {
    /// Starts the stream of that number: threads with streams of their own do not repeat each other.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Random(seed ^ stream.wrapping_mul(0xD605_BBB5_8C8A_BC03));
        Random(mixer.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the remainder is far below what matters here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index of a list of that length, which is not empty.
    pub(super) fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}
