/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What mmu_notifier.h, which includes this, has inline: the calls of the primary MMU that cost one load where nobody
 * watches, and a reader's check.
 */
#ifndef MMU_NOTIFIER_INLINE_H
#define MMU_NOTIFIER_INLINE_H

#include "mmu_notifier.h"

#ifdef __cplusplus
extern "C" {
#endif

#define mmun_likely(condition) __builtin_expect(!!(condition), 1)

/* In mmun_private of a range, first word: started while nobody watched. */
#define MMUN_UNHEARD 0x6d6d756e0001ul

/* Whether anybody ever registered or inserted; then yes for good. */
static inline bool mm_has_notifiers(struct mm_struct *mm)
{
	return mm && __atomic_load_n(&mm->notifier_subscriptions, __ATOMIC_RELAXED) != NULL;
}

/* mmu_notifier_get_locked() for who has not the map lock, which it takes. Sleeps. */
static inline struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops, struct mm_struct *mm)
{
	struct mmu_notifier *subscription;

	mmap_write_lock(mm);
	subscription = mmu_notifier_get_locked(ops, mm);
	mmap_write_unlock(mm);
	return subscription;
}

/*
 * Reads that wait for nobody, and sequences, without a call. What they use of a subscription stays as it is within a
 * soname: mmun_mark, the complement of its address while it is inserted; invalidate_seq; and mmun_quiet, the sequence
 * that was last found quiet.
 */

/*
 * A word, with acquire; and whether that is what it is. gcc keeps the address of each word that a builtin loads in a
 * register of its own, until it runs out of them. On x86, where each load of a word acquires, it need only be kept from
 * moving it: nothing is done with a quiet word but this one comparison.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
static inline unsigned long mmun_load(const unsigned long *word)
{
	unsigned long value = *(const volatile unsigned long *)word;

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return value;
}

static inline bool mmun_is(const unsigned long *word, unsigned long value)
{
	if (*word != value)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return true;
}
#else
static inline unsigned long mmun_load(const unsigned long *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline bool mmun_is(const unsigned long *word, unsigned long value)
{
	return mmun_load(word) == value;
}
#endif

static inline bool mmun_is_marked(const struct mmu_interval_notifier *interval_sub)
{
	return mmun_likely(interval_sub && interval_sub->mmun_mark == ~(unsigned long)interval_sub);
}

static inline unsigned long mmun_read_begin(struct mmu_interval_notifier *interval_sub)
{
	unsigned long seq;

	if (mmun_is_marked(interval_sub)) {
		seq = mmun_load(&interval_sub->invalidate_seq);
		/* The same: nobody has hit it since it was found quiet. What came before is seen. */
		if (mmun_likely(mmun_is(&interval_sub->mmun_quiet, seq)))
			return seq;
	}
	return mmu_interval_read_begin(interval_sub);
}

static inline void mmun_set_seq(struct mmu_interval_notifier *interval_sub, unsigned long cur_seq)
{
	if (mmun_is_marked(interval_sub))
		__atomic_store_n(&interval_sub->invalidate_seq, cur_seq, __ATOMIC_RELEASE);
	else
		mmu_interval_set_seq(interval_sub, cur_seq);
}

/* As macros, so that their addresses are those of the calls. */
#define mmu_interval_read_begin(interval_sub) mmun_read_begin(interval_sub)
#define mmu_interval_set_seq(interval_sub, cur_seq) mmun_set_seq(interval_sub, cur_seq)

/* Under the subscriber's lock: true if any invalidation hit since read_begin gave seq. Then start over. */
static inline bool mmu_interval_read_retry(struct mmu_interval_notifier *interval_sub, unsigned long seq)
{
	return mmun_load(&interval_sub->invalidate_seq) != seq;
}

/* The same as a hint, without the lock. */
static inline bool mmu_interval_check_retry(struct mmu_interval_notifier *interval_sub, unsigned long seq)
{
	return __atomic_load_n(&interval_sub->invalidate_seq, __ATOMIC_RELAXED) != seq;
}

/* In a callback: whether it may sleep. */
static inline bool mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return (range->flags & MMU_NOTIFIER_RANGE_BLOCKABLE) != 0;
}

/* Begins an invalidation whose callbacks may sleep: nobody can refuse. */
static inline void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
	if (mm_has_notifiers(range->mm))
		(void)__mmu_notifier_invalidate_range_start(range);
	else
		range->mmun_private[0] = MMUN_UNHEARD;
}

/* Begins one whose callbacks may not sleep: 0, or -EAGAIN if one would have to. Then there is nothing to end. */
static inline int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	range->flags &= ~(unsigned)MMU_NOTIFIER_RANGE_BLOCKABLE;
	if (mm_has_notifiers(range->mm))
		return __mmu_notifier_invalidate_range_start(range);
	range->mmun_private[0] = MMUN_UNHEARD;
	return 0;
}

/* Ends it: after the change, before what was unmapped is used anew. */
static inline void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	if (mm_has_notifiers(range->mm))
		__mmu_notifier_invalidate_range_end(range, false);
}

/* The same for who has called mmu_notifier_invalidate_range() in between. */
static inline void mmu_notifier_invalidate_range_only_end(struct mmu_notifier_range *range)
{
	if (mm_has_notifiers(range->mm))
		__mmu_notifier_invalidate_range_end(range, true);
}

/* The calls with __, where anybody watches; else nothing, and a no. */
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

/* mm_alloc() does this by itself. */
static inline void mmu_notifier_subscriptions_init(struct mm_struct *mm)
{
	(void)mm;
}

/* The last mmdrop() does this by itself. */
static inline void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_subscriptions_destroy(mm);
}

/* What the macros below write: as little as can be, since the fence of a start waits for it. */
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
