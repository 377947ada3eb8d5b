//! What the names of a scenario name.
//!
//! Spaces, subscribers, invalidations and tokens share their names; keys have their own. A name is taken
//! for good by its step; it names nothing before that step has finished, if it failed, and after the call
//! that consumes it has begun. `hold` and `let` know a subscriber for good.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::library::Library;
use super::subscriber::Subscriber;

/// What a name names.
pub(super) enum Thing<L: Library> {
    /// Nothing, not yet or no longer.
    Nothing,
    /// An address space.
    Space(Space<L>),
    /// An interval subscription. A `read` that waits has the handle too.
    Interval { handle: Arc<L::Interval>, subscriber: Arc<Subscriber> },
    /// A list subscription.
    List { handle: L::List, subscriber: Arc<Subscriber> },
    /// A reference to a shared list subscription.
    Shared { handle: L::Shared, subscriber: Arc<Subscriber> },
    /// An invalidation.
    Active(L::Active),
    /// What a reader of the interval subscription of this name got.
    Token { token: L::Token, interval: String },
}

/// An address space and its users, all of them the script's.
pub(super) struct Space<L: Library> {
    pub(super) holder: L::Space,
    pub(super) users: Vec<L::User>,
}

/// The names of a run.
pub(super) struct Names<L: Library> {
    things: HashMap<String, Thing<L>>,
    subscribers: HashMap<String, Arc<Subscriber>>,
    keys: HashMap<String, u64>,
}

impl<L: Library> Names<L> {
    /// Knows no name.
    pub(super) fn new() -> Self {
        Names { things: HashMap::new(), subscribers: HashMap::new(), keys: HashMap::new() }
    }

    /// Takes a name for good.
    pub(super) fn take(&mut self, name: &str) -> Result<(), String> {
        match self.things.insert(name.to_string(), Thing::Nothing) {
            None => Ok(()),
            Some(_) => Err(format!("the name `{name}` was made before: a name is taken for good")),
        }
    }

    /// Lets a name that was taken name a thing.
    pub(super) fn give(&mut self, name: String, thing: Thing<L>) {
        match &thing {
            Thing::Interval { subscriber, .. } | Thing::List { subscriber, .. } => {
                self.subscribers.insert(name.clone(), Arc::clone(subscriber));
            }
            Thing::Shared { subscriber, .. } => {
                subscriber.add_reference();
                self.subscribers.insert(name.clone(), Arc::clone(subscriber));
            }
            _ => {}
        }
        self.things.insert(name, thing);
    }

    /// Gives what a name names.
    pub(super) fn thing(&mut self, name: &str) -> Result<&mut Thing<L>, String> {
        match self.things.get_mut(name) {
            None => Err(format!("unknown name `{name}`")),
            Some(Thing::Nothing) => Err(format!("`{name}` names nothing now")),
            Some(thing) => Ok(thing),
        }
    }

    /// Gives the space of this name.
    pub(super) fn space(&mut self, name: &str) -> Result<&mut Space<L>, String> {
        match self.thing(name)? {
            Thing::Space(space) => Ok(space),
            _ => Err(format!("`{name}` is no space")),
        }
    }

    /// Gives a holder of the space of this name, which must have a user.
    pub(super) fn space_in_use(&mut self, name: &str) -> Result<L::Space, String> {
        let space = self.space(name)?;
        if space.users.is_empty() { Err(without_users(name)) } else { Ok(space.holder.clone()) }
    }

    /// Gives the interval subscription of this name and its subscriber.
    pub(super) fn interval(&mut self, name: &str) -> Result<(Arc<L::Interval>, Arc<Subscriber>), String> {
        match self.thing(name)? {
            Thing::Interval { handle, subscriber } => Ok((Arc::clone(handle), Arc::clone(subscriber))),
            _ => Err(format!("`{name}` is no interval subscription")),
        }
    }

    /// Takes out what a name names, if it is of the right kind: from now on it names nothing.
    pub(super) fn consume<T>(
        &mut self,
        name: &str,
        kind: &str,
        right: impl FnOnce(Thing<L>) -> Result<T, Thing<L>>,
    ) -> Result<T, String> {
        let place = self.thing(name)?;
        right(mem::replace(place, Thing::Nothing)).map_err(|thing| {
            *place = thing;
            format!("`{name}` is no {kind}")
        })
    }

    /// Gives the subscriber that has or had this name.
    pub(super) fn subscriber(&self, name: &str) -> Result<Arc<Subscriber>, String> {
        let known = if self.things.contains_key(name) { "no subscriber" } else { "unknown" };
        self.subscribers.get(name).map(Arc::clone).ok_or_else(|| format!("the name `{name}` is {known}"))
    }

    /// Gives every subscriber of the run.
    pub(super) fn subscribers(&self) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.subscribers.values()
    }

    /// Gives a holder of each space of the run.
    pub(super) fn spaces(&self) -> Vec<L::Space> {
        let holder = |thing: &Thing<L>| match thing {
            Thing::Space(space) => Some(space.holder.clone()),
            _ => None,
        };
        self.things.values().filter_map(holder).collect()
    }

    /// Takes out all that is named.
    pub(super) fn consume_all(&mut self, which: impl Fn(&Thing<L>) -> bool) -> Vec<Thing<L>> {
        let things = self.things.values_mut().filter(|thing| which(thing));
        things.map(|thing| mem::replace(thing, Thing::Nothing)).collect()
    }

    /// Gives the number of a key.
    pub(super) fn key(&mut self, key: &str) -> u64 {
        let next = self.keys.len() as u64;
        *self.keys.entry(key.to_string()).or_insert(next)
    }
}

/// Says that a space has no users any more.
pub(super) fn without_users(name: &str) -> String {
    format!("the space `{name}` has no users any more")
}
