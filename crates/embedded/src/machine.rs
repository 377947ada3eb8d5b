//! What this kernel supplies to the library: one CPU, of number 1, that never sleeps.

#![expect(unsafe_code, reason = "says that a context with cells in it belongs to the one CPU")]

use mmu_notifier::platform::{self, Context, Platform};

/// The machine's only CPU.
struct OneCpu {
    context: Context,
}

// SAFETY: nothing else runs: there is one CPU, without interrupts, and so one task.
unsafe impl Sync for OneCpu {}

static CPU: OneCpu = OneCpu { context: Context::with_number(1) };

// SAFETY: nothing else runs, so there is one task, which always gets the one context.
unsafe impl Platform for OneCpu {
    fn context(&self) -> Option<&Context> {
        Some(&self.context)
    }

    // `wait` and `wake` stay as they are: with nobody else to wait for, nobody waits. Nor is there a clock.
}

/// Installs the platform; the first thing that the kernel does.
pub(crate) fn install() {
    platform::install(&CPU).expect("the platform is installed once, at the start");
}

/// The program failed: it panicked.
#[cfg(target_os = "none")]
#[derive(Clone, Copy)]
pub(crate) struct Failed;

/// What became of the program, for whoever looks into the memory of the machine from outside: 0 it runs, 1 it
/// is through, 2 it failed.
#[cfg(target_os = "none")]
static OUTCOME: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Stops the CPU.
#[cfg(target_os = "none")]
pub(crate) fn halt(result: Result<crate::program::Report, Failed>) -> ! {
    let outcome = if result.is_ok() { 1 } else { 2 };
    OUTCOME.store(outcome, core::sync::atomic::Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}
