/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The rows of the benchmark that every program has, through the C interface: the same work, from the same random numbers.
 *
 *     rows MAX [smoke]        prints lines of `row n nanoseconds`; MAX is the largest number of intervals
 *
 * `smoke` only shows that it runs. src/c_interface.rs compiles this, and src/rows/ has the same work in Rust.
 */
#include <mmu_notifier.h>

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE 4096ul
/* From one interval's start to the next one's; each is two pages long. */
#define SPACING (4 * PAGE)
#define LENGTH (2 * PAGE)
/* From one thread's interval to the next one's. */
#define APART (1ul << 40)

static bool smoke;
static unsigned long hits;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static void report(const char *row, unsigned long n, double nanoseconds)
{
	printf("%-50s %10lu %14.3f\n", row, n, nanoseconds);
	fflush(stdout);
}

static unsigned long turns(unsigned long full)
{
	unsigned long few = full / 10000;

	if (!smoke)
		return full;
	return few < 1 ? 1 : few > 100 ? 100 : few;
}

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "rows: %s\n", what);
	exit(EXIT_FAILURE);
}

static void *zeroed(unsigned long count, size_t size)
{
	void *memory = calloc(count, size);

	must(memory != NULL, "no memory");
	return memory;
}

static uint64_t state = 88172645463325252u;

static unsigned long below(unsigned long bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

static unsigned long *random_order(unsigned long count)
{
	unsigned long *order = (unsigned long *)zeroed(count, sizeof(*order));

	for (unsigned long i = 0; i < count; i++)
		order[i] = i;
	for (unsigned long last = count - 1; last > 0; last--) {
		unsigned long other = below(last + 1), position = order[last];

		order[last] = order[other];
		order[other] = position;
	}
	return order;
}

static bool invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range, unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	hits++;
	return true;
}

static const struct mmu_interval_notifier_ops interval_ops = { .invalidate = invalidate };

static int list_start(struct mmu_notifier *subscription, const struct mmu_notifier_range *range)
{
	(void)subscription;
	(void)range;
	hits++;
	return 0;
}

static void list_end(struct mmu_notifier *subscription, const struct mmu_notifier_range *range)
{
	(void)subscription;
	(void)range;
	hits++;
}

static const struct mmu_notifier_ops list_ops = {
	.invalidate_range_start = list_start,
	.invalidate_range_end = list_end,
};

/* Starts an invalidation and ends it. */
static inline void cycle(struct mm_struct *mm, unsigned long start, unsigned long length)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, start, start + length);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
}

static void no_subscriber(void)
{
	struct mm_struct *mm = mm_alloc();
	unsigned long n = turns(20000000);
	double begin = now();

	for (unsigned long i = 0; i < n; i++) {
		/* Each turn reads anew whether there is anybody. */
		__asm__ volatile("" ::: "memory");
		cycle(mm, i * PAGE, PAGE);
	}
	report("invalidate/no-subscriber", 0, (now() - begin) / n);
	mmput(mm);
}

static void add_to_list(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	subscription->ops = &list_ops;
	must(mmu_notifier_register(subscription, mm) == 0, "a registration failed");
}

static void list(unsigned long length)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier *all = (struct mmu_notifier *)zeroed(length, sizeof(*all));
	unsigned long n = turns(2000000);
	double begin;

	for (unsigned long i = 0; i < length; i++)
		add_to_list(&all[i], mm);
	begin = now();
	for (unsigned long i = 0; i < n; i++)
		cycle(mm, 0, PAGE);
	report("invalidate/list", length, (now() - begin) / n);

	n = turns(20000);
	begin = now();
	for (unsigned long i = 0; i < n; i++) {
		mmu_notifier_unregister(&all[0], mm);
		add_to_list(&all[0], mm);
	}
	report("unregister+register", length, (now() - begin) / n);

	for (unsigned long i = 0; i < length; i++)
		mmu_notifier_unregister(&all[i], mm);
	free(all);
	mmput(mm);
}

static void add_interval(struct mmu_interval_notifier *sub, struct mm_struct *mm, unsigned long start,
			 unsigned long length)
{
	must(mmu_interval_notifier_insert(sub, mm, start, length, &interval_ops) == 0, "an insert failed");
}

