/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Threads that change the mappings of their process in all ways at once, under signals whose handler does it too.
 *
 *     churn SEED THREADS ROUNDS [PLUGIN...]	with 0 rounds it leaves while its threads are busy
 *
 * Each thread has an arena of pages and knows what stands in each: a number that it wrote, zero after a discard, or that
 * the page must not be touched. Every round changes some of it and then looks at all, so that a call that was made
 * otherwise than asked for is found. The seed is printed; it gives each thread the same calls, in whatever order.
 */
#include "churn.h"

#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>

static char **plugins;
static int plugin_count, rounds;
static unsigned long signals;

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
		heap(arena);
		grow_and_shrink(arena);
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

/* How often what is done, in a thousand rounds. */
enum { RENEW = 130, DISCARD = 130, GUARD = 40, PROTECT = 100, UNMAP = 100, MOVE = 30, ARRAY = 50, FAILING = 50, GROW = 90,
       HEAP = 170, HUGE = 15, SEGMENT = 25, SHARED = 20, THREAD = 20, PLUGIN = 20, FORK = 7, SPAWN = 3 };

/* Whether it is the turn of something with that share. */
static int is(unsigned long *turn, unsigned long share)
{
	unsigned long before = *turn;

	*turn -= share;
	return before < share;
}

static void one_round(struct arena *arena)
{
	unsigned long page = below(arena, PAGES - 8), count = below(arena, 7) + 1, turn = below(arena, 1000);

	if (is(&turn, RENEW))
		renew(arena, page, count);
	else if (is(&turn, DISCARD))
		discard(arena, page, count);
	else if (is(&turn, GUARD))
		guard(arena, page, count);
	else if (is(&turn, PROTECT))
		protect(arena, page, count);
	else if (is(&turn, UNMAP))
		unmap_and_map(arena, page, count);
	else if (is(&turn, MOVE)) {
		renew(arena, page, count);
		move(arena, page, count);
	} else if (is(&turn, ARRAY))
		advise_array(arena, page, count);
	else if (is(&turn, FAILING))
		failing(arena);
	else if (is(&turn, GROW))
		grow_and_shrink(arena);
	else if (is(&turn, HEAP))
		heap(arena);
	else if (is(&turn, HUGE))
		huge(arena);
	else if (is(&turn, SEGMENT))
		segment();
	else if (is(&turn, SHARED))
		shared();
	else if (is(&turn, THREAD))
		other_thread();
	else if (is(&turn, PLUGIN))
		plugin(arena);
	else if (is(&turn, FORK))
		fork_child(arena);
	else
		spawn_child();
	look(arena);
}

static void *churn(void *argument)
{
	struct arena *arena = argument;

	arena->memory = map(NULL, PAGES * PAGE, 0);
	fill(arena, 0, PAGES);
	for (int round = 0; rounds == 0 || round < rounds; round++)
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
#ifdef __GLIBC__
	/* Under another allocator it is this that makes glibc's own lists, and two threads at once find them half made. */
	malloc_trim(0);
#endif
	for (unsigned long n = 0; n < number; n++) {
		arenas[n].seed = (seed * 16 + n + 1) * 0x9e3779b97f4a7c15ul;
		must(pthread_create(&threads[n], NULL, churn, &arenas[n]) == 0);
	}
	/* The others take the signals, this one waits. */
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	must(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
	ring(700);
	if (rounds == 0) {
		usleep(200000);
		puts("left");
		exit(0);
	}
	for (unsigned long n = 0; n < number; n++)
		must(pthread_join(threads[n], NULL) == 0);
	ring(0);
	printf("%lu signals\nok\n", signals);
	return 0;
}
