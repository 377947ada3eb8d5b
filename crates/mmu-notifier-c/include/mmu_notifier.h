/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MMU notifiers in user space, with the kernel's names: types, events, callbacks, calls.
 *
 * What begins with mmun_ has no counterpart in a kernel. docs/c.md says how to start, and what the ABI promises.
 * Members that begin with mmun_ are the library's. None needs to be initialised, but for the ops of a mmu_notifier. The
 * order of members is that of their use, not the kernel's: name them. The types come first, then the calls; what is
 * inline stands in mmu_notifier_inline.h.
 */
#ifndef MMU_NOTIFIER_H
#define MMU_NOTIFIER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "mmu_notifier_compat.h"

#define MMUN_VERSION_MAJOR 0
#define MMUN_VERSION_MINOR 1

#ifdef __cplusplus
extern "C" {
#endif

struct mmu_notifier;
struct mmu_notifier_range;
struct mmu_notifier_subscriptions;
struct mmu_interval_notifier;

/* Made by mm_alloc() only. */
struct mm_struct {
	/* Not NULL once anybody registered or inserted; see mm_has_notifiers(). */
	struct mmu_notifier_subscriptions *notifier_subscriptions;
	/* private: more follows. */
	unsigned long mmun_state;
};

#define MMUN_VM_READ 1ul
#define MMUN_VM_WRITE 2ul
#define MMUN_VM_EXEC 4ul
#ifndef VM_READ
#define VM_READ MMUN_VM_READ
#define VM_WRITE MMUN_VM_WRITE
#define VM_EXEC MMUN_VM_EXEC
#endif

/* What the library reads of a mapping: its permissions. */
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	unsigned long vm_flags;
};

/* Why a range is invalidated. Numbers that are not listed are passed on as they are. */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP = 0,
	MMU_NOTIFY_CLEAR,
	MMU_NOTIFY_PROTECTION_VMA,
	MMU_NOTIFY_PROTECTION_PAGE,
	MMU_NOTIFY_SOFT_DIRTY,
	MMU_NOTIFY_RELEASE,
	MMU_NOTIFY_MIGRATE,
	MMU_NOTIFY_EXCLUSIVE,
};

/* In flags of a range: callbacks may sleep. */
#define MMU_NOTIFIER_RANGE_BLOCKABLE (1 << 0)

/* An invalidation, from its start to its end. An end of 0 is the top of the address space. */
struct mmu_notifier_range {
	struct vm_area_struct *vma;
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned flags;
	enum mmu_notifier_event event;
	union {
		void *owner;
		void *migrate_pgmap_owner;
	};
	/* private: */
	unsigned long mmun_private[9];
};

/*
 * What a subscriber to a whole address space hears; each may be missing. Ranges are those of the calls below. start and
 * end may sleep if the range may block, release and alloc_notifier always, free_notifier never, the others as their
 * caller may.
 */
struct mmu_notifier_ops {
	/* The space exits: drop everything, make no more. */
	void (*release)(struct mmu_notifier *subscription, struct mm_struct *mm);
	/* Whether it used the range, or the address. */
	int (*clear_flush_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long start,
				 unsigned long end);
	int (*clear_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long start,
			   unsigned long end);
	int (*test_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long address);
	/* The entry of an address is replaced. */
	void (*change_pte)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long address,
			   pte_t pte);
	/* Drop the range, and make nothing of it until the end; 0, or -EAGAIN if it would have to sleep and may not. */
	int (*invalidate_range_start)(struct mmu_notifier *subscription, const struct mmu_notifier_range *range);
	void (*invalidate_range_end)(struct mmu_notifier *subscription, const struct mmu_notifier_range *range);
	/* Flush what it has in a TLB of its own of the page table that it shares. */
	union {
		void (*invalidate_range)(struct mmu_notifier *subscription, struct mm_struct *mm,
					 unsigned long start, unsigned long end);
		void (*arch_invalidate_secondary_tlbs)(struct mmu_notifier *subscription, struct mm_struct *mm,
						       unsigned long start, unsigned long end);
	};
	/* For mmu_notifier_get(): memory, or ERR_PTR; and its end. */
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *mm);
	void (*free_notifier)(struct mmu_notifier *subscription);
};

/* A subscription to a whole address space, to be embedded. ops is set before it is registered. */
struct mmu_notifier {
	unsigned long mmun_mark;
	const struct mmu_notifier_ops *ops;
	unsigned long mmun_private[29];
	struct mm_struct *mm;
	struct hlist_node hlist;
	unsigned int users;
	unsigned int mmun_padding;
	union {
		struct rcu_head rcu;
		unsigned long mmun_spare[2];
	};
};

