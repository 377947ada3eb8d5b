/* A call on an mm that is gone ends the program with a message that names the call, where the allocator left a
 * trace (glibc does). ci/c runs it plainly only: the tools would see the read itself. */
#include <sys/wait.h>

#include "check.h"

int main(void)
{
	int out[2], status;
	char text[256] = "";
	pid_t child;

	CHECK(pipe(out) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		struct mm_struct *mm = mm_alloc();

		dup2(out[1], 2);
		mmput(mm);
		mmgrab(mm);
		_exit(0);
	}
	close(out[1]);
	CHECK(read(out[0], text, sizeof(text) - 1) > 0);
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
	CHECK(strstr(text, "mmgrab") != NULL);
	return done(0);
}
