/* How it works. A TCP socket that isn't fresh (fresh.h) stays the kernel's own until bind, listen or connect: then the
 * trap handler's answer is a Unix socket (or, towards the outside, a TCP socket of the host) that takes its place under
 * the same number. From there on its names tell everything (names.h), so getsockname and getpeername are the raw call
 * and a parse, as accept is (accept.c).
 */
#define _GNU_SOURCE
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include "apply.h"
#include "channel.h"
#include "datagrams.h"
#include "ended.h"
#include "fresh.h"
#include "memory.h"
#include "names.h"
#include "options.h"
#include "replace.h"
#include "senders.h"
#include "sys.h"
#include "tcp.h"

static int bind_flags(int fd, int family) {
    int flags = 0;
    if (int_option(fd, SOL_SOCKET, SO_REUSEADDR)) flags |= AS_REUSEADDR;
    if (int_option(fd, SOL_SOCKET, SO_REUSEPORT)) flags |= AS_REUSEPORT;
    if (family == AF_INET6 && int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY)) flags |= AS_V6ONLY;
    return flags;
}

static long bind_to(int fd, int family, const struct as_addr *local) {
    struct as_request request;
    int kind;
    new_request(&request, AS_BIND);
    request.local = *local;
    request.local.family = family == AF_INET6 ? 6 : 4;
    request.flags = (uint16_t)bind_flags(fd, family);
    return ask_and_replace(fd, &request, (int)sys2(SYS_fcntl, fd, F_GETFL), &kind);
}

long do_socket(int family, int type, int protocol) {
    long fd = make_fresh(family, type, protocol);
    if (fd >= 0) {
        note_new_datagrams((int)fd);
        return fd;
    }
    fd = sys3(SYS_socket, family, type, protocol);
    forget_fresh((int)fd);
    if (fd >= 0 && (family == AF_INET || family == AF_INET6)) {
        note_new_socket((int)fd);
        note_new_datagrams((int)fd);
    }
    return fd;
}

/* AF_UNSPEC with the any-address is AF_INET's any (bind in ip(7)). */
static int is_inet_any(const struct sockaddr *addr, socklen_t size) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    return addr->sa_family == AF_UNSPEC && size >= sizeof *in && in->sin_addr.s_addr == 0;
}

long do_bind(int fd, const struct sockaddr *addr, socklen_t size) {
    struct as_addr local;
    struct identity identity;
    struct sockaddr_storage copy;
    const struct sockaddr *inet = copy_inet(addr, size, &copy);
    int family = 0, udp = 0;
    long error = 0;
    if (inet) {
        addr = inet;
        if ((error = identify_settled(fd, &identity))) return error;
        udp = udp_family(fd, &identity);
        family = udp ? udp : unused_tcp_family(fd, &identity);
    }
    /* An address of another family: the kernel knows the error. */
    if (!family || (addr->sa_family != family && !(family == AF_INET && is_inet_any(addr, size))))
        return sys3(SYS_bind, fd, addr, size);
    if (udp) return bind_udp(fd, family, addr, size);
    error = read_sockaddr(addr, size, &local);
    return error ? error : bind_to(fd, family, &local);
}

long do_listen(int fd, int backlog) {
    struct identity identity;
    long error = identify_settled(fd, &identity);
    if (error) return error;
    if (identity.role == PLAIN) {
        int family = unused_tcp_family(fd, &identity);
        if (!family) return sys2(SYS_listen, fd, backlog);
        /* listen without bind: any address, a port of the system's choice (listen(2) in tcp(7)) */
        struct as_addr any = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 0, 4, 0};
        if (family == AF_INET6) memset(any.ip, 0, sizeof any.ip);
        if ((error = bind_to(fd, family, &any))) return error;
        identify(fd, &identity);
    }
    if (identity.role != LISTENER) return sys2(SYS_listen, fd, backlog);
    int was = int_option(fd, SOL_SOCKET, SO_ACCEPTCONN);
    error = sys2(SYS_listen, fd, backlog > AS_BACKLOG ? backlog : AS_BACKLOG);
    if (error < 0 || was) return error;
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    new_request(&request, AS_LISTEN);
    request.id = identity.listener.id;
    return ask(&request, &reply, &passed);
}

