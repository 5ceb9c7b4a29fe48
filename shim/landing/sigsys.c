/* How it works. As a program begins, a constructor asks the filter whether it tells of calls by SIGSYS
 * (tracer/filter.c), and sets a handler. That changes nothing but the registers of what it has interrupted, so that it
 * goes on in the landing (landing.c). All signals are blocked meanwhile.
 *
 * SIGSYS is the program's own, too: of a filter of its own, or sent. Where the reason isn't ours the program's handler
 * is called, or what SIGSYS does by default is done. What the program sets for it is remembered (masks.c).
 */
#define _GNU_SOURCE
#include "sigsys.h"

#include <errno.h>
#include <linux/sched.h>
#include <stddef.h>

#include "../channel.h"
#include "../sys.h"
#include "context.h"
#include "landing.h"
#include "stacks.h"

enum { SECCOMP_CODE = 1 /* SYS_SECCOMP of linux/signal.h */, RESTORER_IS_GIVEN = 0x04000000 /* SA_RESTORER */ };

extern void restore(void) __attribute__((visibility("hidden")));

static struct action own_action; /* the program's */
static uint64_t stack_flag;      /* SA_ONSTACK or 0 */

static long set_handler(const struct action *action, struct action *former) {
    return sys4(SYS_rt_sigaction, SIGSYS, action, former, sizeof action->mask);
}

/* --- what isn't ours */

__attribute__((noreturn)) static void end_by_sigsys(void) {
    const struct action by_default = {0};
    set_handler(&by_default, 0);
    for (;;) sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), SIGSYS);
}

/* As the kernel would: a filter's SIGSYS ends a program that ignores it. */
static void pass_on(int number, siginfo_t *info, ucontext_t *context) {
    struct action action = own_action;
    int is_ignored = action.handler == (void *)SIG_IGN;
    if (is_ignored && info->si_code != SECCOMP_CODE) return;
    if (is_ignored || action.handler == (void *)SIG_DFL) end_by_sigsys();
    uint64_t mask = (*(uint64_t *)&context->uc_sigmask | action.mask) & ~SIGSYS_BIT;
    if (action.flags & SA_RESETHAND) own_action.handler = (void *)SIG_DFL;
    sys4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    action.handler(number, info, context);
}

/* --- what is */

/* clone3 can't land: it returns on two stacks. So it is made where it is; but a child must keep the handler: without
 * CLONE_CLEAR_SIGHAND, which libc can do without, as before Linux 5.5. */
static void clone_or_refuse(ucontext_t *context) {
    const struct clone_args *arguments = (const struct clone_args *)first_argument_in(context);
    int is_readable = sys4(SYS_rt_sigprocmask, -1, &arguments->flags, 0, sizeof(uint64_t)) != -EFAULT;
    if (is_readable && (arguments->flags & CLONE_CLEAR_SIGHAND))
        set_outcome_in(context, -ENOSYS);
    else
        repeat_with_mark(context);
}

static void handle(int number, siginfo_t *info, void *context) {
    if (info->si_code != SECCOMP_CODE || info->si_errno != TRAP_REASON) {
        pass_on(number, info, context);
    } else if (info->si_syscall == SYS_clone3) {
        clone_or_refuse(context);
    } else {
        struct stack_head *head = take_stack();
        if (head)
            set_landing_in(context, land, (uint64_t)head);
        else
            set_outcome_in(context, -ENOMEM);
    }
}

RESTORE;

/* --- set by the program */

struct action get_action(void) {
    return own_action;
}

void set_action(const struct action *action) {
    if (own_pid()) own_action = *action;
}

/* --- ours */

void use_signal_stacks(void) {
    stack_flag = SA_ONSTACK;
}

__attribute__((constructor)) static void catch_calls(void) {
    const uint64_t sigsys = SIGSYS_BIT;
    const struct action ours = {
        .handler = handle,
        .flags = SA_SIGINFO | SA_NODEFER | SA_RESTART | RESTORER_IS_GIVEN | stack_flag,
        .restorer = restore,
        .mask = ~SIGSYS_BIT,
    };
    if (sys3(SYS_socket, -1, 0, 0) != -ANSWER_TRAPPED) return;
    set_handler(0, &own_action);
    if (own_action.handler != (void *)SIG_DFL && own_action.handler != (void *)SIG_IGN) return; /* the library twice */
    own_pid(); /* now, before there are vfork children */
    set_handler(&ours, 0);
    sys4(SYS_rt_sigprocmask, SIG_UNBLOCK, &sigsys, 0, sizeof sigsys); /* it is inherited over exec */
}
