//! The call of each step: checks that its names name what it needs, and makes what its thread runs.
//!
//! The check is made when the step begins, on the thread of the run; from then on a name that the call
//! consumes names nothing. What the call gives to a name comes back with its outcome.

use std::sync::Arc;

use mmu_notifier::{Address, Event, Invalidation, Owner, Range};

use super::frees::Frees;
use super::journal::Journal;
use super::library::Library;
use super::names::{Names, Space, Thing, without_users};
use super::script::Step;
use super::subscriber::{Nature, Subscriber};
use super::verb::{Blocking, Callback, Question, Reply, Temper, Verb};
use super::worker::Call;

/// What came of a call.
pub(super) struct Outcome<L: Library> {
    /// The word that the step prints.
    pub(super) result: &'static str,
    gain: Gain<L>,
}

/// What a call gives to a name.
enum Gain<L: Library> {
    Nothing,
    Thing { name: String, thing: Thing<L> },
    User { space: String, user: L::User },
}

impl<L: Library> Outcome<L> {
    fn of(result: &'static str) -> Self {
        Outcome { result, gain: Gain::Nothing }
    }

    fn gave(result: &'static str, name: String, thing: Thing<L>) -> Self {
        Outcome { result, gain: Gain::Thing { name, thing } }
    }

    /// Lets the names know what the call gave.
    pub(super) fn apply(self, names: &mut Names<L>) {
        match self.gain {
            Gain::Nothing => {}
            Gain::Thing { name, thing } => names.give(name, thing),
            Gain::User { space, user } => {
                if let Ok(space) = names.space(&space) {
                    space.users.push(user);
                }
            }
        }
    }
}

/// What a call is made on.
pub(super) struct Stage<'r, L: Library> {
    pub(super) names: &'r mut Names<L>,
    pub(super) frees: &'r mut Frees,
    pub(super) journal: &'r Arc<Journal>,
    /// The steps that still wait, in order of their lines.
    pub(super) waiting: &'r [Step],
}

/// A call that may run.
type Prepared<L> = Result<Call<Outcome<L>>, String>;

impl<L: Library> Stage<'_, L> {
    /// Makes the call of a step.
    ///
    /// # Errors
    /// What is wrong with the step.
    pub(super) fn prepare(&mut self, step: &Step) -> Prepared<L> {
        match step.verb.clone() {
            Verb::Space { space } => self.space(space),
            Verb::User { space } => self.user(space),
            Verb::Leave { space } => self.leave(&space),
            Verb::Interval { name, space, start, length, temper } => {
                self.interval(name, &space, (start, length), temper)
            }
            Verb::Remove { name } => self.remove(&name),
            Verb::List { name, space, callbacks } => self.list(name, &space, Nature::List(callbacks)),
            Verb::Unregister { name } => self.unregister(&name),
            Verb::Get { name, space, key } => self.get(name, &space, &key),
            Verb::Put { name } => self.put(&name),
            Verb::Synchronize => Ok(self.synchronize(step.line)),
            Verb::Start { name, space, range, event, owner, may } => {
                self.start(name, &space, describe(range, event, owner), may)
            }
            Verb::End { name } => self.end(&name),
            Verb::Read { name, interval } => self.read(name, interval),
            Verb::Retry { token } => self.retry(&token),
            Verb::Young { name, reply } => self.young(&name, reply),
            Verb::Ask { space, question } => self.ask(&space, question),
            Verb::ChangePte { space, address, pte } => {
                self.tell(&space, move |space| L::change_pte(space, address, pte))
            }
            Verb::Invalidate { space, range } => self.tell(&space, move |space| L::invalidate(space, range)),
            Verb::Hold { name } => self.gate(&name, |subscriber| subscriber.gate().close()),
            Verb::Let { name } => self.gate(&name, |subscriber| subscriber.gate().open()),
            Verb::Has { space } => self.has(&space),
        }
    }
}

