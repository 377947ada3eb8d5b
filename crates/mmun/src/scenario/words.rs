//! The words of a step, taken one after the other: names, numbers, ranges.

use std::slice;

use mmu_notifier::Range;

/// The arguments of a verb that are not read yet.
pub(super) struct Words<'a> {
    usage: &'static str,
    rest: slice::Iter<'a, &'a str>,
}

impl<'a> Words<'a> {
    /// Begins to read the arguments of the verb that is written as `usage` says.
    pub(super) fn new(usage: &'static str, arguments: &'a [&'a str]) -> Self {
        Words { usage, rest: arguments.iter() }
    }

    /// Takes the next word.
    pub(super) fn next(&mut self) -> Result<&'a str, String> {
        self.optional().ok_or_else(|| format!("an argument is missing: write `{}`", self.usage))
    }

    /// Takes the next word, if there is one.
    pub(super) fn optional(&mut self) -> Option<&'a str> {
        self.rest.next().copied()
    }

    /// Takes a name.
    pub(super) fn name(&mut self) -> Result<String, String> {
        let word = self.next()?;
        if is_name(word) { Ok(word.to_string()) } else { Err(not_a_name(word)) }
    }

    /// Takes a number of 64 bits.
    pub(super) fn number(&mut self) -> Result<u64, String> {
        let word = self.next()?;
        self.number_of(word)
    }

    /// Reads a number of 64 bits that is part of a word.
    pub(super) fn number_of(&self, word: &str) -> Result<u64, String> {
        u64::try_from(parse_number(word)?).map_err(|_| too_large(word))
    }

    /// Takes START and END; an END of 2^64 is the top of the space.
    pub(super) fn range(&mut self) -> Result<Range, String> {
        let start = self.number()?;
        let word = self.next()?;
        let end = parse_number(word)?;
        let Some(last) = end.checked_sub(1) else { return Err(empty(start, word)) };
        let last = u64::try_from(last).map_err(|_| too_large(word))?;
        Range::from_first_last(start, last).map_err(|_| empty(start, word))
    }

    /// Says that `word` does not fit where it stands.
    pub(super) fn wrong(&self, word: &str) -> String {
        format!("`{word}` does not belong here: write `{}`", self.usage)
    }

    /// Finds nothing left.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.optional().map_or(Ok(()), |word| Err(self.wrong(word)))
    }
}

/// Says whether `word` is a name: letters, digits, `-`, `_`.
pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Says that `word` is no name.
pub(super) fn not_a_name(word: &str) -> String {
    format!("`{word}` is no name: a name is made of letters, digits, `-` and `_`")
}

fn parse_number(word: &str) -> Result<u128, String> {
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |digits| (digits, 16));
    // `from_str_radix` would take a sign too.
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(format!("`{word}` is no number: numbers are decimal or hexadecimal with `0x`"));
    }
    u128::from_str_radix(digits, radix).map_err(|_| too_large(word))
}

fn too_large(word: &str) -> String {
    format!("the number {word} is too large: the last one is 2^64-1, as END 2^64")
}

fn empty(start: u64, end: &str) -> String {
    format!("the range {start:#x} to {end} is empty: END must lie above START")
}
