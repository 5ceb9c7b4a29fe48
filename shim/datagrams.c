/* How it works. Every address is local to every app's namespace, so a UDP socket in the server's namespace, bound there
 * to the client's address, is the kernel's own UDP in everything. The trap handler makes such a *placed* socket, and it
 * takes the place of the program's. Receiving needs no hook at all.
 *
 * A placed socket may have the port of a socket of the server's, beside its any-address: so each UDP socket that is
 * bound gets SO_REUSEADDR. That this is ours and not the program's, IP_BIND_ADDRESS_NO_PORT tells, which means nothing
 * on a UDP socket that is bound; so the kernel keeps it over fork, exec and dup. Whether two sockets of the program
 * may share a port, the trap handler finds out beforehand.
 */
#define _GNU_SOURCE
#include "datagrams.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include "channel.h"
#include "epoch.h"
#include "options.h"
#include "replace.h"
#include "settings.h"
#include "sys.h"

enum {
    PLACED = 4096,
    ADDRESS_NO_PORT = 24, /* IP_BIND_ADDRESS_NO_PORT */
    PORT_RANGE = 51,      /* IP_LOCAL_PORT_RANGE, Linux 6.3 */
    OWN_PORTS = 32768 | (AS_UDP_PORTS - 1) << 16
};

/* The epoch at which the descriptor was connected to another app's socket; 0: it wasn't, as far as we know. */
static uint64_t placed_at[PLACED];

int udp_family(int fd, const struct identity *identity) {
    int family = identity->plain_family;
    if (identity->role != PLAIN || (family != AF_INET && family != AF_INET6)) return 0;
    if (int_option(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM) return 0;
    return int_option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP && !is_elsewhere(fd) ? family : 0;
}

void note_new_datagrams(int fd) {
    if (fd < PLACED) placed_at[fd] = 0;
}

static void set_placed(int fd, uint64_t epoch) {
    if (fd < PLACED) placed_at[fd] = epoch;
}

int was_placed(int fd) {
    return fd >= 0 && fd < PLACED && placed_at[fd];
}

int may_be_over(int fd) {
    return was_placed(fd) && !still_true(placed_at[fd]);
}

int reuse_is_ours(int fd) {
    return int_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && int_option(fd, IPPROTO_IP, ADDRESS_NO_PORT);
}

static long set_int(int fd, int level, int name, int value) {
    return sys5(SYS_setsockopt, fd, level, name, &value, sizeof value);
}

void keep_reusable(int fd) {
    struct identity identity;
    identify(fd, &identity);
    if (!identity.plain_port || !udp_family(fd, &identity)) return;
    int wanted = int_option(fd, SOL_SOCKET, SO_REUSEADDR);
    set_int(fd, IPPROTO_IP, ADDRESS_NO_PORT, !wanted);
    if (!wanted) set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

void take_path(const struct as_reply *reply, struct passed *passed, struct as_path *path) {
    memset(path, 0, sizeof *path);
    if (reply->text_size == sizeof *path) memcpy(path, reply->text, sizeof *path);
    if (path->has_epoch && passed->count) {
        int page = passed->fd[--passed->count];
        map_epoch(page);
        sys1(SYS_close, page);
    }
}

int describe_udp(int fd, int family, struct as_request *request) {
    struct sockaddr_in6 name;
    socklen_t size = sizeof name;
    if (sys3(SYS_getsockname, fd, &name, &size) < 0 || read_sockaddr((struct sockaddr *)&name, size, &request->local))
        memset(&request->local, 0, sizeof request->local);
    request->local.family = family == AF_INET6 ? 6 : 4;
    request->netns = netns_of(fd);
    return request->local.port;
}

static int is_any_or_loopback(const struct as_addr *addr) {
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff}, zero[16];
    const uint8_t *ip = addr->ip;
    if (memcmp(ip, v4, sizeof v4) == 0) return ip[12] == 127 || memcmp(ip + 12, zero, 4) == 0;
    return memcmp(ip, zero, 15) == 0 && ip[15] <= 1;
}

static long bind_by_kernel(int fd, const struct sockaddr *addr, socklen_t size, uint16_t port, int is_free) {
    int wanted = int_option(fd, SOL_SOCKET, SO_REUSEADDR);
    if (!port) set_int(fd, IPPROTO_IP, PORT_RANGE, (int)OWN_PORTS);
    long error = sys3(SYS_bind, fd, addr, size);
    if (!port) set_int(fd, IPPROTO_IP, PORT_RANGE, 0);
    if (error == -EADDRINUSE && is_free) { /* a placed socket, or our DNS server */
        set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        error = sys3(SYS_bind, fd, addr, size);
        if (error < 0) set_int(fd, SOL_SOCKET, SO_REUSEADDR, wanted);
    }
    if (error >= 0 && !wanted) {
        set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        set_int(fd, IPPROTO_IP, ADDRESS_NO_PORT, 1);
    }
    return error;
}

long bind_udp(int fd, int family, const struct sockaddr *addr, socklen_t size) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    new_request(&request, AS_UDP_BIND);
    if (describe_udp(fd, family, &request) || read_sockaddr(addr, size, &request.local))
        return sys3(SYS_bind, fd, addr, size); /* bound already, or no address: the kernel knows the error */
    request.local.family = family == AF_INET6 ? 6 : 4;
    if (get_settings()->in_namespace && !request.local.port && is_any_or_loopback(&request.local))
        return bind_by_kernel(fd, addr, size, 0, 0);
    if (int_option(fd, SOL_SOCKET, SO_REUSEADDR)) request.flags |= AS_REUSEADDR;
    if (int_option(fd, SOL_SOCKET, SO_REUSEPORT)) request.flags |= AS_REUSEPORT;
    if (family == AF_INET6 && int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY)) request.flags |= AS_V6ONLY;
    long error = ask(&request, &reply, &passed);
    if (error) return error;
    if (passed.count)
        error = replace(fd, passed.fd[0], (int)sys2(SYS_fcntl, fd, F_GETFL));
    else
        error = bind_by_kernel(fd, addr, size, request.local.port, reply.kind == AS_FREE);
    if (error < 0 || !request.local.port) return error;
    request.op = AS_UDP_BOUND;
    ask(&request, &reply, &passed); /* that no one hears of it is no reason to fail */
    return 0;
}

