/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The monitor of this process's own address space: who keeps translations of its addresses is called before each change
 * of the mappings, and when it is over.
 *
 * Link with -lmmu_monitor, or preload the library: LD_PRELOAD=libmmu_monitor.so PROGRAM. Preloaded it starts by itself.
 *
 * MMU_MONITOR=off|LIST		which sources tell: their names, hooks for one, with commas in between
 * MMU_MONITOR_REPORT=stderr|PATH	preloaded: one line at exit that counts what was told
 *
 * Calls that fail say why in mmu_monitor_error(). All may be called by any thread.
 */
#ifndef MMU_MONITOR_H
#define MMU_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mmu_monitor_operation {
	MMU_MONITOR_UNMAP = 0,		/* munmap */
	MMU_MONITOR_MAP_FIXED,		/* mmap over something */
	MMU_MONITOR_REMAP,		/* mremap */
	MMU_MONITOR_PROTECT,		/* mprotect */
	MMU_MONITOR_DISCARD,		/* madvise that drops pages */
	MMU_MONITOR_REPLACE,		/* madvise that replaces them */
	MMU_MONITOR_BREAK,		/* brk that shrinks */
	MMU_MONITOR_SHARED_MEMORY,	/* shmdt, shmat over something */
	MMU_MONITOR_REMAP_FILE_PAGES,
	MMU_MONITOR_FORK,
	MMU_MONITOR_EXIT,
	MMU_MONITOR_FILE,		/* a hole in a file that is mapped */
	MMU_MONITOR_COPY_ON_WRITE,
	MMU_MONITOR_RECLAIM		/* the kernel by itself */
};

enum mmu_monitor_origin {
	MMU_MONITOR_WRAPPER = 0,	/* between mmu_monitor_external_begin and _end */
	MMU_MONITOR_FUNCTION,		/* who calls the C library's functions */
	MMU_MONITOR_INSIDE,		/* the C library by itself: in free(), at a thread's end */
	MMU_MONITOR_DIRECT,		/* a system call instruction in other code */
	MMU_MONITOR_ELSEWHERE		/* io_uring, another process */
};

enum mmu_monitor_when {
	MMU_MONITOR_MISSED = 0,
	MMU_MONITOR_AFTER,
	MMU_MONITOR_BEFORE,
	MMU_MONITOR_AROUND		/* a start before it, an end after it, in the thread that makes it */
};

enum mmu_monitor_event {
	MMU_MONITOR_EVENT_UNMAP = 0,
	MMU_MONITOR_EVENT_CLEAR,
	MMU_MONITOR_EVENT_PROTECTION_VMA,
	MMU_MONITOR_EVENT_PROTECTION_PAGE,
	MMU_MONITOR_EVENT_RELEASE,
	MMU_MONITOR_EVENT_OTHER
};

/* Addresses that change: from the first byte to the last one, which belongs to them. */
struct mmu_monitor_change {
	uint64_t first;
	uint64_t last;
	enum mmu_monitor_event event;
};

/*
 * Runs in the thread that makes the change, inside munmap(), free(), dlclose() or the end of a thread: it must not
 * allocate, free, print, start or join threads, or take a lock that is ever held over one of these.
 */
typedef void (*mmu_monitor_callback)(const struct mmu_monitor_change *change, void *data);

struct mmu_monitor_subscription;

/* Starts sources: a list as in MMU_MONITOR, or NULL for what MMU_MONITOR says. 0, or -1. */
int mmu_monitor_start(const char *sources);

/* Writes the names of the sources that tell, with commas in between, and gives the length that it has or would have. */
size_t mmu_monitor_armed(char *text, size_t size);

/* When the sources that tell do so; MISSED before the start, and for what is none of the above. */
enum mmu_monitor_when mmu_monitor_coverage(enum mmu_monitor_operation operation, enum mmu_monitor_origin origin);

/* Why the last call of this thread that failed did so; "" if none has. Valid until its next one that fails. */
const char *mmu_monitor_error(void);

/*
 * All changes: start is called before each, end when it is over; either may be NULL. With MMU_MONITOR_EVENT_RELEASE start is
 * called once, without an end: the process exits or the subscription ends. NULL if it fails.
 */
struct mmu_monitor_subscription *mmu_monitor_subscribe(mmu_monitor_callback start, mmu_monitor_callback end, void *data);

/* Changes that overlap length bytes at address: start is called before each. NULL if it fails. */
struct mmu_monitor_subscription *mmu_monitor_subscribe_range(const void *address, size_t length, mmu_monitor_callback start,
							     void *data);

/*
 * For a subscription to a range: waits until no change of it is under way, and gives a token. What was read of the
 * memory's mapping since holds as long as mmu_monitor_read_retry(), asked under the lock that the callback takes, says no.
 */
uint64_t mmu_monitor_read_begin(const struct mmu_monitor_subscription *subscription);
bool mmu_monitor_read_retry(const struct mmu_monitor_subscription *subscription, uint64_t token);

/* Ends it, and waits for callbacks under way. NULL is allowed. */
void mmu_monitor_unsubscribe(struct mmu_monitor_subscription *subscription);

/* A change that the program tells of itself, for what no source sees. */
struct mmu_monitor_external {
	/* private */
	uint64_t words[64];
};

/* 0, or -1: then there is nothing to end. The same thread ends it, and the structure stays where it is meanwhile. */
int mmu_monitor_external_begin(struct mmu_monitor_external *external, const void *address, size_t length);
void mmu_monitor_external_end(struct mmu_monitor_external *external);

/*
 * This process as an address space of mmu_notifier.h: who registers or inserts there hears of the same changes, with the
 * kernel's structures. The program is linked with -lmmu_notifier, too. The caller is a user of it, and gives that back
 * with mmput(). NULL if it fails: the monitor was not started, or libmmu_notifier is not there.
 */
struct mm_struct;
struct mm_struct *mmu_monitor_mm(void);

#ifdef __cplusplus
}
#endif

#endif
