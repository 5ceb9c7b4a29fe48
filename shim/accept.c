/* accept: who comes is checked before the program has it. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>

#include "apply.h"
#include "ended.h"
#include "fresh.h"
#include "names.h"
#include "ops.h"
#include "options.h"
#include "sys.h"
#include "tcp.h"
#include "verify.h"

/* An accepted socket has its listener's name. False: not a listener of ours. */
static int accepted_by(int accepted, struct as_listener_name *listener) {
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    if (sys3(SYS_getsockname, accepted, &name, &size) < 0) return 0;
    return read_listener_name((struct sockaddr *)&name, size, listener);
}

/* The queue of a listener may hold a client that is not who it says, or that policy no longer lets in: it is closed,
 * and the next one taken. So is one of whom no trap handler can tell: many servers end when accept fails. Where a
 * descriptor is wanting, the error is accept's own (accept(2): EMFILE). */
static long accept_verified(int fd, struct sockaddr_storage *name, socklen_t *size, int flags,
                            struct as_listener_name *listener, struct as_client_name *client, int *ours) {
    for (;;) {
        socklen_t room = sizeof *name;
        long accepted = sys4(SYS_accept4, fd, name, &room, flags);
        if (accepted < 0) return accepted == -EAGAIN ? reconsider_eagain(fd) : accepted;
        *size = room;
        *ours = name->ss_family == AF_UNIX && accepted_by((int)accepted, listener);
        if (!*ours) return accepted;
        /* Without a client's name it came by a capability, past the checks of that name. */
        long true_client = read_client_name((struct sockaddr *)name, room, client)
                               ? verify_client((int)accepted, listener, client)
                               : 0;
        long error =
            true_client > 0 && client->medium == AS_TCP_SERVER ? receive_delivery((int)accepted, flags, client) : 0;
        if (true_client > 0 && !error) return accepted;
        sys1(SYS_close, accepted);
        if (true_client < 0 && true_client != -ENETDOWN) return true_client;
        if (error == -EMFILE) return error;
    }
}

long do_accept(int fd, struct sockaddr *addr, socklen_t *size, int flags) {
    struct sockaddr_storage name;
    struct as_listener_name listener;
    struct as_client_name client;
    socklen_t name_size;
    int ours;
    long accepted = accept_verified(fd, &name, &name_size, flags, &listener, &client, &ours);
    if (accepted < 0) return accepted;
    forget_fresh((int)accepted);
    if (ours) name_size = size_of_name(client.server_family);
    long error = addr ? check_room((int)accepted, addr, size, name_size) : 0;
    if (error) { /* as the kernel: the connection is lost */
        sys1(SYS_close, accepted);
        return error;
    }
    if (ours) {
        if (client.medium == AS_UNIX) raise_sndbuf((int)accepted);
        inherit_options(fd, listener.id, (int)accepted, client.medium == AS_TCP_SERVER);
    }
    if (!addr) return accepted;
    if (ours) {
        write_sockaddr(client.server_family, client.source_ip, client.source_port, addr, size);
    } else {
        memcpy(addr, &name, *size < name_size ? *size : name_size);
        *size = name_size;
    }
    return accepted;
}
