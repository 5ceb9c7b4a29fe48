/* How it works. A TCP option on a Unix socket is put to a scratch TCP socket: the kernel checks it, and its default is
 * the kernel's. What was set is remembered by the socket's cookie, which dup, fork and SCM_RIGHTS keep and the kernel
 * never uses again, so nothing has to be told when a descriptor closes: the records of closed sockets, else old ones,
 * are overwritten when their place is needed. A listener's record goes by its id, so that the sockets accepted from it,
 * which have the id in their name, inherit its options (accept in tcp(7)). Only the congestion control's name and the
 * options below, with an int value, are remembered; others are checked and forgotten.
 */
#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "datagram_options.h"
#include "memory.h"
#include "sys.h"

enum { OPTIONS = 28, NATIVE = 9, RECORDS = 2048, NEW = 1024, INHERITED = 5, LISTENERS = 64, PROBES = 8 };

static const struct {
    short level, name;
} options[OPTIONS] = {
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {IPPROTO_TCP, TCP_QUICKACK},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_FASTOPEN},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_TCP, 30 /* TCP_FASTOPEN_CONNECT */},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_FREEBIND},
    {IPPROTO_IP, IP_TRANSPARENT},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
    {IPPROTO_IPV6, IPV6_V6ONLY},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {SOL_SOCKET, SO_REUSEPORT},
    {SOL_SOCKET, SO_ZEROCOPY},
    {SOL_SOCKET, SO_INCOMING_CPU},
};

/* Options of SOL_SOCKET that mean the same on a Unix socket: set there for good. */
static const short native[NATIVE] = {SO_REUSEADDR, SO_KEEPALIVE, SO_OOBINLINE, SO_PRIORITY, SO_TIMESTAMP,
                                     SO_LINGER,    SO_RCVTIMEO,  SO_SNDTIMEO,  SO_BUSY_POLL};

/* Those of them that an accepted TCP socket has of its listener. */
static const short inherited[INHERITED] = {SO_KEEPALIVE, SO_OOBINLINE, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO};

/* Ids of listeners that have none of them set, at the place of id % LISTENERS: most have none, and accept is quick. */
static uint64_t nothing_to_inherit[LISTENERS];

enum { CONGESTION_SIZE = 16 /* TCP_CA_NAME_MAX */, CONGESTION = 1u << 31 };

struct record {
    uint64_t key; /* 0: free; TAKING: about to be another socket's */
    uint64_t cookie;
    int fd;       /* had the cookie when something was set last */
    uint32_t set; /* bit i: values[i] is meant; CONGESTION */
    int values[OPTIONS];
    char congestion[CONGESTION_SIZE];
};

static struct record records[RECORDS];
static uint64_t new_sockets[NEW]; /* cookies, at their places, of sockets that this process made; no option set */

static const uint64_t TAKING = ~0ull;

static uint64_t listener_key(uint64_t id) {
    return id | 1ull << 63; /* no cookie gets that far */
}

static uint64_t key_of(uint64_t cookie, const struct identity *identity) {
    return identity->role == LISTENER ? listener_key(identity->listener.id) : cookie;
}

static size_t place_of(uint64_t key, size_t probe) {
    return ((size_t)(key * 0x9e3779b97f4a7c15u >> 32) + probe) % RECORDS;
}

static const struct record *find_record(uint64_t key) {
    for (size_t i = 0; i < PROBES; i++) {
        const struct record *record = &records[place_of(key, i)];
        if (__atomic_load_n(&record->key, __ATOMIC_ACQUIRE) == key) return record;
    }
    return 0;
}

/* The place for a new record of `key`: a free one, else a closed socket's, else that of the oldest (cookies grow with
 * time). */
static struct record *choose_place(uint64_t key) {
    struct record *oldest = 0;
    for (size_t i = 0; i < PROBES; i++) {
        struct record *record = &records[place_of(key, i)];
        uint64_t held = __atomic_load_n(&record->key, __ATOMIC_RELAXED);
        if (!held) return record;
        if (held == TAKING) continue;
        if (cookie_of(record->fd) != record->cookie) return record;
        if (!oldest || record->cookie < oldest->cookie) oldest = record;
    }
    return oldest ? oldest : &records[place_of(key, 0)]; /* taken by a thread that a fork left behind */
}

