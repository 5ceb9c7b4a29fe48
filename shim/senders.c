/* How it works. A socket that sends without being connected stays in its own namespace, for anyone may answer it. What
 * it sends goes through a *sender*: a socket that the trap handler has made in the receiver's namespace, bound there to
 * the program's address and connected to the receiver. It never receives anything.
 *
 * A way is how one socket reaches one destination: by itself, through a sender, or not at all. Ways lie in places that
 * a hash picks, and hold while the epoch does. Senders have high numbers; a program may close them and get the number
 * for a file of its own, so before each use the socket's cookie is compared. What a way loses its place to isn't closed
 * at once: another thread may be about to use it.
 *
 * A socket that isn't connected isn't told that nobody receives (udp(7)): a sender's ECONNREFUSED means asking again,
 * for another instance may be there.
 */
#define _GNU_SOURCE
#include "senders.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include "channel.h"
#include "datagrams.h"
#include "epoch.h"
#include "kept.h"
#include "latch.h"
#include "memory.h"
#include "options.h"
#include "receivers.h"
#include "replace.h"
#include "sys.h"

enum {
    WAYS = 512,
    RETIRED = WAYS / 32 + 1,
    MOST_DATA = 65507,
    MOST_CONTROL = 512,
    MOST_READ = 65536,
    BY_ITSELF = -1,
    LOST = -2
};

struct way {
    struct as_path path;
    uint64_t sender;  /* its cookie */
    int fd;           /* a sender, or BY_ITSELF or LOST */
    uint32_t options; /* the generation that the sender has */
};

/* From which socket, to where; source: what IP_PKTINFO asks for, else zeros. */
struct key {
    uint64_t cookie;
    struct as_addr remote;
    uint8_t source[16];
};

struct place {
    int latch;
    struct key key;
    struct way way;
};

static struct place places[WAYS];
static struct way retired[RETIRED];
static unsigned retirements;
static uint32_t options; /* their generation: grows whenever some UDP socket's change */

static uint64_t descriptor_limit(void) {
    struct rlimit limit = {WAYS, WAYS};
    sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &limit);
    return limit.rlim_cur;
}

/* As many as there are, or an eighth of what descriptors the process may have. */
static uint32_t ways(void) {
    static uint32_t number;
    if (__atomic_load_n(&number, __ATOMIC_RELAXED)) return number;
    uint64_t most = descriptor_limit() / 8;
    __atomic_store_n(&number, (uint32_t)(most > WAYS ? WAYS : most < 1 ? 1 : most), __ATOMIC_RELAXED);
    return number;
}

static struct place *place_of(const struct key *key) {
    return &places[hash_of(key, sizeof *key) % ways()];
}

static int is_sender(const struct way *way) {
    return way->fd >= 0 && cookie_of(way->fd) == way->sender;
}

static void close_sender(const struct way *way) {
    if (way->sender && is_sender(way)) sys1(SYS_close, way->fd);
}

/* Closes it later. */
static void retire(const struct way *way) {
    if (way->fd < 0) return;
    struct way *place = &retired[__atomic_fetch_add(&retirements, 1, __ATOMIC_RELAXED) % (ways() / 32 + 1)],
               old = *place;
    *place = *way;
    close_sender(&old);
}

/* Out of the way of the program's own descriptors, which get the lowest numbers; `fd` itself where there is no room. */
static int move_away(int fd) {
    uint64_t limit = descriptor_limit();
    long away = sys3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, limit > 4 * WAYS ? 1000 : limit / 2);
    if (away < 0) return fd;
    sys1(SYS_close, fd);
    return (int)away;
}

/* True: `way` is how it goes, as far as we know. */
static int recall(const struct key *key, struct way *way) {
    struct place *place = place_of(key);
    int pid = memory_pid();
    enum latched latched = pid ? try_latch(&place->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED_BROKEN) memset(&place->key, 0, sizeof place->key);
    int known = memcmp(&place->key, key, sizeof *key) == 0 && still_true(place->way.path.epoch);
    *way = place->way;
    unlatch(&place->latch);
    if (!known) return 0;
    if (way->fd == BY_ITSELF && way->path.check)
        return has_receiver(way->path.source_ip, way->path.source_port, &key->remote);
    return way->fd < 0 || is_sender(way);
}

/* False: there is no room, `way` is good for this once. */
static int keep(const struct key *key, const struct way *way) {
    struct way old = {.fd = BY_ITSELF};
    struct place *place = place_of(key);
    int pid = own_pid();
    enum latched latched = pid ? try_latch(&place->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED && place->key.cookie) old = place->way;
    place->key = *key;
    place->way = *way;
    unlatch(&place->latch);
    retire(&old);
    return 1;
}

static void forget(const struct key *key) {
    static const struct way nowhere = {.fd = BY_ITSELF}; /* no epoch is 0 */
    keep(key, &nowhere);
}

static long bind_to_any_port(int fd, int family) {
    struct sockaddr_in6 any = {.sin6_family = (sa_family_t)family};
    return bind_udp(fd, family, (struct sockaddr *)&any, family == AF_INET6 ? sizeof any : sizeof(struct sockaddr_in));
}

