/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Threads that change the mappings of their process in all ways at once, under signals whose handler does it too.
 *
 *     churn SEED THREADS ROUNDS [PLUGIN...]
 *
 * Each thread has an arena of pages and knows what stands in each: a number that it wrote, zero after a discard, or that
 * the page must not be touched. Every round changes some of it and then looks at all, so that a call that was made
 * otherwise than asked for is found. The seed is printed; it gives each thread the same calls, in whatever order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 64ul
#define CLOSED UINT64_MAX

struct arena {
	unsigned long seed;
	unsigned char *memory;
	uint64_t holds[PAGES];
};

static char **plugins;
static int plugin_count, rounds;
static unsigned long signals;

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "churn.c:%d: %s (%s)\n", __LINE__, #condition, strerror(errno)); \
			_exit(1); \
		} \
	} while (0)

static unsigned long below(struct arena *arena, unsigned long limit)
{
	arena->seed ^= arena->seed << 13;
	arena->seed ^= arena->seed >> 7;
	arena->seed ^= arena->seed << 17;
	return (arena->seed >> 11) % limit;
}

static void *map(void *place, unsigned long length, int flags)
{
	void *memory = mmap(place, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	must(memory != MAP_FAILED);
	return memory;
}

static uint64_t *word(struct arena *arena, unsigned long page)
{
	return (uint64_t *)(arena->memory + page * PAGE);
}

static void fill(struct arena *arena, unsigned long page, unsigned long count)
{
	for (; count--; page++) {
		if (arena->holds[page] != CLOSED)
			*word(arena, page) = arena->holds[page] = below(arena, 1ul << 40) + 1;
	}
}

static void look(struct arena *arena)
{
	for (unsigned long page = 0; page < PAGES; page++) {
		if (arena->holds[page] != CLOSED)
			must(*word(arena, page) == arena->holds[page]);
	}
}

static void set(struct arena *arena, unsigned long page, unsigned long count, uint64_t value)
{
	while (count--)
		arena->holds[page++] = value;
}

/* A part of the arena, opened again with new memory. */
static void renew(struct arena *arena, unsigned long page, unsigned long count)
{
	must(map(word(arena, page), count * PAGE, MAP_FIXED) == (void *)word(arena, page));
	set(arena, page, count, 0);
	fill(arena, page, count);
}

static void discard(struct arena *arena, unsigned long page, unsigned long count)
{
	must(madvise(word(arena, page), count * PAGE, MADV_DONTNEED) == 0);
	for (; count--; page++) {
		if (arena->holds[page] != CLOSED)
			arena->holds[page] = 0;
	}
}

static void protect(struct arena *arena, unsigned long page, unsigned long count)
{
	must(mprotect(word(arena, page), count * PAGE, PROT_NONE) == 0);
	set(arena, page, count, CLOSED);
	if (below(arena, 2)) {
		must(mprotect(word(arena, page), count * PAGE, PROT_READ | PROT_WRITE) == 0);
		renew(arena, page, count);
	}
}

static void unmap_and_map(struct arena *arena, unsigned long page, unsigned long count)
{
	/* The place stays reserved, so that no other thread gets it. */
	void *over = mmap(word(arena, page), count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	must(over == (void *)word(arena, page));
	renew(arena, page, count);
}

/* Away and back again: what stood there still does. The place stays reserved meanwhile. */
static void move(struct arena *arena, unsigned long page, unsigned long count)
{
	const int keep = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	unsigned char *other = map(NULL, count * PAGE, 0);
	void *place = word(arena, page);

	must(mremap(place, count * PAGE, count * PAGE, keep, other) == other);
	must(*(uint64_t *)place == 0);
	must(mremap(other, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
}

static void grow_and_shrink(struct arena *arena)
{
	unsigned long pages = below(arena, 40) + 2;
	unsigned char *memory = map(NULL, pages * PAGE, 0), *grown;

	memory[0] = 7;
	grown = mremap(memory, pages * PAGE, 3 * pages * PAGE, MREMAP_MAYMOVE);
	must(grown != MAP_FAILED && grown[0] == 7);
	must(mremap(grown, 3 * pages * PAGE, PAGE, 0) == grown && grown[0] == 7);
	must(munmap(grown, PAGE) == 0);
}

static void advise_array(struct arena *arena, unsigned long page, unsigned long count)
{
	struct iovec parts[2] = { { word(arena, page), PAGE }, { word(arena, page + count - 1), PAGE } };

	/* The kernel may refuse; then nothing has changed. */
	(void)process_madvise(-1, parts, 2, MADV_COLD, 0);
	(void)madvise(word(arena, page), count * PAGE, MADV_PAGEOUT);
}

static void failing(struct arena *arena)
{
	must(munmap((void *)1, PAGE) == -1 && errno == EINVAL);
	must(mprotect(arena->memory + 1, PAGE, PROT_READ) == -1 && errno == EINVAL);
	must(madvise(arena->memory, PAGE, 12345) == -1 && errno == EINVAL);
	must(shmdt(arena->memory) == -1 && errno == EINVAL);
}

static void heap(struct arena *arena)
{
	char *blocks[24];

	for (int n = 0; n < 24; n++) {
		unsigned long length = below(arena, n % 8 ? 5000 : 1ul << 20) + 1;

		blocks[n] = malloc(length);
		must(blocks[n]);
		memset(blocks[n], n, length);
	}
	blocks[0] = realloc(blocks[0], 1 << 21);
	must(blocks[0] && blocks[0][0] == 0);
	for (int n = 0; n < 24; n++) {
		must(blocks[n][0] == n);
		free(blocks[n]);
	}
#ifdef __GLIBC__
	if (below(arena, 4) == 0)
		malloc_trim(0);
#endif
}

static void segment(void)
{
	int identifier = shmget(IPC_PRIVATE, 4 * PAGE, 0600);
	unsigned char *memory;

	/* The machine may have no more of them. */
	if (identifier < 0)
		return;
	memory = shmat(identifier, NULL, 0);
	must(shmctl(identifier, IPC_RMID, NULL) == 0);
	must(memory != (void *)-1);
	memory[0] = 1;
	must(shmdt(memory) == 0);
}

static void plugin(struct arena *arena)
{
	if (plugin_count) {
		void *library = dlopen(plugins[below(arena, plugin_count)], RTLD_NOW | RTLD_LOCAL);
		int (*touch)(void);

		must(library);
		touch = (int (*)(void))dlsym(library, "touch");
		must(touch && touch() > 0);
		must(dlclose(library) == 0);
	}
}

static void wait_for(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		must(errno == EINTR);
	must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fork_child(struct arena *arena)
{
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		/* A copy: what the child does is nothing to the parent. */
		look(arena);
		must(munmap(arena->memory, PAGES * PAGE) == 0);
		_exit(0);
	}
	wait_for(child);
}

static void spawn_child(void)
{
	static char *const arguments[] = { "true", NULL };
	extern char **environ;
	pid_t child;

	must(posix_spawnp(&child, "true", NULL, NULL, arguments, environ) == 0);
	wait_for(child);
}

static void *short_thread(void *unused)
{
	void *memory = malloc(100000);

	memset(memory, 1, 100000);
	free(memory);
	return unused;
}

static void other_thread(void)
{
	pthread_t thread;

	must(pthread_create(&thread, NULL, short_thread, NULL) == 0);
	must(pthread_join(thread, NULL) == 0);
}

static void on_signal(int number)
{
	int kept = errno;
	unsigned char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory != MAP_FAILED) {
		memory[0] = (unsigned char)number;
		madvise(memory, PAGE, MADV_DONTNEED);
		if (memory[0])
			_exit(2);
		mprotect(memory, PAGE, PROT_READ);
		munmap(memory, 4 * PAGE);
	}
	__atomic_fetch_add(&signals, 1, __ATOMIC_RELAXED);
	errno = kept;
}

static void one_round(struct arena *arena)
{
	unsigned long page = below(arena, PAGES - 8), count = below(arena, 8) + 1, what = below(arena, 1000);

	if (what < 150)
		renew(arena, page, count);
	else if (what < 300)
		discard(arena, page, count);
	else if (what < 400)
		protect(arena, page, count);
	else if (what < 500)
		unmap_and_map(arena, page, count);
	else if (what < 600)
		grow_and_shrink(arena);
	else if (what < 650)
		failing(arena);
	else if (what < 700)
		advise_array(arena, page, count);
	else if (what < 900)
		heap(arena);
	else if (what < 930)
		segment();
	else if (what < 960)
		other_thread();
	else if (what < 980)
		plugin(arena);
	else if (what < 990)
		fork_child(arena);
	else if (what < 993)
		spawn_child();
	else {
		renew(arena, page, count);
		move(arena, page, count);
	}
	look(arena);
}

static void *churn(void *argument)
{
	struct arena *arena = argument;

	arena->memory = map(NULL, PAGES * PAGE, 0);
	fill(arena, 0, PAGES);
	for (int round = 0; round < rounds; round++)
		one_round(arena);
	must(munmap(arena->memory, PAGES * PAGE) == 0);
	return NULL;
}

static void ring(long microseconds)
{
	struct itimerval often = { { 0, microseconds }, { 0, microseconds } };

	must(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

int main(int count, char **arguments)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct arena arenas[16] = { 0 };
	pthread_t threads[16];
	unsigned long seed, number;
	sigset_t alarms;

	must(count >= 4);
	seed = strtoul(arguments[1], NULL, 0);
	number = strtoul(arguments[2], NULL, 0);
	rounds = atoi(arguments[3]);
	must(number <= 16);
	plugins = arguments + 4;
	plugin_count = count - 4;
	printf("seed %lu, %lu threads, %d rounds\n", seed, number, rounds);
	must(sigaction(SIGALRM, &action, NULL) == 0);
	for (unsigned long n = 0; n < number; n++) {
		arenas[n].seed = (seed * 16 + n + 1) * 0x9e3779b97f4a7c15ul;
		must(pthread_create(&threads[n], NULL, churn, &arenas[n]) == 0);
	}
	/* The others take the signals, this one waits. */
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	must(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
	ring(700);
	for (unsigned long n = 0; n < number; n++)
		must(pthread_join(threads[n], NULL) == 0);
	ring(0);
	printf("%lu signals\nok\n", signals);
	return 0;
}
