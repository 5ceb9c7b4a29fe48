/* How it works. A seccomp filter (seccomp(2)) looks at the number of a call and at its arguments, as far as they are in
 * registers, and has the kernel stop the thread for its tracer (SECCOMP_RET_TRACE) before it is made. What a program
 * sends and receives (read, write, send, recv, recvmsg) isn't in the list and runs at full speed; nor do calls stop
 * that the shim makes itself (AS_MARK in sys.h), whether it is in the program by LD_PRELOAD or by the tracer.
 *
 * Calls of another ABI's (i386, x32) that make or use sockets are refused as by a kernel that hasn't got them.
 */
#define _GNU_SOURCE
#include "filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "../sys.h"
#include "arch.h"

/* What beside the number decides. */
enum condition {
    ALWAYS,
    WITH_ADDRESS,   /* the fifth argument isn't NULL */
    ADDS,           /* EPOLL_CTL_ADD */
    ASKS_ADDRESSES, /* SIOCGIFCONF and its kin */
    NO_STATUS,      /* another option than SO_ERROR, of which programs ask after each connect */
};

static const struct rule {
    short number;
    enum condition condition;
} rules[] = {
    {SYS_bind, ALWAYS},       {SYS_listen, ALWAYS},        {SYS_connect, ALWAYS},      {SYS_accept, ALWAYS},
    {SYS_accept4, ALWAYS},    {SYS_getsockname, ALWAYS},   {SYS_getpeername, ALWAYS},  {SYS_shutdown, ALWAYS},
    {SYS_setsockopt, ALWAYS}, {SYS_getsockopt, NO_STATUS}, {SYS_sendto, WITH_ADDRESS}, {SYS_recvfrom, WITH_ADDRESS},
    {SYS_sendmsg, ALWAYS},    {SYS_sendmmsg, ALWAYS},      {SYS_epoll_ctl, ADDS},      {SYS_ioctl, ASKS_ADDRESSES},
    {SYS_chroot, ALWAYS},     {SYS_execve, ALWAYS},        {SYS_execveat, ALWAYS},
};

static const unsigned short address_requests[] = {SIOCGIFCONF, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFDSTADDR,
                                                  SIOCGIFBRDADDR};

enum { MOST = 400, IO_URING_SETUP = 425, IO_URING_REGISTER = 427 };

#define RULES (sizeof rules / sizeof *rules)
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

/* Allows it, unless the condition holds. */
static void check(enum condition condition) {
    switch (condition) {
    case ALWAYS:
        break;
    case WITH_ADDRESS:
        load(LOW(4));
        compare(0, 0, 3);
        load(HIGH(4));
        compare(0, 0, 1);
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
    }
}

static void write_rule(const struct rule *rule) {
    unsigned short start = length;
    compare((unsigned)rule->number, 0, 0);
    check(rule->condition);
    load(rule->number == SYS_recvfrom ? HIGH(3) : HIGH(5));
    compare(AS_MARK, 0, 1);
    give(SECCOMP_RET_ALLOW);
    give(SECCOMP_RET_TRACE);
    code[start].jf = (unsigned char)(length - start - 1);
}

/* An answer to the shim's question whether the filter is there (hand_on.c): a call of its own that makes no sense. */
static void write_answer(void) {
    compare(SYS_socket, 0, 6);
    load(LOW(0));
    compare(-1u, 0, 3);
    load(HIGH(5));
    compare(AS_MARK, 0, 1);
    give(SECCOMP_RET_ERRNO | EALREADY);
    load(offsetof(struct seccomp_data, nr));
}

static void write_filter(void) {
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
    write_answer();
    for (size_t i = 0; i < RULES; i++) write_rule(&rules[i]);
    give(SECCOMP_RET_ALLOW);
}

int install_filter(void) {
    length = 0;
    write_filter();
    struct sock_fprog program = {length, code};
    long error = sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    if (error != -EACCES) return (int)error;
    error = sys5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return error < 0 ? (int)error : (int)sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
