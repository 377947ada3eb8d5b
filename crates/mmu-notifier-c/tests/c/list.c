/* The list side: register, get and put, every callback, refusals and their values, the map lock. C and C++. */
#include "check.h"

struct listener {
	struct mmu_notifier mn;
	int starts, ends, flushes, releases, ptes, young;
	int answer;
};

static int freed, allocated, alloc_error;

static struct listener *of(struct mmu_notifier *mn)
{
	return container_of(mn, struct listener, mn);
}

static void release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	CHECK(mn->mm == mm);
	of(mn)->releases++;
}

static int start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	CHECK(range->mm == mn->mm);
	if (of(mn)->answer)
		return of(mn)->answer;
	of(mn)->starts++;
	return 0;
}

static void end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	of(mn)->ends++;
}

static void flush(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long first, unsigned long last)
{
	CHECK(mn->mm == mm && (first < last || last == 0));
	of(mn)->flushes++;
}

static int young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long first, unsigned long last)
{
	(void)mm;
	(void)first;
	(void)last;
	return of(mn)->young;
}

static int test_young(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long address)
{
	(void)mm;
	(void)address;
	return of(mn)->young;
}

static void change_pte(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long address, pte_t pte)
{
	(void)mm;
	CHECK(address == 0x5000 && pte.pte == 0x77);
	of(mn)->ptes++;
}

static struct mmu_notifier *alloc_notifier(struct mm_struct *mm)
{
	(void)mm;
	if (alloc_error)
		return (struct mmu_notifier *)ERR_PTR(alloc_error);
	allocated++;
	return &((struct listener *)calloc(1, sizeof(struct listener)))->mn;
}

static void free_notifier(struct mmu_notifier *mn)
{
	freed++;
	free(of(mn));
}

static struct mmu_notifier_ops ops, shared_ops;
static int interrupted;

static int take_all(struct mm_struct *mm, void *data)
{
	(void)mm;
	(*(int *)data)++;
	return interrupted ? -EINTR : 0;
}

static void drop_all(struct mm_struct *mm, void *data)
{
	(void)mm;
	(*(int *)data)--;
}

static void c4_1_register_and_every_callback(void)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range;
	struct listener l;
	pte_t pte = { 0x77 };
	int held = 0;

	memset(&l, 0, sizeof(l));
	INIT_HLIST_NODE(&l.mn.hlist);
	l.mn.rcu.func = NULL;
	l.mn.ops = &ops;
	CHECK(mmun_set_lock_all(mm, take_all, drop_all, &held) == 0);
	interrupted = 1;
	CHECK(mmu_notifier_register(&l.mn, mm) == -EINTR);
	CHECK(hlist_unhashed(&l.mn.hlist) && !mm_has_notifiers(mm) && l.mn.mm == NULL);
	interrupted = held = 0;
	CHECK(mmu_notifier_register(&l.mn, mm) == 0 && held == 0);
	CHECK(!hlist_unhashed(&l.mn.hlist) && l.mn.users == 1 && mm_has_notifiers(mm));

	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0x1000, 0x2000);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_only_end(&range);
	CHECK(l.starts == 2 && l.ends == 2 && l.flushes == 1);
	mmu_notifier_invalidate_range(mm, 0x1000, 0x2000);
	mmu_notifier_arch_invalidate_secondary_tlbs(mm, 0x1000, 0);
	CHECK(l.flushes == 3);
	CHECK(!mmu_notifier_clear_flush_young(mm, 0, 1) && !mmu_notifier_test_young(mm, 0));
	l.young = 1;
	CHECK(mmu_notifier_clear_young(mm, 0, 1) == 1 && mmu_notifier_test_young(mm, 0) == 1);
	CHECK(mmu_notifier_clear_flush_young(mm, 0, 1) == 1);
	mmu_notifier_change_pte(mm, 0x5000, pte);
	CHECK(l.ptes == 1);

	l.answer = -EAGAIN;
	CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == -EAGAIN);
	l.answer = 0;
	mmu_notifier_unregister(&l.mn, mm);
	CHECK(l.releases == 1 && hlist_unhashed(&l.mn.hlist) && l.ends == 2);
	/* Again, under the lock; the exit releases it. */
	mmap_write_lock(mm);
	CHECK(__mmu_notifier_register(&l.mn, mm) == 0);
	mmap_write_unlock(mm);
	mmput(mm);
	CHECK(l.releases == 2 && l.mn.mm == mm);
	mmu_notifier_unregister(&l.mn, mm);
	CHECK(l.releases == 2);
}

static void c4_3_get_and_put(void)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier *first, *second;

	alloc_error = -ENOMEM;
	CHECK(PTR_ERR(mmu_notifier_get(&shared_ops, mm)) == -ENOMEM);
	alloc_error = 0;
	first = mmu_notifier_get(&shared_ops, mm);
	CHECK(!IS_ERR(first) && first->ops == &shared_ops && first->mm == mm);
	mmap_write_lock(mm);
	second = mmu_notifier_get_locked(&shared_ops, mm);
	mmap_write_unlock(mm);
	CHECK(second == first && first->users == 2 && allocated == 1);
	mmu_notifier_put(first);
	mmu_notifier_put(second);
	CHECK(freed == 0); /* never within put */
	mmu_notifier_synchronize();
	CHECK(freed == 1);
	first = mmu_notifier_get(&shared_ops, mm);
	CHECK(allocated == 2);
	mmgrab(mm);
	mmput(mm);
	CHECK(PTR_ERR(mmu_notifier_get(&shared_ops, mm)) == -EINVAL);
	mmu_notifier_put(first);
	mmu_notifier_synchronize();
	CHECK(freed == 2);
	mmdrop(mm);
}

static void c4_1_register_nobody(void)
{
	struct mm_struct *mm = mm_alloc();

	CHECK(mmu_notifier_register(NULL, mm) == 0 && mm_has_notifiers(mm));
	mmap_read_lock(mm);
	mmap_read_unlock(mm);
	mmget(mm);
	mmput_async(mm);
	mmu_notifier_release(mm);
	mmu_notifier_subscriptions_destroy(mm);
	mmput(mm);
}

static void c5_7_update_to_read_only(void)
{
	struct vm_area_struct vma = { 0, 0, NULL, VM_READ };
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_PROTECTION_VMA, 0, &vma, NULL, 0, 1);
	CHECK(mmu_notifier_range_update_to_read_only(&range));
	vma.vm_flags = VM_WRITE;
	CHECK(!mmu_notifier_range_update_to_read_only(&range));
	range.vma = NULL;
	CHECK(!mmu_notifier_range_update_to_read_only(&range));
}

int main(void)
{
	begin();
	ops.release = release;
	ops.invalidate_range_start = start;
	ops.invalidate_range_end = end;
	ops.invalidate_range = flush;
	ops.clear_flush_young = young;
	ops.clear_young = young;
	ops.test_young = test_young;
	ops.change_pte = change_pte;
	CHECK(ops.arch_invalidate_secondary_tlbs == flush);
	shared_ops.alloc_notifier = alloc_notifier;
	shared_ops.free_notifier = free_notifier;
	c4_1_register_and_every_callback();
	c4_3_get_and_put();
	c4_1_register_nobody();
	c5_7_update_to_read_only();
	return done(0);
}