/* What waits for a second pass: the driver's memory, from invalidate_start to invalidate_finish. */
struct mmu_interval_notifier_finish {
	struct llist_node link;
	struct mmu_interval_notifier *notifier;
};

/*
 * What a subscriber to a range hears: invalidate, or both of the others. Each drops, under the subscriber's lock, what
 * it has of the range, and calls mmu_interval_set_seq() with cur_seq; false if it would have to sleep and may not.
 */
struct mmu_interval_notifier_ops {
	bool (*invalidate)(struct mmu_interval_notifier *interval_sub, const struct mmu_notifier_range *range,
			   unsigned long cur_seq);
	bool (*invalidate_start)(struct mmu_interval_notifier *interval_sub,
				 const struct mmu_notifier_range *range, unsigned long cur_seq,
				 struct mmu_interval_notifier_finish **finish);
	/* A second pass, if the first has written to finish what it will get. */
	void (*invalidate_finish)(struct mmu_interval_notifier_finish *finish);
};

/* A subscription to a range, to be embedded: two lines of a cache, of which hits and reads use the first. */
struct mmu_interval_notifier {
	unsigned long mmun_mark;
	unsigned long mmun_node[3];
	unsigned long invalidate_seq;
	unsigned long mmun_quiet;
	struct {
		unsigned long start;
		unsigned long last;
	} interval_tree;
	union {
		unsigned long mmun_private[6];
		struct hlist_node deferred_item;
	};
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm;
};

/*
 * The calls. Ranges are bytes from start to end, the end not included; an end of 0 is the top of the address space.
 * Errors are negative errno. What "sleeps" may not be called in a callback that may not, nor under a lock that a
 * callback takes; the others may be called under spinlocks. Misuse is reported (mmun_set_report_hook) and harmless.
 */

/* Address spaces: users use one, holders keep its memory. */

/* Makes one with one user, the caller. NULL without memory. */
struct mm_struct *mm_alloc(void);
/* Takes one more user; the caller has one. */
void mmget(struct mm_struct *mm);
/* Takes one more user, unless there are none any more; the caller is a holder. */
bool mmget_not_zero(struct mm_struct *mm);
/* Gives a user back. The last one makes the exit, and drops what they held together. Sleeps. */
void mmput(struct mm_struct *mm);
/* The same on a thread of its own; here only if there can be none. */
void mmput_async(struct mm_struct *mm);
/* Takes, and gives back, a holder. The last one frees; it may sleep then. */
void mmgrab(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);
/*
 * The map lock, for who changes mappings, and for the _locked calls (for writing). They sleep. It is given back by the
 * thread that took it.
 */
void mmap_write_lock(struct mm_struct *mm);
void mmap_write_unlock(struct mm_struct *mm);
void mmap_read_lock(struct mm_struct *mm);
void mmap_read_unlock(struct mm_struct *mm);

/* Subscribers to a whole address space. */

/*
 * Puts a subscription, whose ops are set, at the head of the list: it is called before the others. It stays where it is
 * until its unregister or free, and is a holder as long. NULL: nobody is put, but later inserts need no map lock.
 * 0, -EINVAL (no users any more), -ENOMEM, or what take of mmun_set_lock_all returned. Takes the map lock; sleeps.
 */
int mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);
/* The same for who has the map lock for writing. */
int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);
/*
 * Takes it off the list: calls its release, unless the exit has, and waits for its callbacks. Then none of them runs or
 * will, and its memory is the caller's. mm is that of the register. Not within its own callback. Sleeps.
 */
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm);
/*
 * Gives the one subscription of these ops in this space, with one reference more. If there is none, alloc_notifier
 * makes its memory and it is registered; if that fails, free_notifier is called at once. ERR_PTR of -EINVAL (no users
 * any more), -ENOMEM, -EOVERFLOW (2^32 references), or what alloc_notifier or take of mmun_set_lock_all returned. The
 * caller has the map lock for writing; see mmu_notifier_get() for who has not. Sleeps.
 */
struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops, struct mm_struct *mm);
/*
 * Gives a reference back. After the last one it is off the list, no release is called, and free_notifier runs once its
 * callbacks are over: in a later call of the space that sleeps, in mmu_notifier_synchronize() at the latest, never in
 * here. Does not sleep.
 */
void mmu_notifier_put(struct mmu_notifier *subscription);
/* Returns when free_notifier has run for each put before it, in all spaces. For who unloads what has it. Sleeps. */
void mmu_notifier_synchronize(void);

/* Subscribers to a range. */

/*
 * Subscribes to length bytes from start. All of the structure is written; it stays where it is until its remove, and is
 * a holder as long. During an invalidation of these bytes its first read waits, and nobody is called.
 * 0, -EOVERFLOW (a length of 0, or a wrap past the top), -EINVAL (no users any more), -ENOMEM, or what take of
 * mmun_set_lock_all returned; then mm is NULL, and nothing is to be removed. Takes the map lock if it is the first of
 * the space; sleeps.
 */
