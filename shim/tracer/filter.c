/* How it works. A seccomp filter (seccomp(2)) looks at the number of a call and at its arguments, as far as they are in
 * registers, and has the kernel stop the thread for its tracer before it is made (SECCOMP_RET_TRACE), or not make it
 * and tell the thread (SECCOMP_RET_TRAP). What a program sends and receives (read, write, send, recv, recvmsg) isn't in
 * the list and runs at full speed; nor are calls trapped that the shim makes itself (AS_MARK in sys.h), whether it is
 * in the program by LD_PRELOAD or by the tracer.
 *
 * Calls of another ABI's (i386, x32) that make or use sockets are refused as by a kernel that hasn't got them.
 */
#define _GNU_SOURCE
#include "filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "../landing/landing.h"
#include "../sys.h"
#include "arch.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/* What beside the number decides. */
enum condition {
    ALWAYS,
    WITH_FOURTH,    /* the fourth argument isn't NULL */
    WITH_SIXTH,     /* the sixth */
    WITH_ADDRESS,   /* the fifth argument isn't NULL */
    OF_INTERNET,    /* AF_INET or AF_INET6 */
    ADDS,           /* EPOLL_CTL_ADD */
    ASKS_ADDRESSES, /* SIOCGIFCONF and its kin */
    NO_STATUS,      /* another option than SO_ERROR, of which programs ask after each connect */
    SETS_ACTION,    /* of a signal that libc doesn't keep for itself, or of SIGSYS, of which it may ask, too */
    BLOCKS,         /* a mask is given, not to unblock */
};

static const struct rule {
    short number;
    enum condition condition;
} rules[] =
    {
        {SYS_bind, ALWAYS},       {SYS_listen, ALWAYS},        {SYS_connect, ALWAYS},      {SYS_accept, ALWAYS},
        {SYS_accept4, ALWAYS},    {SYS_getsockname, ALWAYS},   {SYS_getpeername, ALWAYS},  {SYS_shutdown, ALWAYS},
        {SYS_setsockopt, ALWAYS}, {SYS_getsockopt, NO_STATUS}, {SYS_sendto, WITH_ADDRESS}, {SYS_recvfrom, WITH_ADDRESS},
        {SYS_sendmsg, ALWAYS},    {SYS_sendmmsg, ALWAYS},      {SYS_epoll_ctl, ADDS},      {SYS_ioctl, ASKS_ADDRESSES},
        {SYS_chroot, ALWAYS},     {SYS_execve, ALWAYS},        {SYS_execveat, ALWAYS},
    },
  notify_rules[] = {
      /* landing/masks.c, landing/sigsys.c */
      {SYS_rt_sigaction, SETS_ACTION},
      {SYS_rt_sigprocmask, BLOCKS},
      {SYS_rt_sigsuspend, ALWAYS},
      {SYS_ppoll, WITH_FOURTH},
      {SYS_pselect6, WITH_SIXTH},
      {SYS_epoll_pwait, WITH_ADDRESS},
      {SYS_epoll_pwait2, WITH_ADDRESS},
      {SYS_clone3, ALWAYS},
      /* hand_on.c */
      {SYS_pivot_root, ALWAYS},
      {SYS_setns, ALWAYS},
      /* That a socket is new spares its connect more than a signal costs (options.c). */
      {SYS_socket, OF_INTERNET},
  };

static const unsigned short address_requests[] = {SIOCGIFCONF, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFDSTADDR,
                                                  SIOCGIFBRDADDR};

enum { MOST = 500, IO_URING_SETUP = 425, IO_URING_REGISTER = 427, LIBC_FIRST = 32, LIBC_LAST = 33 /* signals */ };

#define RULES (sizeof rules / sizeof *rules)
#define NOTIFY_RULES (sizeof notify_rules / sizeof *notify_rules)
#define REQUESTS (sizeof address_requests / sizeof *address_requests)
#define LOW(i) (unsigned)(offsetof(struct seccomp_data, args) + 8 * (i)) /* little-endian */
#define HIGH(i) (LOW(i) + 4)

static struct sock_filter code[MOST];
static unsigned short length;

static void emit(int operation, unsigned operand, int if_so, int if_not) {
    code[length++] =
        (struct sock_filter){(unsigned short)operation, (unsigned char)if_so, (unsigned char)if_not, operand};
}

static void load(size_t offset) {
    emit(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0);
}

static void give(unsigned verdict) {
    emit(BPF_RET | BPF_K, verdict, 0, 0);
}

/* Is what was loaded `value`? Then if_so, else if_not instructions are passed over. */
static void compare(unsigned value, int if_so, int if_not) {
    emit(BPF_JMP | BPF_JEQ | BPF_K, value, if_so, if_not);
}

static void at_least(unsigned value, int if_so, int if_not) {
    emit(BPF_JMP | BPF_JGE | BPF_K, value, if_so, if_not);
}

