/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A library that comes and goes, with thread-locals of its own and memory that is discarded with it. */
static __thread int here[1000];
static int pages[5000];

int touch(void);

int touch(void)
{
	pages[here[7]] = 1;
	return ++here[7];
}
