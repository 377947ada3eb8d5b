/*
 * Without memory: the allocator fails at each allocation in turn, and each call gives its error and leaves nothing
 * behind. And what a dead mm looks like before its memory is given back, in a debug build. C and C++, glibc.
 */
#include <malloc.h>
#include <stdint.h>

#include "check.h"

#ifdef __cplusplus
extern "C" {
#endif
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);
#ifdef __cplusplus
}
#endif

/* How many allocations succeed before one fails; all do if it is negative. */
static long left = -1;
/* How many pieces of memory are out. */
static long out;
/* Whose free is looked at, and how many of its words were poison. */
static void *watched;
static size_t poisoned;

static bool fails(void)
{
	if (left < 0 || left-- > 0)
		return false;
	left = -1;
	return true;
}

static void *given(void *memory)
{
	out += memory != NULL;
	return memory;
}

void *malloc(size_t size)
{
	return fails() ? NULL : given(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
	return fails() ? NULL : given(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size)
{
	return fails() ? NULL : memory ? __libc_realloc(memory, size) : given(__libc_realloc(memory, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	if (fails())
		return ENOMEM;
	*memory = given(__libc_memalign(alignment, size));
	return *memory ? 0 : ENOMEM;
}

static void look_at(const void *memory)
{
	const uint64_t *words = (const uint64_t *)memory;

	while (words[poisoned] == 0x6b6b6b6b6b6b6b6bu)
		poisoned++;
	watched = NULL;
}

void free(void *memory)
{
	/* Its memory still. */
	if (memory && memory == watched)
		look_at(memory);
	out -= memory != NULL;
	__libc_free(memory);
}

static bool invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range, unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	return true;
}

static struct mmu_interval_notifier_ops interval_ops;
static struct mmu_notifier_ops ops;
static int frees;

static struct mmu_notifier *alloc_notifier(struct mm_struct *mm)
{
	struct mmu_notifier *mn = (struct mmu_notifier *)malloc(sizeof(*mn));

	(void)mm;
	return mn ? mn : (struct mmu_notifier *)ERR_PTR(-ENOMEM);
}

static void free_notifier(struct mmu_notifier *mn)
{
	frees++;
	free(mn);
}

static void an_mm(void)
{
	struct mm_struct *mm;
	long failures = 0;

	for (;; failures++) {
		long before = out;

		left = failures;
		mm = mm_alloc();
		if (mm)
			break;
		CHECK(out == before);
	}
	left = -1;
	CHECK(failures >= 2);
	watched = mm;
	mmput(mm);
	CHECK(!watched);
#ifdef DEBUG_LIBRARY
	/* From the first word on, past what the header shows. */
	CHECK(poisoned > sizeof(struct mm_struct) / 8);
#endif
}

/* Makes the call until it succeeds, each time with one allocation more, on a new mm; says how often it failed. */
static long until_it_succeeds(int (*call)(struct mm_struct *mm), void (*undo)(struct mm_struct *mm))
{
	long failures = 0;

	for (;; failures++) {
		struct mm_struct *mm = mm_alloc();
		int error;

		CHECK(mm);
		left = failures;
		error = call(mm);
		left = -1;
		if (error)
			CHECK(error == -ENOMEM);
		else
			undo(mm);
		mmput(mm);
		if (!error)
			return failures;
	}
}

static struct mmu_interval_notifier mni;
static struct mmu_notifier mn, *shared;

static int insert(struct mm_struct *mm)
{
	int error = mmu_interval_notifier_insert(&mni, mm, 0x1000, 0x1000, &interval_ops);

	CHECK(!error || (!mni.mm && !mm_has_notifiers(mm)));
	return error;
}

static void remove_it(struct mm_struct *mm)
{
	(void)mm;
	mmu_interval_notifier_remove(&mni);
}

static int add(struct mm_struct *mm)
{
	int error;

	mn.ops = &ops;
	error = mmu_notifier_register(&mn, mm);
	CHECK(!error || (hlist_unhashed(&mn.hlist) && !mm_has_notifiers(mm)));
	return error;
}

static void unregister(struct mm_struct *mm)
{
	mmu_notifier_unregister(&mn, mm);
}

static int get(struct mm_struct *mm)
{
	shared = mmu_notifier_get(&ops, mm);
	return IS_ERR(shared) ? (int)PTR_ERR(shared) : 0;
}

static void put(struct mm_struct *mm)
{
	(void)mm;
	mmu_notifier_put(shared);
}

int main(void)
{
	long before;

	begin();
	interval_ops.invalidate = invalidate;
	ops.alloc_notifier = alloc_notifier;
	ops.free_notifier = free_notifier;
	an_mm();
	before = out;
	/* What subscribers need is one piece of memory. */
	CHECK(until_it_succeeds(insert, remove_it) == 1);
	CHECK(until_it_succeeds(add, unregister) > 1);
	CHECK(until_it_succeeds(get, put) > 2);
	mmu_notifier_synchronize();
	/* One that was registered, and those whose registration failed after alloc_notifier. */
	CHECK(frees > 1);
	CHECK(out == before);
	return done(0);
}
