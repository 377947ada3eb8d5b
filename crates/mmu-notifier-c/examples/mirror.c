/*
 * A device that mirrors a range of an address space: an interval notifier, and a fault loop of read_begin, a walk
 * without the lock, read_retry under it. One thread invalidates while another faults.
 *
 *     cc mirror.c $(pkg-config --cflags --libs mmu_notifier)
 */
#include <linux/mmu_notifier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGES = 32, PAGE_SHIFT = 12, ROUNDS = 20000 };

/* The primary MMU: a table of frames, changed between start and end only. */
static unsigned long page_table[PAGES];

struct mirror {
	struct mmu_interval_notifier notifier;
	pthread_mutex_t lock;
	unsigned long entry[PAGES]; /* 0: none */
	unsigned long retries;
};

static bool mirror_invalidate(struct mmu_interval_notifier *notifier, const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct mirror *mirror = container_of(notifier, struct mirror, notifier);

	/* The device's own changes: its entries are right already. */
	if (range->event == MMU_NOTIFY_MIGRATE && range->owner == mirror)
		return true;
	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&mirror->lock);
	else if (pthread_mutex_trylock(&mirror->lock))
		return false;
	mmu_interval_set_seq(notifier, cur_seq);
	for (unsigned long page = 0; page < PAGES; page++)
		if (page << PAGE_SHIFT < range->end && range->start < (page + 1) << PAGE_SHIFT)
			mirror->entry[page] = 0;
	pthread_mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = { .invalidate = mirror_invalidate };

/* Returns with the lock held, and an entry that is right as long as it is held. */
static unsigned long mirror_fault(struct mirror *mirror, unsigned long page)
{
	unsigned long seq, frame;

	for (;;) {
		seq = mmu_interval_read_begin(&mirror->notifier);
		frame = READ_ONCE(page_table[page]);
		pthread_mutex_lock(&mirror->lock);
		if (!mmu_interval_read_retry(&mirror->notifier, seq))
			break;
		mirror->retries++;
		pthread_mutex_unlock(&mirror->lock);
	}
	return mirror->entry[page] = frame;
}

static struct mirror mirror = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *faults(void *wrong)
{
	for (unsigned long i = 0; i < ROUNDS; i++) {
		unsigned long page = i % PAGES, frame = mirror_fault(&mirror, page);

		/* Who changes the page has to invalidate first, and that takes the lock. */
		if (frame != READ_ONCE(page_table[page]))
			++*(unsigned long *)wrong;
		pthread_mutex_unlock(&mirror.lock);
	}
	return NULL;
}

int main(void)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range;
	unsigned long wrong = 0;
	pthread_t device;

	for (unsigned long page = 0; page < PAGES; page++)
		page_table[page] = page + 1;
	if (mmu_interval_notifier_insert(&mirror.notifier, mm, 0, PAGES << PAGE_SHIFT, &mirror_ops))
		return 1;
	if (pthread_create(&device, NULL, faults, &wrong))
		return 1;
	for (unsigned long i = 0; i < ROUNDS; i++) {
		unsigned long page = i * 5 % PAGES;

		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT);
		mmu_notifier_invalidate_range_start(&range);
		WRITE_ONCE(page_table[page], PAGES + i);
		mmu_notifier_invalidate_range_end(&range);
	}
	pthread_join(device, NULL);
	mmu_interval_notifier_remove(&mirror.notifier);
	mmput(mm);
	if (wrong) {
		fprintf(stderr, "%lu wrong entries\n", wrong);
		return 1;
	}
	printf("%d faults, %lu retries\nok\n", ROUNDS, mirror.retries);
	return 0;
}
