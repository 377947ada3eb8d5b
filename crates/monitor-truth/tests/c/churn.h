/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the parts of the churn share: arenas, and what is done to them. */
#ifndef CHURN_H
#define CHURN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 64ul
/* What a page holds that must not be touched. */
#define CLOSED UINT64_MAX

/* Pages of one thread, and what stands in each. */
struct arena {
	unsigned long seed;
	unsigned char *memory;
	uint64_t holds[PAGES];
};

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "churn.c:%d: %s (%s)\n", __LINE__, #condition, strerror(errno)); \
			_exit(1); \
		} \
	} while (0)

unsigned long below(struct arena *arena, unsigned long limit);
void *map(void *place, unsigned long length, int flags);
void fill(struct arena *arena, unsigned long page, unsigned long count);
void look(struct arena *arena);

/* Changes of count pages from page on. */
void renew(struct arena *arena, unsigned long page, unsigned long count);
void discard(struct arena *arena, unsigned long page, unsigned long count);
void guard(struct arena *arena, unsigned long page, unsigned long count);
void protect(struct arena *arena, unsigned long page, unsigned long count);
void unmap_and_map(struct arena *arena, unsigned long page, unsigned long count);
void move(struct arena *arena, unsigned long page, unsigned long count);
void advise_array(struct arena *arena, unsigned long page, unsigned long count);
void failing(struct arena *arena);

/* Changes of memory of their own. */
void grow_and_shrink(struct arena *arena);
void huge(struct arena *arena);
void segment(void);
void shared(void);

#endif
