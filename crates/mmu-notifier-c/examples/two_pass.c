/*
 * Devices whose flush takes a while: the first pass begins it on each, the second waits for it, so that the flushes
 * of several devices run side by side.
 *
 *     cc two_pass.c $(pkg-config --cflags --libs mmu_notifier)
 */
#include <linux/mmu_notifier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEVICES = 4 };

struct device {
	struct mmu_interval_notifier notifier;
	struct mmu_interval_notifier_finish finish;
	pthread_mutex_t lock;
	bool flushing;
	int flushes;
};

static int in_flight, most;

static bool device_invalidate_start(struct mmu_interval_notifier *notifier, const struct mmu_notifier_range *range,
				    unsigned long cur_seq, struct mmu_interval_notifier_finish **finish)
{
	struct device *device = container_of(notifier, struct device, notifier);

	if (!mmu_notifier_range_blockable(range))
		return false;
	pthread_mutex_lock(&device->lock);
	mmu_interval_set_seq(notifier, cur_seq);
	/* There is one finish a device: while it is in use, flush at once. */
	if (!device->flushing) {
		device->flushing = true;
		most = ++in_flight > most ? in_flight : most;
		*finish = &device->finish;
	}
	device->flushes++;
	pthread_mutex_unlock(&device->lock);
	return true;
}

static void device_invalidate_finish(struct mmu_interval_notifier_finish *finish)
{
	struct device *device = container_of(finish, struct device, finish);

	pthread_mutex_lock(&device->lock);
	device->flushing = false;
	in_flight--;
	pthread_mutex_unlock(&device->lock);
}

static const struct mmu_interval_notifier_ops device_ops = {
	.invalidate_start = device_invalidate_start,
	.invalidate_finish = device_invalidate_finish,
};

int main(void)
{
	static struct device devices[DEVICES];
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier_range range;
	bool right = true;

	for (int i = 0; i < DEVICES; i++) {
		pthread_mutex_init(&devices[i].lock, NULL);
		if (mmu_interval_notifier_insert(&devices[i].notifier, mm, 0, 1ul << 20, &device_ops))
			return 1;
	}
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, 0x1000, 0x2000);
	right &= mmu_notifier_invalidate_range_start_nonblock(&range) == -EAGAIN;
	right &= most == 0;
	mmu_notifier_invalidate_range_start(&range);
	right &= most == DEVICES && in_flight == 0;
	mmu_notifier_invalidate_range_end(&range);
	for (int i = 0; i < DEVICES; i++) {
		right &= devices[i].flushes == 1;
		mmu_interval_notifier_remove(&devices[i].notifier);
	}
	mmput(mm);
	puts(right ? "ok" : "wrong");
	return right ? 0 : 1;
}
