//! Runs a sequence of operations on the real library, one call after the other, and records what happens.
//!
//! Its vectors mirror those of the [`model`](crate::model): what stands at a place there stands at the same place here.

use std::mem::take;
use std::sync::{Arc, Mutex};

use mmu_notifier::interval::{Answer, Options, ReadToken, Sequence, Subscription};
use mmu_notifier::list::{GetError, RegisterErrorKind, Registration, Shared, WouldBlock};
use mmu_notifier::{
    Address, AddressSpace, AddressSpaceRef, Invalidation, OwnedActiveInvalidation, Owner, Pte, Range,
    interval, list, synchronize,
};

use crate::operation::{Manner, Operation, Question, SPACES, Start};
use crate::run::lock;
use crate::story::{Step, is_young, line};

type Log = Arc<Mutex<Vec<String>>>;

/// A subscriber that records its callbacks.
struct Recording {
    name: String,
    number: u64,
    manner: Manner,
    log: Log,
    /// Where it notes its drop, if that is a free.
    frees: Option<Log>,
}

impl Recording {
    fn note(&self, kind: &str, what: &Invalidation) {
        let start = Start {
            space: 0,
            range: what.range(),
            event: what.event(),
            owner: what.owner(),
            blockable: what.is_blockable(),
        };
        lock(&self.log).push(line(&self.name, kind, &start));
    }

    fn refuses(&self, what: &Invalidation) -> bool {
        self.manner == Manner::Refuses && !what.is_blockable()
    }

    fn young(&self, question: Question, range: Range) -> bool {
        lock(&self.log).push(format!("{} {question:?} {}", self.name, range.start()));
        is_young(self.number, range)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(frees) = &self.frees {
            lock(frees).push(self.name.clone());
        }
    }
}

impl interval::Notifier for Recording {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        self.note("invalidate", invalidation);
        match self.manner {
            Manner::Refuses if self.refuses(invalidation) => Answer::Refused,
            Manner::Begins => Answer::Begun,
            Manner::Refuses | Manner::Accepts => Answer::Done,
        }
    }

    fn finish(&self, invalidation: &Invalidation) {
        self.note("finish", invalidation);
    }
}

impl list::Notifier for Recording {
    fn release(&self) {
        lock(&self.log).push(format!("{} release", self.name));
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        self.note("start", invalidation);
        if self.refuses(invalidation) { Err(WouldBlock) } else { Ok(()) }
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        self.note("end", invalidation);
    }

    fn invalidate_range(&self, range: Range) {
        lock(&self.log).push(format!("{} range {range}", self.name));
    }

    fn clear_flush_young(&self, range: Range) -> bool {
        self.young(Question::ClearFlushYoung, range)
    }

    fn clear_young(&self, range: Range) -> bool {
        self.young(Question::ClearYoung, range)
    }

    fn test_young(&self, address: Address) -> bool {
        self.young(Question::TestYoung, Range::to_top(address))
    }

    fn change_pte(&self, address: Address, pte: Pte) {
        lock(&self.log).push(format!("{} pte {address} {}", self.name, pte.0));
    }
}

struct Space {
    holder: AddressSpaceRef,
    users: Vec<AddressSpace>,
}

/// The real library, driven by the same operations as the model.
pub struct Driver {
    spaces: [Space; SPACES],
    subs: Vec<(u64, Subscription<Recording>)>,
    shared: Vec<Shared<Recording>>,
    listed: Vec<Registration<Recording>>,
    actives: Vec<OwnedActiveInvalidation>,
    tokens: Vec<(u64, ReadToken)>,
    names: u64,
    log: Log,
    frees: Log,
}

impl Default for Driver {
    fn default() -> Self {
        let space = || {
            let user = AddressSpace::new();
            Space { holder: user.downgrade(), users: vec![user] }
        };
        Driver {
            spaces: [space(), space()],
            subs: Vec::new(),
            shared: Vec::new(),
            listed: Vec::new(),
            actives: Vec::new(),
            tokens: Vec::new(),
            names: 0,
            log: Log::default(),
            frees: Log::default(),
        }
    }
}

impl Driver {
    /// Makes the spaces that every sequence begins with.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one call.
    pub fn step(&mut self, operation: &Operation) -> Step {
        let result = self.run(operation);
        Step { calls: take(&mut *lock(&self.log)), result }
    }

