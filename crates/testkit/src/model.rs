//! The slow twin: what the contract says, in plain vectors, one call after the other.
//!
//! It keeps all there is of both spaces in one value; who wants to share it puts a mutex around it. Each
//! [`Model::step`] gives the callbacks that the call makes, in order, and what it returns, as text.

use std::mem::take;

use mmu_notifier::{Event, Owner, Range};

use crate::operation::{Manner, Operation, Question, SPACES, Start};
use crate::story::{Step, is_young, line};

/// The state of everything.
#[derive(Debug)]
pub struct Model {
    spaces: [Space; SPACES],
    subs: Vec<Sub>,
    shared: Vec<(usize, u64)>,
    listed: Vec<u64>,
    actives: Vec<Active>,
    tokens: Vec<(u64, u64)>,
    freed: Vec<String>,
    names: u64,
}

#[derive(Debug)]
struct Space {
    users: usize,
    watched: bool,
    /// Since the first insert or registration of nobody starts leave a trace.
    intervals: bool,
    /// Oldest first.
    list: Vec<Listed>,
}

#[derive(Debug)]
struct Listed {
    name: u64,
    manner: Manner,
    key: Option<u64>,
    users: usize,
}

#[derive(Debug)]
struct Sub {
    name: u64,
    space: usize,
    range: Range,
    owner: Option<Owner>,
    manner: Manner,
    hits: u64,
}

#[derive(Debug)]
struct Active {
    start: Start,
    traced: bool,
    /// Who heard the start and accepted.
    heard: Vec<u64>,
}

impl Sub {
    fn concerned(&self, start: &Start) -> bool {
        let own = self.owner.is_some() && self.owner == start.owner;
        self.space == start.space && self.range.overlaps(start.range) && !own
    }
}

impl Default for Model {
    fn default() -> Self {
        let space = || Space { users: 1, watched: false, intervals: false, list: Vec::new() };
        Model {
            spaces: [space(), space()],
            subs: Vec::new(),
            shared: Vec::new(),
            listed: Vec::new(),
            actives: Vec::new(),
            tokens: Vec::new(),
            freed: Vec::new(),
            names: 0,
        }
    }
}

impl Model {
    /// Makes the state that every sequence begins with: spaces with one user each.
    pub fn new() -> Self {
        Self::default()
    }

    /// Predicts one call.
    pub fn step(&mut self, operation: &Operation) -> Step {
        let mut calls = Vec::new();
        let result = self.predict(operation, &mut calls);
        Step { calls, result }
    }

    /// Gives the operations that end and take back all that is left, users last.
    pub fn clearance(&self) -> Vec<Operation> {
        let ends = self.actives.iter().map(|_| Operation::End { active: 0, only: false });
        let removes = self.subs.iter().map(|_| Operation::Remove { sub: 0, detach: false });
        let unregisters = self.listed.iter().map(|_| Operation::Unregister { listed: 0 });
        let puts = self.shared.iter().map(|_| Operation::Put { shared: 0 });
        let users = (0..SPACES)
            .flat_map(|space| (0..self.spaces[space].users).map(move |_| Operation::DropUser { space }));
        ends.chain(removes)
            .chain(unregisters)
            .chain(puts)
            .chain(users)
            .chain([Operation::Synchronize])
            .collect()
    }

