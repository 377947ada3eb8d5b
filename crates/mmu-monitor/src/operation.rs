//! What can happen to a process's mappings, who makes it happen, and when a source tells of it.
//!
//! These three words make the table that [`Monitor::coverage`](crate::Monitor::coverage) answers from: one row an
//! [`Operation`], one column an [`Origin`], and [`When`] in each field.

use core::fmt;

/// A change of a process's mappings or of what stands behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// munmap.
    Unmap,
    /// mmap with `MAP_FIXED`, which replaces what is there.
    MapFixed,
    /// mremap: the old place, what a shrink cuts off, and the destination that `MREMAP_FIXED` replaces.
    Remap,
    /// mprotect and pkey_mprotect.
    Protect,
    /// madvise and process_madvise that drop pages: `MADV_DONTNEED`, `_DONTNEED_LOCKED`, `_FREE`, `_REMOVE`.
    Discard,
    /// The same with `MADV_PAGEOUT`, `MADV_COLLAPSE` or `MADV_GUARD_INSTALL`.
    Replace,
    /// brk that lowers the end of the heap.
    Break,
    /// shmdt, and shmat with `SHM_REMAP`.
    SharedMemory,
    /// remap_file_pages.
    RemapFilePages,
    /// fork, which write-protects what is private.
    Fork,
    /// The end of the process by exit.
    Exit,
    /// A hole punched into a file that is mapped, or its truncation, by whomever.
    File,
    /// Copy on write: the first write behind a fork, or to a private page of a file.
    CopyOnWrite,
    /// The kernel moves or takes pages by itself: reclaim, compaction, huge pages.
    Reclaim,
}

impl Operation {
    /// All of them, in an order that stays: more come behind the last. `mmu_monitor.h` numbers them so.
    pub const ALL: [Operation; 14] = [
        Operation::Unmap,
        Operation::MapFixed,
        Operation::Remap,
        Operation::Protect,
        Operation::Discard,
        Operation::Replace,
        Operation::Break,
        Operation::SharedMemory,
        Operation::RemapFilePages,
        Operation::Fork,
        Operation::Exit,
        Operation::File,
        Operation::CopyOnWrite,
        Operation::Reclaim,
    ];

    /// The operations after which an address may stand for other memory than before. A cache that pins the pages
    /// that it translates to is right if it hears of these.
    pub const REPLACING: [Operation; 8] = [
        Operation::Unmap,
        Operation::MapFixed,
        Operation::Remap,
        Operation::Discard,
        Operation::Replace,
        Operation::Break,
        Operation::SharedMemory,
        Operation::RemapFilePages,
    ];

    /// Says whether a system call of this process makes it.
    pub(crate) fn is_call(self) -> bool {
        !matches!(self, Operation::File | Operation::CopyOnWrite | Operation::Reclaim)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::Unmap => "munmap",
            Operation::MapFixed => "mmap over something",
            Operation::Remap => "mremap",
            Operation::Protect => "mprotect",
            Operation::Discard => "madvise: discard",
            Operation::Replace => "madvise: replace",
            Operation::Break => "brk that shrinks",
            Operation::SharedMemory => "shmdt, shmat over",
            Operation::RemapFilePages => "remap_file_pages",
            Operation::Fork => "fork",
            Operation::Exit => "exit",
            Operation::File => "hole in a file",
            Operation::CopyOnWrite => "copy on write",
            Operation::Reclaim => "reclaim, compaction",
        })
    }
}

/// Who makes a call that changes mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// Who calls this crate's wrappers ([`explicit`](crate::explicit)).
    Wrapper,
    /// Who calls the C library's functions, `syscall` among them: the program, its libraries, a language's runtime.
    Function,
    /// The C library and the dynamic linker by themselves: in `free`, at the end of a thread, in `dlclose`.
    Inside,
    /// A system call instruction in other code: Go, assembly, another C library.
    Direct,
    /// Another way into the kernel: a queue of io_uring, another process.
    Elsewhere,
}

impl Origin {
    /// All of them, in an order that stays, as for operations.
    pub const ALL: [Origin; 5] =
        [Origin::Wrapper, Origin::Function, Origin::Inside, Origin::Direct, Origin::Elsewhere];
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Wrapper => "wrapper",
            Origin::Function => "function",
            Origin::Inside => "inside",
            Origin::Direct => "direct",
            Origin::Elsewhere => "elsewhere",
        })
    }
}

/// When a source tells of an operation, from never to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Never.
    Missed,
    /// After the change; the source knows of each that is on its way, so a look-up that asks it is right.
    After,
    /// Before the change, and its end is not seen.
    Before,
    /// A start before the change and an end after it, in the thread that makes it.
    BeforeAndEnd,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            When::Missed => "-",
            When::After => "after",
            When::Before => "before",
            When::BeforeAndEnd => "around",
        })
    }
}
