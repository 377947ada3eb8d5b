//! What a step does: its verb and arguments, read from the words of its line.
//!
//! What can be wrong with the words alone is found here; whether the names name something is for
//! [`names`](super::names).

use mmu_notifier::{Address, Event, Owner, Pte, Range};

use super::words::Words;

/// A call that a thread of the scenario makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Space { space: String },
    User { space: String },
    Leave { space: String },
    Interval { name: String, space: String, start: Address, length: u64, temper: Temper },
    Remove { name: String },
    List { name: String, space: String, callbacks: Vec<Callback> },
    Unregister { name: String },
    Get { name: String, space: String, key: String },
    Put { name: String },
    Synchronize,
    Start { name: String, space: String, range: Range, event: Event, owner: Option<Owner>, may: Blocking },
    End { name: String },
    Read { name: String, interval: String },
    Retry { token: String },
    Young { name: String, reply: Reply },
    Ask { space: String, question: Question },
    ChangePte { space: String, address: Address, pte: Pte },
    Invalidate { space: String, range: Range },
    Hold { name: String },
    Let { name: String },
    Has { space: String },
}

/// How an interval subscription answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    Accepts,
    /// It refuses when it may not block.
    Refuses,
    /// It accepts and has a finish part.
    TwoPass,
}

/// A callback that a list subscription has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callback {
    Start,
    /// A start callback that refuses when it may not block.
    Refuses,
    End,
    Release,
    Young,
    ChangePte,
    Invalidate,
}

/// Whether the callbacks of an invalidation may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocking {
    May,
    MayNot,
}

/// What a young callback answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Yes,
    No,
}

/// What the primary MMU asks about accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    FlushAndClear(Range),
    Clear(Range),
    Test(Address),
}

impl Verb {
    /// Reads a verb and its arguments.
    ///
    /// # Errors
    /// What is wrong with them, and what would be right.
    pub(super) fn parse(words: &[&str]) -> Result<Verb, String> {
        let (&verb, arguments) = words.split_first().ok_or("a verb is missing")?;
        let usage = usage(verb).ok_or_else(|| format!("unknown verb `{verb}`"))?;
        let mut words = Words::new(usage, arguments);
        let parsed = parse_arguments(verb, &mut words)?;
        words.end()?;
        Ok(parsed)
    }
}

/// The form of each verb, as messages show it.
const USAGES: [&str; 23] = [
    "space A",
    "user A",
    "leave A",
    "interval S A START LENGTH [nofail|refuses|twopass]",
    "remove S",
    "list N A [CALLBACK...]",
    "unregister N",
    "get N A KEY",
    "put N",
    "synchronize",
    "start I A START END EVENT [nonblock] [owner=NUMBER]",
    "end I",
    "read R S",
    "retry R",
    "young N yes|no",
    "clear_flush_young A START END",
    "clear_young A START END",
    "test_young A ADDRESS",
    "change_pte A ADDRESS PTE",
    "invalidate A START END",
    "hold NAME",
    "let NAME",
    "has A",
];

fn usage(verb: &str) -> Option<&'static str> {
    USAGES.into_iter().find(|usage| usage.split(' ').next() == Some(verb))
}