/* Asks for the way. 0 or -errno; *kept: it will be found again. */
static long ask_way(int fd, int family, struct key *key, struct way *way, int *kept) {
    static const uint8_t none[16];
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    int has_room = 1;
    long error;
    new_request(&request, AS_UDP_SEND);
    request.flags = (uint16_t)wanted_epoch();
    request.remote = key->remote;
    request.remote.family = family == AF_INET6 ? 6 : 4;
    for (int bound = 0;; bound++) {
        describe_udp(fd, family, &request);
        if (memcmp(key->source, none, sizeof none)) memcpy(request.local.ip, key->source, sizeof none);
        if ((error = ask(&request, &reply, &passed))) return error;
        take_path(&reply, &passed, &way->path);
        if (reply.kind != AS_FREE || bound) break;
        close_passed(&passed, 0);
        error = bind_to_any_port(fd, family); /* as the kernel does for the first datagram */
        if (error < 0 && !describe_udp(fd, family, &request)) return error;
        key->cookie = cookie_of(fd);
    }
    way->fd = reply.kind == AS_LOST ? LOST : BY_ITSELF;
    way->sender = 0;
    way->options = __atomic_load_n(&options, __ATOMIC_RELAXED);
    if (reply.kind == AS_HOME && passed.count) {
        if ((error = replace(fd, passed.fd[0], (int)sys2(SYS_fcntl, fd, F_GETFL)))) return error;
        key->cookie = cookie_of(fd);
    } else if (reply.kind == AS_FD_UDP && passed.count) {
        carry_options(fd, passed.fd[0]);
        way->fd = move_away(passed.fd[0]);
        has_room = way->fd != passed.fd[0];
        way->sender = cookie_of(way->fd);
    }
    *kept = has_room && keep(key, way);
    return 0;
}

void note_sender_option(int fd) {
    if (int_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM) __atomic_fetch_add(&options, 1, __ATOMIC_RELAXED);
}

static void renew_options(int fd, const struct key *key, struct way *way) {
    uint32_t now = __atomic_load_n(&options, __ATOMIC_RELAXED);
    if (way->options == now) return;
    carry_options(fd, way->fd);
    way->options = now;
    struct place *place = place_of(key);
    int pid = memory_pid();
    if (!pid || try_latch(&place->latch, pid) == NOT_LATCHED) return;
    if (memcmp(&place->key, key, sizeof *key) == 0 && place->way.sender == way->sender) place->way = *way;
    unlatch(&place->latch);
}

/* A connected socket reaches what it is connected to by itself, and hears the answers. */
static int is_peer(int fd, const struct as_addr *remote) {
    struct sockaddr_in6 name;
    struct as_addr peer;
    socklen_t size = sizeof name;
    if (sys3(SYS_getpeername, fd, &name, &size) < 0 || read_sockaddr((struct sockaddr *)&name, size, &peer)) return 0;
    return peer.port == remote->port && memcmp(peer.ip, remote->ip, sizeof peer.ip) == 0;
}

/* How `fd` reaches `addr`. 0 or -errno. *ours as in senders.h. */
static long find_way(int fd, const struct sockaddr *addr, socklen_t size, struct key *key, struct way *way, int *kept,
                     int *ours) {
    static const uint8_t none[16];
    struct identity identity;
    *ours = *kept = 0;
    if ((key->cookie = cookie_of(fd)) == 0 || read_sockaddr(addr, size, &key->remote)) return 0;
    *ours = *kept = recall(key, way);
    if (*ours) {
        if (way->fd >= 0) renew_options(fd, key, way);
        return 0;
    }
    identify(fd, &identity);
    int family = udp_family(fd, &identity);
    if (!family || (addr->sa_family != family && (family == AF_INET || int_option(fd, IPPROTO_IPV6, IPV6_V6ONLY))))
        return 0;
    if (is_peer(fd, &key->remote) && memcmp(key->source, none, sizeof none) == 0) return 0;
    *ours = 1;
    return ask_way(fd, family, key, way, kept);
}

static size_t size_of(const struct msghdr *message) {
    size_t count = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) count += message->msg_iov[i].iov_len;
    return count;
}

/* Copies the control messages into `to`, without those that ask for a source: the sender has it, and IPv6 would refuse
 * it. The kernel judges what isn't well-formed. Their size. */
static size_t copy_without_source(const struct msghdr *message, char *to) {
    const char *at = message->msg_control, *end = at + message->msg_controllen;
    size_t filled = 0;
    while (at < end) {
        struct cmsghdr each = {0}; /* as it is now: another thread may change it */
        size_t left = (size_t)(end - at), size = left;
        memcpy(&each, at, left < sizeof each ? left : sizeof each);
        int whole = left >= sizeof each && each.cmsg_len >= sizeof each && each.cmsg_len <= left;
        if (whole && CMSG_ALIGN(each.cmsg_len) < left) size = CMSG_ALIGN(each.cmsg_len);
        if (!whole || !((each.cmsg_level == IPPROTO_IP && each.cmsg_type == IP_PKTINFO) ||
                        (each.cmsg_level == IPPROTO_IPV6 && each.cmsg_type == IPV6_PKTINFO))) {
            memcpy(to + filled, at, size);
            filled += size;
        }
        at += size;
    }
    return filled;
}

