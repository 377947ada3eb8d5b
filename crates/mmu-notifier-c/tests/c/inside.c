/* Calls within callbacks: starts that nest between two passes, the last mmput, what would wait for itself. C and C++. */
#include "check.h"

struct device {
	struct mmu_interval_notifier mni;
	struct mmu_interval_notifier_finish finish;
	int begun, finished;
};

static struct mm_struct *mm;
static struct device outer[3], inner[2];
static int nested, releases, put_inside;

static void invalidate_inner(void)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, 0x100000, 0x102000);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	nested++;
}

static bool start(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range, unsigned long seq,
		  struct mmu_interval_notifier_finish **finish)
{
	struct device *d = container_of(mni, struct device, mni);

	mmu_interval_set_seq(mni, seq);
	d->begun++;
	*finish = &d->finish;
	if (d == &outer[1] && range->event != MMU_NOTIFY_RELEASE)
		invalidate_inner(); /* while the first one stands between its passes */
	if (d == &outer[0] && put_inside) {
		put_inside = 0;
		mmput(mm); /* the last: the exit comes when this start is over */
		CHECK(releases == 0);
	}
	return true;
}

static void finish(struct mmu_interval_notifier_finish *done)
{
	struct device *d = container_of(done, struct device, finish);

	d->finished++;
	if (d == &outer[0])
		invalidate_inner(); /* between the second passes, too; also in the exit */
}

static void release(struct mmu_notifier *mn, struct mm_struct *m)
{
	CHECK(mn->mm == m);
	releases++;
}

static int unregister_inside;

static int list_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	if (unregister_inside) {
		unregister_inside = 0;
		DIAGNOSED(mmu_notifier_unregister(mn, mn->mm));
	}
	return 0;
}

int main(void)
{
	static struct mmu_interval_notifier_ops ops;
	static struct mmu_notifier_ops list_ops;
	static struct mmu_notifier mn, other;
	struct mmu_notifier_range range;
	unsigned long expected;

	begin();
	ops.invalidate_start = start;
	ops.invalidate_finish = finish;
	list_ops.release = release;
	list_ops.invalidate_range_start = list_start;
	mm = mm_alloc();
	for (int i = 0; i < 3; i++)
		CHECK(mmu_interval_notifier_insert(&outer[i].mni, mm, (unsigned long)i * 0x1000, 0x1000, &ops) == 0);
	for (int i = 0; i < 2; i++)
		CHECK(mmu_interval_notifier_insert(&inner[i].mni, mm, 0x100000ul + (unsigned long)i * 0x1000, 0x1000,
						   &ops) == 0);
	mn.ops = other.ops = &list_ops;
	CHECK(mmu_notifier_register(&mn, mm) == 0);
	CHECK(mmu_notifier_register(&other, mm) == 0);

	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0, 0x3000);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(nested == 2 && inner[0].begun == 2 && inner[1].finished == 2);
	for (int i = 0; i < 3; i++)
		CHECK(outer[i].begun == 1 && outer[i].finished == 1);

	unregister_inside = 1;
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(releases == 1);
	expected = mmun_reports();
	CHECK(expected > 0);

	mmgrab(mm);
	releases = 0;
	put_inside = 1;
	mmu_notifier_invalidate_range_start(&range);
	CHECK(releases == 1 && outer[0].finished == outer[0].begun);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(!mmget_not_zero(mm));
	for (int i = 0; i < 3; i++)
		mmu_interval_notifier_remove(&outer[i].mni);
	for (int i = 0; i < 2; i++)
		mmu_interval_notifier_remove(&inner[i].mni);
	/* One of the two is off already. */
	DIAGNOSED(mmu_notifier_unregister(&mn, mm); mmu_notifier_unregister(&other, mm));
	CHECK(releases == 1);
	mmdrop(mm);
	return done(-1ul);
}
