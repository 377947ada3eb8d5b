/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The library is loaded while threads run: either it is refused with a reason, or threads that were there before hear as
 * well as any other.
 *
 *     late LIBRARY
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <mmu_monitor.h>

#define PAGE 4096
#define THREADS 4
#define ROUNDS 1000

static pthread_barrier_t loaded;
static unsigned long starts;

static void on_start(const struct mmu_monitor_change *change, void *data)
{
	(void)change;
	__atomic_fetch_add((unsigned long *)data, 1, __ATOMIC_RELAXED);
}

static void *work(void *unused)
{
	pthread_barrier_wait(&loaded);
	for (int round = 0; round < ROUNDS; round++) {
		void *memory = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED || munmap(memory, PAGE))
			exit(1);
	}
	return unused;
}

int main(int count, char **arguments)
{
	pthread_t threads[THREADS];
	void *library;
	int (*start)(const char *);
	struct mmu_monitor_subscription *(*subscribe)(mmu_monitor_callback, mmu_monitor_callback, void *);
	const char *(*error)(void);

	if (count != 2)
		return 1;
	pthread_barrier_init(&loaded, NULL, THREADS + 1);
	for (int n = 0; n < THREADS; n++)
		pthread_create(&threads[n], NULL, work, NULL);
	library = dlopen(arguments[1], RTLD_NOW);
	if (!library) {
		/* There may be no room for its thread-locals. */
		fprintf(stderr, "refused: %s\n", dlerror());
		puts("ok");
		return 0;
	}
	*(void **)&start = dlsym(library, "mmu_monitor_start");
	*(void **)&subscribe = dlsym(library, "mmu_monitor_subscribe");
	*(void **)&error = dlsym(library, "mmu_monitor_error");
	if (start("hooks")) {
		fprintf(stderr, "refused: %s\n", error());
		puts("ok");
		return 0;
	}
	if (!subscribe(on_start, NULL, &starts))
		return 1;
	pthread_barrier_wait(&loaded);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	if (starts < THREADS * ROUNDS) {
		printf("only %lu starts\n", starts);
		return 1;
	}
	puts("ok");
	return 0;
}
