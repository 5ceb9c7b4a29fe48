/* SIGSYS: by it the kernel tells a thread of a call of its own that is trapped (SECCOMP_RET_TRAP in seccomp(2)). */
#ifndef APPSWITCH_SIGSYS_H
#define APPSWITCH_SIGSYS_H

#include <signal.h>
#include <stdint.h>

#define SIGSYS_BIT (1ull << (SIGSYS - 1))

/* As the kernel has it: struct kernel_sigaction of libc's. */
struct action {
    void (*handler)(int, siginfo_t *, void *); /* SIG_DFL, SIG_IGN */
    uint64_t flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* What the program has set for SIGSYS. In a vfork child nothing is set: it is its parent's, too. */
struct action get_action(void);
void set_action(const struct action *action);

/* Before the handler is there: it shall run on sigaltstack(2)'s stack, as Go's stacks need it. Elsewhere that stack may
 * be too small for a signal that comes at each call, where the thread's own isn't. */
void use_signal_stacks(void);

#endif
