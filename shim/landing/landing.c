/* How it works. The call of a thread has been taken away, by the tracer (tracer/trace.c) or by a signal's handler of
 * ours (sigsys.c), and the thread sent here, with all registers as the call had them but for two that a system call may
 * change: rcx is where to return to, r11 a stack of ours, for the program's may be tiny (Go's are). From then on this
 * is the program's own thread, which makes the do_* of its call as it would under LD_PRELOAD: with signals as they
 * come, EINTR, and restarts. It leaves as the kernel would: with the result in rax, and all else as it was. The library
 * uses no floating point or vector registers (-mgeneral-regs-only in setup.py), so those needn't be saved.
 *
 * At each instruction a signal's handler may come, make a call, and land here, too, on a stack that isn't in use, or
 * below. So a stack is given back when nothing on it is needed any more, and the stack pointer is the program's again:
 * another thread may have it at once.
 */
#if defined(__x86_64__)
#include "landing.h"

#include "../channel.h"
#include "../fresh.h"
#include "../hand_on.h"
#include "../sys.h"
#include "../syscalls.h"
#include "masks.h"
#include "sigsys.h"
#include "stacks.h"

struct landed {
    long call; /* its number; gets the result */
    long arg[6];
    long back, flags, stack;
    struct stack_head head;
};

static int was_brought; /* by the tracer, not by LD_PRELOAD */

static void prepare(const long arg[6]) {
    void (**constructors)(void) = (void (**)(void))arg[0];
    was_brought = 1;
    make_no_fresh(); /* unshare isn't trapped, nor what is read and written */
    if (arg[2]) use_signal_stacks();
    if (arg[3]) keep_given_home((int)arg[3]);
    for (long i = 0; i < arg[1]; i++) constructors[i]();
}

static int is_exec(long call) {
    return call == SYS_execve || call == SYS_execveat;
}

/* With our mark (sys.h), so that it isn't trapped again. */
static long let_go(long call, const long arg[6]) {
    if (call == SYS_recvfrom) return sys6(call, arg[0], arg[1], arg[2], (unsigned)arg[3] | AS_OURS, arg[4], arg[5]);
    return sys6(call, arg[0], arg[1], arg[2], arg[3], arg[4], (unsigned)arg[5] | AS_OURS);
}

static int changes_root(long call) {
    return call == SYS_pivot_root || call == SYS_setns;
}

/* In a program with the shim by LD_PRELOAD, what comes here is what libc calls past our hooks: that is let go, but for
 * an exec (posix_spawn's), which may need the tracer. */
static long answer(long call, const long arg[6]) {
    if (concerns_signals(call)) return do_signals(call, arg);
    if (changes_root(call)) keep_tracer_home();
    int is_ours = was_brought ? !changes_root(call) : is_exec(call);
    return is_ours ? do_syscall(call, arg) : let_go(call, arg);
}

/* A vfork child that becomes another program leaves its stack in its parent's memory. */
static long exec_in_vfork_child(struct landed *landed) {
    struct at_exec kept;
    give_back_at_exec(&kept, &landed->head);
    long error = answer(landed->call, landed->arg);
    keep_at_exec();
    return error;
}

__attribute__((used)) static void serve(struct landed *landed) {
    if (landed->call == LAND_TO_PREPARE) {
        prepare(landed->arg);
        landed->call = 0;
        memset(landed->arg, 0, sizeof landed->arg);
    } else if (is_exec(landed->call) && !own_pid()) {
        landed->call = exec_in_vfork_child(landed);
    } else {
        landed->call = answer(landed->call, landed->arg);
    }
}

__asm__(".globl land\n"
        ".hidden land\n"
        ".type land, @function\n"
        "land:\n"
        "    xchg %rsp, %r11\n"
        "    movq $1, (%rsp)\n" /* in_use */
        "    push %r11\n"
        "    pushfq\n"
        "    push %rcx\n"
        "    push %r9\n"
        "    push %r8\n"
        "    push %r10\n"
        "    push %rdx\n"
        "    push %rsi\n"
        "    push %rdi\n"
        "    push %rax\n"
        "    cld\n"
        "    mov %rsp, %rdi\n"
        "    call serve\n"
        "    pop %rax\n"
        "    pop %rdi\n"
        "    pop %rsi\n"
        "    pop %rdx\n"
        "    pop %r10\n"
        "    pop %r8\n"
        "    pop %r9\n"
        "    pop %rcx\n"
        "    popfq\n"
        "    pop %r11\n"
        "    xchg %rsp, %r11\n"
        "    movq $0, (%r11)\n"  /* in_use */
        "    movl $0, 8(%r11)\n" /* owner */
        "    jmp *%rcx\n"
        ".size land, . - land\n");
#endif