/* The record of `key`, found or made. fd: the number that the socket with `cookie` has, or is about to get. */
static struct record *take_record(uint64_t key, uint64_t cookie, int fd) {
    struct record *taken = (struct record *)find_record(key);
    while (!taken) {
        struct record *place = choose_place(key);
        uint64_t old = __atomic_load_n(&place->key, __ATOMIC_RELAXED);
        if (!__atomic_compare_exchange_n(&place->key, &old, TAKING, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) continue;
        place->cookie = cookie;
        place->set = 0;
        __atomic_store_n(&place->key, key, __ATOMIC_RELEASE);
        taken = place;
    }
    taken->cookie = cookie;
    taken->fd = fd;
    return taken;
}

/* The same for what `socket` is, which has the number fd, or is about to. */
static struct record *take_record_of(int socket, const struct identity *identity, int fd) {
    uint64_t cookie = cookie_of(socket);
    return take_record(key_of(cookie, identity), cookie, fd);
}

int set_sndbuf(int fd, int bytes) {
    if (sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) >= 0) return 1;
    sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    return 0;
}

void raise_sndbuf(int fd) {
    set_sndbuf(fd, AS_SNDBUF);
}

void note_new_socket(int fd) {
    uint64_t cookie = cookie_of(fd);
    new_sockets[cookie % NEW] = cookie;
}

void note_option(int fd, int level, int name) {
    uint64_t cookie = cookie_of(fd);
    if (new_sockets[cookie % NEW] == cookie) new_sockets[cookie % NEW] = 0;
    if (level != SOL_SOCKET) return;
    for (int i = 0; i < INHERITED; i++)
        if (inherited[i] == name) memset(nothing_to_inherit, 0, sizeof nothing_to_inherit);
}

static int is_as_made(int fd) {
    uint64_t cookie = cookie_of(fd);
    return cookie && new_sockets[cookie % NEW] == cookie;
}

static int index_of(int level, int name) {
    for (int i = 0; i < OPTIONS; i++)
        if (options[i].level == level && options[i].name == name) return i;
    return -1;
}

/* What is remembered, or means the same on a Unix socket. IPV6_V6ONLY can't be set any more once bound. */
int keeps_fresh(int level, int name) {
    if (level == SOL_SOCKET && (name == SO_ERROR || name == SO_TYPE)) return 1;
    for (int i = 0; level == SOL_SOCKET && i < NATIVE; i++)
        if (native[i] == name) return 1;
    return level != IPPROTO_IPV6 && index_of(level, name) >= 0;
}

/* Copies an option of SOL_SOCKET that isn't 0. Whether it was. */
static int copy_option(int fd, int target, int name) {
    char space[16];
    socklen_t size = sizeof space;
    int was_set = 0;
    if (sys5(SYS_getsockopt, fd, SOL_SOCKET, name, space, &size) < 0) return 0;
    for (socklen_t i = 0; i < size; i++) was_set |= space[i];
    if (was_set) sys5(SYS_setsockopt, target, SOL_SOCKET, name, space, size);
    return was_set != 0;
}

/* Also where there is no such option. */
static int has_value(int fd, int i, int value) {
    int found = 0;
    socklen_t size = sizeof found;
    return sys5(SYS_getsockopt, fd, options[i].level, options[i].name, &found, &size) < 0 || found == value;
}

/* Sets what differs on a TCP socket. */
static void set_value(int target, int i, int value) {
    if (!has_value(target, i, value))
        sys5(SYS_setsockopt, target, options[i].level, options[i].name, &value, sizeof value);
}

static void set_remembered(const struct record *record, int target) {
    for (int i = 0; i < OPTIONS; i++)
        if (record->set >> i & 1) set_value(target, i, record->values[i]);
    if (record->set & CONGESTION)
        sys5(SYS_setsockopt, target, IPPROTO_TCP, TCP_CONGESTION, record->congestion, sizeof record->congestion);
}

