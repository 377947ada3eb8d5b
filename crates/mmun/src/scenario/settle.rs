//! Tells when every thread of the process is idle or asleep, but for the one that asks.
//!
//! On Linux the kernel says so. A look reads for each task whether it sleeps and how often it was switched
//! out. Two looks in a row that found every task asleep, with equal counts, say that nobody ran between
//! them: who wakes up has to be switched out again before he sleeps again, and who is about to wake is
//! runnable at once, since the thread that woke him ran until then. A sleep that is not a futex's counts as
//! well, as long as it can be interrupted; waits inside the kernel (page faults, the kernel's own locks)
//! cannot, and count as awake.
//!
//! Elsewhere, and where `/proc` cannot be read, it is taken for granted after a while without a sign of
//! life.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Watches the threads of this process, for the thread that made it.
pub(super) struct Watch {
    /// The task that asks, if the kernel tells.
    own: Option<String>,
}

/// Somebody neither finishes nor sleeps.
#[derive(Debug)]
pub(super) struct Restless;

/// How long somebody may be awake: far longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing must happen where the kernel does not tell who sleeps.
const QUIET: Duration = Duration::from_millis(30);

/// How often a look is repeated at once before it pauses, and the longest pause.
const EAGER: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

impl Watch {
    /// Makes a watch for the calling thread.
    pub(super) fn new() -> Watch {
        let own = fs::read_link("/proc/thread-self").ok();
        let own = own.and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
        Watch { own: own.filter(|own| look(own).is_some()) }
    }

    /// Waits until every other thread is idle or asleep. `activity` changes whenever something happens; it
    /// is asked where the kernel does not tell.
    pub(super) fn wait(&self, activity: impl Fn() -> u64) -> Result<(), Restless> {
        let Some(own) = &self.own else { return wait_for_quiet(activity) };
        let began = Instant::now();
        let mut before = None;
        for round in 0.. {
            let now = look(own).and_then(Look::asleep);
            if now.is_some() && now == before {
                return Ok(());
            }
            if now.is_none() {
                pause(round);
            }
            if began.elapsed() > PATIENCE {
                break;
            }
            before = now;
        }
        Err(Restless)
    }
}

fn wait_for_quiet(activity: impl Fn() -> u64) -> Result<(), Restless> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let before = activity();
        thread::sleep(QUIET);
        if activity() == before {
            return Ok(());
        }
    }
    Err(Restless)
}

fn pause(round: u32) {
    if round < EAGER {
        thread::yield_now();
    } else {
        let pause = Duration::from_micros(20) * (round - EAGER + 1);
        thread::sleep(pause.min(LONGEST_PAUSE));
    }
}

/// What the kernel says of the other tasks.
enum Look {
    /// Somebody is awake.
    Awake,
    /// All sleep; how often each was switched out.
    Asleep(BTreeMap<String, Switches>),
}

/// How often a task gave up its processor, and how often it lost it.
type Switches = (u64, u64);

impl Look {
    fn asleep(self) -> Option<BTreeMap<String, Switches>> {
        match self {
            Look::Awake => None,
            Look::Asleep(switches) => Some(switches),
        }
    }
}

/// Looks at each task but `own`; none if the kernel does not tell.
fn look(own: &str) -> Option<Look> {
    let mut asleep = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").ok()? {
        let name = task.ok()?.file_name().into_string().ok()?;
        if name == own {
            continue;
        }
        // A task that ended meanwhile was awake when the look began.
        let Ok(status) = fs::read_to_string(format!("/proc/self/task/{name}/status")) else {
            return Some(Look::Awake);
        };
        if !field(&status, "State:")?.starts_with('S') {
            return Some(Look::Awake);
        }
        let given = field(&status, "voluntary_ctxt_switches:")?.parse().ok()?;
        let lost = field(&status, "nonvoluntary_ctxt_switches:")?.parse().ok()?;
        asleep.insert(name, (given, lost));
    }
    Some(Look::Asleep(asleep))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_status_tells_state_and_switches() {
        let status = "Name:\tmmun\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\n\
                      nonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(field(status, "State:"), Some("S (sleeping)"));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some("7"));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some("2"));
        assert_eq!(field(status, "Threads:"), None);
    }

    #[test]
    fn quiet_is_enough_where_the_kernel_tells_nothing() {
        assert!(Watch { own: None }.wait(|| 0).is_ok());
    }

    #[test]
    fn a_thread_that_works_is_awake() {
        let _alone = super::super::run::alone();
        let (sender, receiver) = channel();
        let worker = thread::spawn(move || {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(20) {}
            sender.send(()).unwrap();
        });
        Watch::new().wait(|| 0).unwrap();
        assert_eq!(receiver.try_recv(), Ok(()), "it worked until it sent");
        worker.join().unwrap();
    }
}