    fn run(&mut self, operation: &Operation) -> String {
        match *operation {
            Operation::Insert { space, range, owner, manner } => self.insert(space, range, owner, manner),
            Operation::Remove { sub, detach } => self.remove(sub, detach),
            Operation::Register { space, manner } => self.register(space, manner),
            Operation::Unregister { listed } => match listed.checked_rem(self.listed.len()) {
                Some(index) => said(|| self.listed.remove(index).unregister()),
                None => "nothing".to_owned(),
            },
            Operation::RegisterNobody { space } => match self.spaces[space].holder.register_nobody() {
                Ok(()) => "ok".to_owned(),
                Err(RegisterErrorKind::Gone) => "gone".to_owned(),
                Err(other) => format!("{other:?}"),
            },
            Operation::Get { space, key } => self.get(space, key),
            Operation::Put { shared } => match shared.checked_rem(self.shared.len()) {
                Some(index) => said(|| self.shared.remove(index).put()),
                None => "nothing".to_owned(),
            },
            Operation::Synchronize => {
                synchronize();
                let mut frees = take(&mut *lock(&self.frees));
                frees.sort();
                format!("freed {frees:?}")
            }
            Operation::Start(start) => self.start(&start),
            Operation::End { active, only } => match active.checked_rem(self.actives.len()) {
                Some(index) if only => said(|| self.actives.remove(index).only_end()),
                Some(index) => said(|| self.actives.remove(index).end()),
                None => "nothing".to_owned(),
            },
            Operation::Read { sub } => self.read(sub),
            Operation::Retry { token } => self.retry(token),
            Operation::InvalidateRange { space, range } => {
                self.ask(space, |space| said(|| space.invalidate_range(range)))
            }
            Operation::Young { space, range, question } => self.ask(space, |space| {
                let answer = match question {
                    Question::ClearFlushYoung => space.clear_flush_young(range),
                    Question::ClearYoung => space.clear_young(range),
                    Question::TestYoung => space.test_young(range.start()),
                };
                answer.to_string()
            }),
            Operation::ChangePte { space, address, pte } => {
                self.ask(space, |space| said(|| space.change_pte(Address::new(address), Pte(pte))))
            }
            Operation::HasNotifiers { space } => self.spaces[space].holder.has_notifiers().to_string(),
            Operation::TakeUser { space } => match self.spaces[space].holder.upgrade() {
                Some(user) => said(|| self.spaces[space].users.push(user)),
                None => "gone".to_owned(),
            },
            Operation::DropUser { space } => self.drop_user(space),
        }
    }

    fn recording(&mut self, kind: char, manner: Manner, frees: bool) -> Recording {
        self.names += 1;
        Recording {
            name: format!("{kind}{}", self.names),
            number: self.names,
            manner,
            log: self.log.clone(),
            frees: frees.then(|| self.frees.clone()),
        }
    }

    fn insert(&mut self, space: usize, range: Range, owner: Option<Owner>, manner: Manner) -> String {
        let notifier = self.recording('S', manner, false);
        let options = owner.map_or_else(Options::new, |owner| Options::new().owner(owner));
        match self.spaces[space].holder.insert_with(range, options, notifier) {
            Ok(sub) => said(|| self.subs.push((self.names, sub))),
            Err(error) if error.cause == interval::InsertErrorKind::Gone => "gone".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn remove(&mut self, sub: usize, detach: bool) -> String {
        let Some(index) = sub.checked_rem(self.subs.len()) else { return "nothing".to_owned() };
        let (name, sub) = self.subs.remove(index);
        self.tokens.retain(|(of, _)| *of != name);
        said(|| if detach { sub.detach() } else { sub.remove() })
    }

    fn register(&mut self, space: usize, manner: Manner) -> String {
        let notifier = self.recording('N', manner, false);
        match self.spaces[space].holder.register(notifier) {
            Ok(listed) => said(|| self.listed.push(listed)),
            Err(error) if error.cause == RegisterErrorKind::Gone => "gone".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn get(&mut self, space: usize, key: u64) -> String {
        let mut spare = Some(self.recording('N', Manner::Accepts, true));
        let got = self.spaces[space].holder.get(key, |_| spare.take().ok_or(()));
        if let Some(unused) = spare.as_mut() {
            // Never handed in, so its drop is no free.
            unused.frees = None;
        }
        match got {
            Ok(shared) => {
                let name = shared.name.clone();
                self.shared.push(shared);
                name
            }
            Err(GetError::Gone) => "gone".to_owned(),
            Err(other) => format!("{other:?}"),
        }
    }

    fn start(&mut self, start: &Start) -> String {
        let Space { holder, users } = &self.spaces[start.space];
        if users.is_empty() {
            return "gone".to_owned();
        }
        let bare = Invalidation::new(start.range, start.event);
        let what = start.owner.map_or(bare, |owner| bare.with_owner(owner));
        if start.blockable {
            self.actives.push(holder.invalidate_start_owned(what));
            return "ok".to_owned();
        }
        match holder.try_invalidate_start_owned(what) {
            Ok(active) => said(|| self.actives.push(active)),
            Err(_) => "refused".to_owned(),
        }
    }

    fn read(&mut self, sub: usize) -> String {
        let Some(index) = sub.checked_rem(self.subs.len()) else { return "nothing".to_owned() };
        let (name, sub) = &self.subs[index];
        let Some(token) = sub.try_read_begin() else { return "busy".to_owned() };
        // It is not busy, so the form that may sleep returns too.
        let again = sub.read_begin();
        if sub.read_retry(token) || sub.read_retry(again) {
            return "a token stale from the start".to_owned();
        }
        self.tokens.push((*name, token));
        "token".to_owned()
    }

    fn retry(&self, token: usize) -> String {
        let Some(index) = token.checked_rem(self.tokens.len()) else { return "nothing".to_owned() };
        let (name, token) = self.tokens[index];
        let Some((_, sub)) = self.subs.iter().find(|(of, _)| *of == name) else {
            return "a token without its subscription".to_owned();
        };
        match (sub.read_retry(token), sub.check_retry(token)) {
            (true, true) => "stale".to_owned(),
            (false, false) => "fresh".to_owned(),
            _ => "read_retry and check_retry differ".to_owned(),
        }
    }

    fn ask(&self, space: usize, call: impl FnOnce(&AddressSpace) -> String) -> String {
        self.spaces[space].users.first().map_or_else(|| "gone".to_owned(), call)
    }

    fn drop_user(&mut self, space: usize) -> String {
        let users = &mut self.spaces[space].users;
        if users.pop().is_none() {
            return "gone".to_owned();
        }
        if users.is_empty() { "exit" } else { "ok" }.to_owned()
    }
}

fn said(call: impl FnOnce()) -> String {
    call();
    "ok".to_owned()
}
