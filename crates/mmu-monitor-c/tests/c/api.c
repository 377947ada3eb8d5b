/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every call of the header, as a program that links the library sees it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <mmu_monitor.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096

#define check(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "api.c:%d: %s: %s\n", __LINE__, #condition, mmu_monitor_error()); \
			exit(1); \
		} \
	} while (0)

struct heard {
	int starts, ends, releases;
	uint64_t first, last;
	enum mmu_monitor_event event;
};

static void on_start(const struct mmu_monitor_change *change, void *data)
{
	struct heard *heard = (struct heard *)data;

	if (change->event == MMU_MONITOR_EVENT_RELEASE) {
		heard->releases++;
		return;
	}
	heard->starts++;
	heard->first = change->first;
	heard->last = change->last;
	heard->event = change->event;
}

static void on_end(const struct mmu_monitor_change *change, void *data)
{
	struct heard *heard = (struct heard *)data;

	heard->ends += change->first == heard->first && change->last == heard->last;
}

static char *map(void)
{
	void *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED);
	return (char *)memory;
}

static void before_the_start(void)
{
	char text[8] = "x";

	check(mmu_monitor_armed(text, sizeof(text)) == 0 && text[0] == 0);
	check(mmu_monitor_coverage(MMU_MONITOR_UNMAP, MMU_MONITOR_FUNCTION) == MMU_MONITOR_MISSED);
	check(mmu_monitor_error()[0] == 0);
	check(mmu_monitor_subscribe(on_start, on_end, NULL) == NULL);
	check(strstr(mmu_monitor_error(), "mmu_monitor_start"));
	check(mmu_monitor_start("hooks,nonsense") == -1);
	check(strstr(mmu_monitor_error(), "nonsense"));
	check(mmu_monitor_start("off") == -1);
}

static void the_start(void)
{
	char text[32], little[4];

	check(mmu_monitor_start("hooks") == 0);
	check(mmu_monitor_armed(text, sizeof(text)) == strlen("hooks,explicit") && !strcmp(text, "hooks,explicit"));
	check(mmu_monitor_armed(little, sizeof(little)) == strlen("hooks,explicit") && !strcmp(little, "hoo"));
	check(mmu_monitor_coverage(MMU_MONITOR_UNMAP, MMU_MONITOR_INSIDE) == MMU_MONITOR_AROUND);
	check(mmu_monitor_coverage(MMU_MONITOR_RECLAIM, MMU_MONITOR_ELSEWHERE) == MMU_MONITOR_MISSED);
	check(mmu_monitor_coverage(MMU_MONITOR_FILE, MMU_MONITOR_WRAPPER) == MMU_MONITOR_AROUND);
	check(mmu_monitor_coverage((enum mmu_monitor_operation)99, MMU_MONITOR_DIRECT) == MMU_MONITOR_MISSED);
}

static void everything(void)
{
	struct heard heard = { 0, 0, 0, 0, 0, MMU_MONITOR_EVENT_OTHER };
	struct mmu_monitor_subscription *subscription = mmu_monitor_subscribe(on_start, on_end, &heard);
	char *memory = map();

	check(subscription);
	check(munmap(memory, 4 * PAGE) == 0);
	check(heard.starts == 1 && heard.ends == 1);
	check(heard.first == (uintptr_t)memory && heard.last == (uintptr_t)memory + 4 * PAGE - 1);
	check(heard.event == MMU_MONITOR_EVENT_UNMAP);
	mmu_monitor_unsubscribe(subscription);
	check(heard.releases == 1);
	check(munmap(map(), 4 * PAGE) == 0);
	check(heard.starts == 1);
	mmu_monitor_unsubscribe(NULL);
}

static void a_range(void)
{
	struct heard heard = { 0, 0, 0, 0, 0, MMU_MONITOR_EVENT_OTHER };
	char *memory = map();
	struct mmu_monitor_subscription *subscription;
	uint64_t token;

	check(mmu_monitor_subscribe_range(memory, 0, on_start, &heard) == NULL);
	subscription = mmu_monitor_subscribe_range(memory + PAGE, PAGE, on_start, &heard);
	check(subscription);
	token = mmu_monitor_read_begin(subscription);
	check(!mmu_monitor_read_retry(subscription, token));
	check(madvise(memory, PAGE, MADV_DONTNEED) == 0);
	check(heard.starts == 0 && !mmu_monitor_read_retry(subscription, token));
	check(madvise(memory, 2 * PAGE, MADV_DONTNEED) == 0);
	check(heard.starts == 1 && heard.event == MMU_MONITOR_EVENT_CLEAR);
	check(mmu_monitor_read_retry(subscription, token));
	check(!mmu_monitor_read_retry(subscription, mmu_monitor_read_begin(subscription)));
	mmu_monitor_unsubscribe(subscription);
	check(munmap(memory, 4 * PAGE) == 0);
	check(heard.starts == 1);
}

static void external(void)
{
	struct heard heard = { 0, 0, 0, 0, 0, MMU_MONITOR_EVENT_OTHER };
	struct mmu_monitor_subscription *subscription = mmu_monitor_subscribe(on_start, on_end, &heard);
	struct mmu_monitor_external change;

	check(mmu_monitor_external_begin(&change, &heard, 0) == -1);
	check(mmu_monitor_external_begin(&change, (void *)0x10000, PAGE) == 0);
	check(heard.starts == 1 && heard.ends == 0 && heard.first == 0x10000);
	mmu_monitor_external_end(&change);
	check(heard.ends == 1);
	mmu_monitor_unsubscribe(subscription);
}

int main(void)
{
	before_the_start();
	the_start();
	everything();
	a_range();
	external();
	puts("ok");
	return 0;
}
