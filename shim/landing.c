/* How it works. The tracer has taken the call away and sent the thread here, with all registers as the call had them
 * but for two that a system call may change: rcx is where to return to, r11 a stack of ours, for the program's may be
 * tiny (Go's are). From then on this is the program's own thread, which makes the do_* of its call as it would under
 * LD_PRELOAD: with signals as they come, EINTR, restarts, and without the tracer. It leaves as the kernel would: with
 * the result in rax, and all else as it was. The library uses no floating point or vector registers
 * (-mgeneral-regs-only in setup.py), so those needn't be saved.
 *
 * At each instruction a signal's handler may come, make a call, and land here, too. Each finds its stack in use by the
 * word at the stack's head, or is on it itself, and begins below.
 */
#if defined(__x86_64__)
#include "landing.h"

#include "sys.h"
#include "syscalls.h"

struct landed {
    long call; /* its number; gets the result */
    long arg[6];
};

__attribute__((used)) static void serve(struct landed *landed) {
    if (landed->call != LAND_TO_PREPARE) {
        landed->call = do_syscall(landed->call, landed->arg);
        return;
    }
    void (**constructors)(void) = (void (**)(void))landed->arg[0];
    for (long i = 0; i < landed->arg[1]; i++) constructors[i]();
    memset(landed, 0, sizeof *landed);
}

__asm__(".globl land\n"
        ".hidden land\n"
        ".type land, @function\n"
        "land:\n"
        "    xchg %rsp, %r11\n"
        "    movq $1, (%rsp)\n" /* in use */
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
        "    mov (%rsp), %r11\n"
        "    movq $0, 8(%rsp)\n" /* free, and nothing on it is needed any more */
        "    mov %r11, %rsp\n"
        "    jmp *%rcx\n"
        ".size land, . - land\n");
#endif