void inherit_options(int fd, uint64_t listener, int accepted, int is_tcp) {
    int any = 0;
    const struct record *record = is_tcp ? find_record(listener_key(listener)) : 0;
    if (record) set_remembered(record, accepted);
    if (nothing_to_inherit[listener % LISTENERS] == listener) return;
    for (int i = 0; i < INHERITED; i++) any |= copy_option(fd, accepted, inherited[i]);
    if (!any) nothing_to_inherit[listener % LISTENERS] = listener;
}

/* What a socket that isn't connected says of its segments' size when no one has asked for one (TCP_MSS_DEFAULT). */
static int is_mss_unset(int i, int value) {
    return options[i].level == IPPROTO_TCP && options[i].name == TCP_MAXSEG && value == 536;
}

static int read_congestion(int fd, char name[CONGESTION_SIZE]) {
    socklen_t size = CONGESTION_SIZE;
    return sys5(SYS_getsockopt, fd, IPPROTO_TCP, TCP_CONGESTION, name, &size) >= 0;
}

static long scratch_socket(const struct identity *identity) {
    return sys3(SYS_socket, family_of(identity), SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void carry_congestion(int fd, int target, const struct record *from, struct record *to, long usual) {
    char name[CONGESTION_SIZE] = {0}, usual_name[CONGESTION_SIZE] = {0};
    if (from && from->set & CONGESTION)
        memcpy(name, from->congestion, sizeof name);
    else if (!read_congestion(fd, name))
        return;
    else if (usual >= 0 && read_congestion((int)usual, usual_name) && memcmp(name, usual_name, sizeof name) == 0)
        return;
    if (to) {
        memcpy(to->congestion, name, sizeof name);
        to->set |= CONGESTION;
    } else {
        sys5(SYS_setsockopt, target, IPPROTO_TCP, TCP_CONGESTION, name, sizeof name);
    }
}

void carry_options(int fd, int target) {
    if (is_as_made(fd)) return;
    if (int_option(target, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM) {
        carry_datagram_options(fd, target);
        return;
    }
    struct identity of_source, of_target;
    identify(fd, &of_source);
    identify(target, &of_target);
    const struct record *from = of_source.role != PLAIN ? find_record(key_of(cookie_of(fd), &of_source)) : 0;
    struct record *to = 0;
    if (of_target.role != PLAIN) to = take_record_of(target, &of_target, fd);
    /* What is remembered of a listener, each connection that is accepted gets: so nothing that it has anyway. */
    long usual = to && of_target.role == LISTENER ? scratch_socket(&of_target) : -1;
    for (int i = 0; i < OPTIONS; i++) {
        int value = 0;
        socklen_t size = sizeof value;
        if (from && from->set >> i & 1)
            value = from->values[i];
        else if (sys5(SYS_getsockopt, fd, options[i].level, options[i].name, &value, &size) < 0 ||
                 is_mss_unset(i, value) || (usual >= 0 && has_value((int)usual, i, value)))
            continue;
        if (to) {
            to->values[i] = value;
            to->set |= 1u << i;
        } else {
            set_value(target, i, value);
        }
    }
    for (int i = 0; i < NATIVE; i++) copy_option(fd, target, native[i]); /* IP_TOS has changed SO_PRIORITY */
    carry_congestion(fd, target, from, to, usual);
    if (usual >= 0) sys1(SYS_close, usual);
}

/* getsockopt's way to give a value: cut to the program's size. */
static long give(int fd, const void *from, socklen_t full, void *value, socklen_t *size) {
    if ((int)*size < 0) return -EINVAL;
    if (*size < full) full = *size;
    if (!can_write(fd, value, full)) return -EFAULT;
    memcpy(value, from, full);
    *size = full;
    return 0;
}

static long state_of(int fd, const struct identity *identity) {
    int listening = 0;
    if (identity->role != LISTENER) {
        struct pollfd each = {fd, POLLRDHUP, 0};
        struct timespec at_once = {0, 0};
        sys5(SYS_ppoll, &each, 1, &at_once, 0, 0);
        return each.revents ? TCP_CLOSE_WAIT : TCP_ESTABLISHED; /* the other end has closed, or not */
    }
    socklen_t size = sizeof listening;
    sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
    return listening ? TCP_LISTEN : TCP_CLOSE;
}

/* As bind leaves it (inet6_bind in net/ipv6/af_inet6.c): an address that is neither any nor v4-mapped sets it. */
static int is_v6only(const struct identity *identity) {
    static const uint8_t any[16], mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *ip = identity->listener.ip;
    if (identity->role == CLIENT) return 0;
    return identity->listener.v6only || (memcmp(ip, any, sizeof any) && memcmp(ip, mapped, sizeof mapped));
}

/* The record that has `bit`: the socket's own, else that of the listener that accepted it; 0: none. */
static const struct record *find_set(int fd, const struct identity *identity, uint32_t bit) {
    const struct record *record = find_record(key_of(cookie_of(fd), identity));
    if (record && record->set & bit) return record;
    record = identity->role == ACCEPTED ? find_record(listener_key(identity->listener.id)) : 0;
    return record && record->set & bit ? record : 0;
}

long get_tcp_option(int fd, const struct identity *identity, int level, int name, void *value, socklen_t *size) {
    if (!can_write(fd, size, sizeof *size)) return -EFAULT;
    if (level == SOL_SOCKET && (name == SO_DOMAIN || name == SO_PROTOCOL)) {
        int number = name == SO_DOMAIN ? family_of(identity) : IPPROTO_TCP;
        return give(fd, &number, sizeof number, value, size);
    }
    if (level == SOL_SOCKET && name == SO_PEERCRED) { /* what a TCP socket says: nobody */
        struct {
            int pid;
            unsigned uid, gid;
        } nobody = {0, -1u, -1u};
        return give(fd, &nobody, sizeof nobody, value, size);
    }
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && family_of(identity) == AF_INET6) {
        int number = is_v6only(identity);
        return give(fd, &number, sizeof number, value, size);
    }
    int i = index_of(level, name);
    int congestion = level == IPPROTO_TCP && name == TCP_CONGESTION;
    const struct record *record = i < 0 && !congestion ? 0 : find_set(fd, identity, congestion ? CONGESTION : 1u << i);
    if (record && congestion) return give(fd, record->congestion, sizeof record->congestion, value, size);
    if (record) return give(fd, &record->values[i], sizeof(int), value, size);
    long scratch = scratch_socket(identity);
    if (scratch < 0) return scratch;
    long error = sys5(SYS_getsockopt, scratch, level, name, value, size);
    sys1(SYS_close, scratch);
    if (error >= 0 && level == IPPROTO_TCP && name == TCP_INFO && *size > 0)
        *(uint8_t *)value = (uint8_t)state_of(fd, identity); /* tcpi_state comes first */
    return error;
}

long set_tcp_option(int fd, const struct identity *identity, int level, int name, const void *value, socklen_t size) {
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && family_of(identity) == AF_INET6)
        return -EINVAL; /* as TCP, once bound */
    /* What most clients set is a switch that any int sets: no need to ask. */
    if (level == IPPROTO_TCP && name == TCP_NODELAY && size >= sizeof(int) && can_read(value, sizeof(int))) {
        struct record *record = take_record_of(fd, identity, fd);
        int i = index_of(level, name);
        record->values[i] = *(const int *)value != 0;
        record->set |= 1u << i;
        return 0;
    }
    long scratch = scratch_socket(identity);
    if (scratch < 0) return scratch;
    long error = sys5(SYS_setsockopt, scratch, level, name, value, size);
    int i = index_of(level, name), checked = 0;
    socklen_t checked_size = sizeof checked;
    if (error >= 0 && level == IPPROTO_TCP && name == TCP_CONGESTION) {
        struct record *record = take_record_of(fd, identity, fd);
        read_congestion((int)scratch, record->congestion);
        record->set |= CONGESTION;
    } else if (error >= 0 && i >= 0 && sys5(SYS_getsockopt, scratch, level, name, &checked, &checked_size) >= 0) {
        struct record *record = take_record_of(fd, identity, fd);
        record->values[i] = checked;
        record->set |= 1u << i;
    }
    sys1(SYS_close, scratch);
    return error;
}
