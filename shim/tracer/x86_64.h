/* x86-64: registers, and what the kernel and the linker call this machine. Another architecture needs a file like this
 * one and a landing of its own (landing/landing.c, landing/context.h). */
#ifndef APPSWITCH_TRACER_X86_64_H
#define APPSWITCH_TRACER_X86_64_H

#include <elf.h>
#include <linux/audit.h>
#include <stdint.h>
#include <sys/user.h>

#define NATIVE_ARCH AUDIT_ARCH_X86_64
enum {
    /* Numbers of another ABI: of x32 those from here on; of i386 the socket calls, socketcall alone and in a row. */
    FOREIGN_NUMBERS = 0x40000000,
    FOREIGN_SOCKETCALL = 102,
    FOREIGN_FIRST = 359,
    FOREIGN_LAST = 373,
    RELOCATE_BASE = R_X86_64_RELATIVE,
    RELOCATE_SYMBOL = R_X86_64_GLOB_DAT,
    RELOCATE_CALL = R_X86_64_JUMP_SLOT,
    RED_ZONE = 128 /* bytes below the stack pointer that are in use */
};

typedef struct user_regs_struct registers;

static const uint16_t call_instruction = 0x050f; /* syscall */

static inline uint64_t stack_pointer(const registers *regs) {
    return regs->rsp;
}

static inline uint64_t program_counter(const registers *regs) {
    return regs->rip;
}

static inline void set_program_counter(registers *regs, uint64_t at) {
    regs->rip = at;
}

static inline long outcome_of(const registers *regs) {
    return (long)regs->rax;
}

/* In a stop before a call: it shall be this one instead. */
static inline void set_call(registers *regs, long number, long a, long b, long c, long d) {
    regs->orig_rax = (uint64_t)number;
    regs->rax = (uint64_t)number; /* what the call instruction takes, where the thread has yet to meet it */
    regs->rdi = (uint64_t)a;
    regs->rsi = (uint64_t)b;
    regs->rdx = (uint64_t)c;
    regs->r10 = (uint64_t)d;
    regs->r8 = (uint64_t)-1;
    regs->r9 = 0;
}

/* As landing.c expects it: no call is made, and the thread goes on at `at`, to return to where it is. */
static inline void set_landing(registers *regs, uint64_t at, uint64_t stack) {
    regs->rax = regs->orig_rax;
    regs->orig_rax = (uint64_t)-1;
    regs->rcx = regs->rip;
    regs->r11 = stack;
    regs->rip = at;
}

/* The same in a thread that makes no call: constructors are to be run. */
static inline void set_preparation(registers *regs, uint64_t at, uint64_t stack, long what, uint64_t constructors,
                                   uint64_t count, int is_go, int home) {
    regs->orig_rax = (uint64_t)what;
    set_landing(regs, at, stack);
    regs->rdi = constructors;
    regs->rsi = count;
    regs->rdx = (uint64_t)is_go;
    regs->r10 = (uint64_t)home;
}

/* The first instruction of a program: its stack to `start`. */
#define START                      \
    __asm__(".globl _start\n"      \
            "_start:\n"            \
            "    xor %ebp, %ebp\n" \
            "    mov %rsp, %rdi\n" \
            "    and $-16, %rsp\n" \
            "    call start\n"     \
            "    hlt\n")

#endif
