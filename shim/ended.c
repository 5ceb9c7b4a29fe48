/* How it works. TCP learns that the other end has closed, and not only stopped sending, from the answer to what it
 * sends: so the first send after the close succeeds and the next is EPIPE. A Unix socket says EPIPE at once. So the
 * first EPIPE is called a success; unless the program has ended its own sending before, or the other end left data
 * unread, which TCP's reset tells as ECONNRESET. That either has been is marked on the socket, where dup, fork and exec
 * find it: by SO_NOFCS, which means nothing to a stream socket. Only what fails costs anything.
 */
#define _GNU_SOURCE
#include "ended.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "fresh.h"
#include "names.h"
#include "sys.h"

extern void *dlsym(void *handle, const char *name) __attribute__((weak));

enum { MOST_LOST = 65536 }; /* bytes: of a long send TCP takes some before the answer ends it */

static void mark(int fd) {
    int on = 1;
    sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_NOFCS, &on, sizeof on);
}

static int is_marked(int fd) {
    return int_option(fd, SOL_SOCKET, SO_NOFCS);
}

static int poll_at_once(int fd) {
    struct pollfd each = {fd, POLLRDHUP, 0};
    struct timespec at_once = {0, 0};
    return sys5(SYS_ppoll, &each, 1, &at_once, 0, 0) > 0 ? each.revents : 0;
}

static int is_connection(const struct identity *identity) {
    return identity->role == CLIENT || identity->role == ACCEPTED;
}

size_t size_of_parts(const struct iovec *parts, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) size += parts[i].iov_len;
    return size;
}

long reconsider_epipe(int fd, size_t count) {
    struct identity identity;
    identify(fd, &identity);
    if (!is_connection(&identity) || is_marked(fd)) return -EPIPE;
    if (!count) return 0; /* nothing goes out, so nothing is answered */
    mark(fd);
    if (int_option(fd, SOL_SOCKET, SO_ERROR) == ECONNRESET) return -ECONNRESET;
    return count < MOST_LOST ? (long)count : MOST_LOST;
}

/* libc's own, which a thread can be cancelled in (pthreads(7)): most writes go to files and pipes. */
static ssize_t (*libc_write)(int, const void *, size_t);
static ssize_t (*libc_writev)(int, const struct iovec *, int);

__attribute__((constructor)) static void find_writes(void) {
    if (!dlsym) return;
    libc_write = (ssize_t (*)(int, const void *, size_t))dlsym((void *)-1L /* RTLD_NEXT */, "write");
    libc_writev = (ssize_t (*)(int, const struct iovec *, int))dlsym((void *)-1L, "writev");
}

/* What libc returned, as the kernel returns it. */
static long raw(ssize_t done) {
    return done < 0 ? -*__errno_location() : done;
}

static long write_once(int fd, const void *data, size_t count) {
    return libc_write ? raw(libc_write(fd, data, count)) : sys3(SYS_write, fd, data, count);
}

static long writev_once(int fd, const struct iovec *parts, int count) {
    return libc_writev ? raw(libc_writev(fd, parts, count)) : sys3(SYS_writev, fd, parts, count);
}

/* What isn't connected says EPIPE if it is TCP. */
static int is_settled_now(long error, int fd) {
    return error == -ENOTCONN && believed_fresh(fd) && settle(fd) == 0;
}

/* OpenSSL ends a connection by write. No flag holds SIGPIPE back here, so this is for programs that ignore it. */
long do_write(int fd, const void *data, size_t count) {
    long written = write_once(fd, data, count);
    if (is_settled_now(written, fd)) written = write_once(fd, data, count);
    return written == -EPIPE ? reconsider_epipe(fd, count) : written;
}

long do_writev(int fd, const struct iovec *parts, int count) {
    long written = writev_once(fd, parts, count);
    if (is_settled_now(written, fd)) written = writev_once(fd, parts, count);
    return written == -EPIPE ? reconsider_epipe(fd, size_of_parts(parts, (size_t)count)) : written;
}

/* The loop of a server ends by that (eventlet's does). POLLRDHUP tells it, and costs less to ask than whose it is. */
long reconsider_eagain(int fd) {
    struct identity identity;
    if (!(poll_at_once(fd) & POLLRDHUP)) return -EAGAIN;
    identify(fd, &identity);
    return identity.role == LISTENER ? -EINVAL : -EAGAIN;
}

long do_shutdown(int fd, int how) {
    struct identity identity;
    settle_if_fresh(fd);
    identify(fd, &identity);
    /* Neither end sends any more: TCP has forgotten the connection. */
    int over = is_connection(&identity) && is_marked(fd) && poll_at_once(fd) & POLLHUP;
    long error = sys2(SYS_shutdown, fd, how);
    if (error < 0) return error;
    if (over) return -ENOTCONN;
    if (how != SHUT_RD && is_connection(&identity)) mark(fd);
    /* One that is bound and no more is shut down, yet the answer is an error (inet_shutdown in net/ipv4/af_inet.c). */
    return identity.role == LISTENER && !int_option(fd, SOL_SOCKET, SO_ACCEPTCONN) ? -ENOTCONN : 0;
}
