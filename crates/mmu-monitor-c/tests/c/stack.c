/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * How deep the stack gets in each call: a thread on a stack that is painted, whose calls are made one by one. Prints the
 * deepest. Then all calls again on the least stack that a thread may have.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define PAGE 4096ul
#define LARGE (256 * 1024ul)
#define PAINT 0x5a
/* The least stack has room for that much, beside what the C library keeps there. */
#define ENOUGH (10 * 1024)

static unsigned char *stack;

static void *map(void)
{
	return mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void by_munmap(void *memory) { munmap(memory, 4 * PAGE); }
static void by_mprotect(void *memory) { mprotect(memory, PAGE, PROT_READ); }
static void by_madvise(void *memory) { madvise(memory, PAGE, MADV_DONTNEED); }
static void by_mremap(void *memory) { mremap(memory, 4 * PAGE, PAGE, 0); }
static void by_free(void *memory) { free(memory); }
static void by_shmdt(void *memory) { shmdt(memory); }

static void by_mmap(void *memory)
{
	mmap(memory, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void *attach(void)
{
	int identifier = shmget(IPC_PRIVATE, PAGE, 0600);
	void *memory = shmat(identifier, NULL, 0);

	shmctl(identifier, IPC_RMID, NULL);
	return memory;
}

static void *allocate(void)
{
	return malloc(300000);
}

static const struct one {
	const char *name;
	void *(*make)(void);
	void (*call)(void *);
} calls[] = {
	{ "munmap", map, by_munmap },
	{ "mprotect", map, by_mprotect },
	{ "madvise", map, by_madvise },
	{ "mremap", map, by_mremap },
	{ "mmap", map, by_mmap },
	{ "free", allocate, by_free },
	{ "shmdt", attach, by_shmdt },
};

#define CALLS (sizeof(calls) / sizeof(calls[0]))

static size_t depth(const struct one *one)
{
	void *memory = one->make();
	unsigned char *here = (unsigned char *)__builtin_frame_address(0) - 256;
	unsigned char *deepest;

	/* No function is called between this and the call, lest it paint over. */
	for (volatile unsigned char *place = stack; place < here; place++)
		*place = PAINT;
	one->call(memory);
	for (deepest = stack; deepest < here && *deepest == PAINT; deepest++)
		;
	return (size_t)(here - deepest);
}

static void *measure(void *depths)
{
	for (size_t n = 0; n < CALLS; n++)
		((size_t *)depths)[n] = depth(&calls[n]);
	return NULL;
}

static void *just_call(void *unused)
{
	for (size_t n = 0; n < CALLS; n++)
		calls[n].call(calls[n].make());
	return unused;
}

static int run(void *(*what)(void *), void *argument, size_t size)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	if (size == LARGE)
		pthread_attr_setstack(&attributes, stack, LARGE);
	else
		pthread_attr_setstacksize(&attributes, size);
	return pthread_create(&thread, &attributes, what, argument) || pthread_join(thread, NULL);
}

int main(void)
{
	size_t depths[CALLS], most = 0;

	stack = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED || run(measure, depths, LARGE))
		return 1;
	for (size_t n = 0; n < CALLS; n++) {
		fprintf(stderr, "%s %zu\n", calls[n].name, depths[n]);
		if (depths[n] > most)
			most = depths[n];
	}
	if (most < ENOUGH && run(just_call, NULL, PTHREAD_STACK_MIN))
		return 1;
	printf("at most %zu bytes\nok\n", most);
	return 0;
}