/// Spaces.
impl<L: Library> Stage<'_, L> {
    fn space(&mut self, name: String) -> Prepared<L> {
        self.names.take(&name)?;
        Ok(Box::new(move || {
            let user = L::space();
            let space = Space { holder: L::holder(&user), users: vec![user] };
            Outcome::gave("ok", name, Thing::Space(space))
        }))
    }

    fn user(&mut self, space: String) -> Prepared<L> {
        let holder = self.names.space(&space)?.holder.clone();
        Ok(Box::new(move || match L::user(&holder) {
            Ok(user) => Outcome { result: "ok", gain: Gain::User { space, user } },
            Err(result) => Outcome::of(result),
        }))
    }

    fn leave(&mut self, space: &str) -> Prepared<L> {
        let user = self.names.space(space)?.users.pop().ok_or_else(|| without_users(space))?;
        Ok(Box::new(move || {
            L::leave(user);
            Outcome::of("ok")
        }))
    }

    fn has(&mut self, space: &str) -> Prepared<L> {
        let holder = self.names.space_in_use(space)?;
        Ok(Box::new(move || Outcome::of(yes_or_no(L::has(&holder)))))
    }
}

/// The interval side.
impl<L: Library> Stage<'_, L> {
    fn interval(
        &mut self,
        name: String,
        space: &str,
        (start, length): (Address, u64),
        temper: Temper,
    ) -> Prepared<L> {
        let holder = self.names.space(space)?.holder.clone();
        self.names.take(&name)?;
        let subscriber = self.subscriber(&name, space, Nature::Interval(temper));
        Ok(Box::new(move || match L::insert(&holder, start, length, Arc::clone(&subscriber)) {
            Ok(handle) => Outcome::gave("ok", name, Thing::Interval { handle: Arc::new(handle), subscriber }),
            Err(result) => Outcome::of(result),
        }))
    }

    fn remove(&mut self, name: &str) -> Prepared<L> {
        let reads = |step: &&Step| matches!(&step.verb, Verb::Read { interval, .. } if interval == name);
        if let Some(reader) = self.waiting.iter().find(reads) {
            return Err(format!("`{name}` cannot be removed: the read of line {} waits for it", reader.line));
        }
        let shared = self.names.consume(name, "interval subscription", |thing| match thing {
            Thing::Interval { handle, .. } => Ok(handle),
            other => Err(other),
        })?;
        // A reader lets go of the handle before its step has finished.
        let handle = Arc::into_inner(shared).ok_or_else(|| format!("`{name}` is still read"))?;
        Ok(Box::new(move || {
            L::remove(handle);
            Outcome::of("ok")
        }))
    }

    fn read(&mut self, name: String, interval: String) -> Prepared<L> {
        let (handle, _) = self.names.interval(&interval)?;
        self.names.take(&name)?;
        Ok(Box::new(move || {
            let token = L::read(&handle);
            Outcome::gave("ok", name, Thing::Token { token, interval })
        }))
    }

    fn retry(&mut self, name: &str) -> Prepared<L> {
        let (token, interval) = match self.names.thing(name)? {
            Thing::Token { token, interval } => (*token, interval.clone()),
            _ => return Err(format!("`{name}` is no token")),
        };
        let (handle, subscriber) = self
            .names
            .interval(&interval)
            .map_err(|_| format!("`{name}` is a token of `{interval}`, which is removed"))?;
        Ok(Box::new(move || {
            // CONTRACT C3.5: under the subscriber's own lock.
            let lock = subscriber.lock();
            let stale = L::retry(&handle, token);
            drop(lock);
            Outcome::of(if stale { "stale" } else { "fresh" })
        }))
    }
}

