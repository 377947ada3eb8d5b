/* Threads: devices that fault under collision-retry while others invalidate, insert and remove. C and C++. */
#include <pthread.h>

#include "check.h"

enum { PAGES = 64, DEVICES = 4, ROUNDS = 20000 };

static unsigned long frame[PAGES]; /* the primary MMU: changes between start and end only */

struct device {
	pthread_mutex_t lock;
	struct mmu_interval_notifier mni;
	unsigned long copy[PAGES]; /* 0: none */
};

static struct mm_struct *mm;
static struct mmu_interval_notifier_ops ops;
static int stop;

static bool invalidate(struct mmu_interval_notifier *mni, const struct mmu_notifier_range *range, unsigned long seq)
{
	struct device *d = container_of(mni, struct device, mni);
	unsigned long page;

	pthread_mutex_lock(&d->lock);
	mmu_interval_set_seq(mni, seq);
	for (page = 0; page < PAGES; page++)
		if (range->start <= page << 12 && (page << 12) < range->end)
			d->copy[page] = 0;
	pthread_mutex_unlock(&d->lock);
	return true;
}

static void fault(struct device *d, unsigned long page)
{
	unsigned long seq, found;

	for (;;) {
		seq = mmu_interval_read_begin(&d->mni);
		found = __atomic_load_n(&frame[page], __ATOMIC_RELAXED);
		pthread_mutex_lock(&d->lock);
		if (!mmu_interval_read_retry(&d->mni, seq))
			break;
		pthread_mutex_unlock(&d->lock);
	}
	/* Nobody changes the page before he has invalidated, which takes the lock. */
	CHECK(found == __atomic_load_n(&frame[page], __ATOMIC_RELAXED));
	d->copy[page] = found;
	pthread_mutex_unlock(&d->lock);
}

static void *device(void *nothing)
{
	struct device *d = (struct device *)calloc(1, sizeof(*d));
	unsigned long n = 0;

	pthread_mutex_init(&d->lock, NULL);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK(mmu_interval_notifier_insert(&d->mni, mm, 0, PAGES << 12, &ops) == 0);
		for (int i = 0; i < 100; i++)
			fault(d, n++ * 7 % PAGES);
		mmu_interval_notifier_remove(&d->mni);
		memset(d->copy, 0, sizeof(d->copy));
	}
	pthread_mutex_destroy(&d->lock);
	free(d);
	return nothing;
}

static void *primary(void *first)
{
	unsigned long base = (unsigned long)first;
	struct mmu_notifier_range range;

	for (unsigned long i = 0; i < ROUNDS; i++) {
		unsigned long page = base + i % (PAGES / 2);

		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, page << 12, (page + 1) << 12);
		mmu_notifier_invalidate_range_start(&range);
		__atomic_store_n(&frame[page], i * 2 + 3, __ATOMIC_RELAXED);
		mmu_notifier_invalidate_range_end(&range);
	}
	return NULL;
}

int main(void)
{
	pthread_t devices[DEVICES], owners[2];

	begin();
	ops.invalidate = invalidate;
	mm = mm_alloc();
	for (int i = 0; i < PAGES; i++)
		frame[i] = 1;
	for (int i = 0; i < DEVICES; i++)
		CHECK(pthread_create(&devices[i], NULL, device, NULL) == 0);
	for (unsigned long i = 0; i < 2; i++)
		CHECK(pthread_create(&owners[i], NULL, primary, (void *)(i * PAGES / 2)) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(owners[i], NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < DEVICES; i++)
		pthread_join(devices[i], NULL);
	mmput(mm);
	return done(0);
}
