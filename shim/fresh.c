/* How it works. To make a TCP socket and to put a Unix socket in its place costs a connect as much as all else. So in a
 * process that has connected by capability (capability.h), socket() makes a Unix socket where it is asked for TCP's: a
 * *fresh* one. It needs but a name and a connect. If the program does something else with it, which a Unix socket would
 * do otherwise, then TCP's own socket takes its place first (settle), as a Unix socket takes that of TCP's elsewhere;
 * and where that happens often, no more are made.
 *
 * What is fresh the kernel keeps, in the size of the send buffer, which is set anyway: so it is known over dup, fork
 * and exec. Which numbers they have is kept in a table, too, that is only believed where the kernel refuses what isn't
 * so.
 */
#define _GNU_SOURCE
#include "fresh.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>

#include "channel.h"
#include "names.h"
#include "options.h"
#include "replace.h"
#include "settings.h"
#include "sys.h"

enum {
    NUMBERS = 65536,
    MOST_CREDIT = 8,
    SETTLED = 4, /* connects that make up for one that was settled */
    SIZES = 2,
};

/* Bytes of send buffer, less the family: none of them is one that a program would ask for. The second is for who may
 * not pass net.core.wmem_max, whose default is 212,992. */
static const int sizes[SIZES] = {AS_SNDBUF - 272, 212992 - 272};

static uint8_t family_at[NUMBERS]; /* AF_INET, AF_INET6 or 0 */
static int credit;                 /* above 0: it pays */
static int marking;                /* which of the sizes works here; SIZES: none does */
static int proven;                 /* of `how` in mark(): with this one it does */
static int is_over;

int believed_fresh(int fd) {
    return fd >= 0 && fd < NUMBERS ? family_at[fd] : 0;
}

void forget_fresh(int fd) {
    if (believed_fresh(fd)) family_at[fd] = 0;
}

int fresh_family(int fd) {
    int size = int_option(fd, SOL_SOCKET, SO_SNDBUF) / 2; /* the kernel doubles what it is asked for (socket(7)) */
    for (int i = 0; i < SIZES; i++)
        if (size == sizes[i] + AF_INET || size == sizes[i] + AF_INET6) return size - sizes[i];
    return 0;
}

void note_connect_by_capability(void) {
    int now = __atomic_load_n(&credit, __ATOMIC_RELAXED);
    if (now < MOST_CREDIT) __atomic_store_n(&credit, now + 1, __ATOMIC_RELAXED);
}

void make_no_fresh(void) {
    __atomic_store_n(&is_over, 1, __ATOMIC_RELAXED);
}

long do_unshare(int flags) {
    if (flags & CLONE_NEWNET) make_no_fresh();
    return sys1(SYS_unshare, flags);
}

long do_setns(int fd, int kind) {
    make_no_fresh();
    return sys2(SYS_setns, fd, kind);
}

/* Whether the sockets that this process makes are of its app's namespace. A child that clone(2) gave one of its own
 * asks again. */
static int is_at_home(int fd) {
    uint64_t ours = get_settings()->netns;
    int *known = word_of_process();
    if (!ours || (known && __atomic_load_n(known, __ATOMIC_RELAXED))) return 1;
    if (netns_of(fd) != ours) return 0;
    if (known) __atomic_store_n(known, 1, __ATOMIC_RELAXED);
    return 1;
}

/* Gives it the send buffer that tells what it is. */
static int mark(int fd, int family) {
    for (int i = __atomic_load_n(&marking, __ATOMIC_RELAXED); i < SIZES; i++) {
        /* Who gives up CAP_NET_ADMIN is held to net.core.wmem_max from then on. */
        int how = 1 + 2 * i + set_sndbuf(fd, sizes[i] + family);
        if (__atomic_load_n(&proven, __ATOMIC_RELAXED) == how) return 1;
        if (fresh_family(fd) == family) {
            __atomic_store_n(&proven, how, __ATOMIC_RELAXED);
            return 1;
        }
        __atomic_store_n(&marking, i + 1, __ATOMIC_RELAXED);
    }
    make_no_fresh();
    return 0;
}

long make_fresh(int family, int type, int protocol) {
    int is_tcp = (family == AF_INET || family == AF_INET6) && (type & 0xf) == SOCK_STREAM &&
                 (protocol == 0 || protocol == IPPROTO_TCP);
    if (!is_tcp || __atomic_load_n(&credit, __ATOMIC_RELAXED) <= 0 || __atomic_load_n(&is_over, __ATOMIC_RELAXED))
        return -1;
    long fd = sys3(SYS_socket, AF_UNIX, type, 0);
    if (fd < 0) return -1;
    if (fd < NUMBERS && is_at_home((int)fd) && mark((int)fd, family)) {
        family_at[fd] = (uint8_t)family;
        return fd;
    }
    sys1(SYS_close, fd);
    return -1;
}

/* It got its name, but no connection. */
static int is_unconnected_client(int fd, const struct identity *identity) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return identity->role == CLIENT && sys3(SYS_getpeername, fd, &peer, &size) == -ENOTCONN;
}

long settle(int fd) {
    struct identity identity;
    identify(fd, &identity);
    int family = fresh_family(fd);
    if (family && (identity.role == FRESH || is_unconnected_client(fd, &identity))) {
        long error = replace_by_tcp(fd, family, (int)sys2(SYS_fcntl, fd, F_GETFL));
        if (error) return error; /* it stays one */
        __atomic_store_n(&credit, __atomic_load_n(&credit, __ATOMIC_RELAXED) - SETTLED, __ATOMIC_RELAXED);
    }
    forget_fresh(fd);
    return 0;
}