int mmu_interval_notifier_insert(struct mmu_interval_notifier *interval_sub, struct mm_struct *mm,
				 unsigned long start, unsigned long length,
				 const struct mmu_interval_notifier_ops *ops);
/* The same for who has the map lock for writing. */
int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *interval_sub, struct mm_struct *mm,
					unsigned long start, unsigned long length,
					const struct mmu_interval_notifier_ops *ops);
/*
 * Waits for callbacks of it that run, never for the end of an invalidation. Then none runs or will, and its memory is
 * the caller's. Not within its own callback. Sleeps.
 */
void mmu_interval_notifier_remove(struct mmu_interval_notifier *interval_sub);
/*
 * Begins to read: waits until no invalidation of any of its bytes is active, and gives the sequence to compare with
 * (mmu_interval_read_retry). What the primary MMU wrote before an end is seen. Sleeps.
 */
unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *interval_sub);
/*
 * Within the callback, under the subscriber's lock, with the sequence that the callback got: what was read before is
 * stale. A callback that does not call it says that the invalidation is none of its business.
 */
void mmu_interval_set_seq(struct mmu_interval_notifier *interval_sub, unsigned long cur_seq);

/*
 * The primary MMU. The calls without __ (mmu_notifier_inline.h) ask first whether anybody watches. These do not sleep
 * by themselves; whether callbacks may, the flags of a range say, and for the calls without one the caller's context.
 */

/*
 * Begins an invalidation: subscribers whose bytes it touches drop what they have, by ascending start, then the list,
 * the newest first. From here to the end readers of these bytes wait. The range stays where it is, as written, and its
 * mm has a holder as long. An empty range hits nobody, and wants its end.
 * 0; if flags say that it may not block, -EAGAIN, or what else a list callback refused with: then nothing has begun.
 */
int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
/* Ends it, on any thread. only_end: without invalidate_range, which the caller has called. */
void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range, bool only_end);
/* For who shares the page table: calls invalidate_range of the list. */
void __mmu_notifier_invalidate_range(struct mm_struct *mm, unsigned long start, unsigned long end);
/* Has anybody of the list used the range? Each is asked, and clears what it has noted; the first call flushes, too. */
int __mmu_notifier_clear_flush_young(struct mm_struct *mm, unsigned long start, unsigned long end);
int __mmu_notifier_clear_young(struct mm_struct *mm, unsigned long start, unsigned long end);
/* The same of one address, until the first yes; nothing is cleared. */
int __mmu_notifier_test_young(struct mm_struct *mm, unsigned long address);
/* Tells the list that the entry of an address is replaced. */
void __mmu_notifier_change_pte(struct mm_struct *mm, unsigned long address, pte_t pte);
/* Makes the exit now; that of the last mmput is none then. Sleeps. */
void __mmu_notifier_release(struct mm_struct *mm);
/* Reports subscribers that are left. The last mmdrop frees. */
void __mmu_notifier_subscriptions_destroy(struct mm_struct *mm);
/* Whether a change of permissions takes rights and leaves that to read: by the event and by vma, if it is not NULL. */
bool mmu_notifier_range_update_to_read_only(const struct mmu_notifier_range *range);

/* Additions: no counterpart in a kernel. None sleeps. */

/*
 * What keeps invalidations out while a first subscriber comes: take is called before (0, or a negative errno, which the
 * registration returns), drop after. Both or neither, before anybody subscribes. 0, or -EINVAL.
 */
int mmun_set_lock_all(struct mm_struct *mm, int (*take)(struct mm_struct *mm, void *data),
		      void (*drop)(struct mm_struct *mm, void *data), void *data);
/* Is called with each finding (broken rules, misuse), in the thread that made it. NULL: nobody is. */
void mmun_set_report_hook(void (*hook)(const char *text, void *data), void *data);
/* A hook: prints to standard error. */
void mmun_report_to_stderr(const char *text, void *data);
/* How many findings there were in this process. */
unsigned long mmun_reports(void);
/* The library's version, as "0.1.0". */
const char *mmun_version(void);
/* What an error, negative or not, means. */
const char *mmun_error_text(int error);

/* How often, and how many now; members are only added. */
struct mmun_stats {
	unsigned long starts, hits, refusals, waits, active, intervals, list;
};
/* Fills in as many bytes as the caller's version of the structure has: size is its size. */
void mmun_get_stats(struct mm_struct *mm, struct mmun_stats *stats, size_t size);

#ifdef __cplusplus
}
#endif

#include "mmu_notifier_inline.h"

#endif
