/* How it works. The answers are the shim's own (ops.c and the others): the tracer makes none. As a program that
 * LD_PRELOAD can't reach begins (PTRACE_EVENT_EXEC), libappswitch.so is written into its memory. At each stop of the
 * filter's (PTRACE_EVENT_SECCOMP) the call is taken away, and the thread sent to the library's landing (landing.c) on a
 * stack of its own: one stop a call, however many calls the answer takes. Descriptors, signals, EINTR, restarts and
 * waiting are the thread's own. Nothing that is checked is read from memory by the tracer, so nothing can be changed
 * under it.
 *
 * All programs of the tree are traced, for the filter is inherited. One with the shim by LD_PRELOAD runs as it would
 * without: the shim's calls have its mark and don't stop; the few others that do are let go.
 *
 * Stacks: a thread gets one at its first call; it lives as long as the thread, and in a fork child at the same place.
 * When a call comes while another one is under way, in a signal's handler, it begins below, or (the handler being on a
 * stack of its own, or having left the call for good by siglongjmp) on the next level.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "../landing/landing.h"
#include "../sys.h"
#include "bring.h"
#include "threads.h"
#include "tracee.h"
#include "way.h"

enum {
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
        PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL,
    CALL_STOP = SIGTRAP | 0x80,
    STACKS_AT_ONCE = 8,
    LEVEL_SIZE = STACK_SIZE / LEVELS,
    HEAD = sizeof(struct stack_head) /* of a level */
};

/* --- stacks */

/* Where there is none left, the call at which the thread has stopped is made another one, that maps some. */
static int give_stack(struct thread *thread, const registers *regs) {
    struct memory *memory = thread->memory;
    if (!memory->count) {
        registers mapping = *regs;
        map_call(&mapping, STACKS_AT_ONCE * STACK_SIZE);
        if (set_registers(thread->tid, &mapping) < 0 || run_to_call(thread->tid, &mapping) < 0) return -ESRCH;
        long at = outcome_of(&mapping);
        if (!is_address(at)) return (int)at;
        for (int i = 0; i < STACKS_AT_ONCE; i++)
            memory->free[memory->count++] = (uint64_t)at + (uint64_t)i * STACK_SIZE;
    }
    thread->stack = memory->free[--memory->count];
    return 0;
}

/* The head of the stack that a call begins on. */
static uint64_t choose_level(const struct thread *thread, uint64_t now) {
    uint64_t end = thread->stack + STACK_SIZE;
    if (now > thread->stack + LEVEL_SIZE / 4 && now <= end) return ((now - RED_ZONE) & ~15ull) - HEAD;
    for (int i = 0; i < LEVELS; i++) {
        uint64_t head = end - (uint64_t)i * LEVEL_SIZE - HEAD, in_use = 0;
        if (request(PTRACE_PEEKDATA, thread->tid, head, &in_use) < 0 || !in_use) return head;
    }
    return end - HEAD; /* calls that have been left for good, all of them */
}

/* --- stops */

static void let_land(struct thread *thread) {
    registers regs;
    int tid = thread->tid;
    if (get_registers(tid, &regs) < 0) return;
    if (!thread->memory || !thread->memory->library || (!thread->stack && give_stack(thread, &regs) < 0)) {
        set_registers(tid, &regs);
        return;
    }
    set_landing(&regs, landing_of(thread->memory->library), choose_level(thread, stack_pointer(&regs)));
    set_registers(tid, &regs);
}

static void begin_program(struct thread *thread) {
    unsigned long former = 0;
    request(PTRACE_GETEVENTMSG, thread->tid, 0, &former);
    struct thread *other = (int)former != thread->tid ? find_thread((int)former) : 0;
    if (other) remove_thread(other); /* it has become the process's first thread */
    struct brought brought;
    if (renew_memory(thread) < 0 || bring_library(thread->tid, &brought) < 0) return;
    thread->memory->library = brought.library;
    thread->stack = brought.stack;
}

