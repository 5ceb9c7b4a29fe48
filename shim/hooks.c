/* The wrappers that the dynamic linker finds instead of libc's. Thin: each calls its do_* and sets errno. What is
 * exported is what carries HOOK, so the list of wrapped symbols stands here alone. exec and posix_spawn: exec.c;
 * host names: resolve.c; interfaces: interfaces.c.
 */
#define _GNU_SOURCE
#include "hooks.h"

#include <stdarg.h>
#include <sys/epoll.h>

#include "ended.h"
#include "exec.h"
#include "fresh.h"
#include "interfaces.h"
#include "jail.h"
#include "ops.h"
#include "sys.h"
#include "syscalls.h"

HOOK int socket(int family, int type, int protocol) {
    return (int)result(do_socket(family, type, protocol));
}

HOOK int bind(int fd, const struct sockaddr *addr, socklen_t size) {
    return (int)result(do_bind(fd, addr, size));
}

HOOK int listen(int fd, int backlog) {
    return (int)result(do_listen(fd, backlog));
}

HOOK int connect(int fd, const struct sockaddr *addr, socklen_t size) {
    return (int)result(do_connect(fd, addr, size));
}

/* glibc exports both names. */
HOOK int __connect(int fd, const struct sockaddr *addr, socklen_t size) {
    return (int)result(do_connect(fd, addr, size));
}

HOOK int accept(int fd, struct sockaddr *addr, socklen_t *size) {
    return (int)result(do_accept(fd, addr, size, 0));
}

HOOK int accept4(int fd, struct sockaddr *addr, socklen_t *size, int flags) {
    return (int)result(do_accept(fd, addr, size, flags));
}

HOOK int getsockname(int fd, struct sockaddr *addr, socklen_t *size) {
    return (int)result(do_getsockname(fd, addr, size));
}

HOOK int getpeername(int fd, struct sockaddr *addr, socklen_t *size) {
    return (int)result(do_getpeername(fd, addr, size));
}

HOOK int shutdown(int fd, int how) {
    return (int)result(do_shutdown(fd, how));
}

HOOK int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    return (int)result(do_getsockopt(fd, level, name, value, size));
}

HOOK int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    return (int)result(do_setsockopt(fd, level, name, value, size));
}

HOOK ssize_t write(int fd, const void *data, size_t count) {
    return result(do_write(fd, data, count));
}

HOOK ssize_t writev(int fd, const struct iovec *parts, int count) {
    return result(do_writev(fd, parts, count));
}

HOOK ssize_t send(int fd, const void *data, size_t count, int flags) {
    return result(do_sendto(fd, data, count, flags, 0, 0));
}

HOOK ssize_t sendto(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size) {
    return result(do_sendto(fd, data, count, flags, addr, size));
}

HOOK ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return result(do_sendmsg(fd, message, flags));
}

HOOK int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    return (int)result(do_sendmmsg(fd, messages, count, flags));
}

HOOK ssize_t recvfrom(int fd, void *data, size_t count, int flags, struct sockaddr *addr, socklen_t *size) {
    return result(do_recvfrom(fd, data, count, flags, addr, size));
}

HOOK ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    return result(do_recvmsg(fd, message, flags));
}

HOOK int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    return (int)result(do_epoll_ctl(epoll, op, fd, event));
}

HOOK int chroot(const char *path) {
    return (int)result(do_chroot(path));
}

HOOK int unshare(int flags) {
    return (int)result(do_unshare(flags));
}

HOOK int setns(int fd, int kind) {
    return (int)result(do_setns(fd, kind));
}

HOOK int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    return (int)result(do_ioctl(fd, request, argument));
}

/* libuv and others reach system calls through syscall(2): the same answers. */
HOOK long syscall(long number, ...) {
    long arg[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) arg[i] = va_arg(list, long);
    va_end(list);
    return result(do_syscall(number, arg));
}
