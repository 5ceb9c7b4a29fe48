/* How it works. The kernel ends a thread that is to be told of a call by SIGSYS and has it blocked. So SIGSYS is taken
 * out of each mask that a program gives to the kernel: of what it blocks, of what its signals' handlers block
 * (rt_sigaction), and of what is blocked while it waits. Masks are copied first: what is checked is what counts. What
 * it sets for SIGSYS itself is remembered (sigsys.c), and ours stays.
 *
 * Bad pointers are left to the kernel, which knows the error. Whether one is bad it tells by a call that does nothing.
 */
#define _GNU_SOURCE
#include "masks.h"

#include <errno.h>
#include <signal.h>

#include "../sys.h"
#include "sigsys.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { MASK_SIZE = sizeof(uint64_t) };

/* The sixth argument of pselect6(2). */
struct mask_and_size {
    const uint64_t *mask;
    size_t size;
};

static int is_readable(const void *at) {
    return sys4(SYS_rt_sigprocmask, -1, at, 0, MASK_SIZE) != -EFAULT; /* read before `how` is found wrong */
}

static int is_writable(void *at) {
    return sys4(SYS_rt_sigprocmask, SIG_BLOCK, 0, at, MASK_SIZE) == 0;
}

/* The first and the last word tell of an action, which is at most on two pages. */
static int is_action_at(const struct action *at) {
    return is_readable(at) && is_readable(&at->mask);
}

/* A mask without SIGSYS in `copy`; or what was given, where that can't be read. */
static const uint64_t *without_sigsys(const void *mask, size_t size, uint64_t *copy) {
    if (!mask || size != MASK_SIZE || !is_readable(mask)) return mask;
    *copy = *(const uint64_t *)mask & ~SIGSYS_BIT;
    return copy;
}

static long set_own_action(const struct action *given, struct action *former) {
    struct action now = get_action();
    if (given && !is_action_at(given)) return -EFAULT;
    if (given) set_action(given);
    if (!former) return 0;
    if (!is_writable(former) || !is_writable(&former->mask)) return -EFAULT;
    *former = now;
    return 0;
}

static long do_sigaction(int number, const struct action *given, struct action *former, size_t size) {
    if (size == MASK_SIZE && number == SIGSYS) return set_own_action(given, former);
    if (size != MASK_SIZE || !given || !is_action_at(given)) return sys4(SYS_rt_sigaction, number, given, former, size);
    struct action copy = *given;
    copy.mask &= ~SIGSYS_BIT;
    return sys4(SYS_rt_sigaction, number, &copy, former, size);
}

static long do_pselect(const long arg[6]) {
    const struct mask_and_size *given = (const struct mask_and_size *)arg[5];
    struct mask_and_size stripped;
    uint64_t mask;
    if (is_readable(given) && is_readable(&given->size)) {
        stripped = *given;
        stripped.mask = without_sigsys(stripped.mask, stripped.size, &mask);
        given = &stripped;
    }
    return sys6(SYS_pselect6, (unsigned)arg[0] | AS_OURS, arg[1], arg[2], arg[3], arg[4], SYS_ARG_(given));
}

int concerns_signals(long call) {
    switch (call) {
    case SYS_rt_sigaction:
    case SYS_rt_sigprocmask:
    case SYS_rt_sigsuspend:
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
        return 1;
    }
    return 0;
}

long do_signals(long call, const long arg[6]) {
    uint64_t mask;
    switch (call) {
    case SYS_rt_sigaction:
        return do_sigaction((int)arg[0], (const struct action *)arg[1], (struct action *)arg[2], (size_t)arg[3]);
    case SYS_rt_sigprocmask:
        return sys4(call, arg[0], without_sigsys((void *)arg[1], (size_t)arg[3], &mask), arg[2], arg[3]);
    case SYS_rt_sigsuspend:
        return sys2(call, without_sigsys((void *)arg[0], (size_t)arg[1], &mask), arg[1]);
    case SYS_ppoll:
        return sys5(call, arg[0], arg[1], arg[2], without_sigsys((void *)arg[3], (size_t)arg[4], &mask), arg[4]);
    case SYS_pselect6:
        return do_pselect(arg);
    default: /* epoll_pwait(2): as its sixth argument is looked at, the mark is in the first */
        return sys6(call, (unsigned)arg[0] | AS_OURS, arg[1], arg[2], arg[3],
                    SYS_ARG_(without_sigsys((void *)arg[4], (size_t)arg[5], &mask)), arg[5]);
    }
}