static void tell_apart(struct thread *maker, int event) {
    unsigned long tid = 0;
    if (request(PTRACE_GETEVENTMSG, maker->tid, 0, &tid) < 0) return;
    struct thread *made = find_thread((int)tid);
    if (!made) made = add_thread((int)tid);
    if (!made) return;
    long differs = sys5(SYS_kcmp, maker->tid, tid, KCMP_VM, 0, 0);
    if (differs < 0) differs = event == PTRACE_EVENT_FORK; /* this kernel can't tell */
    if (differs)
        copy_memory(made, maker);
    else
        share_memory(made, maker);
    if (made->waits) go_on(made->tid, 0);
    made->waits = 0;
}

/* The pid of the process that a process is a child of; 0: it has gone. (proc_pid_stat(5)) */
static int parent_of(int pid) {
    char path[32] = "/proc/", text[256], *at = text;
    int parent = 0;
    memcpy(write_number(path + 6, (unsigned)pid), "/stat", 6);
    long fd = sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    long size = sys3(SYS_read, fd, text, sizeof text - 1);
    sys1(SYS_close, fd);
    for (long i = 0; i + 4 < size; i++)
        if (text[i] == ')') at = text + i + 4; /* the name may hold another one; then the state, and the parent */
    for (text[size > 0 ? size : 0] = 0; *at >= '0' && *at <= '9'; at++) parent = parent * 10 + (*at - '0');
    return parent;
}

/* A maker that is killed as it forks has no stop that tells whose the child is: but the child has lost its parent as
 * that one's last thread ends. (A thread that waits ends with the others.) */
static void adopt(struct thread *orphan, const struct thread *maker) {
    int is_process = sys3(SYS_tgkill, orphan->tid, orphan->tid, 0) == 0;
    if (!is_process || find_thread(parent_of(orphan->tid))) return;
    copy_memory(orphan, maker);
    orphan->waits = 0;
    go_on(orphan->tid, 0);
}

static void handle_stop(struct thread *thread, int status) {
    int event = status >> 16, signal = WSTOPSIG(status), pass = 0;
    switch (event) {
    case PTRACE_EVENT_SECCOMP:
        let_land(thread);
        break;
    case PTRACE_EVENT_EXEC:
        begin_program(thread);
        break;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        tell_apart(thread, event);
        break;
    case PTRACE_EVENT_STOP:
        if (signal != SIGTRAP) { /* it stays stopped, and hears of SIGCONT */
            request(PTRACE_LISTEN, thread->tid, 0, 0);
            return;
        }
        if (!thread->memory) {
            thread->waits = 1;
            return;
        }
        break;
    default:
        if (signal != CALL_STOP) pass = signal;
    }
    go_on(thread->tid, pass);
}

static int seize(int pid) {
    struct thread *first = add_thread(pid);
    if (!first || renew_memory(first) < 0) return -ENOMEM;
    return (int)request(PTRACE_SEIZE, pid, 0, (void *)(long)OPTIONS);
}

static int trace(int pid, int ended) {
    while (!no_threads()) {
        int status;
        long tid = sys4(SYS_wait4, -1, &status, __WALL, 0);
        if (tid == -EINTR) continue;
        if (tid < 0) return (int)tid;
        struct thread *thread = find_thread((int)tid);
        if (WIFSTOPPED(status)) {
            if (!thread) thread = add_thread((int)tid);
            if (thread) handle_stop(thread, status);
            continue;
        }
        if (thread) {
            for_each_waiting(adopt, thread);
            remove_thread(thread);
        }
        if (tid == pid) {
            sys3(SYS_write, ended, "", 1);
            sys1(SYS_close, ended);
            sys1(SYS_close, 2); /* nothing of its terminal is held any more */
        }
    }
    return 0;
}

const struct way by_ptrace = {seize, trace};
