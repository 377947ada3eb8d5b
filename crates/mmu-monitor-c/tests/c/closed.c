/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A thread closes a library whose thread-locals it has used, and then frees the top of its arena: the next one who asks
 * the dynamic linker for a thread-local has those of the library freed, and here that is a hook inside free().
 *
 *     closed LIBRARY
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 64
#define LENGTH 100000

static void *in_an_arena_of_its_own(void *name)
{
	char *blocks[BLOCKS];

	for (int turn = 0; turn < 20; turn++) {
		void *library = dlopen((const char *)name, RTLD_NOW);
		int (*touch)(void);

		if (!library)
			return dlerror();
		*(void **)&touch = dlsym(library, "touch");
		for (int n = 0; n < BLOCKS; n++) {
			blocks[n] = malloc(LENGTH);
			if (!blocks[n])
				return "no memory";
			memset(blocks[n], 1, LENGTH);
		}
		if (!touch || touch() != 1)
			return "no thread-local";
		dlclose(library);
		for (int n = BLOCKS; n--;)
			free(blocks[n]);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t thread;
	void *wrong = "no library named";

	if (count == 2 && pthread_create(&thread, NULL, in_an_arena_of_its_own, arguments[1]) == 0)
		pthread_join(thread, &wrong);
	puts(wrong ? (char *)wrong : "ok");
	return 0;
}
