/* How it works. A TCP option on a Unix socket is put to a scratch TCP socket: the kernel checks it, and its default is
 * the kernel's. What was set is remembered by the socket's cookie, which dup, fork and SCM_RIGHTS keep and the kernel
 * never uses again, so nothing has to be told when a descriptor closes: old records are overwritten when their place
 * is needed. Only options with an int value, the ones below, are remembered; others are checked and forgotten.
 */
#include "options.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "sys.h"

enum { OPTIONS = 27, NATIVE = 9, RECORDS = 2048, NEW = 1024, PROBES = 8 };

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

struct record {
    uint64_t cookie;
    uint32_t set; /* bit i: values[i] is meant */
    int values[OPTIONS];
};

static struct record records[RECORDS];
static uint64_t new_sockets[NEW]; /* the cookie of the socket that this process made under the number, no option set */

static uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
    return cookie;
}

/* The record of `cookie`; where there is none, one taken for it (`take`) or 0. */
static struct record *find_record(uint64_t cookie, int take) {
    size_t start = (size_t)(cookie * 0x9e3779b97f4a7c15u >> 32);
    for (size_t i = 0; i < PROBES; i++) {
        struct record *record = &records[(start + i) % RECORDS];
        if (__atomic_load_n(&record->cookie, __ATOMIC_ACQUIRE) == cookie) return record;
    }
    if (!take) return 0;
    struct record *oldest = &records[start % RECORDS];
    for (size_t i = 1; i < PROBES; i++) {
        struct record *record = &records[(start + i) % RECORDS];
        if (record->cookie < oldest->cookie) oldest = record; /* cookies grow with time; 0 is a free place */
    }
    oldest->cookie = 0;
    oldest->set = 0;
    __atomic_store_n(&oldest->cookie, cookie, __ATOMIC_RELEASE);
    return oldest;
}

void note_new_socket(int fd) {
    if (fd < NEW) new_sockets[fd] = cookie_of(fd);
}

void note_option(int fd) {
    if (fd >= 0 && fd < NEW) new_sockets[fd] = 0;
}

static int is_as_made(int fd) {
    return fd < NEW && new_sockets[fd] && new_sockets[fd] == cookie_of(fd);
}

static int index_of(int level, int name) {
    for (int i = 0; i < OPTIONS; i++)
        if (options[i].level == level && options[i].name == name) return i;
    return -1;
}

void carry_options(int fd, int target) {
    char space[16];
    if (is_as_made(fd)) return;
    for (int i = 0; i < NATIVE; i++) {
        socklen_t size = sizeof space;
        if (sys5(SYS_getsockopt, fd, SOL_SOCKET, native[i], space, &size) < 0) continue;
        int was_set = 0;
        for (socklen_t k = 0; k < size; k++) was_set |= space[k];
        if (was_set) sys5(SYS_setsockopt, target, SOL_SOCKET, native[i], space, size);
    }
    struct record *from = find_record(cookie_of(fd), 0), *to = 0;
    struct identity of_target;
    identify(target, &of_target);
    if (of_target.role != PLAIN) to = find_record(cookie_of(target), 1);
    for (int i = 0; i < OPTIONS; i++) {
        int value = 0, before = 0;
        socklen_t size = sizeof value;
        if (sys5(SYS_getsockopt, fd, options[i].level, options[i].name, &value, &size) < 0) {
            if (!from || !(from->set >> i & 1)) continue;
            value = from->values[i];
        }
        if (to) {
            to->values[i] = value;
            to->set |= 1u << i;
        } else if (sys5(SYS_getsockopt, target, options[i].level, options[i].name, &before, &size) >= 0 &&
                   value != before) {
            sys5(SYS_setsockopt, target, options[i].level, options[i].name, &value, sizeof value);
        }
    }
}

static long scratch_socket(const struct identity *identity) {
    return sys3(SYS_socket, family_of(identity), SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* getsockopt's way to give a value: cut to the program's size. */
static long give(const void *from, socklen_t full, void *value, socklen_t *size) {
    if (*size < full) full = *size;
    memcpy(value, from, full);
    *size = full;
    return 0;
}

static long state_of(int fd, const struct identity *identity) {
    if (identity->role != LISTENER) return TCP_ESTABLISHED;
    int listening = 0;
    socklen_t size = sizeof listening;
    sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
    return listening ? TCP_LISTEN : TCP_CLOSE;
}

long get_tcp_option(int fd, const struct identity *identity, int level, int name, void *value, socklen_t *size) {
    if (!value || !size) return -EFAULT;
    if (level == SOL_SOCKET && (name == SO_DOMAIN || name == SO_PROTOCOL)) {
        int number = name == SO_DOMAIN ? family_of(identity) : IPPROTO_TCP;
        return give(&number, sizeof number, value, size);
    }
    if (level == SOL_SOCKET && name == SO_PEERCRED) { /* what a TCP socket says: nobody */
        struct {
            int pid;
            unsigned uid, gid;
        } nobody = {0, -1u, -1u};
        return give(&nobody, sizeof nobody, value, size);
    }
    int i = index_of(level, name);
    struct record *record = i < 0 ? 0 : find_record(cookie_of(fd), 0);
    if (record && record->set >> i & 1) return give(&record->values[i], sizeof(int), value, size);
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && family_of(identity) == AF_INET6) {
        int number = identity->role != CLIENT && identity->listener.v6only;
        return give(&number, sizeof number, value, size);
    }
    long scratch = scratch_socket(identity);
    if (scratch < 0) return scratch;
    long error = sys5(SYS_getsockopt, scratch, level, name, value, size);
    sys1(SYS_close, scratch);
    if (error >= 0 && level == IPPROTO_TCP && name == TCP_INFO && *size > 0)
        *(uint8_t *)value = (uint8_t)state_of(fd, identity); /* tcpi_state comes first */
    return error;
}

long set_tcp_option(int fd, const struct identity *identity, int level, int name, const void *value, socklen_t size) {
    if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return -EINVAL; /* as TCP, once bound */
    long scratch = scratch_socket(identity);
    if (scratch < 0) return scratch;
    long error = sys5(SYS_setsockopt, scratch, level, name, value, size);
    int i = index_of(level, name), checked = 0;
    socklen_t checked_size = sizeof checked;
    if (error >= 0 && i >= 0 && sys5(SYS_getsockopt, scratch, level, name, &checked, &checked_size) >= 0) {
        struct record *record = find_record(cookie_of(fd), 1);
        record->values[i] = checked;
        record->set |= 1u << i;
    }
    sys1(SYS_close, scratch);
    return error;
}
