/* How it works. The kernel tells a thread of its trapped calls by SIGSYS (SECCOMP_RET_TRAP in seccomp(2)), for which
 * the library has a handler (landing/sigsys.c) that does what the other way's tracer does: it sends the thread to the
 * landing. So once the library is in the program, nobody need trace it. exec removes it: then whoever makes that call
 * starts a tracer again (hand_on.c), or the program has the shim by LD_PRELOAD, with the same handler.
 */
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "../sys.h"
#include "bring.h"
#include "tracee.h"
#include "way.h"

enum { OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL };

static int seize(int pid) {
    return (int)request(PTRACE_SEIZE, pid, 0, (void *)(long)OPTIONS);
}

/* Until it executes the program. False: it has ended. */
static int wait_for_exec(int pid) {
    for (int status = 0;;) {
        long waited = sys4(SYS_wait4, pid, &status, __WALL, 0);
        if (waited == -EINTR) continue;
        if (waited < 0 || !WIFSTOPPED(status)) return 0;
        int event = status >> 16;
        if (event == PTRACE_EVENT_EXEC) return 1;
        if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
            request(PTRACE_LISTEN, pid, 0, 0); /* it stays stopped, and hears of SIGCONT */
        else
            go_on(pid, event ? 0 : WSTOPSIG(status));
    }
}

/* A program without the library would be killed at its first trapped call. So it is, with us (PTRACE_O_EXITKILL). */
static int begin_program(int pid, int ended) {
    struct brought brought;
    long error = wait_for_exec(pid) ? bring_library(pid, &brought) : 0;
    sys3(SYS_write, ended, "", 1);
    if (error && error != -ESRCH) return (int)error;
    request(PTRACE_DETACH, pid, 0, 0);
    return 0;
}

const struct way by_notify = {seize, begin_program};