    fn predict(&mut self, operation: &Operation, calls: &mut Vec<String>) -> String {
        match *operation {
            Operation::Insert { space, range, owner, manner } => self.insert(space, range, owner, manner),
            Operation::Remove { sub, .. } => self.remove(sub),
            Operation::Register { space, manner } => self.register(space, manner),
            Operation::Unregister { listed } => self.unregister(listed, calls),
            Operation::RegisterNobody { space } => self.with_users(space, |space| {
                (space.watched, space.intervals) = (true, true);
                "ok".to_owned()
            }),
            Operation::Get { space, key } => self.get(space, key),
            Operation::Put { shared } => self.put(shared),
            Operation::Synchronize => {
                self.freed.sort();
                format!("freed {:?}", take(&mut self.freed))
            }
            Operation::Start(start) => self.start(start, calls),
            Operation::End { active, only } => self.end(active, only, calls),
            Operation::Read { sub } => self.read(sub),
            Operation::Retry { token } => self.retry(token),
            Operation::InvalidateRange { space, range } => {
                self.ask(space, calls, |name| format!("{name} range {range}"))
            }
            Operation::Young { space, range, question } => self.young(space, range, question, calls),
            Operation::ChangePte { space, address, pte } => {
                self.ask(space, calls, |name| format!("{name} pte {address:#x} {pte}"))
            }
            Operation::HasNotifiers { space } => self.spaces[space].watched.to_string(),
            Operation::TakeUser { space } => self.with_users(space, |space| {
                space.users += 1;
                "ok".to_owned()
            }),
            Operation::DropUser { space } => self.drop_user(space, calls),
        }
    }

