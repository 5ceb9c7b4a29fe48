/* How it works. What the trap handler answers takes the place of the program's socket: a Unix socket that is connected
 * to the app, or a TCP socket of the host's. Where the shim has a capability (capability.h) it needn't ask; and where
 * the program's socket is fresh (fresh.h) nothing has to be replaced then.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "apply.h"
#include "capability.h"
#include "channel.h"
#include "datagrams.h"
#include "fresh.h"
#include "names.h"
#include "ops.h"
#include "options.h"
#include "replace.h"
#include "sys.h"

/* A TCP socket of another namespace would connect from there the next time. */
static int is_foreign_tcp(int fd, const struct identity *identity) {
    int inet = identity->plain_family == AF_INET || identity->plain_family == AF_INET6;
    if (!inet || int_option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP) return 0;
    long here = sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int foreign = here >= 0 && netns_of((int)here) != netns_of(fd);
    if (here >= 0) sys1(SYS_close, here);
    return foreign;
}

/* In milliseconds; 0: none. It limits connect, too, which then says EINPROGRESS (SO_SNDTIMEO in socket(7)). */
static uint32_t send_timeout(int fd) {
    struct timeval limit = {0, 0};
    socklen_t size = sizeof limit;
    if (sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size) < 0 || limit.tv_sec > 3600) return 0;
    return (uint32_t)(limit.tv_sec * 1000 + (limit.tv_usec + 999) / 1000);
}

enum { NOT_CONNECTED = 1 };

/* 0, -EINPROGRESS or -errno; NOT_CONNECTED: `fd` isn't fresh any more; *tried: and it is no use to try again. */
static long connect_fresh(int fd, const struct sockaddr *addr, socklen_t size, int *tried) {
    struct as_addr remote;
    long error = NOT_CONNECTED;
    int status = (int)sys2(SYS_fcntl, fd, F_GETFL);
    if (addr->sa_family == believed_fresh(fd) && !read_sockaddr(addr, size, &remote)) {
        any_is_loopback(&remote);
        error = connect_fresh_by_capability(fd, &remote, status);
    }
    *tried = error == -EAGAIN;
    if (error) {
        error = settle(fd);
        return error ? error : NOT_CONNECTED;
    }
    forget_fresh(fd);
    note_connect_by_capability();
    /* Nothing changes for who waits for an end of a Unix socket's connect, but that there is room to send. */
    if (was_added_to_epoll(fd)) raise_sndbuf(fd);
    return status & O_NONBLOCK ? -EINPROGRESS : 0;
}

long do_connect(int fd, const struct sockaddr *addr, socklen_t size) {
    struct identity identity;
    struct as_request request;
    struct sockaddr_storage copy;
    const struct sockaddr *inet = copy_inet(addr, size, &copy);
    int tried = 0;
    if (!inet) return sys3(SYS_connect, fd, addr, size);
    addr = inet;
    if (believed_fresh(fd)) {
        long done = connect_fresh(fd, addr, size, &tried);
        if (done != NOT_CONNECTED) return done;
    }
    long error = identify_settled(fd, &identity);
    if (error) return error;
    int status = (int)sys2(SYS_fcntl, fd, F_GETFL), family, kind = AS_NO_FD;
    if (identity.role == PLAIN) {
        if ((family = udp_family(fd, &identity))) return connect_udp(fd, family, addr, size);
        family = unused_tcp_family(fd, &identity);
        if (addr->sa_family == AF_UNSPEC && is_foreign_tcp(fd, &identity))
            return replace_by_tcp(fd, identity.plain_family, status); /* the association is dissolved */
        if (!family || addr->sa_family == AF_UNSPEC) return sys3(SYS_connect, fd, addr, size);
    } else {
        if (addr->sa_family == AF_UNSPEC) {
            int only_bound = identity.role == LISTENER && !int_option(fd, SOL_SOCKET, SO_ACCEPTCONN);
            return only_bound ? 0 : replace_by_tcp(fd, family_of(&identity), status);
        }
        if (identity.role != LISTENER || int_option(fd, SOL_SOCKET, SO_ACCEPTCONN)) return -EISCONN;
        family = family_of(&identity);
    }
    new_request(&request, AS_CONNECT);
    if (family == AF_INET6 && size < SIN6_LEN_RFC2133) return -EINVAL; /* looked at before the family */
    if (addr->sa_family != family) return -EAFNOSUPPORT;
    error = read_sockaddr(addr, size, &request.remote);
    if (error) return error;
    any_is_loopback(&request.remote);
    if (identity.role == LISTENER) {
        memcpy(request.local.ip, identity.listener.ip, sizeof request.local.ip);
        request.local.port = identity.listener.port;
        request.local.family = request.remote.family;
        request.flags = AS_BOUND;
    } else {
        int client = tried ? -1 : connect_by_capability(&request.remote);
        if (client >= 0) {
            note_connect_by_capability();
            error = replace(fd, client, status);
            return error ? error : status & O_NONBLOCK ? -EINPROGRESS : 0;
        }
        request.flags = (uint16_t)wanted_capabilities(&request.remote);
    }
    if (status & O_NONBLOCK)
        request.flags |= AS_NONBLOCK;
    else
        request.patience = send_timeout(fd);
    error = ask_and_replace(fd, &request, status, &kind);
    if (error) return error == -ETIMEDOUT && request.patience ? -EINPROGRESS : error;
    if (kind == AS_KERNEL) { /* the DNS socket in the namespace; dig binds before it connects */
        if (identity.role == LISTENER && (error = replace_by_tcp(fd, family, status))) return error;
        return sys3(SYS_connect, fd, addr, size);
    }
    if (status & O_NONBLOCK) return -EINPROGRESS; /* some programs mishandle an immediate 0 */
    if (kind != AS_FD_TCP) return 0;
    /* A second connect on a TCP socket that is connecting waits for the outcome (connect(2)). */
    error = sys3(SYS_connect, fd, addr, size);
    return error == -EISCONN ? 0 : error;
}