/* connect(AF_UNSPEC): what is bound stays bound, in the app's own namespace. */
static long dissolve(int fd, int family, const struct sockaddr *addr, socklen_t size) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    long error = sys3(SYS_connect, fd, addr, size);
    if (error < 0) return error;
    new_request(&request, AS_UDP_BIND);
    describe_udp(fd, family, &request);
    memset(request.local.ip, 0, sizeof request.local.ip);
    if (family == AF_INET) memset(request.local.ip + 10, 0xff, 2);
    note_new_datagrams(fd);
    if (ask(&request, &reply, &passed) < 0 || !passed.count) return 0;
    return replace(fd, passed.fd[0], (int)sys2(SYS_fcntl, fd, F_GETFL));
}

/* Asks where `fd` is to be connected, and puts what comes back in its place. 0, or -errno; *kind as in the reply. */
static long ask_and_place(int fd, struct as_request *request, int *kind) {
    struct as_reply reply;
    struct passed passed;
    request->flags |= AS_BOUND;
    if (!request->local.port) request->flags = 0;
    request->flags |= (uint16_t)wanted_epoch();
    long error = ask(request, &reply, &passed);
    if (error) return error;
    struct as_path path;
    take_path(&reply, &passed, &path);
    *kind = reply.kind;
    if (passed.count && (error = replace(fd, passed.fd[0], (int)sys2(SYS_fcntl, fd, F_GETFL)))) return error;
    if (reply.kind == AS_FD_UDP || was_placed(fd)) set_placed(fd, reply.kind == AS_HOME ? 0 : path.epoch);
    return 0;
}

long connect_udp(int fd, int family, const struct sockaddr *addr, socklen_t size) {
    struct as_request request;
    int kind;
    if (addr->sa_family == AF_UNSPEC) return dissolve(fd, family, addr, size);
    new_request(&request, AS_UDP_CONNECT);
    if ((addr->sa_family != family && (family == AF_INET || int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY))) ||
        read_sockaddr(addr, size, &request.remote))
        return sys3(SYS_connect, fd, addr, size); /* the kernel knows the error */
    request.remote.family = family == AF_INET6 ? 6 : 4;
    describe_udp(fd, family, &request);
    long error = ask_and_place(fd, &request, &kind);
    return error || kind == AS_FD_UDP ? error : sys3(SYS_connect, fd, addr, size);
}

long check_connected(int fd, int refused) {
    struct sockaddr_in6 peer;
    socklen_t size = sizeof peer;
    struct identity identity;
    struct as_request request;
    int kind;
    identify(fd, &identity);
    int family = udp_family(fd, &identity);
    new_request(&request, AS_UDP_CONNECT);
    if (!family || sys3(SYS_getpeername, fd, &peer, &size) < 0 ||
        read_sockaddr((struct sockaddr *)&peer, size, &request.remote)) {
        note_new_datagrams(fd); /* another file has the number by now */
        return 0;
    }
    request.remote.family = family == AF_INET6 ? 6 : 4;
    describe_udp(fd, family, &request);
    long error = ask_and_place(fd, &request, &kind);
    if (error == -ENETDOWN) note_new_datagrams(fd); /* no trap handler: what is there, stays */
    if (error) return error == -ENETDOWN ? refused ? -ECONNREFUSED : 0 : error;
    if (kind == AS_HOME) return sys3(SYS_connect, fd, &peer, size);
    return refused && kind != AS_FD_UDP ? -ECONNREFUSED : 0;
}
