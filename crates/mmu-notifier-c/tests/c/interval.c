/* The interval side: tokens, hits, skips, passes, refusals, what may be left unwritten. C and C++. */
#include "check.h"

struct device {
	int before;
	struct mmu_interval_notifier mni;
	int hits, skip, refuse;
	const struct mmu_notifier_range *seen;
};

static bool invalidate(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range, unsigned long seq)
{
	struct device *d = container_of(mni, struct device, mni);

	CHECK(range->mm == mni->mm && (seq & 1));
	d->seen = range;
	d->hits++;
	if (d->refuse && !mmu_notifier_range_blockable(range))
		return false;
	if (!d->skip)
		mmu_interval_set_seq(mni, seq);
	return true;
}

static struct mmu_interval_notifier_ops ops;

static void c3_12_tokens_hits_and_skips(void)
{
	struct mm_struct *mm = mm_alloc();
	/* Not written: what malloc gives. */
	struct device *d = (struct device *)malloc(sizeof(*d));
	struct mmu_notifier_range range;
	unsigned long token;

	memset(d, 0xa5, sizeof(*d));
	d->hits = d->skip = d->refuse = 0;
	INIT_HLIST_NODE(&d->mni.deferred_item);
	CHECK(!mm_has_notifiers(mm));
	CHECK(mmu_interval_notifier_insert(&d->mni, mm, 0x1000, 0x2000, &ops) == 0);
	CHECK(mm_has_notifiers(mm) && d->mni.mm == mm);
	CHECK(d->mni.interval_tree.start == 0x1000 && d->mni.interval_tree.last == 0x2fff);
	token = mmu_interval_read_begin(&d->mni);
	CHECK(!mmu_interval_read_retry(&d->mni, token) && !mmu_interval_check_retry(&d->mni, token));

	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0x2fff, 0x4000);
	mmu_notifier_invalidate_range_start(&range);
	CHECK(d->hits == 1 && d->seen == &range && mmu_interval_read_retry(&d->mni, token));
	mmu_notifier_invalidate_range_end(&range);
	token = mmu_interval_read_begin(&d->mni);
	CHECK(!mmu_interval_read_retry(&d->mni, token));

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, NULL, mm, 0x3000, 0x4000);
	mmu_notifier_invalidate_range_start(&range);
	CHECK(d->hits == 1 && !mmu_interval_read_retry(&d->mni, token));
	mmu_notifier_invalidate_range_only_end(&range);

	d->skip = 1;
	mmu_notifier_range_init_owner(&range, MMU_NOTIFY_MIGRATE, 0, mm, 0x1000, 0x2000, d);
	CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == 0);
	CHECK(d->hits == 2 && range.owner == d && range.migrate_pgmap_owner == d);
	CHECK(!mmu_interval_read_retry(&d->mni, token) && mmu_interval_read_begin(&d->mni) == token);
	mmu_notifier_invalidate_range_end(&range);

	d->skip = 0;
	d->refuse = 1;
	CHECK(mmu_notifier_invalidate_range_start_nonblock(&range) == -EAGAIN);
	CHECK(mmu_interval_read_begin(&d->mni) == token);
	mmu_interval_notifier_remove(&d->mni);
	mmput(mm);
	free(d);
}

static void c2_4_ranges_at_the_edges(void)
{
	struct mm_struct *mm = mm_alloc();
	struct device d;
	struct mmu_notifier_range range;

	memset(&d, 0, sizeof(d));
	CHECK(mmu_interval_notifier_insert(&d.mni, mm, 0x1000, 0, &ops) == -EOVERFLOW);
	CHECK(mmu_interval_notifier_insert(&d.mni, mm, ULONG_MAX, 2, &ops) == -EOVERFLOW);
	CHECK(d.mni.mm == NULL && !mm_has_notifiers(mm));
	CHECK(mmu_interval_notifier_insert(&d.mni, mm, ULONG_MAX, 1, &ops) == 0);
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0x1000, ULONG_MAX);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(d.hits == 0);
	range.end = 0; /* the top */
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(d.hits == 1);
	range.end = range.start; /* empty: it hits nobody, and its end is due */
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	range.end = range.start - 1; /* reversed */
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(d.hits == 1);
	range.event = (enum mmu_notifier_event)77; /* unknown: passed on */
	range.end = 0;
	mmu_notifier_invalidate_range_start(&range);
	CHECK(d.hits == 2 && d.seen->event == (enum mmu_notifier_event)77);
	mmu_notifier_invalidate_range_end(&range);
	mmgrab(mm);
	mmput(mm);
	CHECK(d.hits == 3);
	CHECK(d.seen->event == MMU_NOTIFY_RELEASE && d.seen->start == 0 && d.seen->end == ULONG_MAX);
	CHECK(!mmget_not_zero(mm));
	mmu_interval_notifier_remove(&d.mni);
	CHECK(mmu_interval_notifier_insert(&d.mni, mm, 0, 1, &ops) == -EINVAL);
	mmdrop(mm);
}

struct flushing {
	struct mmu_interval_notifier mni;
	struct mmu_interval_notifier_finish finish;
	int begun, finished;
};

static int order[512], ordered;

static bool invalidate_start(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range,
			     unsigned long seq, struct mmu_interval_notifier_finish **finish)
{
	struct flushing *f = container_of(mni, struct flushing, mni);

	(void)range;
	mmu_interval_set_seq(mni, seq);
	f->begun++;
	*finish = &f->finish;
	return true;
}

static void invalidate_finish(struct mmu_interval_notifier_finish *finish)
{
	struct flushing *f = container_of(finish, struct flushing, finish);

	CHECK(finish->notifier == &f->mni);
	f->finished++;
	order[ordered++] = (int)(f->mni.interval_tree.start >> 12);
}

static struct mmu_interval_notifier_ops flushing_ops;

static void c3_8_two_passes_in_order(void)
{
	enum { N = 200 };
	static struct flushing all[N];
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range;
	int i;

	for (i = 0; i < N; i++)
		CHECK(mmu_interval_notifier_insert(&all[i].mni, mm, (unsigned long)i << 12, 0x1000, &flushing_ops) == 0);
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0, (unsigned long)N << 12);
	mmu_notifier_invalidate_range_start(&range);
	CHECK(ordered == N);
	for (i = 0; i < N; i++)
		CHECK(order[i] == i && all[i].begun == 1 && all[i].finished == 1);
	mmu_notifier_invalidate_range_end(&range);
	mmgrab(mm);
	mmput(mm); /* the exit makes both passes too */
	for (i = 0; i < N; i++) {
		CHECK(all[i].finished == 2);
		mmu_interval_notifier_remove(&all[i].mni);
	}
	mmdrop(mm);
}

int main(void)
{
	begin();
	ops.invalidate = invalidate;
	flushing_ops.invalidate_start = invalidate_start;
	flushing_ops.invalidate_finish = invalidate_finish;
	c3_12_tokens_hits_and_skips();
	c2_4_ranges_at_the_edges();
	c3_8_two_passes_in_order();
	return done(0);
}
