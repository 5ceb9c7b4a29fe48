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
#include "trace.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../elf.h"
#include "../landing.h"
#include "../sys.h"
#include "arch.h"
#include "image.h"
#include "threads.h"

enum {
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
        PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL,
    CALL_STOP = SIGTRAP | 0x80,
    STACKS_AT_ONCE = 8,
    LEVEL_SIZE = STACK_SIZE / LEVELS,
    HEAD = 16 /* of a level: the word that says it is in use */
};

static struct image image;

static long request(int what, int tid, uint64_t address, const void *data) {
    return sys4(SYS_ptrace, what, tid, address, data);
}

static void go_on(int tid, int signal) {
    request(PTRACE_CONT, tid, 0, (void *)(long)signal);
}

static long get_registers(int tid, registers *regs) {
    struct iovec part = {regs, sizeof *regs};
    return request(PTRACE_GETREGSET, tid, NT_PRSTATUS, &part);
}

static long set_registers(int tid, const registers *regs) {
    struct iovec part = {(void *)regs, sizeof *regs};
    return request(PTRACE_SETREGSET, tid, NT_PRSTATUS, &part);
}

/* Lets a thread run to its next stop before or after a call. The registers there, or -ESRCH: it has been killed, which
 * the next wait tells. A SIGSTOP on the way, which can't be held back, is sent again. */
static long run_to_call(int tid, registers *regs) {
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

/* --- stacks */

static uint64_t map_call(registers *regs, size_t size) {
    set_call(regs, SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    return size;
}

static int is_error(long value) {
    return value < 0 && value > -4096;
}

/* Where there is none left, the call at which the thread has stopped is made another one, that maps some. */
static int give_stack(struct thread *thread, const registers *regs) {
    struct memory *memory = thread->memory;
    if (!memory->count) {
        registers mapping = *regs;
        map_call(&mapping, STACKS_AT_ONCE * STACK_SIZE);
        if (set_registers(thread->tid, &mapping) < 0 || run_to_call(thread->tid, &mapping) < 0) return -ESRCH;
        long at = outcome_of(&mapping);
        if (is_error(at)) return (int)at;
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

/* --- the library */

/* The thread is at the program's first instruction: calls are made from there. */
static long make_call(int tid, registers *regs) {
    if (set_registers(tid, regs) < 0 || run_to_call(tid, regs) < 0 || run_to_call(tid, regs) < 0) return -ESRCH;
    return outcome_of(regs);
}

static long write_library(struct thread *thread, const registers *start) {
    registers regs = *start;
    map_call(&regs, image.size + STACK_SIZE);
    long base = make_call(thread->tid, &regs);
    if (is_error(base)) return base;
    relocate_image(&image, (uint64_t)base);
    struct iovec from = {image.bytes, image.filled}, to = {(void *)base, image.filled};
    long written = sys6(SYS_process_vm_writev, thread->tid, SYS_ARG_(&from), 1, SYS_ARG_(&to), 1, 0);
    if (written != (long)image.filled) return is_error(written) ? written : -EFAULT;
    regs = *start;
    set_call(&regs, SYS_mprotect, base + (long)image.text, (long)image.text_size, PROT_READ | PROT_EXEC, 0);
    long error = make_call(thread->tid, &regs);
    if (error) return error;
    thread->memory->library = (uint64_t)base;
    thread->stack = (uint64_t)base + image.size;
    return 0;
}

/* Writes it at the end of an exec, and has it prepare itself before the program begins. */
static void bring_library(struct thread *thread) {
    registers start, regs;
    uint64_t all = ~0ull, mask, word;
    int tid = thread->tid;
    if (run_to_call(tid, &start) < 0) return;
    uint64_t at = program_counter(&start);
    if (request(PTRACE_PEEKTEXT, tid, at, &word) < 0) return;
    request(PTRACE_GETSIGMASK, tid, sizeof mask, &mask);
    request(PTRACE_SETSIGMASK, tid, sizeof all, &all);
    uint64_t patched = word;
    memcpy(&patched, &call_instruction, sizeof call_instruction);
    request(PTRACE_POKETEXT, tid, at, (void *)patched);
    long error = write_library(thread, &start);
    request(PTRACE_POKETEXT, tid, at, (void *)word);
    request(PTRACE_SETSIGMASK, tid, sizeof mask, &mask);
    regs = start;
    if (!error)
        set_preparation(&regs, thread->memory->library + image.entry, choose_level(thread, stack_pointer(&regs)),
                        LAND_TO_PREPARE, thread->memory->library + image.constructors, image.count);
    set_registers(tid, &regs);
}

static int needs_library(int tid) {
    char path[32] = "/proc/";
    char *at = write_number(path + 6, (unsigned)tid);
    memcpy(at, "/exe", 5);
    long fd = sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    int needs = is_beyond_preload((int)fd);
    sys1(SYS_close, fd);
    return needs;
}

/* --- stops */

static void land(struct thread *thread) {
    registers regs;
    int tid = thread->tid;
    if (get_registers(tid, &regs) < 0) return;
    if (!thread->memory || !thread->memory->library || (!thread->stack && give_stack(thread, &regs) < 0)) {
        set_registers(tid, &regs);
        return;
    }
    set_landing(&regs, thread->memory->library + image.entry, choose_level(thread, stack_pointer(&regs)));
    set_registers(tid, &regs);
}

static void begin_program(struct thread *thread) {
    unsigned long former = 0;
    request(PTRACE_GETEVENTMSG, thread->tid, 0, &former);
    struct thread *other = (int)former != thread->tid ? find_thread((int)former) : 0;
    if (other) remove_thread(other); /* it has become the process's first thread */
    if (renew_memory(thread) == 0 && needs_library(thread->tid)) bring_library(thread);
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
        land(thread);
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

int seize(int pid) {
    int error = load_image(&image);
    if (error < 0) return error;
    struct thread *first = add_thread(pid);
    if (!first || renew_memory(first) < 0) return -ENOMEM;
    return (int)request(PTRACE_SEIZE, pid, 0, (void *)(long)OPTIONS);
}

void trace(int pid, int ended) {
    while (!no_threads()) {
        int status;
        long tid = sys4(SYS_wait4, -1, &status, __WALL, 0);
        if (tid == -EINTR) continue;
        if (tid < 0) return;
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
            sys1(SYS_close, 2);
        }
    }
}
