/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A library with more thread-locals than an allocator keeps for the thread alone. */
static __thread int here[4000];

int touch(void);

int touch(void)
{
	return ++here[7];
}
