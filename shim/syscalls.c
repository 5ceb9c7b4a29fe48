#define _GNU_SOURCE
#include "syscalls.h"

#include <errno.h>

#include "ended.h"
#include "exec.h"
#include "fresh.h"
#include "interfaces.h"
#include "jail.h"
#include "ops.h"
#include "sys.h"

long do_syscall(long number, const long arg[6]) {
    int fd = (int)arg[0];
    void *second = (void *)arg[1], *third = (void *)arg[2];
    switch (number) {
    case SYS_socket:
        return do_socket(fd, (int)arg[1], (int)arg[2]);
    case SYS_bind:
        return do_bind(fd, second, (socklen_t)arg[2]);
    case SYS_listen:
        return do_listen(fd, (int)arg[1]);
    case SYS_connect:
        return do_connect(fd, second, (socklen_t)arg[2]);
    case SYS_accept:
        return do_accept(fd, second, third, 0);
    case SYS_accept4:
        return do_accept(fd, second, third, (int)arg[3]);
    case SYS_getsockname:
        return do_getsockname(fd, second, third);
    case SYS_getpeername:
        return do_getpeername(fd, second, third);
    case SYS_shutdown:
        return do_shutdown(fd, (int)arg[1]);
    case SYS_getsockopt:
        return do_getsockopt(fd, (int)arg[1], (int)arg[2], (void *)arg[3], (socklen_t *)arg[4]);
    case SYS_setsockopt:
        return do_setsockopt(fd, (int)arg[1], (int)arg[2], (void *)arg[3], (socklen_t)arg[4]);
    case SYS_sendto:
        return do_sendto(fd, second, (size_t)third, (int)arg[3], (void *)arg[4], (socklen_t)arg[5]);
    case SYS_sendmsg:
        return do_sendmsg(fd, second, (int)arg[2]);
    case SYS_sendmmsg:
        return do_sendmmsg(fd, second, (unsigned)arg[2], (int)arg[3]);
    case SYS_recvfrom:
        return do_recvfrom(fd, second, (size_t)third, (int)arg[3], (void *)arg[4], (socklen_t *)arg[5]);
    case SYS_recvmsg:
        return do_recvmsg(fd, second, (int)arg[2]);
    case SYS_ioctl:
        return do_ioctl(fd, (unsigned long)arg[1], third);
    case SYS_execve:
        return do_execve((const char *)arg[0], second, third);
    case SYS_execveat:
        return do_execveat(fd, second, third, (void *)arg[3], (int)arg[4]);
    case SYS_epoll_ctl:
        return do_epoll_ctl(fd, (int)arg[1], (int)arg[2], (void *)arg[3]);
    case SYS_chroot:
        return do_chroot((const char *)arg[0]);
    case SYS_unshare:
        return do_unshare(fd);
    case SYS_setns:
        return do_setns(fd, (int)arg[1]);
    case SYS_io_uring_setup: /* host/seccomp.py refuses raw calls, too */
        return -ENOSYS;
    default:
        return sys6(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
    }
}