static void invalidations(struct mm_struct *mm, unsigned long size)
{
	unsigned long n = turns(1000000);
	double begin = now();

	for (unsigned long i = 0; i < n; i++)
		cycle(mm, below(size) * SPACING + LENGTH, PAGE);
	report("interval/invalidate-miss", size, (now() - begin) / n);

	hits = 0;
	begin = now();
	for (unsigned long i = 0; i < n; i++)
		cycle(mm, below(size) * SPACING, PAGE);
	report("interval/invalidate-1-hit", size, (now() - begin) / n);
	must(hits == n, "each of these invalidations hits one");

	if (size < 100)
		return;
	n = turns(100000);
	begin = now();
	for (unsigned long i = 0; i < n; i++)
		cycle(mm, below(size - 99) * SPACING, 100 * SPACING);
	report("interval/invalidate-100-hits", size, (now() - begin) / n);
}

static void reads(struct mmu_interval_notifier *subs, unsigned long size)
{
	unsigned long n = turns(2000000), retries = 0;
	double begin = now();

	for (unsigned long i = 0; i < n; i++) {
		struct mmu_interval_notifier *sub = &subs[below(size)];

		retries += mmu_interval_read_retry(sub, mmu_interval_read_begin(sub));
	}
	report("interval/read-begin+retry", size, (now() - begin) / n);
	must(retries == 0, "nobody invalidated");
}

static void intervals(unsigned long size)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_interval_notifier *subs = (struct mmu_interval_notifier *)zeroed(size, sizeof(*subs));
	unsigned long *order = random_order(size);
	double begin = now();

	for (unsigned long i = 0; i < size; i++)
		add_interval(&subs[i], mm, order[i] * SPACING, LENGTH);
	report("interval/insert-random", size, (now() - begin) / size);

	invalidations(mm, size);
	reads(subs, size);

	begin = now();
	for (unsigned long i = 0; i < size; i++)
		mmu_interval_notifier_remove(&subs[i]);
	report("interval/remove", size, (now() - begin) / size);
	free(order);
	free(subs);
	mmput(mm);
}

#define MOST_THREADS 2

static struct mm_struct *shared;
static struct mmu_interval_notifier own[8];
static bool stop;

static bool is_over(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* Both are given a number, and give the number of their turns. */
static void *invalidator(void *number)
{
	unsigned long base = ((unsigned long)number + 1) * APART, n = 0;

	do {
		for (unsigned long i = 0; i < 64; i++)
			cycle(shared, base + i * PAGE, PAGE);
		n += 64;
	} while (!is_over());
	return (void *)n;
}

static void *reader(void *number)
{
	struct mmu_interval_notifier *sub = &own[(unsigned long)number];
	unsigned long n = 0, retries = 0;

	do {
		for (int i = 0; i < 64; i++)
			retries += mmu_interval_read_retry(sub, mmu_interval_read_begin(sub));
		n += 64;
	} while (!is_over());
	must(retries == 0, "nobody invalidated");
	return (void *)n;
}

static void all_at_once(const char *row, void *(*body)(void *), unsigned long count)
{
	const struct timespec time = { 0, smoke ? 5000000 : 700000000 };
	pthread_t threads[MOST_THREADS];
	unsigned long sum = 0;
	double begin = now();

	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	for (unsigned long i = 0; i < count; i++)
		must(pthread_create(&threads[i], NULL, body, (void *)i) == 0, "a thread cannot be made");
	nanosleep(&time, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned long i = 0; i < count; i++) {
		void *done;

		pthread_join(threads[i], &done);
		sum += (unsigned long)done;
	}
	report(row, count, (now() - begin) / sum);
}

static void threads(void)
{
	shared = mm_alloc();
	for (unsigned long i = 0; i < 8; i++)
		add_interval(&own[i], shared, (i + 1) * APART, 1ul << 20);
	for (unsigned long count = 1; count <= MOST_THREADS; count++)
		all_at_once("interval/invalidate-hit threads", invalidator, count);
	for (unsigned long count = 1; count <= MOST_THREADS; count++)
		all_at_once("interval/read threads", reader, count);
	for (unsigned long i = 0; i < 8; i++)
		mmu_interval_notifier_remove(&own[i]);
	mmput(shared);
}

int main(int argc, char **argv)
{
	unsigned long max = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;

	smoke = argc > 2 && strcmp(argv[2], "smoke") == 0;
	no_subscriber();
	for (unsigned long length = 1; length <= 16; length *= 4)
		list(length);
	for (unsigned long size = 1; size <= max; size *= 10)
		intervals(size);
	threads();
	return EXIT_SUCCESS;
}
