/* How it works. A route is a destination and up to eight instances, in a place that its hash picks; two destinations of
 * one place take turns. The first connect to a destination only leaves its mark there: a program that connects once
 * pays nothing. The second asks for capabilities; from then on, while the epoch is the one that they were given at, the
 * shim makes the socket, names it and connects it, taking the instances in turn by their weights.
 *
 * What leads to an instance is a link: a path that nobody can guess (appswitch/edge/listeners.py). Where that can't be
 * reached, it is the descriptor, by /proc. These have high numbers, and a program may close them and get the number for
 * a file of its own: so once connected, the name of the other end must be that of the listener that was meant.
 *
 * Nothing has to be trusted here: the server's side checks who connects by what the kernel says (verify.h).
 */
#define _GNU_SOURCE
#include "capability.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "counters.h"
#include "epoch.h"
#include "jail.h"
#include "kept.h"
#include "latch.h"
#include "names.h"
#include "options.h"
#include "settings.h"
#include "sys.h"
#include "turns.h"

/* Odd ports of ip_local_port_range (ip(7)): the even ones are the trap handler's, for the connects that it makes. */
enum { ROUTES = COUNTERS, FIRST_PORT = 32769, PORTS = 14116 };

struct route {
    int latch;
    uint32_t last_turn; /* where given.uses isn't 0: at this one it asks again */
    struct as_addr remote;
    struct as_capabilities given;
    struct kept fd[AS_MOST_CAPABILITIES];
};

/* What one connect needs of a route. */
struct attempt {
    uint8_t source_ip[16];
    uint64_t epoch, listener, counters;
    uint32_t slot;
    uint8_t server_family;
    int fd;
    char link[AS_LINK_SIZE];
};

static struct route routes[ROUTES];
static uint32_t last_port; /* 0: not yet chosen */

static struct route *place_of(const struct as_addr *remote) {
    return &routes[hash_of(remote, sizeof *remote) % ROUTES];
}

/* Latches the place of `remote` if it is this destination's and intact. In a vfork child, too, which has what its
 * parent keeps. */
static struct route *latch_route(const struct as_addr *remote) {
    struct route *route = place_of(remote);
    int pid = memory_pid();
    enum latched latched = pid ? try_latch(&route->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED && memcmp(&route->remote, remote, sizeof *remote) == 0) return route;
    if (latched == LATCHED_BROKEN) memset(&route->remote, 0, sizeof route->remote);
    unlatch(&route->latch);
    return 0;
}

static int counter_of(const struct route *route) {
    return (int)(route - routes);
}

/* The instances of `remote` in the order of this connect; their number, 0: none or no longer good. */
static int plan_attempts(const struct as_addr *remote, struct attempt attempts[AS_MOST_CAPABILITIES]) {
    struct route *route = latch_route(remote);
    if (!route) return 0;
    int count = still_true(route->given.epoch) ? (int)route->given.count : 0, first = 0;
    if (count) {
        uint32_t turn = take_turn(counter_of(route));
        first = whose_turn(turn, route->given.weight, count);
        if (route->given.uses && (int32_t)(turn - route->last_turn) >= 0) count = 0;
    }
    for (int i = 0; i < count; i++) {
        int pick = (first + i) % count;
        memcpy(attempts[i].source_ip, route->given.source_ip, sizeof attempts[i].source_ip);
        attempts[i].epoch = route->given.epoch;
        attempts[i].listener = route->given.listener[pick];
        attempts[i].counters = route->given.counters;
        attempts[i].slot = route->given.slot[pick];
        attempts[i].server_family = route->given.family[pick];
        attempts[i].fd = route->fd[pick].fd;
        memcpy(attempts[i].link, route->given.link[pick], AS_LINK_SIZE);
    }
    unlatch(&route->latch);
    return count;
}