/* Which end of which connection `fd` is, CLIENT or ACCEPTED: then identity->client tells; else its role. */
static enum role find_end(int fd, struct identity *identity) {
    identify(fd, identity);
    if (!find_name(fd, identity, &identity->client)) return identity->role;
    return identity->client.medium == AS_TCP_SERVER ? ACCEPTED : CLIENT;
}

/* The source of a connection or its destination, as the socket `fd` of the end `role` shows it. 0 or -errno. */
static long write_end(int fd, enum role role, const struct as_client_name *name, int source, struct sockaddr *addr,
                      socklen_t *size) {
    int family = role == CLIENT ? name->client_family : name->server_family;
    long error = check_room(fd, addr, size, size_of_name(family));
    if (!error)
        write_sockaddr(family, source ? name->source_ip : name->dest_ip, source ? name->source_port : name->dest_port,
                       addr, size);
    return error;
}

long do_getsockname(int fd, struct sockaddr *addr, socklen_t *size) {
    struct identity identity;
    enum role role = find_end(fd, &identity);
    if (role == PLAIN) return sys3(SYS_getsockname, fd, addr, size);
    if (role != LISTENER && role != FRESH) return write_end(fd, role, &identity.client, role == CLIENT, addr, size);
    long error = check_room(fd, addr, size, size_of_name(identity.listener.family));
    if (!error) write_sockaddr(identity.listener.family, identity.listener.ip, identity.listener.port, addr, size);
    return error;
}

long do_getpeername(int fd, struct sockaddr *addr, socklen_t *size) {
    struct identity identity;
    struct sockaddr_storage peer;
    socklen_t peer_size = sizeof peer;
    enum role role = find_end(fd, &identity);
    if (role != CLIENT && role != ACCEPTED) return sys3(SYS_getpeername, fd, addr, size);
    /* TCP: the peer may be gone */
    long error = identity.role == PLAIN ? sys3(SYS_getpeername, fd, &peer, &peer_size) : 0;
    return error ? error : write_end(fd, role, &identity.client, role == ACCEPTED, addr, size);
}

/* Options that a Unix socket takes or answers without an error, but otherwise than TCP. */
static int differs_from_unix(int level, int name) {
    return level == SOL_SOCKET && (name == SO_DOMAIN || name == SO_PROTOCOL || name == SO_PEERCRED ||
                                   name == SO_REUSEPORT || name == SO_ZEROCOPY || name == SO_INCOMING_CPU);
}

static int unknown_to_unix(long error) {
    return error == -EOPNOTSUPP || error == -ENOPROTOOPT;
}

long do_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    struct identity identity;
    if (!keeps_fresh(level, name)) settle_if_fresh(fd);
    int differs = differs_from_unix(level, name);
    long error = differs ? 0 : sys5(SYS_getsockopt, fd, level, name, value, size);
    if (!differs && !unknown_to_unix(error)) {
        if (error >= 0 && level == SOL_SOCKET && name == SO_REUSEADDR && reuse_is_ours(fd)) memset(value, 0, *size);
        return error;
    }
    identify(fd, &identity);
    if (identity.role != PLAIN) return get_tcp_option(fd, &identity, level, name, value, size);
    return differs ? sys5(SYS_getsockopt, fd, level, name, value, size) : error;
}

/* The notice that data may be changed again would never come: a program that asks for it must go on without. */
static int wants_zero_copy(int fd, const struct identity *identity, const void *value, socklen_t size) {
    return size >= sizeof(int) && can_read(value, sizeof(int)) && *(const int *)value == 1 &&
           (identity->role != PLAIN || unused_tcp_family(fd, identity));
}

