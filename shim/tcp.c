/* How it works. A socket's cookie is the same in every process and never used again, so a name is kept by it, in a
 * table of fixed size in which a later one may take the place of an earlier one. What isn't there (a socket that came
 * over exec or SCM_RIGHTS) is asked of the trap handler, once; that a socket isn't ours is kept, too.
 */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "channel.h"
#include "latch.h"
#include "sys.h"

enum { PLACES = 1024, PATIENCE = 1 /* seconds */ };

struct place {
    int latch;
    uint64_t cookie;
    struct as_client_name name; /* name.tag is empty: not one of ours */
};

static struct place places[PLACES];

static struct place *latch_place(uint64_t cookie) {
    struct place *place = &places[(cookie * 0x9e3779b97f4a7c15u >> 32) % PLACES];
    int pid = memory_pid();
    enum latched latched = cookie && pid ? try_latch(&place->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED_BROKEN) place->cookie = 0;
    return place;
}

static void keep(uint64_t cookie, const struct as_client_name *name) {
    struct place *place = latch_place(cookie);
    if (!place) return;
    place->cookie = cookie;
    place->name = *name;
    unlatch(&place->latch);
}

void remember_name(int fd, const struct as_client_name *name) {
    keep(cookie_of(fd), name);
}

static int recall(uint64_t cookie, struct as_client_name *name) {
    struct place *place = latch_place(cookie);
    if (!place) return 0;
    int known = place->cookie == cookie;
    if (known) *name = place->name;
    unlatch(&place->latch);
    return known;
}

static int is_connected_tcp(int fd) {
    struct sockaddr_storage peer;
    int protocol = 0;
    socklen_t size = sizeof protocol;
    if (sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP) return 0;
    size = sizeof peer;
    return sys3(SYS_getpeername, fd, &peer, &size) >= 0;
}

static void ask_name(uint64_t cookie, struct as_client_name *name) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    new_request(&request, AS_NAME);
    request.id = cookie;
    memset(name, 0, sizeof *name);
    long error = ask(&request, &reply, &passed);
    if (!error && reply.text_size == sizeof *name) memcpy(name, reply.text, sizeof *name);
    if (!error || error == -ENOENT) keep(cookie, name);
}

int find_name(int fd, const struct identity *identity, struct as_client_name *name) {
    int inet = identity->plain_family == AF_INET || identity->plain_family == AF_INET6;
    if (identity->role != PLAIN || !inet || !identity->plain_port) return 0;
    uint64_t cookie = cookie_of(fd);
    if (!recall(cookie, name)) {
        if (!is_connected_tcp(fd)) return 0;
        ask_name(cookie, name);
    }
    return name->tag[0] != 0;
}

/* The trap handler sends at once after it has connected; between the two calls another process may have had its turn.
 * What it never sends, having ended there, ends the connection. */
static void wait_for_delivery(int accepted) {
    struct pollfd each = {accepted, POLLIN, 0};
    struct timespec patience = {PATIENCE, 0};
    uint64_t all_signals = ~0ull; /* wait, too */
    sys5(SYS_ppoll, &each, 1, &patience, &all_signals, sizeof all_signals);
}

/* The socket that comes needs a number beside that of `accepted`, for a moment. */
static void make_room(int accepted) {
    long spare = sys3(SYS_fcntl, accepted, F_DUPFD_CLOEXEC, 0);
    if (spare >= 0)
        sys1(SYS_close, spare);
    else
        close_idle_channel();
}

long receive_delivery(int accepted, int flags, const struct as_client_name *name) {
    char byte;
    struct iovec vector = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control};
    int tcp;
    make_room(accepted);
    long size = -1;
    for (int attempt = 0; size < 0 && attempt < 2; attempt++) {
        message.msg_controllen = CMSG_LEN(sizeof tcp); /* one: the padding would have room for two */
        size = sys3(SYS_recvmsg, accepted, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (size == -EAGAIN && !attempt) wait_for_delivery(accepted);
    }
    if (size <= 0) return -ECONNABORTED;
    if (message.msg_controllen < CMSG_LEN(sizeof tcp) || control.header.cmsg_type != SCM_RIGHTS)
        return message.msg_flags & MSG_CTRUNC ? -EMFILE : -ECONNABORTED;
    memcpy(&tcp, CMSG_DATA(&control.header), sizeof tcp);
    sys3(SYS_fcntl, tcp, F_SETFL, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0);
    remember_name(tcp, name);
    long error = sys3(SYS_dup3, tcp, accepted, flags & SOCK_CLOEXEC ? O_CLOEXEC : 0);
    sys1(SYS_close, tcp);
    return error < 0 ? error : 0;
}
