#define _GNU_SOURCE
#include "tracee.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../sys.h"

enum { CALL_STOP = SIGTRAP | 0x80 };

long request(int what, int tid, uint64_t address, const void *data) {
    return sys4(SYS_ptrace, what, tid, address, data);
}

void go_on(int tid, int signal) {
    request(PTRACE_CONT, tid, 0, (void *)(long)signal);
}

long get_registers(int tid, registers *regs) {
    struct iovec part = {regs, sizeof *regs};
    return request(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part);
}

long set_registers(int tid, const registers *regs) {
    struct iovec part = {(void *)regs, sizeof *regs};
    return request(PTRACE_SETREGSET, tid, NT_PRSTATUS, &part);
}

/* A SIGSTOP on the way, which can't be held back, is sent again. */
long run_to_call(int tid, registers *regs) {
    int status, stopped = 0;
    do {
        if (request(PTRACE_SYSCALL, tid, 0, 0) < 0) return -ESRCH;
        siginfo_t info;
        /* WNOWAIT: the end of a thread is for `trace` to see. */
        if (sys5(SYS_waitid, P_PID, tid, &info, WEXITED | WSTOPPED | WNOWAIT | __WALL, 0) < 0) return -ESRCH;
        if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) return -ESRCH;
        if (sys4(SYS_wait4, tid, &status, __WALL, 0) != tid) return -ESRCH;
        stopped |= WSTOPSIG(status) == SIGSTOP;
    } while (WSTOPSIG(status) != CALL_STOP);
    if (stopped) sys2(SYS_tkill, tid, SIGSTOP);
    return get_registers(tid, regs);
}

/* Once to before it, once to after it. */
long make_call(int tid, registers *regs) {
    if (set_registers(tid, regs) < 0 || run_to_call(tid, regs) < 0 || run_to_call(tid, regs) < 0) return -ESRCH;
    return outcome_of(regs);
}
