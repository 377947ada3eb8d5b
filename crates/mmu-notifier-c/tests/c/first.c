/* An insert that waits for the map lock of a first registration, which fails: the insert counts. C and C++. */
#include <pthread.h>
#include <time.h>

#include "check.h"

static struct mm_struct *mm;
static struct mmu_interval_notifier mni;
static struct mmu_interval_notifier_ops ops;
static struct mmu_notifier mn;
static struct mmu_notifier_ops list_ops;
static int calls, entered, hits, freed;

static bool invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range, unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	hits++;
	return true;
}

static void nap(void)
{
	struct timespec t = { 0, 50000000 };

	nanosleep(&t, NULL);
}

static int take(struct mm_struct *m, void *data)
{
	(void)m;
	(void)data;
	if (calls++)
		return 0;
	__atomic_store_n(&entered, 1, __ATOMIC_RELEASE);
	nap(); /* so that the insert is waiting by now, most likely */
	return -EINTR;
}

static void drop(struct mm_struct *m, void *data)
{
	(void)m;
	(void)data;
}

static void *insert(void *nothing)
{
	while (!__atomic_load_n(&entered, __ATOMIC_ACQUIRE))
		;
	CHECK(mmu_interval_notifier_insert(&mni, mm, 0, 0x1000, &ops) == 0);
	return nothing;
}

static struct mmu_notifier *alloc_notifier(struct mm_struct *m)
{
	(void)m;
	return &mn;
}

static void free_notifier(struct mmu_notifier *sub)
{
	CHECK(sub == &mn);
	freed++;
}

int main(void)
{
	struct mmu_notifier_range range;
	pthread_t thread;

	begin();
	mm = mm_alloc();
	ops.invalidate = invalidate;
	list_ops.alloc_notifier = alloc_notifier;
	list_ops.free_notifier = free_notifier;
	CHECK(mmun_set_lock_all(mm, take, drop, NULL) == 0);
	CHECK(pthread_create(&thread, NULL, insert, NULL) == 0);
	/* What alloc made is freed at once. */
	CHECK(PTR_ERR(mmu_notifier_get(&list_ops, mm)) == -EINTR && freed == 1);
	pthread_join(thread, NULL);
	CHECK(mm_has_notifiers(mm));
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0, 1);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	CHECK(hits == 1);
	mmu_interval_notifier_remove(&mni);
	mmput(mm);
	return done(0);
}
