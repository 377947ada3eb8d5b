/*
 * A device that caches whole pages of an address space and watches all of it: one list notifier a device and space,
 * shared by everybody who opens it (get and put).
 *
 *     cc page_cache.c $(pkg-config --cflags --libs mmu_notifier)
 */
#include <linux/mmu_notifier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 16, PAGE = 4096 };

/* The primary MMU: a table of frames, changed between start and end only. */
static unsigned long page_table[SLOTS];

struct cache {
	struct mmu_notifier mn;
	pthread_mutex_t lock;
	int active; /* invalidations under way: nothing may be filled meanwhile */
	bool gone;
	unsigned long slot[SLOTS];
};

static int living;

static void drop(struct cache *cache, unsigned long start, unsigned long end)
{
	for (unsigned long i = 0; i < SLOTS; i++)
		if (i * PAGE < end && start < (i + 1) * PAGE)
			cache->slot[i] = 0;
}

static int cache_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct cache *cache = container_of(mn, struct cache, mn);

	if (mmu_notifier_range_blockable(range))
		pthread_mutex_lock(&cache->lock);
	else if (pthread_mutex_trylock(&cache->lock))
		return -EAGAIN;
	cache->active++;
	drop(cache, range->start, range->end);
	pthread_mutex_unlock(&cache->lock);
	return 0;
}

static void cache_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct cache *cache = container_of(mn, struct cache, mn);

	(void)range;
	pthread_mutex_lock(&cache->lock);
	cache->active--;
	pthread_mutex_unlock(&cache->lock);
}

static void cache_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct cache *cache = container_of(mn, struct cache, mn);

	(void)mm;
	pthread_mutex_lock(&cache->lock);
	cache->gone = true;
	drop(cache, 0, ULONG_MAX);
	pthread_mutex_unlock(&cache->lock);
}

static struct mmu_notifier *cache_alloc(struct mm_struct *mm)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	(void)mm;
	if (!cache)
		return ERR_PTR(-ENOMEM);
	pthread_mutex_init(&cache->lock, NULL);
	living++;
	return &cache->mn;
}

static void cache_free(struct mmu_notifier *mn)
{
	struct cache *cache = container_of(mn, struct cache, mn);

	pthread_mutex_destroy(&cache->lock);
	living--;
	free(cache);
}

static const struct mmu_notifier_ops cache_ops = {
	.release = cache_release,
	.invalidate_range_start = cache_start,
	.invalidate_range_end = cache_end,
	.alloc_notifier = cache_alloc,
	.free_notifier = cache_free,
};

/* 0 or the frame; nothing is kept of what is read while anything changes. */
static unsigned long cache_read(struct cache *cache, unsigned long page)
{
	unsigned long frame;

	pthread_mutex_lock(&cache->lock);
	frame = cache->slot[page];
	if (!frame && !cache->gone) {
		frame = page_table[page];
		if (!cache->active)
			cache->slot[page] = frame;
	}
	pthread_mutex_unlock(&cache->lock);
	return frame;
}

static void expect(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "wrong: %s\n", what);
		exit(1);
	}
}

int main(void)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range;
	struct mmu_notifier *first = mmu_notifier_get(&cache_ops, mm);
	struct mmu_notifier *second = mmu_notifier_get(&cache_ops, mm);
	struct cache *cache = container_of(first, struct cache, mn);

	expect(!IS_ERR(first) && first == second && living == 1, "one cache a space");
	page_table[3] = 7;
	expect(cache_read(cache, 3) == 7 && cache->slot[3] == 7, "it is kept");

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, NULL, mm, 3 * PAGE, 4 * PAGE);
	mmu_notifier_invalidate_range_start(&range);
	expect(cache->slot[3] == 0, "dropped before the change");
	page_table[3] = 8;
	expect(cache_read(cache, 3) == 8 && cache->slot[3] == 0, "not kept during the change");
	mmu_notifier_invalidate_range_end(&range);
	expect(cache_read(cache, 3) == 8 && cache->slot[3] == 8, "kept after it");

	mmu_notifier_put(second);
	mmput(mm); /* the last user: release */
	expect(cache->gone && cache_read(cache, 3) == 0, "nothing after the exit");
	mmu_notifier_put(first);
	mmu_notifier_synchronize();
	expect(living == 0, "freed");
	puts("ok");
	return 0;
}