static long set_option(int fd, int level, int name, const void *value, socklen_t size) {
    long error = sys5(SYS_setsockopt, fd, level, name, value, size);
    if (error < 0) return error;
    note_option(fd, level, name);
    note_sender_option(fd);
    if (level == SOL_SOCKET && name == SO_REUSEADDR) keep_reusable(fd);
    return error;
}

long do_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    struct identity identity;
    if (!keeps_fresh(level, name)) settle_if_fresh(fd);
    int differs = differs_from_unix(level, name);
    long error = differs ? 0 : set_option(fd, level, name, value, size);
    if (!differs && !unknown_to_unix(error)) return error;
    identify(fd, &identity);
    if (level == SOL_SOCKET && name == SO_ZEROCOPY && wants_zero_copy(fd, &identity, value, size)) return -EOPNOTSUPP;
    if (identity.role != PLAIN) return set_tcp_option(fd, &identity, level, name, value, size);
    return differs ? set_option(fd, level, name, value, size) : error;
}

static int is_ours(int fd) {
    struct identity identity;
    identify(fd, &identity);
    return identity.role != PLAIN;
}

/* TCP Fast Open connects by the first send (MSG_FASTOPEN in tcp(7)): here the connect comes first, and the flag goes.
 */
static long connect_first(int fd, int *flags, const struct sockaddr *addr, socklen_t size) {
    if (!(*flags & MSG_FASTOPEN) || !addr) return 0;
    *flags &= ~MSG_FASTOPEN;
    return do_connect(fd, addr, size);
}

/* What a connected UDP socket sends: `send_it`, once more if its receiver has gone and another one is there. */
#define SEND_CONNECTED(fd, send_it)                                  \
    ({                                                               \
        long outcome = may_be_over(fd) ? check_connected(fd, 0) : 0; \
        if (outcome >= 0) outcome = (send_it);                       \
        if (outcome == -ECONNREFUSED && was_placed(fd)) {            \
            outcome = check_connected(fd, 1);                        \
            if (outcome >= 0) outcome = (send_it);                   \
        }                                                            \
        outcome;                                                     \
    })

/* `send_it`, whose flags hold `quiet`, and what ended.c makes of an EPIPE. One that stays is had once more with the
 * program's own flags, so that SIGPIPE comes from the kernel. */
#define SEND_TO_THE_END(fd, count, flags, send_it)                           \
    ({                                                                       \
        int quiet = (flags) | MSG_NOSIGNAL;                                  \
        long sent = (send_it);                                               \
        if (sent == -EPIPE) {                                                \
            sent = reconsider_epipe(fd, count);                              \
            quiet = (flags) & ~MSG_FASTOPEN;                                 \
            if (sent == -EPIPE && !(quiet & MSG_NOSIGNAL)) sent = (send_it); \
        }                                                                    \
        sent;                                                                \
    })

static long send_to(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size) {
    if (!addr) return SEND_CONNECTED(fd, sys6(SYS_sendto, fd, SYS_ARG_(data), SYS_ARG_(count), flags, 0, 0));
    struct sockaddr_storage copy;
    const struct sockaddr *inet = copy_inet(addr, size, &copy);
    if (inet) {
        int ours;
        addr = inet;
        long sent = sendto_by_sender(fd, data, count, flags, addr, size, &ours);
        if (ours) return sent;
    }
    long sent = connect_first(fd, &flags, addr, size);
    if (sent < 0) return sent;
    sent = SEND_CONNECTED(fd,
                          sys6(SYS_sendto, fd, SYS_ARG_(data), SYS_ARG_(count), flags, SYS_ARG_(addr), size | AS_OURS));
    /* TCP takes no notice of the address once connected; a Unix socket refuses it. */
    if (sent == -EISCONN && addr && is_ours(fd))
        sent = sys6(SYS_sendto, fd, SYS_ARG_(data), SYS_ARG_(count), flags, 0, 0);
    return sent;
}

long do_sendto(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size) {
    settle_if_fresh(fd);
    return SEND_TO_THE_END(fd, count, flags, send_to(fd, data, count, quiet, addr, size));
}

