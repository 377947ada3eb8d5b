/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MMU notifiers in user space, with the kernel's names: types, events, callbacks, calls.
 *
 * What begins with mmun_ has no counterpart in a kernel. docs/c.md says how to start, and what the ABI promises.
 * Members behind a comment "private" are the library's; they need not be initialised.
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

/* What a subscriber to a whole address space hears; each may be missing. */
struct mmu_notifier_ops {
	void (*release)(struct mmu_notifier *subscription, struct mm_struct *mm);
	int (*clear_flush_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long start,
				 unsigned long end);
	int (*clear_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long start,
			   unsigned long end);
	int (*test_young)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long address);
	void (*change_pte)(struct mmu_notifier *subscription, struct mm_struct *mm, unsigned long address,
			   pte_t pte);
	int (*invalidate_range_start)(struct mmu_notifier *subscription, const struct mmu_notifier_range *range);
	void (*invalidate_range_end)(struct mmu_notifier *subscription, const struct mmu_notifier_range *range);
	union {
		void (*invalidate_range)(struct mmu_notifier *subscription, struct mm_struct *mm,
					 unsigned long start, unsigned long end);
		void (*arch_invalidate_secondary_tlbs)(struct mmu_notifier *subscription, struct mm_struct *mm,
						       unsigned long start, unsigned long end);
	};
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *mm);
	void (*free_notifier)(struct mmu_notifier *subscription);
};

/* A subscription to a whole address space, to be embedded. ops is set before it is registered. */
struct mmu_notifier {
	struct hlist_node hlist;
	const struct mmu_notifier_ops *ops;
	struct mm_struct *mm;
	struct rcu_head rcu;
	unsigned int users;
	/* private: */
	unsigned long mmun_private[32];
};

/* What waits for a second pass: the driver's memory, from invalidate_start to invalidate_finish. */
struct mmu_interval_notifier_finish {
	struct llist_node link;
	struct mmu_interval_notifier *notifier;
};

/* What a subscriber to a range hears: invalidate, or both of the others. */
struct mmu_interval_notifier_ops {
	bool (*invalidate)(struct mmu_interval_notifier *interval_sub, const struct mmu_notifier_range *range,
			   unsigned long cur_seq);
	bool (*invalidate_start)(struct mmu_interval_notifier *interval_sub,
				 const struct mmu_notifier_range *range, unsigned long cur_seq,
				 struct mmu_interval_notifier_finish **finish);
	void (*invalidate_finish)(struct mmu_interval_notifier_finish *finish);
};

/* A subscription to a range, to be embedded. */
struct mmu_interval_notifier {
	struct {
		unsigned long start;
		unsigned long last;
	} interval_tree;
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm;
	struct hlist_node deferred_item;
	unsigned long invalidate_seq;
	/* private: */
	unsigned long mmun_private[32];
};

/* Address spaces. The last mmput makes the exit, the last mmdrop frees. */
struct mm_struct *mm_alloc(void);
void mmget(struct mm_struct *mm);
bool mmget_not_zero(struct mm_struct *mm);
void mmput(struct mm_struct *mm);
void mmput_async(struct mm_struct *mm);
void mmgrab(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);
void mmap_write_lock(struct mm_struct *mm);
void mmap_write_unlock(struct mm_struct *mm);
void mmap_read_lock(struct mm_struct *mm);
void mmap_read_unlock(struct mm_struct *mm);

/* Subscribers to a whole address space. */
int mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);
int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm);
struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops, struct mm_struct *mm);
void mmu_notifier_put(struct mmu_notifier *subscription);
void mmu_notifier_synchronize(void);

/* Subscribers to a range. */
int mmu_interval_notifier_insert(struct mmu_interval_notifier *interval_sub, struct mm_struct *mm,
				 unsigned long start, unsigned long length,
				 const struct mmu_interval_notifier_ops *ops);
int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *interval_sub, struct mm_struct *mm,
					unsigned long start, unsigned long length,
					const struct mmu_interval_notifier_ops *ops);
void mmu_interval_notifier_remove(struct mmu_interval_notifier *interval_sub);
unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *interval_sub);
void mmu_interval_set_seq(struct mmu_interval_notifier *interval_sub, unsigned long cur_seq);

/* The primary MMU. */
int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range, bool only_end);
void __mmu_notifier_invalidate_range(struct mm_struct *mm, unsigned long start, unsigned long end);
int __mmu_notifier_clear_flush_young(struct mm_struct *mm, unsigned long start, unsigned long end);
int __mmu_notifier_clear_young(struct mm_struct *mm, unsigned long start, unsigned long end);
int __mmu_notifier_test_young(struct mm_struct *mm, unsigned long address);
void __mmu_notifier_change_pte(struct mm_struct *mm, unsigned long address, pte_t pte);
void __mmu_notifier_release(struct mm_struct *mm);
void __mmu_notifier_subscriptions_destroy(struct mm_struct *mm);
bool mmu_notifier_range_update_to_read_only(const struct mmu_notifier_range *range);

/* Additions: no counterpart in a kernel. */

/* Lets first registrations exclude invalidations; take may fail, and the registration with it. 0 or -errno. */
int mmun_set_lock_all(struct mm_struct *mm, int (*take)(struct mm_struct *mm, void *data),
		      void (*drop)(struct mm_struct *mm, void *data), void *data);
/* Is called with each finding (broken rules, misuse), in the thread that made it. NULL: nobody is. */
void mmun_set_report_hook(void (*hook)(const char *text, void *data), void *data);
/* A hook: prints to standard error. */
void mmun_report_to_stderr(const char *text, void *data);
/* How many findings there were. */
unsigned long mmun_reports(void);
/* The library's version, and what an error means. */
const char *mmun_version(void);
const char *mmun_error_text(int error);

