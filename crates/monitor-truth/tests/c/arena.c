/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Changes of mappings whose outcome is looked at: of a thread's arena, and of memory of their own. */
#include "churn.h"

#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

unsigned long below(struct arena *arena, unsigned long limit)
{
	arena->seed ^= arena->seed << 13;
	arena->seed ^= arena->seed >> 7;
	arena->seed ^= arena->seed << 17;
	return (arena->seed >> 11) % limit;
}

void *map(void *place, unsigned long length, int flags)
{
	void *memory = mmap(place, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	must(memory != MAP_FAILED);
	return memory;
}

static uint64_t *word(struct arena *arena, unsigned long page)
{
	return (uint64_t *)(arena->memory + page * PAGE);
}

void fill(struct arena *arena, unsigned long page, unsigned long count)
{
	for (; count--; page++) {
		if (arena->holds[page] != CLOSED)
			*word(arena, page) = arena->holds[page] = below(arena, 1ul << 40) + 1;
	}
}

void look(struct arena *arena)
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
void renew(struct arena *arena, unsigned long page, unsigned long count)
{
	must(map(word(arena, page), count * PAGE, MAP_FIXED) == (void *)word(arena, page));
	set(arena, page, count, 0);
	fill(arena, page, count);
}

void discard(struct arena *arena, unsigned long page, unsigned long count)
{
	must(madvise(word(arena, page), count * PAGE, MADV_DONTNEED) == 0);
	for (; count--; page++) {
		if (arena->holds[page] != CLOSED)
			arena->holds[page] = 0;
	}
}

/* Pages that must not be touched, without a mapping of their own. */
void guard(struct arena *arena, unsigned long page, unsigned long count)
{
	const int install = 102, take_away = 103;

	if (madvise(word(arena, page), count * PAGE, install) == 0) {
		must(madvise(word(arena, page), count * PAGE, take_away) == 0);
		for (unsigned long n = page; n < page + count; n++) {
			if (arena->holds[n] != CLOSED)
				arena->holds[n] = 0;
		}
	}
}

void protect(struct arena *arena, unsigned long page, unsigned long count)
{
	const int no_key = -1;

	must(mprotect(word(arena, page), count * PAGE, PROT_NONE) == 0);
	set(arena, page, count, CLOSED);
	if (below(arena, 2)) {
		(void)syscall(SYS_pkey_mprotect, word(arena, page), count * PAGE, PROT_READ, no_key);
		must(mprotect(word(arena, page), count * PAGE, PROT_READ | PROT_WRITE) == 0);
		renew(arena, page, count);
	}
}

void unmap_and_map(struct arena *arena, unsigned long page, unsigned long count)
{
	/* The place stays reserved, so that no other thread gets it. */
	void *over = mmap(word(arena, page), count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	must(over == (void *)word(arena, page));
	renew(arena, page, count);
}

/* Away and back again: what stood there still does. The place stays reserved meanwhile. */
void move(struct arena *arena, unsigned long page, unsigned long count)
{
	const int keep = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	unsigned char *other = map(NULL, count * PAGE, 0);
	void *place = word(arena, page);

	must(mremap(place, count * PAGE, count * PAGE, keep, other) == other);
	must(*(uint64_t *)place == 0);
	must(mremap(other, count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
}

static int this_process(void)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

/* Two pages with others in between. Kernels differ in what they let a process do to itself; if nothing, nothing changes. */
void advise_array(struct arena *arena, unsigned long page, unsigned long count)
{
	struct iovec parts[2] = { { word(arena, page), PAGE }, { word(arena, page + count), PAGE } };
	int process = this_process();
	long done = syscall(SYS_process_madvise, process, parts, 2, MADV_DONTNEED, 0);

	if (process >= 0)
		must(close(process) == 0);
	for (long part = 0; part < done / (long)PAGE; part++) {
		unsigned long which = part ? page + count : page;

		if (arena->holds[which] != CLOSED)
			arena->holds[which] = 0;
	}
	(void)madvise(word(arena, page), count * PAGE, MADV_PAGEOUT);
}

void failing(struct arena *arena)
{
	must(munmap((void *)1, PAGE) == -1 && errno == EINVAL);
	must(mprotect(arena->memory + 1, PAGE, PROT_READ) == -1 && errno == EINVAL);
	must(madvise(arena->memory, PAGE, 12345) == -1 && errno == EINVAL);
	must(shmdt(arena->memory) == -1 && errno == EINVAL);
}

void grow_and_shrink(struct arena *arena)
{
	unsigned long pages = below(arena, 40) + 2;
	unsigned char *memory = map(NULL, pages * PAGE, 0), *grown;

	memory[0] = 7;
	grown = mremap(memory, pages * PAGE, 3 * pages * PAGE, MREMAP_MAYMOVE);
	must(grown != MAP_FAILED && grown[0] == 7);
	must(mremap(grown, 3 * pages * PAGE, PAGE, 0) == grown && grown[0] == 7);
	must(munmap(grown, PAGE) == 0);
}

/* Parts of huge pages, where there are some. */
void huge(struct arena *arena)
{
	const unsigned long size = 2ul << 20;
	unsigned char *memory = map(NULL, 3 * size, 0);
	unsigned char *start = (unsigned char *)(((uintptr_t)memory + size - 1) & ~(size - 1));
	unsigned long page = below(arena, 500) + 1, count = below(arena, 10) + 1;
	unsigned char *part = start + page * PAGE;

	(void)madvise(start, size, MADV_HUGEPAGE);
	memset(start, 5, size);
	must(madvise(part, count * PAGE, MADV_DONTNEED) == 0 && part[0] == 0);
	must(mprotect(part, count * PAGE, PROT_READ) == 0);
	must(start[size - 1] == 5);
	(void)madvise(start, size, MADV_COLLAPSE);
	must(munmap(part, count * PAGE) == 0);
	/* What another thread has put there since stays. */
	must(munmap(memory, (unsigned long)(part - memory)) == 0);
	must(munmap(part + count * PAGE, (unsigned long)(memory + 3 * size - part) - count * PAGE) == 0);
}

/* A segment at a place of its own, and one over something. */
void segment(void)
{
	int identifier = shmget(IPC_PRIVATE, 4 * PAGE, 0600);
	unsigned char *place, *memory;

	/* The machine may have no more of them. */
	if (identifier < 0)
		return;
	place = map(NULL, 4 * PAGE, 0);
	place[0] = 9;
	must(shmat(identifier, place, SHM_REMAP) == place && place[0] == 0);
	memory = shmat(identifier, NULL, 0);
	must(shmctl(identifier, IPC_RMID, NULL) == 0);
	must(memory != (void *)-1);
	memory[0] = 1;
	must(place[0] == 1);
	must(shmdt(memory) == 0 && shmdt(place) == 0);
}

/* Pages of a shared mapping in another order. */
void shared(void)
{
	unsigned char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED);
	memory[2 * PAGE] = 3;
	must(remap_file_pages(memory, PAGE, 0, 2, 0) == 0 && memory[0] == 3);
	must(madvise(memory + 2 * PAGE, PAGE, MADV_REMOVE) == 0 && memory[0] == 0);
	must(munmap(memory, 4 * PAGE) == 0);
}