/* Sends by `way` where that isn't the socket itself. */
static long send_by(const struct way *way, const struct msghdr *message, int flags, int by_source) {
    struct msghdr unnamed = *message;
    unnamed.msg_name = 0;
    unnamed.msg_namelen = 0;
    _Alignas(struct cmsghdr) char control[MOST_CONTROL];
    if (by_source) {
        if (message->msg_controllen > sizeof control) return -ENOBUFS; /* as for net.core.optmem_max */
        unnamed.msg_control = control;
        unnamed.msg_controllen = copy_without_source(message, control);
    }
    if (way->fd != LOST) return sys3(SYS_sendmsg, way->fd, &unnamed, flags);
    if (message->msg_iovlen > 1024 /* UIO_MAXIOV */) return -EMSGSIZE;
    if (!can_read(message->msg_iov, message->msg_iovlen * sizeof *message->msg_iov)) return -EFAULT;
    return size_of(message) > MOST_DATA ? -EMSGSIZE : (long)size_of(message);
}

/* The source that a control message asks for (ip(7), ipv6(7)); zeros: none. */
static void read_source(const struct msghdr *message, uint8_t source[16]) {
    memset(source, 0, 16);
    if (!message->msg_control || message->msg_controllen > MOST_READ ||
        !can_read(message->msg_control, message->msg_controllen))
        return;
    const char *at = message->msg_control, *end = at + message->msg_controllen;
    while (end - at >= (long)sizeof(struct cmsghdr)) {
        struct cmsghdr each;
        const char *data = at + CMSG_LEN(0);
        memcpy(&each, at, sizeof each);
        if (each.cmsg_len < sizeof each || (long)each.cmsg_len > end - at) return;
        if (each.cmsg_level == IPPROTO_IP && each.cmsg_type == IP_PKTINFO &&
            each.cmsg_len >= CMSG_LEN(sizeof(struct in_pktinfo))) {
            struct in_pktinfo info;
            memcpy(&info, data, sizeof info);
            if (info.ipi_spec_dst.s_addr) {
                memset(source + 10, 0xff, 2);
                memcpy(source + 12, &info.ipi_spec_dst, 4);
            }
        } else if (each.cmsg_level == IPPROTO_IPV6 && each.cmsg_type == IPV6_PKTINFO &&
                   each.cmsg_len >= CMSG_LEN(sizeof(struct in6_pktinfo))) {
            memcpy(source, data, 16); /* ipi6_addr comes first */
        }
        at += CMSG_ALIGN(each.cmsg_len);
    }
}

long sendmsg_by_sender(int fd, const struct msghdr *message, int flags, int *ours) {
    struct key key = {0};
    struct way way;
    int kept;
    static const uint8_t none[16];
    read_source(message, key.source);
    int by_source = memcmp(key.source, none, sizeof none) != 0;
    for (int attempt = 0;; attempt++) {
        long sent = find_way(fd, message->msg_name, message->msg_namelen, &key, &way, &kept, ours);
        if (sent < 0 || !*ours) return sent;
        if (way.fd == BY_ITSELF) return sys3(SYS_sendmsg, fd, message, flags);
        sent = send_by(&way, message, flags, by_source);
        if (!kept) close_sender(&way);
        if (sent != -ECONNREFUSED) return sent;
        forget(&key);
        if (attempt) return (long)size_of(message);
    }
}

long sendto_by_sender(int fd, const void *data, size_t count, int flags, const struct sockaddr *addr, socklen_t size,
                      int *ours) {
    struct iovec vector = {(void *)data, count};
    struct msghdr message = {.msg_name = (void *)addr, .msg_namelen = size, .msg_iov = &vector, .msg_iovlen = 1};
    return sendmsg_by_sender(fd, &message, flags, ours);
}

long sendmsg_from_another_source(int fd, const struct msghdr *message, int flags, int *ours) {
    uint8_t source[16], none[16] = {0};
    struct sockaddr_in6 name;
    struct as_addr own;
    socklen_t size = sizeof name;
    *ours = 0;
    read_source(message, source);
    if (memcmp(source, none, sizeof none) == 0) return 0;
    if (sys3(SYS_getsockname, fd, &name, &size) < 0 || read_sockaddr((struct sockaddr *)&name, size, &own) ||
        memcmp(source, own.ip, sizeof source) == 0)
        return 0;
    size = sizeof name;
    if (sys3(SYS_getpeername, fd, &name, &size) < 0) return 0;
    struct msghdr named = *message;
    named.msg_name = &name;
    named.msg_namelen = size;
    return sendmsg_by_sender(fd, &named, flags, ours);
}