    fn with_users(&mut self, space: usize, call: impl FnOnce(&mut Space) -> String) -> String {
        let space = &mut self.spaces[space];
        if space.users == 0 { "gone".to_owned() } else { call(space) }
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn insert(&mut self, space: usize, range: Range, owner: Option<Owner>, manner: Manner) -> String {
        let name = self.name();
        if self.spaces[space].users == 0 {
            return "gone".to_owned();
        }
        (self.spaces[space].watched, self.spaces[space].intervals) = (true, true);
        self.subs.push(Sub { name, space, range, owner, manner, hits: 0 });
        "ok".to_owned()
    }

    fn remove(&mut self, sub: usize) -> String {
        let Some(index) = sub.checked_rem(self.subs.len()) else { return "nothing".to_owned() };
        let gone = self.subs.remove(index).name;
        self.tokens.retain(|(name, _)| *name != gone);
        "ok".to_owned()
    }

    fn register(&mut self, space: usize, manner: Manner) -> String {
        let name = self.name();
        let added = self.with_users(space, |space| {
            space.watched = true;
            space.list.push(Listed { name, manner, key: None, users: 1 });
            "ok".to_owned()
        });
        if added == "ok" {
            self.listed.push(name);
        }
        added
    }

    fn unregister(&mut self, listed: usize, calls: &mut Vec<String>) -> String {
        let Some(index) = listed.checked_rem(self.listed.len()) else { return "nothing".to_owned() };
        let gone = self.listed.remove(index);
        for space in &mut self.spaces {
            // Not there any more: the exit released it.
            if let Some(index) = space.list.iter().position(|listed| listed.name == gone) {
                space.list.remove(index);
                calls.push(format!("N{gone} release"));
            }
        }
        "ok".to_owned()
    }

    fn get(&mut self, space: usize, key: u64) -> String {
        let name = self.name();
        let result = self.with_users(space, |space| {
            if let Some(found) = space.list.iter_mut().find(|listed| listed.key == Some(key)) {
                found.users += 1;
                return format!("N{}", found.name);
            }
            space.watched = true;
            space.list.push(Listed { name, manner: Manner::Accepts, key: Some(key), users: 1 });
            format!("N{name}")
        });
        if let Some(name) = result.strip_prefix('N').and_then(|name| name.parse().ok()) {
            self.shared.push((space, name));
        }
        result
    }

    fn put(&mut self, shared: usize) -> String {
        let Some(index) = shared.checked_rem(self.shared.len()) else { return "nothing".to_owned() };
        let (space, name) = self.shared.remove(index);
        if !self.shared.contains(&(space, name)) {
            self.spaces[space].list.retain(|listed| listed.name != name);
            self.freed.push(format!("N{name}"));
        }
        "ok".to_owned()
    }

    /// Calls the intervals that `start` concerns; says whether all accepted.
    fn hit(&mut self, start: &Start, kind: &str, calls: &mut Vec<String>) -> bool {
        let mut order: Vec<usize> =
            (0..self.subs.len()).filter(|&sub| self.subs[sub].concerned(start)).collect();
        // Stable: equal starts stay in order of insertion.
        order.sort_by_key(|&sub| self.subs[sub].range.start());
        let (mut finishes, mut accepted) = (Vec::new(), true);
        for sub in order {
            let sub = &mut self.subs[sub];
            let name = format!("S{}", sub.name);
            sub.hits += 1;
            calls.push(line(&name, kind, start));
            if sub.manner == Manner::Refuses && !start.blockable {
                accepted = false;
                break;
            }
            if sub.manner == Manner::Begins {
                finishes.push(line(&name, "finish", start));
            }
        }
        calls.extend(finishes);
        accepted
    }

    fn start(&mut self, start: Start, calls: &mut Vec<String>) -> String {
        if self.spaces[start.space].users == 0 {
            return "gone".to_owned();
        }
        let traced = self.spaces[start.space].intervals;
        if !self.hit(&start, "invalidate", calls) {
            return "refused".to_owned();
        }
        let (mut heard, mut refused) = (Vec::new(), false);
        for listed in self.spaces[start.space].list.iter().rev() {
            calls.push(line(&format!("N{}", listed.name), "start", &start));
            if listed.manner == Manner::Refuses && !start.blockable {
                refused = true;
            } else {
                heard.push(listed.name);
            }
        }
        if refused {
            calls.extend(heard.iter().map(|name| line(&format!("N{name}"), "end", &start)));
            return "refused".to_owned();
        }
        self.actives.push(Active { start, traced, heard });
        "ok".to_owned()
    }

    fn end(&mut self, active: usize, only: bool, calls: &mut Vec<String>) -> String {
        let Some(index) = active.checked_rem(self.actives.len()) else { return "nothing".to_owned() };
        let Active { start, heard, .. } = self.actives.remove(index);
        for listed in self.spaces[start.space].list.iter().rev() {
            let name = format!("N{}", listed.name);
            if !only {
                calls.push(format!("{name} range {}", start.range));
            }
            if heard.contains(&listed.name) {
                calls.push(line(&name, "end", &start));
            }
        }
        "ok".to_owned()
    }

    fn read(&mut self, sub: usize) -> String {
        let Some(index) = sub.checked_rem(self.subs.len()) else { return "nothing".to_owned() };
        let sub = &self.subs[index];
        if self.actives.iter().any(|active| active.traced && sub.concerned(&active.start)) {
            return "busy".to_owned();
        }
        self.tokens.push((sub.name, sub.hits));
        "token".to_owned()
    }

    fn retry(&self, token: usize) -> String {
        let Some(index) = token.checked_rem(self.tokens.len()) else { return "nothing".to_owned() };
        let (name, hits) = self.tokens[index];
        let fresh = self.subs.iter().any(|sub| sub.name == name && sub.hits == hits);
        if fresh { "fresh" } else { "stale" }.to_owned()
    }

    fn ask(&self, space: usize, calls: &mut Vec<String>, call: impl Fn(&str) -> String) -> String {
        if self.spaces[space].users == 0 {
            return "gone".to_owned();
        }
        calls.extend(self.spaces[space].list.iter().rev().map(|listed| call(&format!("N{}", listed.name))));
        "ok".to_owned()
    }

    fn young(&self, space: usize, range: Range, question: Question, calls: &mut Vec<String>) -> String {
        if self.spaces[space].users == 0 {
            return "gone".to_owned();
        }
        let mut answer = false;
        for listed in self.spaces[space].list.iter().rev() {
            calls.push(format!("N{} {question:?} {}", listed.name, range.start()));
            answer |= is_young(listed.name, range);
            if answer && question == Question::TestYoung {
                break;
            }
        }
        answer.to_string()
    }

    fn drop_user(&mut self, space: usize, calls: &mut Vec<String>) -> String {
        match self.spaces[space].users {
            0 => return "gone".to_owned(),
            1 => self.spaces[space].users = 0,
            _ => {
                self.spaces[space].users -= 1;
                return "ok".to_owned();
            }
        }
        let start = Start { space, range: Range::ALL, event: Event::Release, owner: None, blockable: true };
        self.hit(&start, "invalidate", calls);
        let list = take(&mut self.spaces[space].list);
        calls.extend(list.iter().rev().map(|listed| format!("N{} release", listed.name)));
        "exit".to_owned()
    }
}