/// The list side.
impl<L: Library> Stage<'_, L> {
    fn list(&mut self, name: String, space: &str, nature: Nature) -> Prepared<L> {
        let holder = self.names.space(space)?.holder.clone();
        self.names.take(&name)?;
        let subscriber = self.subscriber(&name, space, nature);
        Ok(Box::new(move || match L::register(&holder, Arc::clone(&subscriber)) {
            Ok(handle) => Outcome::gave("ok", name, Thing::List { handle, subscriber }),
            Err(result) => Outcome::of(result),
        }))
    }

    fn unregister(&mut self, name: &str) -> Prepared<L> {
        let handle = self.names.consume(name, "list subscription of `list`", |thing| match thing {
            Thing::List { handle, .. } => Ok(handle),
            other => Err(other),
        })?;
        Ok(Box::new(move || {
            L::unregister(handle);
            Outcome::of("ok")
        }))
    }

    fn get(&mut self, name: String, space: &str, key: &str) -> Prepared<L> {
        let holder = self.names.space(space)?.holder.clone();
        self.names.take(&name)?;
        let key = self.names.key(key);
        let make = self.subscriber(&name, space, Nature::List(vec![Callback::Release]));
        Ok(Box::new(move || match L::get(&holder, key, Arc::clone(&make)) {
            Ok((handle, subscriber)) => {
                let result = if Arc::ptr_eq(&subscriber, &make) { "made" } else { "found" };
                Outcome::gave(result, name, Thing::Shared { handle, subscriber })
            }
            Err(result) => Outcome::of(result),
        }))
    }

    fn put(&mut self, name: &str) -> Prepared<L> {
        let (handle, subscriber) =
            self.names.consume(name, "list subscription of `get`", |thing| match thing {
                Thing::Shared { handle, subscriber } => Ok((handle, subscriber)),
                other => Err(other),
            })?;
        if subscriber.drop_reference() {
            self.frees.put(subscriber);
        }
        Ok(Box::new(move || {
            L::put(handle);
            Outcome::of("ok")
        }))
    }

    fn synchronize(&mut self, line: usize) -> Call<Outcome<L>> {
        let waited_for = self.frees.claim(line);
        Box::new(move || {
            L::synchronize();
            waited_for.iter().for_each(|subscriber| subscriber.must_be_free());
            Outcome::of("ok")
        })
    }

    fn young(&mut self, name: &str, reply: Reply) -> Prepared<L> {
        let subscriber = match self.names.thing(name)? {
            Thing::List { subscriber, .. } | Thing::Shared { subscriber, .. } => Arc::clone(subscriber),
            _ => return Err(format!("`{name}` is no list subscription")),
        };
        Ok(Box::new(move || {
            subscriber.set_reply(reply);
            Outcome::of("ok")
        }))
    }
}

/// The primary MMU.
impl<L: Library> Stage<'_, L> {
    fn start(&mut self, name: String, space: &str, what: Invalidation, may: Blocking) -> Prepared<L> {
        let holder = self.names.space_in_use(space)?;
        self.names.take(&name)?;
        Ok(Box::new(move || match L::start(&holder, what, may) {
            Ok(active) => Outcome::gave("ok", name, Thing::Active(active)),
            Err(result) => Outcome::of(result),
        }))
    }

    fn end(&mut self, name: &str) -> Prepared<L> {
        let active = self.names.consume(name, "invalidation", |thing| match thing {
            Thing::Active(active) => Ok(active),
            other => Err(other),
        })?;
        Ok(Box::new(move || {
            L::end(active);
            Outcome::of("ok")
        }))
    }

    fn ask(&mut self, space: &str, question: Question) -> Prepared<L> {
        let holder = self.names.space_in_use(space)?;
        Ok(Box::new(move || Outcome::of(yes_or_no(L::ask(&holder, question)))))
    }

    fn tell(&mut self, space: &str, call: impl FnOnce(&L::Space) + Send + 'static) -> Prepared<L> {
        let holder = self.names.space_in_use(space)?;
        Ok(Box::new(move || {
            call(&holder);
            Outcome::of("ok")
        }))
    }
}

/// Subscribers of both sides.
impl<L: Library> Stage<'_, L> {
    fn subscriber(&self, name: &str, space: &str, nature: Nature) -> Arc<Subscriber> {
        Subscriber::new(name, space, nature, Arc::clone(self.journal))
    }

    fn gate(&mut self, name: &str, turn: impl FnOnce(&Subscriber) + Send + 'static) -> Prepared<L> {
        let subscriber = self.names.subscriber(name)?;
        Ok(Box::new(move || {
            turn(&subscriber);
            Outcome::of("ok")
        }))
    }
}

fn describe(range: Range, event: Event, owner: Option<Owner>) -> Invalidation {
    let what = Invalidation::new(range, event);
    owner.map_or(what, |owner| what.with_owner(owner))
}

fn yes_or_no(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}