/* Allows it where that argument, a pointer, is NULL. */
static void check_pointer(int argument) {
    load(LOW(argument));
    compare(0, 0, 3);
    load(HIGH(argument));
    compare(0, 0, 1);
    give(SECCOMP_RET_ALLOW);
}

/* Allows it, unless the condition holds. */
static void check(enum condition condition) {
    switch (condition) {
    case ALWAYS:
        break;
    case WITH_FOURTH:
        check_pointer(3);
        break;
    case WITH_SIXTH:
        check_pointer(5);
        break;
    case WITH_ADDRESS:
        check_pointer(4);
        break;
    case OF_INTERNET:
        load(LOW(0));
        compare(AF_INET, 2, 0);
        compare(AF_INET6, 1, 0);
        give(SECCOMP_RET_ALLOW);
        break;
    case ADDS:
        load(LOW(1));
        compare(EPOLL_CTL_ADD, 1, 0);
        give(SECCOMP_RET_ALLOW);
        break;
    case ASKS_ADDRESSES:
        load(LOW(1));
        for (size_t i = 0; i < REQUESTS; i++) compare(address_requests[i], (int)(REQUESTS - i), 0);
        give(SECCOMP_RET_ALLOW);
        break;
    case NO_STATUS:
        load(LOW(1));
        compare(SOL_SOCKET, 0, 3);
        load(LOW(2));
        compare(SO_ERROR, 0, 1);
        give(SECCOMP_RET_ALLOW);
        break;
    case SETS_ACTION:
        load(LOW(0));
        compare(SIGSYS, 8, 0);
        at_least(LIBC_FIRST, 0, 2);
        at_least(LIBC_LAST + 1, 1, 0);
        give(SECCOMP_RET_ALLOW);
        check_pointer(1);
        break;
    case BLOCKS:
        load(LOW(0));
        compare(SIG_UNBLOCK, 0, 1);
        give(SECCOMP_RET_ALLOW);
        check_pointer(1);
        break;
    }
}

/* Where sys.h has put it, and landing/context.h. */
static unsigned place_of_mark(short number) {
    switch (number) {
    case SYS_recvfrom:
    case SYS_clone3:
        return HIGH(3);
    case SYS_pselect6:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
        return HIGH(0);
    }
    return HIGH(5);
}

static void write_rule(const struct rule *rule, unsigned verdict) {
    unsigned short start = length;
    compare((unsigned)rule->number, 0, 0);
    check(rule->condition);
    load(place_of_mark(rule->number));
    compare(AS_MARK, 0, 1);
    give(SECCOMP_RET_ALLOW);
    give(verdict);
    code[start].jf = (unsigned char)(length - start - 1);
}

/* An answer to the shim's question whether the filter is there: a call of its own that makes no sense. */
static void write_answer(int answer) {
    compare(SYS_socket, 0, 6);
    load(LOW(0));
    compare(-1u, 0, 3);
    load(HIGH(5));
    compare(AS_MARK, 0, 1);
    give(SECCOMP_RET_ERRNO | (unsigned)answer);
    load(offsetof(struct seccomp_data, nr));
}

static void write_filter(int is_trace) {
    unsigned verdict = is_trace ? SECCOMP_RET_TRACE : SECCOMP_RET_TRAP | TRAP_REASON;
    load(offsetof(struct seccomp_data, arch));
    compare(NATIVE_ARCH, 6, 0);
    load(offsetof(struct seccomp_data, nr));
    compare(FOREIGN_SOCKETCALL, 2, 0);
    at_least(FOREIGN_FIRST, 0, 2);
    at_least(FOREIGN_LAST + 1, 1, 0);
    give(SECCOMP_RET_ERRNO | ENOSYS);
    give(SECCOMP_RET_ALLOW);
    load(offsetof(struct seccomp_data, nr));
    at_least(FOREIGN_NUMBERS, 2, 0);
    at_least(IO_URING_SETUP, 0, 2);
    at_least(IO_URING_REGISTER + 1, 1, 0);
    give(SECCOMP_RET_ERRNO | ENOSYS);
    write_answer(is_trace ? ANSWER_TRACED : ANSWER_TRAPPED);
    for (size_t i = 0; i < RULES; i++) write_rule(&rules[i], verdict);
    for (size_t i = 0; i < NOTIFY_RULES && !is_trace; i++) write_rule(&notify_rules[i], verdict);
    give(SECCOMP_RET_ALLOW);
}

int can_install_filter(const struct way *way) {
    unsigned verdict = way == &by_ptrace ? SECCOMP_RET_TRACE : SECCOMP_RET_TRAP;
    return sys3(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &verdict) == 0;
}

int install_filter(const struct way *way) {
    length = 0;
    write_filter(way == &by_ptrace);
    struct sock_fprog program = {length, code};
    long error = sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    if (error != -EACCES) return (int)error;
    error = sys5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return error < 0 ? (int)error : (int)sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