// One piece, as it is the table of the verbs.
fn parse_arguments(verb: &str, words: &mut Words<'_>) -> Result<Verb, String> {
    Ok(match verb {
        "space" => Verb::Space { space: words.name()? },
        "user" => Verb::User { space: words.name()? },
        "leave" => Verb::Leave { space: words.name()? },
        "interval" => parse_interval(words)?,
        "remove" => Verb::Remove { name: words.name()? },
        "list" => {
            Verb::List { name: words.name()?, space: words.name()?, callbacks: parse_callbacks(words)? }
        }
        "unregister" => Verb::Unregister { name: words.name()? },
        "get" => Verb::Get { name: words.name()?, space: words.name()?, key: words.name()? },
        "put" => Verb::Put { name: words.name()? },
        "synchronize" => Verb::Synchronize,
        "start" => parse_start(words)?,
        "end" => Verb::End { name: words.name()? },
        "read" => Verb::Read { name: words.name()?, interval: words.name()? },
        "retry" => Verb::Retry { token: words.name()? },
        "young" => Verb::Young { name: words.name()?, reply: parse_reply(words)? },
        "clear_flush_young" => {
            Verb::Ask { space: words.name()?, question: Question::FlushAndClear(words.range()?) }
        }
        "clear_young" => Verb::Ask { space: words.name()?, question: Question::Clear(words.range()?) },
        "test_young" => Verb::Ask { space: words.name()?, question: Question::Test(words.number()?.into()) },
        "change_pte" => Verb::ChangePte {
            space: words.name()?,
            address: words.number()?.into(),
            pte: Pte(words.number()?),
        },
        "invalidate" => Verb::Invalidate { space: words.name()?, range: words.range()? },
        "hold" => Verb::Hold { name: words.name()? },
        "let" => Verb::Let { name: words.name()? },
        "has" => Verb::Has { space: words.name()? },
        _ => return Err(format!("unknown verb `{verb}`")),
    })
}

fn parse_interval(words: &mut Words<'_>) -> Result<Verb, String> {
    let (name, space) = (words.name()?, words.name()?);
    // A length of 0 or past the top is no error of the file: the insert finds the overflow.
    let (start, length) = (words.number()?.into(), words.number()?);
    let temper = match words.optional() {
        None | Some("nofail") => Temper::Accepts,
        Some("refuses") => Temper::Refuses,
        Some("twopass") => Temper::TwoPass,
        Some(other) => return Err(words.wrong(other)),
    };
    Ok(Verb::Interval { name, space, start, length, temper })
}

fn parse_callbacks(words: &mut Words<'_>) -> Result<Vec<Callback>, String> {
    let mut callbacks = Vec::new();
    while let Some(word) = words.optional() {
        let callback = match word {
            "start" => Callback::Start,
            "refuses" => Callback::Refuses,
            "end" => Callback::End,
            "release" => Callback::Release,
            "young" => Callback::Young,
            "change_pte" => Callback::ChangePte,
            "invalidate" => Callback::Invalidate,
            other => return Err(format!("unknown callback `{other}`")),
        };
        if callbacks.contains(&callback) {
            return Err(format!("callback `{word}` is named twice"));
        }
        callbacks.push(callback);
    }
    if callbacks.contains(&Callback::Start) && callbacks.contains(&Callback::Refuses) {
        return Err("`refuses` stands in place of `start`, not beside it".to_string());
    }
    Ok(callbacks)
}

fn parse_start(words: &mut Words<'_>) -> Result<Verb, String> {
    let (name, space, range) = (words.name()?, words.name()?, words.range()?);
    let event = match words.next()? {
        "unmap" => Event::Unmap,
        "clear" => Event::Clear,
        "protection_vma" => Event::ProtectionVma,
        "protection_page" => Event::ProtectionPage,
        "soft_dirty" => Event::SoftDirty,
        "migrate" => Event::Migrate,
        "exclusive" => Event::Exclusive,
        other => return Err(format!("unknown event `{other}`")),
    };
    let (mut may, mut owner) = (None, None);
    while let Some(word) = words.optional() {
        if word == "nonblock" && may.is_none() {
            may = Some(Blocking::MayNot);
        } else if let (Some(number), None) = (word.strip_prefix("owner="), owner) {
            owner = Some(words.number_of(number)?);
        } else {
            return Err(words.wrong(word));
        }
    }
    // The number 0 is nobody's, as it is in the library.
    let owner = owner.and_then(Owner::new);
    Ok(Verb::Start { name, space, range, event, owner, may: may.unwrap_or(Blocking::May) })
}

fn parse_reply(words: &mut Words<'_>) -> Result<Reply, String> {
    match words.next()? {
        "yes" => Ok(Reply::Yes),
        "no" => Ok(Reply::No),
        other => Err(words.wrong(other)),
    }
}
