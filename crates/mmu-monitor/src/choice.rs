//! Which sources a program or its user wants: the words of `MMU_MONITOR`.

use core::fmt;
use core::str::FromStr;
use std::string::{String, ToString};
use std::vec::Vec;

/// The environment variable that a user chooses by.
pub const VARIABLE: &str = "MMU_MONITOR";

/// The words that name a source.
pub(crate) const NAMES: [&str; 4] = ["dispatch", "explicit", "hooks", "userfaultfd"];

/// Which sources are to tell.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Choice {
    /// The best that works here: hooks, else what the program says explicitly.
    #[default]
    Best,
    /// None: no monitor.
    Off,
    /// These, by name; each must work.
    Named(Vec<&'static str>),
}

impl Choice {
    /// Reads `MMU_MONITOR`; without it, or empty: [`Choice::Best`].
    ///
    /// # Errors
    /// A word that names no source.
    pub fn from_environment() -> Result<Choice, UnknownSource> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Choice::Best),
            Some(words) => words.to_string_lossy().parse(),
        }
    }
}

impl FromStr for Choice {
    type Err = UnknownSource;

    /// Reads `off`, or names of sources with commas in between.
    fn from_str(words: &str) -> Result<Choice, UnknownSource> {
        let mut named = Vec::new();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match NAMES.into_iter().find(|name| *name == word) {
                Some(name) if !named.contains(&name) => named.push(name),
                Some(_) => {}
                None if word == "off" && words.trim() == "off" => return Ok(Choice::Off),
                None => return Err(UnknownSource { word: word.to_string() }),
            }
        }
        Ok(if named.is_empty() { Choice::Best } else { Choice::Named(named) })
    }
}

/// A word that names no source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSource {
    word: String,
}

impl fmt::Display for UnknownSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { word } = self;
        write!(f, "{VARIABLE}: `{word}` names no source: right are `off` alone, or a list of ")?;
        write!(f, "`{}`, with commas in between", NAMES.join("`, `"))
    }
}

impl std::error::Error for UnknownSource {}
