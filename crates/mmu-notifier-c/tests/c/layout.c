/* The layout that src/types.rs checks on its side, and what C alone can say: designated initialisers, both headers. */
#include <linux/mmu_notifier.h>

#include "check.h"

#define SAME(a, b) _Static_assert((a) == (b), #a " == " #b)

SAME(sizeof(unsigned long), 8);
SAME(offsetof(struct mmu_notifier_range, mmun_private), 48);
SAME(sizeof(struct mmu_notifier_range), 48 + 9 * 8);
SAME(offsetof(struct mmu_notifier, mmun_mark), 0);
SAME(offsetof(struct mmu_notifier, ops), 8);
SAME(offsetof(struct mmu_notifier, mmun_private), 16);
SAME(offsetof(struct mmu_notifier, mm), 248);
SAME(offsetof(struct mmu_notifier, hlist), 256);
SAME(offsetof(struct mmu_notifier, users), 272);
SAME(offsetof(struct mmu_notifier, rcu), 280);
SAME(sizeof(struct mmu_notifier), 296);
SAME(_Alignof(struct mmu_notifier), 8);
SAME(offsetof(struct mmu_interval_notifier, mmun_mark), 0);
SAME(offsetof(struct mmu_interval_notifier, mmun_node), 8);
SAME(offsetof(struct mmu_interval_notifier, invalidate_seq), 32);
SAME(offsetof(struct mmu_interval_notifier, mmun_quiet), 40);
SAME(offsetof(struct mmu_interval_notifier, interval_tree.start), 48);
SAME(offsetof(struct mmu_interval_notifier, interval_tree.last), 56);
SAME(offsetof(struct mmu_interval_notifier, deferred_item), 64);
SAME(offsetof(struct mmu_interval_notifier, ops), 112);
SAME(offsetof(struct mmu_interval_notifier, mm), 120);
SAME(sizeof(struct mmu_interval_notifier), 128);
SAME(_Alignof(struct mmu_interval_notifier), 8);
SAME(sizeof(struct mmu_notifier_ops), 80);
SAME(offsetof(struct mmu_notifier_ops, invalidate_range), 56);
SAME(offsetof(struct mmu_notifier_ops, arch_invalidate_secondary_tlbs), 56);
SAME(sizeof(struct mmu_interval_notifier_ops), 24);
SAME(sizeof(struct mmu_interval_notifier_finish), 16);
SAME(sizeof(struct vm_area_struct), 32);
SAME(offsetof(struct vm_area_struct, vm_flags), 24);
SAME(MMU_NOTIFY_RELEASE, 5);
SAME(MMU_NOTIFY_EXCLUSIVE, 7);
SAME(MMU_NOTIFIER_RANGE_BLOCKABLE, 1);

static void flush(struct mmu_notifier *mn, struct mm_struct *mm, unsigned long start, unsigned long end)
{
	(void)mn;
	(void)mm;
	(void)start;
	(void)end;
}

static const struct mmu_notifier_ops by_the_old_name = { .invalidate_range = flush };
static const struct mmu_notifier_ops by_the_new_name = { .arch_invalidate_secondary_tlbs = flush };

int main(void)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range = {
		.mm = mm, .start = 0x1000, .end = 0x2000, .flags = 1, .event = MMU_NOTIFY_UNMAP,
	};
	struct mmun_stats stats;
	struct mmu_notifier mn = { .ops = &by_the_old_name };

	begin();
	CHECK(by_the_old_name.arch_invalidate_secondary_tlbs == by_the_new_name.invalidate_range);
	CHECK(mmu_notifier_register(&mn, mm) == 0);
	CHECK(__mmu_notifier_invalidate_range_start(&range) == 0);
	__mmu_notifier_invalidate_range_end(&range, false);
	mmun_get_stats(mm, &stats, sizeof(stats));
	CHECK(stats.list == 1 && stats.intervals == 0 && stats.active == 0);
	CHECK(strncmp(mmun_version(), "0.1.", 4) == 0 && strcmp(mmun_error_text(-ENOMEM), "out of memory") == 0);
	mmu_notifier_unregister(&mn, mm);
	mmput(mm);
	return done(0);
}