static long send_message(int fd, const struct msghdr *given, int flags) {
    int ours;
    struct sockaddr_storage name;
    struct msghdr copy = *given, *message = &copy;
    const struct sockaddr *inet = copy_inet(copy.msg_name, copy.msg_namelen, &name);
    if (!message->msg_name) {
        long sent = message->msg_controllen ? sendmsg_from_another_source(fd, message, flags, &ours) : (ours = 0);
        return ours ? sent : SEND_CONNECTED(fd, sys3(SYS_sendmsg, fd, message, flags));
    }
    if (inet) {
        message->msg_name = &name;
        long sent = sendmsg_by_sender(fd, message, flags, &ours);
        if (ours) return sent;
    }
    if (flags & MSG_FASTOPEN) {
        long error = connect_first(fd, &flags, message->msg_name, message->msg_namelen);
        if (error < 0) return error;
    }
    long sent = SEND_CONNECTED(fd, sys3(SYS_sendmsg, fd, message, flags));
    if (sent == -EISCONN && is_ours(fd)) {
        message->msg_name = 0;
        message->msg_namelen = 0;
        sent = sys3(SYS_sendmsg, fd, message, flags);
    }
    return sent;
}

long do_sendmsg(int fd, const struct msghdr *message, int flags) {
    settle_if_fresh(fd);
    if (!can_read(message, sizeof *message)) return sys3(SYS_sendmsg, fd, message, flags);
    return SEND_TO_THE_END(fd, size_of_parts(message->msg_iov, message->msg_iovlen), flags,
                           send_message(fd, message, quiet));
}

/* One after the other, as the kernel does (sendmmsg(2)): each may go another way. */
long do_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    unsigned done = 0;
    for (; done < count && done < 1024 /* UIO_MAXIOV */; done++) {
        struct mmsghdr *each = &messages[done];
        int is_there = can_read(each, sizeof *each) && can_write(fd, &each->msg_len, sizeof each->msg_len);
        long sent = is_there ? do_sendmsg(fd, &each->msg_hdr, flags) : sys4(SYS_sendmmsg, fd, each, 1, flags);
        if (sent < 0) return done ? (long)done : sent;
        if (is_there) each->msg_len = (unsigned)sent;
    }
    return done;
}

/* A TCP socket gives no address with its data (recvfrom(2)); a Unix stream socket gives its peer's name. */
long do_recvfrom(int fd, void *data, size_t count, int flags, struct sockaddr *addr, socklen_t *size) {
    settle_if_fresh(fd);
    if (addr && size && is_ours(fd) && can_write(fd, size, sizeof *size) && (int)*size >= 0) {
        long received = sys6(SYS_recvfrom, fd, SYS_ARG_(data), SYS_ARG_(count), flags, 0, 0);
        if (received >= 0) *size = 0;
        return received;
    }
    return sys6(SYS_recvfrom, fd, SYS_ARG_(data), SYS_ARG_(count), (unsigned)flags | AS_OURS, SYS_ARG_(addr),
                SYS_ARG_(size));
}

long do_recvmsg(int fd, struct msghdr *message, int flags) {
    settle_if_fresh(fd);
    if (!can_read(message, sizeof *message) || !message->msg_name || (int)message->msg_namelen < 0 || !is_ours(fd) ||
        !can_write(fd, message, sizeof *message))
        return sys3(SYS_recvmsg, fd, message, flags);
    void *name = message->msg_name;
    message->msg_name = 0;
    long received = sys3(SYS_recvmsg, fd, message, flags);
    message->msg_name = name;
    if (received >= 0) message->msg_namelen = 0;
    return received;
}

long do_epoll_ctl(int epoll, int op, int fd, void *event) {
    long error = sys4(SYS_epoll_ctl, epoll, op, fd, event);
    if (error >= 0 && op == EPOLL_CTL_ADD) note_epoll_add(epoll, fd);
    return error;
}
