/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The process as a struct mm_struct: subscribers with the kernel's structures hear of the process's own munmap, free and
 * fork, before and after.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mmu_monitor.h>
#include <mmu_notifier.h>

#define PAGE 4096UL
#define LARGE (64UL << 20)

#define CHECK(condition)                                                                  \
	do {                                                                              \
		if (!(condition)) {                                                       \
			printf("line %d: %s (%s)\n", __LINE__, #condition, mmu_monitor_error()); \
			exit(1);                                                          \
		}                                                                         \
	} while (0)

/* As the library that starts ranges has it. */
_Static_assert(offsetof(struct mmu_notifier_range, mm) == 8, "mm");
_Static_assert(offsetof(struct mmu_notifier_range, start) == 16, "start");
_Static_assert(offsetof(struct mmu_notifier_range, end) == 24, "end");
_Static_assert(offsetof(struct mmu_notifier_range, flags) == 32, "flags");
_Static_assert(offsetof(struct mmu_notifier_range, event) == 36, "event");
_Static_assert(offsetof(struct mmu_notifier_range, owner) == 40, "owner");
_Static_assert(sizeof(struct mmu_notifier_range) == 120, "size");
_Static_assert(MMU_NOTIFY_CLEAR == 1 && MMU_NOTIFY_PROTECTION_VMA == 2 && MMU_NOTIFY_PROTECTION_PAGE == 3 &&
	       MMU_NOTIFY_RELEASE == 5 && MMU_NOTIFIER_RANGE_BLOCKABLE == 1, "events");

struct mirror {
	struct mmu_interval_notifier notifier;
	int hits;
	unsigned long start;
	int event;
	int is_mapped;
};

static int is_mapped(unsigned long address)
{
	unsigned char state;

	return mincore((void *)address, PAGE, &state) == 0;
}

static bool invalidate(struct mmu_interval_notifier *notifier, const struct mmu_notifier_range *range, unsigned long seq)
{
	struct mirror *mirror = (struct mirror *)notifier;

	mmu_interval_set_seq(notifier, seq);
	mirror->hits++;
	mirror->start = range->start;
	mirror->event = range->event;
	mirror->is_mapped = is_mapped(range->start);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = { .invalidate = invalidate };

struct ear {
	struct mmu_notifier notifier;
	int starts, ends, forks, releases, mapped_at_end;
};

static int start(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct ear *ear = (struct ear *)notifier;

	ear->starts++;
	ear->forks += range->event == MMU_NOTIFY_PROTECTION_PAGE;
	return 0;
}

static void end(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct ear *ear = (struct ear *)notifier;

	ear->ends++;
	ear->mapped_at_end = is_mapped(range->start);
}

static void release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	(void)mm;
	((struct ear *)notifier)->releases++;
}

static const struct mmu_notifier_ops ear_ops = {
	.invalidate_range_start = start,
	.invalidate_range_end = end,
	.release = release,
};

static struct mirror mirror;
static struct ear ear;

static void look_at_exit(void)
{
	/* Registered before the monitor's, so called after it. */
	if (ear.releases != 1)
		_exit(9);
	/* Mappings still change. */
	munmap(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE);
	printf("ok\n");
	fflush(stdout);
}

int main(void)
{
	struct mm_struct *mm;
	unsigned long seq;
	char *memory;
	int status;
	pid_t child;

	setvbuf(stdout, NULL, _IONBF, 0);
	atexit(look_at_exit);
	CHECK(!mmu_monitor_mm());
	CHECK(strstr(mmu_monitor_error(), "not started"));
	if (mmu_monitor_start("hooks")) {
		printf("skipped: %s\n", mmu_monitor_error());
		_exit(0);
	}
	mm = mmu_monitor_mm();
	CHECK(mm && mm == mmu_monitor_mm());
	mmput(mm);

	memory = malloc(LARGE);
	memset(memory, 1, LARGE);
	CHECK(!mmu_interval_notifier_insert(&mirror.notifier, mm, (unsigned long)memory, LARGE, &mirror_ops));
	ear.notifier.ops = &ear_ops;
	CHECK(!mmu_notifier_register(&ear.notifier, mm));
	seq = mmu_interval_read_begin(&mirror.notifier);
	CHECK(!mmu_interval_read_retry(&mirror.notifier, seq));

	/* Inside free(). */
	free(memory);
	CHECK(mirror.hits == 1 && mirror.event == MMU_NOTIFY_UNMAP && mirror.is_mapped);
	CHECK(mirror.start <= (unsigned long)memory);
	CHECK(mmu_interval_read_retry(&mirror.notifier, seq));
	CHECK(ear.starts == 1 && ear.ends == 1 && !ear.mapped_at_end);

	child = fork();
	if (!child)
		_exit(ear.forks == 1 && ear.ends == ear.starts ? 0 : 7);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(ear.forks == 1 && ear.ends == ear.starts);

	/* What the program tells of itself, too. */
	struct mmu_monitor_external external;
	int starts = ear.starts;

	CHECK(!mmu_monitor_external_begin(&external, (void *)PAGE, PAGE));
	CHECK(ear.starts == starts + 1 && ear.ends == starts);
	mmu_monitor_external_end(&external);
	CHECK(ear.ends == starts + 1);

	mmu_interval_notifier_remove(&mirror.notifier);
	mmput(mm);
	return 0;
}
