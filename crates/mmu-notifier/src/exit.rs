//! Exit: what happens when the last user of a space goes (clause C8).
//!
//! # Protocol
//! Users are 0 already. Both sides are closed, each under the lock under which it takes in: whoever is in hears
//! the exit, nobody comes in behind it. Then an invalidation of the whole space, event Release, of the interval
//! side; then each list subscriber's release, newest first, unless an unregister has it; all are taken off; a
//! grace period. A panic goes on after all that.

use crate::address::Range;
use crate::invalidation::{Event, Invalidation};
use crate::list::walk::Call;
use crate::platform::{self, with_context};
use crate::scan::{Own, Scan, Wanted};
use crate::space::Space;
use crate::start;
use crate::sync::full_fence;
use crate::trace;

impl Space {
    /// Makes the exit, once: called by who let the last user go, by the call that this was left to, or before
    /// that by a primary MMU that knows better.
    ///
    /// # Context
    /// May sleep.
    pub(crate) fn exit(&self) {
        // ORDERING: users, F, subscriptions; against published, F, users in `publish`.
        full_fence();
        let Some(subscriptions) = self.subscriptions().filter(|found| found.claim_exit()) else { return };
        let _span = trace::exiting(subscriptions);
        self.close(subscriptions);
        let left = platform::catch(|| subscriptions.may_sleep()).err();
        let release = Invalidation::new(Range::ALL, Event::Release);
        // CONTRACT C8.1: first the interval side, all of it.
        let first = platform::catch(|| start::release(subscriptions, &release)).err();
        let second = with_context(|context| {
            let section = subscriptions.book.claim(context);
            Call { subscriptions, context, section }.release_all()
        });
        let stamp = subscriptions.list.take_all_off();
        let wanted = Wanted::Walked { stamp, own: Own::Skipped };
        Scan::new(&subscriptions.book, wanted).wait(subscriptions, None);
        subscriptions.set_exited();
        subscriptions.list.reclaim(&subscriptions.book);
        // CONTRACT C7.4: what was put or detached in a release may have no later call than this one.
        let last = platform::catch(|| subscriptions.may_sleep()).err();
        let mut panic = left;
        [first, second, last].into_iter().for_each(|later| platform::keep_first(&mut panic, later));
        if let Some(payload) = panic {
            platform::resume(payload);
        }
    }
}