static uint16_t next_port(void) {
    if (!__atomic_load_n(&last_port, __ATOMIC_RELAXED)) {
        uint32_t random = 1, none = 0;
        sys3(SYS_getrandom, &random, sizeof random, 0);
        __atomic_compare_exchange_n(&last_port, &none, random | 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    return (uint16_t)(FIRST_PORT + 2 * (__atomic_add_fetch(&last_port, 1, __ATOMIC_RELAXED) % PORTS));
}

/* The name is unique in this namespace: the kernel refuses one in use, and the next port is tried. */
static long bind_name(long fd, const struct as_addr *remote, const struct attempt *attempt) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct as_client_name name = {.tag = "asc"};
    long error = -EADDRINUSE;
    memcpy(name.source_ip, attempt->source_ip, sizeof name.source_ip);
    memcpy(name.dest_ip, remote->ip, sizeof name.dest_ip);
    name.dest_port = remote->port;
    name.client_family = remote->family;
    name.server_family = attempt->server_family;
    for (int i = 0; i < PORTS && error == -EADDRINUSE; i++) {
        name.source_port = next_port();
        memcpy(un.sun_path, &name, sizeof name);
        error = sys3(SYS_bind, fd, &un, offsetof(struct sockaddr_un, sun_path) + sizeof name);
    }
    return error;
}

/* To be known by the path alone, which nobody can guess. -ENOENT or the like: it isn't where we look. */
static long connect_by_link(long fd, const char link[AS_LINK_SIZE]) {
    const struct sockaddr_un *trap = &get_settings()->socket;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t size = as_strlen(trap->sun_path);
    if (!link[0] || is_jailed() || size + sizeof AS_LINKS + AS_LINK_SIZE > sizeof un.sun_path) return -ENOENT;
    memcpy(un.sun_path, trap->sun_path, size);
    memcpy(un.sun_path + size, AS_LINKS, sizeof AS_LINKS - 1);
    memcpy(un.sun_path + size + sizeof AS_LINKS - 1, link, AS_LINK_SIZE);
    return sys3(SYS_connect, fd, &un, sizeof un);
}

static long connect_by_descriptor(long fd, const struct attempt *attempt) {
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/proc/self/fd/"};
    write_number(un.sun_path + as_strlen(un.sun_path), (unsigned)attempt->fd);
    long error = sys3(SYS_connect, fd, &un, sizeof un);
    if (error < 0) return error;
    socklen_t size = sizeof un;
    struct as_listener_name listener;
    error = sys3(SYS_getpeername, fd, &un, &size);
    if (error < 0 || !read_listener_name((struct sockaddr *)&un, size, &listener)) return -ECONNREFUSED;
    return listener.id == attempt->listener ? 0 : -ECONNREFUSED;
}

static long connect_to(long fd, const struct attempt *attempt) {
    static uint64_t without; /* the epoch at which they weren't there: another root, or the directory isn't mounted */
    int none = __atomic_load_n(&without, __ATOMIC_RELAXED) == attempt->epoch;
    long error = none ? -ENOENT : connect_by_link(fd, attempt->link);
    if (error >= 0 || error == -EAGAIN || error == -ECONNREFUSED) return error;
    error = connect_by_descriptor(fd, attempt);
    if (error >= 0) __atomic_store_n(&without, attempt->epoch, __ATOMIC_RELAXED);
    return error;
}

/* Names `fd`, an unnamed Unix socket that doesn't block, and connects it. It never waits: with a full queue the next
 * instance is tried, then the trap handler knows how long. 0 or -errno. */
static long try_instances(int fd, const struct as_addr *remote, const struct attempt *attempts, int count) {
    long error = bind_name(fd, remote, attempts);
    for (int i = 0; error >= 0 && i < count; i++) {
        if (attempts[i].server_family != attempts->server_family) continue; /* the name says this one */
        error = connect_to(fd, &attempts[i]);
        if (error >= 0) {
            count_connect(attempts[i].counters, attempts[i].slot);
            return 0;
        }
        if (error == -EAGAIN && i + 1 < count) error = 0;
    }
    return error < 0 ? error : -EAGAIN;
}

int connect_by_capability(const struct as_addr *remote) {
    struct attempt attempts[AS_MOST_CAPABILITIES];
    int count = plan_attempts(remote, attempts);
    if (!count) return -1;
    long fd = sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    raise_sndbuf((int)fd);
    if (!try_instances((int)fd, remote, attempts, count)) return (int)fd;
    sys1(SYS_close, fd);
    return -1;
}

long connect_fresh_by_capability(int fd, const struct as_addr *remote, int status) {
    struct attempt attempts[AS_MOST_CAPABILITIES];
    int count = plan_attempts(remote, attempts), blocks = !(status & O_NONBLOCK);
    if (!count) return -EAGAIN;
    if (blocks) sys3(SYS_fcntl, fd, F_SETFL, status | O_NONBLOCK);
    long error = try_instances(fd, remote, attempts, count);
    if (blocks) sys3(SYS_fcntl, fd, F_SETFL, status);
    return error;
}

int wanted_capabilities(const struct as_addr *remote) {
    struct route *route = latch_route(remote);
    if (route) {
        unlatch(&route->latch);
        return AS_WANT_CAPABILITIES | wanted_epoch();
    }
    /* The mark of a first connect. Another destination's descriptors stay until this one's come. */
    int pid = own_pid();
    route = place_of(remote);
    if (pid && try_latch(&route->latch, pid) != NOT_LATCHED) {
        route->remote = *remote;
        route->given.epoch = 0; /* never the page's */
        unlatch(&route->latch);
    }
    return 0;
}

static void close_kept(const struct kept *kept, int count) {
    for (int i = 0; i < count; i++)
        if (is_kept(&kept[i])) sys1(SYS_close, kept[i].fd);
}

/* Moves the descriptors to high numbers; a program that is short of descriptors needs the low ones itself. How many. */
static int keep_high(struct as_capabilities *given, const int *fds, struct kept kept[AS_MOST_CAPABILITIES]) {
    int count = 0;
    for (uint32_t i = 0; i < given->count; i++) {
        int high = move_high(fds[i]);
        if (high == fds[i]) {
            sys1(SYS_close, high);
            continue;
        }
        given->listener[count] = given->listener[i];
        given->family[count] = given->family[i];
        given->weight[count] = given->weight[i];
        given->slot[count] = given->slot[i];
        memcpy(given->link[count], given->link[i], AS_LINK_SIZE);
        kept[count++] = file_of(high);
    }
    given->count = (uint32_t)count;
    return count;
}

void keep_capabilities(const struct as_addr *remote, const struct as_reply *reply, struct passed *passed) {
    struct as_capabilities given;
    struct kept kept[AS_MOST_CAPABILITIES], old[AS_MOST_CAPABILITIES];
    int old_count = 0, first = 1, counters = -1;
    if (reply->text_size != sizeof given) return close_passed(passed, 1);
    memcpy(&given, reply->text, sizeof given);
    if (given.has_epoch && passed->count > first) map_epoch(passed->fd[first++]);
    if (given.counters && passed->count > first) counters = passed->fd[first++];
    if (given.count > AS_MOST_CAPABILITIES || passed->count != first + (int)given.count)
        return close_passed(passed, 1); /* out of descriptors half-way */
    if (counters >= 0) map_counters(given.counters, counters);
    for (int i = 1; i < first; i++) sys1(SYS_close, passed->fd[i]); /* both are mapped */
    int count = keep_high(&given, passed->fd + first, kept);
    passed->count = 1;
    struct route *route = place_of(remote);
    int pid = own_pid();
    enum latched latched = count && pid ? try_latch(&route->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) {
        close_kept(kept, count);
        return;
    }
    if (latched == LATCHED) {
        old_count = (int)route->given.count;
        memcpy(old, route->fd, sizeof old);
    }
    route->remote = *remote;
    route->given = given;
    route->last_turn = coming_turn(counter_of(route)) + given.uses;
    memcpy(route->fd, kept, sizeof kept);
    unlatch(&route->latch);
    /* A thread that has just taken its turn may still use an old number: then its connect fails, or meets another
     * listener's name, and it asks the trap handler. */
    close_kept(old, old_count);
}
