/* x86-64: the registers that a signal's handler finds of what it interrupts. Another architecture needs the like. */
#ifndef APPSWITCH_CONTEXT_H
#define APPSWITCH_CONTEXT_H

#include <stdint.h>
#include <ucontext.h>

#include "../sys.h"

static inline uint64_t stack_pointer_in(const ucontext_t *context) {
    return (uint64_t)context->uc_mcontext.gregs[REG_RSP];
}

static inline uint64_t first_argument_in(const ucontext_t *context) {
    return (uint64_t)context->uc_mcontext.gregs[REG_RDI];
}

/* Of the trapped call, which isn't made. */
static inline void set_outcome_in(ucontext_t *context, long outcome) {
    context->uc_mcontext.gregs[REG_RAX] = outcome;
}

/* As landing.c expects it: the thread goes on there, to return to where it is. (rax has the number of the call.) */
static inline void set_landing_in(ucontext_t *context, void (*at)(void), uint64_t stack) {
    greg_t *regs = context->uc_mcontext.gregs;
    regs[REG_RCX] = regs[REG_RIP];
    regs[REG_R11] = (greg_t)stack;
    regs[REG_RIP] = (greg_t)at;
}

/* The trapped call, clone3, is made after all, with a mark where no other call has it (tracer/filter.c), for there it
 * stays: in r10, which neither libc nor Go keeps anything in there. */
static inline void repeat_with_mark(ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    regs[REG_RIP] -= 2; /* the size of the instruction */
    regs[REG_R10] = AS_OURS;
}

/* What a handler returns to (SA_RESTORER in sigreturn(2)). */
#define RESTORE                          \
    __asm__(".globl restore\n"           \
            ".hidden restore\n"          \
            ".type restore, @function\n" \
            "restore:\n"                 \
            "    mov $15, %eax\n"        \
            "    syscall\n"              \
            ".size restore, . - restore\n")

#endif
