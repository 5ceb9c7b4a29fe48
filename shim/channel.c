/* How it works. A process keeps up to SLOTS connections to the trap socket, each used by one thread at a time: a
 * thread takes a free slot by one compare-and-swap, asks, and frees it; when none is free it makes a connection for
 * this call alone. So nobody ever waits for another thread, and a request and its answer can't be mixed up.
 *
 * The slots lie in a page that reads as zeros in a fork child (MADV_WIPEONFORK): a child starts with none of its
 * parent's. A vfork child shares the page and finds its parent's pid in it: it writes nothing and uses a connection
 * of its own. A program may close any descriptor, ours too, and get the number for a file of its own: so before each
 * use the socket's cookie is compared.
 *
 * A trap handler may be restarted. Who asks meanwhile tries again, every TRY_EVERY milliseconds, until the process has
 * been without one for PATIENCE; a call that isn't to block, for PATIENCE_NONBLOCKING. After that its calls fail at
 * once (ENETDOWN), until one finds a trap handler again. A program that never had one doesn't wait.
 */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "jail.h"
#include "kept.h"
#include "settings.h"
#include "sys.h"

enum { SLOTS = 4, PATIENCE = 5000, PATIENCE_NONBLOCKING = 2000, TRY_EVERY = 20 /* milliseconds */ };

#define HEADER offsetof(struct as_request, text)

struct slot {
    int busy;
    int fd; /* meant only when cookie isn't 0 */
    uint64_t cookie;
};

struct process {
    int pid;
    int word; /* word_of_process */
    struct slot slots[SLOTS];
};

static struct ucred handler, former; /* the other end of the last connection; of those before its restart */
static uint64_t gone_since;  /* milliseconds of CLOCK_MONOTONIC; 0: the trap handler is there, as far as we know */
static struct process *page; /* MADV_WIPEONFORK */
static struct slot inherited[SLOTS]; /* what a fork child finds open of its parent's, to close it */

static struct ucred peer_of(int fd) {
    struct ucred peer = {0, -1u, -1u};
    socklen_t size = sizeof peer;
    sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer;
}

static int is_same(const struct ucred *one, const struct ucred *other) {
    return memcmp(one, other, sizeof *one) == 0;
}

static void note_handler(struct ucred peer) {
    if (is_same(&peer, &handler)) return;
    former = handler;
    handler = peer;
}

static int open_channel(void) {
    const struct settings *settings = get_settings();
    long fd = sys3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return (int)fd;
    long error = is_jailed() ? connect_from_jail((int)fd, &settings->socket)
                             : sys3(SYS_connect, fd, &settings->socket, sizeof settings->socket);
    if (error < 0) {
        sys1(SYS_close, fd);
        return -ENETDOWN;
    }
    struct ucred peer = peer_of((int)fd);
    if (settings->is_default && peer.uid != 0 && peer.uid != (unsigned)sys0(SYS_geteuid)) {
        sys1(SYS_close, fd); /* somebody else was there first, in /tmp */
        return -ENETDOWN;
    }
    note_handler(peer);
    return move_high((int)fd);
}

static void wait_for_close(int fd) {
    char byte;
    long size;
    do size = sys6(SYS_recvfrom, fd, SYS_ARG_(&byte), 1, 0, 0, 0);
    while (size == -EINTR);
}

/* One request and its answer over `fd`. 0 with the reply in, or -errno: -ENETDOWN asks for another connection. */
static int exchange(int fd, const struct as_request *request, struct as_reply *reply, struct passed *passed) {
    struct iovec vector = {(void *)request, HEADER + request->text_size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * AS_MOST_FDS)];
    } control;
    long size;
    passed->count = 0;
    do size = sys3(SYS_sendmsg, fd, &message, MSG_NOSIGNAL);
    while (size == -EINTR);
    if (size < 0) return -ENETDOWN;
    vector = (struct iovec){reply, sizeof *reply};
    message.msg_control = &control;
    message.msg_controllen = CMSG_LEN(sizeof passed->fd); /* the padding would have room for one more */
    do size = sys3(SYS_recvmsg, fd, &message, MSG_CMSG_CLOEXEC);
    while (size == -EINTR);
    long header = offsetof(struct as_reply, text);
    int is_reply = size >= header && reply->magic == AS_MAGIC && size == header + reply->text_size;
    /* Of a read that fails, ECONNRESET say, the kernel leaves msg_controllen as it was. */
    if (size >= 0 && message.msg_controllen >= CMSG_LEN(sizeof(int)) && control.header.cmsg_type == SCM_RIGHTS) {
        passed->count = (int)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(passed->fd, CMSG_DATA(&control.header), sizeof(int) * (size_t)passed->count);
    }
    int is_of_any_version = size >= (long)offsetof(struct as_reply, kind) && reply->magic == AS_MAGIC;
    if (!is_reply) {
        close_passed(passed, 0);
        return is_of_any_version && reply->error == EPROTONOSUPPORT ? 0 : -ENETDOWN;
    }
    if (reply->closes) wait_for_close(fd);
    if (passed->count == 0 && (message.msg_flags & MSG_CTRUNC) && reply->kind != AS_NO_FD) return -EMFILE;
    return 0;
}