struct mmun_stats {
	unsigned long starts, hits, refusals, waits, active, intervals, list;
};
/* Fills in as many bytes as the caller's version of the structure has. */
void mmun_get_stats(struct mm_struct *mm, struct mmun_stats *stats, size_t size);

/* In mmun_private of a range, first word: started while nobody watched. */
#define MMUN_UNHEARD 0x6d6d756e0001ul

static inline bool mm_has_notifiers(struct mm_struct *mm)
{
	return mm && __atomic_load_n(&mm->notifier_subscriptions, __ATOMIC_RELAXED) != NULL;
}

static inline struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops, struct mm_struct *mm)
{
	struct mmu_notifier *subscription;

	mmap_write_lock(mm);
	subscription = mmu_notifier_get_locked(ops, mm);
	mmap_write_unlock(mm);
	return subscription;
}

/* Under the subscriber's lock: true if any invalidation hit since seq was read. */
static inline bool mmu_interval_read_retry(struct mmu_interval_notifier *interval_sub, unsigned long seq)
{
	return __atomic_load_n(&interval_sub->invalidate_seq, __ATOMIC_ACQUIRE) != seq;
}

/* The same as a hint, without the lock. */
static inline bool mmu_interval_check_retry(struct mmu_interval_notifier *interval_sub, unsigned long seq)
{
	return __atomic_load_n(&interval_sub->invalidate_seq, __ATOMIC_RELAXED) != seq;
}

static inline bool mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return (range->flags & MMU_NOTIFIER_RANGE_BLOCKABLE) != 0;
}

static inline void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
	if (mm_has_notifiers(range->mm))
		(void)__mmu_notifier_invalidate_range_start(range);
	else
		range->mmun_private[0] = MMUN_UNHEARD;
}

static inline int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	range->flags &= ~(unsigned)MMU_NOTIFIER_RANGE_BLOCKABLE;
	if (mm_has_notifiers(range->mm))
		return __mmu_notifier_invalidate_range_start(range);
	range->mmun_private[0] = MMUN_UNHEARD;
	return 0;
}

static inline void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	if (mm_has_notifiers(range->mm))
		__mmu_notifier_invalidate_range_end(range, false);
}

static inline void mmu_notifier_invalidate_range_only_end(struct mmu_notifier_range *range)
{
	if (mm_has_notifiers(range->mm))
		__mmu_notifier_invalidate_range_end(range, true);
}

static inline void mmu_notifier_invalidate_range(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_invalidate_range(mm, start, end);
}

static inline void mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm, unsigned long start,
								unsigned long end)
{
	mmu_notifier_invalidate_range(mm, start, end);
}

static inline int mmu_notifier_clear_flush_young(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	return mm_has_notifiers(mm) ? __mmu_notifier_clear_flush_young(mm, start, end) : 0;
}

static inline int mmu_notifier_clear_young(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	return mm_has_notifiers(mm) ? __mmu_notifier_clear_young(mm, start, end) : 0;
}

static inline int mmu_notifier_test_young(struct mm_struct *mm, unsigned long address)
{
	return mm_has_notifiers(mm) ? __mmu_notifier_test_young(mm, address) : 0;
}

static inline void mmu_notifier_change_pte(struct mm_struct *mm, unsigned long address, pte_t pte)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_change_pte(mm, address, pte);
}

static inline void mmu_notifier_release(struct mm_struct *mm)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_release(mm);
}

/* mm_alloc() and the last mmdrop() do this by themselves. */
static inline void mmu_notifier_subscriptions_init(struct mm_struct *mm)
{
	(void)mm;
}

static inline void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_subscriptions_destroy(mm);
}

static inline void mmun_range_init(struct mmu_notifier_range *range, enum mmu_notifier_event event, unsigned flags,
				   struct vm_area_struct *vma, struct mm_struct *mm, unsigned long start,
				   unsigned long end, void *owner)
{
	range->vma = vma;
	range->mm = mm;
	range->start = start;
	range->end = end;
	range->flags = flags;
	range->event = event;
	range->owner = owner;
	range->mmun_private[0] = 0;
}

/* With a vma (range, event, flags, vma, mm, start, end) and without: by the number of arguments. */
#define mmu_notifier_range_init(...) \
	MMUN_PICK(__VA_ARGS__, 0, MMUN_INIT_7, MMUN_INIT_6, 0, 0, 0, 0, 0, 0)(__VA_ARGS__)
#define mmu_notifier_range_init_owner(...) \
	MMUN_PICK(__VA_ARGS__, MMUN_OWNER_8, MMUN_OWNER_7, 0, 0, 0, 0, 0, 0, 0)(__VA_ARGS__)
#define mmu_notifier_range_init_migrate(range, flags, vma, mm, start, end, owner) \
	mmun_range_init(range, MMU_NOTIFY_MIGRATE, flags, vma, mm, start, end, owner)
#define MMUN_PICK(a, b, c, d, e, f, g, h, name, ...) name
#define MMUN_INIT_7(range, event, flags, vma, mm, start, end) \
	mmun_range_init(range, event, flags, vma, mm, start, end, NULL)
#define MMUN_INIT_6(range, event, flags, mm, start, end) \
	mmun_range_init(range, event, flags, NULL, mm, start, end, NULL)
#define MMUN_OWNER_8(range, event, flags, vma, mm, start, end, owner) \
	mmun_range_init(range, event, flags, vma, mm, start, end, owner)
#define MMUN_OWNER_7(range, event, flags, mm, start, end, owner) \
	mmun_range_init(range, event, flags, NULL, mm, start, end, owner)

#ifdef __cplusplus
}
#endif

#endif
