/* What the programs here share: a check that says where it failed, findings, a watchdog. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mmu_notifier.h"

#define CHECK(x) \
	do { \
		if (!(x)) { \
			fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #x); \
			exit(1); \
		} \
	} while (0)

/* Runs a statement and checks that it was diagnosed. */
#define DIAGNOSED(statement) \
	do { \
		unsigned long before_ = mmun_reports(); \
		statement; \
		if (mmun_reports() == before_) { \
			fprintf(stderr, "%s:%d: not diagnosed: %s\n", __FILE__, __LINE__, #statement); \
			exit(1); \
		} \
	} while (0)

/* The last line of each program: nothing was diagnosed that was not meant to be. */
static inline int done(unsigned long expected)
{
	if (expected != (unsigned long)-1 && mmun_reports() != expected) {
		fprintf(stderr, "%lu findings, expected %lu\n", mmun_reports(), expected);
		return 1;
	}
	puts("ok");
	return 0;
}

static inline void begin(void)
{
	alarm(300); /* a hang is a failure */
	mmun_set_report_hook(mmun_report_to_stderr, NULL);
}

#endif