static int ask_once(const struct as_request *request, struct as_reply *reply, struct passed *passed) {
    int fd = open_channel();
    if (fd < 0) return fd;
    int error = exchange(fd, request, reply, passed);
    sys1(SYS_close, fd);
    return error;
}

/* The process's page, or 0 where there can be none: in a vfork child, or without memory. */
static struct process *this_process(void) {
    int pid = (int)sys0(SYS_getpid);
    struct process *process = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    if (!process) {
        long at = sys6(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at < 0 && at > -4096) return 0;
        if (sys3(SYS_madvise, at, 4096, MADV_WIPEONFORK) < 0) return 0;
        ((struct process *)at)->pid = pid;
        if (!__atomic_compare_exchange_n(&page, &process, (struct process *)at, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            sys2(SYS_munmap, at, 4096); /* another thread was first */
        process = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    }
    int known = 0;
    if (__atomic_compare_exchange_n(&process->pid, &known, pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        for (int i = 0; i < SLOTS; i++) { /* a fork child's first call */
            if (inherited[i].cookie && cookie_of(inherited[i].fd) == inherited[i].cookie)
                sys1(SYS_close, inherited[i].fd);
            inherited[i].cookie = 0;
        }
        return process;
    }
    return known == pid ? process : 0;
}

/* Over a connection that is kept. -EAGAIN: no slot is free. */
static int ask_kept(struct process *process, const struct as_request *request, struct as_reply *reply,
                    struct passed *passed) {
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &process->slots[i];
        int free = 0, error = -ENETDOWN;
        if (!__atomic_compare_exchange_n(&slot->busy, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) continue;
        if (slot->cookie && cookie_of(slot->fd) == slot->cookie) error = exchange(slot->fd, request, reply, passed);
        if (error == -ENETDOWN) { /* none yet, closed by the program, or the trap handler was restarted */
            if (slot->cookie && cookie_of(slot->fd) == slot->cookie) sys1(SYS_close, slot->fd);
            slot->cookie = 0;
            int fd = open_channel();
            if (fd >= 0) {
                slot->fd = fd;
                slot->cookie = cookie_of(fd);
                error = exchange(fd, request, reply, passed);
            } else {
                error = fd;
            }
            inherited[i] = *slot;
        }
        __atomic_store_n(&slot->busy, 0, __ATOMIC_RELEASE);
        return error;
    }
    return -EAGAIN;
}

void close_idle_channel(void) {
    struct process *process = this_process();
    for (int i = 0, closed = 0; process && i < SLOTS && !closed; i++) {
        struct slot *slot = &process->slots[i];
        int free = 0;
        if (!__atomic_compare_exchange_n(&slot->busy, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) continue;
        closed = slot->cookie && cookie_of(slot->fd) == slot->cookie;
        if (closed) sys1(SYS_close, slot->fd);
        slot->cookie = 0;
        __atomic_store_n(&slot->busy, 0, __ATOMIC_RELEASE);
    }
}

static int ask_somehow(const struct as_request *request, struct as_reply *reply, struct passed *passed) {
    struct process *process = this_process();
    int error = process ? ask_kept(process, request, reply, passed) : -EAGAIN;
    return error == -EAGAIN ? ask_once(request, reply, passed) : error;
}

/* LD_PRELOAD without the wrapper: this process is an app by its environment. */
static int register_process(void) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    if (get_settings()->too_long) {
        complain_too_long();
        return -EPERM;
    }
    new_request(&request, AS_REGISTER);
    request.text_size = (uint16_t)describe_settings(request.text);
    int error = ask_somehow(&request, &reply, &passed);
    if (error < 0) return error;
    reply.text[reply.text_size < AS_TEXT_SIZE ? reply.text_size : AS_TEXT_SIZE - 1] = 0;
    if (reply.error == EPROTONOSUPPORT) {
        complain_version();
        return -EPROTONOSUPPORT;
    }
    if (reply.error) {
        complain_refused(reply.text);
        return -EPERM;
    }
    if (reply.text_size)
        set_namespace(reply.text);
    else
        set_token(reply.token);
    return 0;
}

static int has_token(void) {
    static const uint8_t none[AS_TOKEN_SIZE];
    return memcmp(get_settings()->token, none, sizeof none) != 0;
}

/* An app is a process tree: so its first process registers before there are others. Without a trap handler it is told
 * by its first call that needs one. */
__attribute__((constructor)) static void register_first(void) {
    if (!get_settings()->in_namespace && !has_token()) register_process();
}

int own_pid(void) {
    struct process *process = this_process();
    return process ? process->pid : 0;
}

int memory_pid(void) {
    struct process *process = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    int pid = process ? __atomic_load_n(&process->pid, __ATOMIC_RELAXED) : 0;
    return pid ? pid : own_pid();
}

int *word_of_process(void) {
    struct process *process = __atomic_load_n(&page, __ATOMIC_ACQUIRE);
    if (!process) process = this_process();
    return process ? &process->word : 0;
}

int is_handler_there(void) {
    int fd = open_channel();
    if (fd < 0) return 0;
    sys1(SYS_close, fd);
    return 1;
}

int is_from_handler(int fd) {
    struct ucred peer = peer_of(fd);
    if (is_same(&peer, &handler) || is_same(&peer, &former)) return 1; /* what waits in the queue stays connected */
    /* A trap socket that a service manager has made shows the manager until the trap handler has it (SO_PEERCRED of
     * unix(7) is who called listen): look again. */
    return is_handler_there() && is_same(&peer, &handler);
}

void close_passed(struct passed *passed, int from) {
    for (int i = from; i < passed->count; i++) sys1(SYS_close, passed->fd[i]);
    if (passed->count > from) passed->count = from;
}

void new_request(struct as_request *request, enum as_op op) {
    memset(request, 0, HEADER);
    request->magic = AS_MAGIC;
    request->op = (uint16_t)op;
}

static uint64_t patience_of(const struct as_request *request) {
    if (request->op == AS_CONNECT && !(request->flags & AS_NONBLOCK))
        return request->patience && request->patience < PATIENCE ? request->patience : PATIENCE;
    int may_block = request->op != AS_CONNECT && request->op != AS_WHO && request->op < AS_UDP_BIND;
    return may_block ? PATIENCE : PATIENCE_NONBLOCKING;
}

/* Nobody answers. True, after a moment: it is worth another try. */
static int may_come_back(const struct as_request *request) {
    const struct timespec moment = {0, TRY_EVERY * 1000000};
    if (!get_settings()->in_namespace && !has_token() && !handler.pid) return 0;
    uint64_t now = milliseconds(), since = 0;
    if (__atomic_compare_exchange_n(&gone_since, &since, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) since = now;
    if (now - since >= patience_of(request)) return 0;
    sys2(SYS_nanosleep, &moment, 0);
    return 1;
}

int ask(struct as_request *request, struct as_reply *reply, struct passed *passed) {
    for (int registered = 0;;) {
        memcpy(request->token, get_settings()->token, AS_TOKEN_SIZE);
        int error = ask_somehow(request, reply, passed);
        if (error == 0 && reply->error == ESRCH && !registered) {
            error = register_process();
            registered = error == 0;
        } else if (error == 0) {
            __atomic_store_n(&gone_since, 0, __ATOMIC_RELAXED);
            if (reply->error == EPROTONOSUPPORT) complain_version();
            return -reply->error;
        }
        if (error == -ENETDOWN && !may_come_back(request)) {
            complain_no_handler();
            return error;
        }
        if (error < 0 && error != -ENETDOWN) return error;
    }
}
