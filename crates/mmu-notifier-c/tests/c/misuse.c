/* Misuse: diagnosed, harmless, the error that the documents say. C and C++. */
#include "check.h"

static bool invalidate(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range, unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(mni, seq);
	return true;
}

static bool refuse(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range, unsigned long seq)
{
	(void)mni;
	(void)range;
	(void)seq;
	return false;
}

static int strange(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn;
	(void)range;
	return -EBUSY;
}

static struct mmu_interval_notifier other;
static struct mmu_interval_notifier_finish waiting;
static int finished;

static bool begin_then_remove(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range,
			      unsigned long seq, struct mmu_interval_notifier_finish **finish)
{
	(void)range;
	mmu_interval_set_seq(mni, seq);
	if (mni == &other)
		*finish = &waiting;
	else
		DIAGNOSED(mmu_interval_notifier_remove(&other));
	return true;
}

static void count(struct mmu_interval_notifier_finish *finish)
{
	(void)finish;
	finished++;
}

int main(void)
{
	struct mmu_interval_notifier_ops ops, refusing, two, nothing;
	struct mmu_notifier_ops list_ops, no_ops;
	struct mm_struct *mm = mm_alloc();
	struct mmu_interval_notifier mni, second;
	struct mmu_notifier mn;
	struct mmu_notifier_range range, copy;

	begin();
	memset(&ops, 0, sizeof(ops));
	nothing = refusing = two = ops;
	ops.invalidate = invalidate;
	refusing.invalidate = refuse;
	two.invalidate_start = begin_then_remove;
	two.invalidate_finish = count;
	memset(&list_ops, 0, sizeof(list_ops));
	no_ops = list_ops;
	list_ops.invalidate_range_start = strange;
	memset(&mni, 0, sizeof(mni));
	memset(&second, 0, sizeof(second));
	memset(&mn, 0, sizeof(mn));

	/* NULL. */
	DIAGNOSED(mmget(NULL));
	DIAGNOSED(mmput(NULL));
	DIAGNOSED(mmdrop(NULL));
	DIAGNOSED(CHECK(mmu_notifier_register(&mn, NULL) == -EINVAL));
	DIAGNOSED(CHECK(mmu_notifier_register(&mn, mm) == -EINVAL)); /* no ops */
	DIAGNOSED(mmu_notifier_unregister(NULL, mm));
	DIAGNOSED(mmu_notifier_put(NULL));
	DIAGNOSED(CHECK(mmu_interval_notifier_insert(NULL, mm, 0, 1, &ops) == -EINVAL));
	DIAGNOSED(CHECK(mmu_interval_notifier_insert(&mni, NULL, 0, 1, &ops) == -EINVAL));
	DIAGNOSED(CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, NULL) == -EINVAL));
	DIAGNOSED(CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, &nothing) == -EINVAL));
	DIAGNOSED(mmu_interval_notifier_remove(NULL));
	DIAGNOSED(CHECK(__mmu_notifier_invalidate_range_start(NULL) == -EINVAL));
	DIAGNOSED(__mmu_notifier_invalidate_range_end(NULL, false));
	DIAGNOSED(CHECK(IS_ERR(mmu_notifier_get(NULL, mm))));
	DIAGNOSED(CHECK(IS_ERR(mmu_notifier_get(&no_ops, mm))));
	CHECK(!mm_has_notifiers(mm));

	/* The map lock. */
	DIAGNOSED(mmap_write_unlock(mm));
	DIAGNOSED(mmap_read_unlock(mm));
	mn.ops = &list_ops;
	DIAGNOSED(CHECK(__mmu_notifier_register(&mn, mm) == -EINVAL));
	DIAGNOSED(CHECK(mmu_interval_notifier_insert_locked(&mni, mm, 0, 1, &ops) == -EINVAL));
	DIAGNOSED(CHECK(PTR_ERR(mmu_notifier_get_locked(&list_ops, mm)) == -EINVAL));

	/* In no space, in one already. */
	DIAGNOSED(mmu_interval_notifier_remove(&mni));
	DIAGNOSED((void)mmu_interval_read_begin(&mni));
	CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 0, &ops) == -EOVERFLOW);
	DIAGNOSED(mmu_interval_notifier_remove(&mni));
	CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, &ops) == 0);
	DIAGNOSED(CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, &ops) == -EINVAL));
	memcpy(&second, &mni, sizeof(mni));
	DIAGNOSED(mmu_interval_notifier_remove(&second)); /* a copy is not inserted */
	mmu_interval_notifier_remove(&mni);
	DIAGNOSED(mmu_interval_notifier_remove(&mni));
	DIAGNOSED(mmu_notifier_unregister(&mn, mm));
	DIAGNOSED(mmu_notifier_put(&mn));
	CHECK(mmu_notifier_register(&mn, mm) == 0);
	DIAGNOSED(CHECK(mmu_notifier_register(&mn, mm) == -EINVAL));
	DIAGNOSED(mmu_notifier_subscriptions_destroy(mm));

	/* Answers that may not be, and ends without a start. */
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0, 0x1000);
	DIAGNOSED(mmu_notifier_invalidate_range_end(&range));
	DIAGNOSED(CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == -EBUSY));
	DIAGNOSED(mmu_notifier_invalidate_range_end(&range));
	DIAGNOSED(mmu_notifier_invalidate_range_start(&range));
	mmu_notifier_invalidate_range_end(&range);
	DIAGNOSED(mmu_notifier_invalidate_range_end(&range));
	DIAGNOSED(mmu_notifier_unregister(&mn, NULL)); /* another mm */
	DIAGNOSED(mmu_notifier_unregister(&mn, mm));
	CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, &refusing) == 0);
	DIAGNOSED(mmu_notifier_invalidate_range_start(&range));
	memcpy(&copy, &range, sizeof(range));
	mmu_notifier_invalidate_range_end(&range);
	DIAGNOSED(mmu_notifier_invalidate_range_end(&copy)); /* the core knows that it is over */
	mmu_interval_notifier_remove(&mni);

	/* A remove between the two passes. */
	CHECK(mmu_interval_notifier_insert(&other, mm, 0, 1, &two) == 0);
	CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 1, &two) == 0);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(finished == 0);
	mmu_interval_notifier_remove(&mni);

	/* One put too many. */
	mmgrab(mm);
	mmput(mm);
	DIAGNOSED(mmput(mm));
	DIAGNOSED(mmget(mm));
	mmdrop(mm);
	return done(-1ul);
}
