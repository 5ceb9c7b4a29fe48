/* A trap handler and a kernel that answer whatever they like: what the shim makes of it (shim/, all but its wrappers).
 *
 * What it has learnt stays from one input to the next, as in a program; so what crashes comes again by the driver's
 * seed, not always by the last input alone. What the kernel does to memory is within what it is given, and descriptors
 * that the shim closes are its own.
 */
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "channel.h"
#include "counters.h"
#include "ops.h"

enum { FDS = 4096, PROGRAM_FD = 5, PAGES = 64 };

static const uint8_t *input;
static size_t left;
static uint32_t open_fds[FDS], opened; /* which file each is; 0: none */
static uint64_t clock_now;
static uint8_t *pages[PAGES];
static int page_count;

static uint8_t byte(void) {
    if (!left) return 0;
    left--;
    return *input++;
}

static void bytes(void *to, size_t size) {
    uint8_t *each = to;
    for (size_t i = 0; i < size; i++) each[i] = byte();
}

static long new_fd(int from) {
    for (int fd = from; fd < FDS; fd++)
        if (!open_fds[fd]) return open_fds[fd] = ++opened, fd;
    return -EMFILE;
}

static uint32_t file_at(long fd) {
    return fd >= 0 && fd < FDS ? open_fds[fd] : 0;
}

/* As copy_to_user: what fits, and how long it is. */
static void give(const void *what, size_t size, void *to, socklen_t *room) {
    memcpy(to, what, *room < size ? *room : size);
    *room = (socklen_t)size;
}

static size_t a_listener_path(char *path) {
    static const char digits[] = "0123456789abcdef", begin[] = "/run/x/as.";
    struct as_listener_name name;
    const uint8_t *raw = (const uint8_t *)&name;
    bytes(&name, sizeof name);
    size_t size = sizeof begin - 1;
    memcpy(path, begin, size);
    for (size_t i = 0; i < sizeof name && size < sizeof((struct sockaddr_un *)0)->sun_path - 1; i++) {
        path[size++] = digits[raw[i] >> 4];
        path[size++] = digits[raw[i] & 15];
    }
    return size;
}

/* Some socket's. */
static long a_name(void *to, socklen_t *room) {
    struct sockaddr_storage name = {0};
    struct sockaddr_un *un = (struct sockaddr_un *)&name;
    size_t size = sizeof(sa_family_t);
    uint8_t kind = byte();
    switch (kind % 8) {
    case 0:
        return -ENOTCONN;
    case 1:
    case 2:
        name.ss_family = AF_INET;
        if (kind & 8) bytes((char *)&name + 2, 6);
        size = sizeof(struct sockaddr_in);
        break;
    case 3:
        name.ss_family = AF_INET6;
        if (kind & 8) bytes((char *)&name + 2, 26);
        size = sizeof(struct sockaddr_in6);
        break;
    case 4:
        un->sun_family = AF_UNIX;
        bytes(un->sun_path, sizeof(struct as_client_name));
        memcpy(un->sun_path, "\0asc", 4);
        size += sizeof(struct as_client_name);
        break;
    case 5:
        un->sun_family = AF_UNIX;
        size += a_listener_path(un->sun_path) + (kind >> 3) % 4;
        break;
    default:
        size = byte() % 112;
        bytes(&name, size);
    }
    give(&name, size, to, room);
    return 0;
}

/* The size of one of the things that texts are. */
static size_t a_text_size(void) {
    static const size_t sizes[] = {sizeof(struct as_capabilities), sizeof(struct as_client), sizeof(struct as_path),
                                   sizeof(struct as_client_name), sizeof(struct as_own_ips)};
    uint8_t which = byte();
    return which % 8 < 5 ? sizes[which % 8] : which % 8 == 5 ? 0 : (size_t)byte() << (which >> 3) % 9;
}

static long a_message(struct msghdr *message) {
    struct as_reply reply;
    size_t header = offsetof(struct as_reply, text), size;
    uint8_t kind = byte();
    if (!left || kind % 16 == 15) return left && kind > 200 ? -EINTR : 0;
    memset(&reply, 0, sizeof reply);
    reply.magic = kind % 16 == 14 ? 0 : AS_MAGIC;
    if (kind % 16 == 13) reply.error = kind > 128 ? ESRCH : EACCES;
    reply.kind = byte() % 24;
    reply.closes = kind % 16 == 12;
    reply.text_size = (uint16_t)a_text_size();
    size = header + (reply.text_size < AS_TEXT_SIZE ? reply.text_size : AS_TEXT_SIZE);
    bytes(reply.text, size - header);
    if (kind % 16 == 11) size = byte();
    if (kind % 16 == 10) reply.text_size = (uint16_t)(byte() << 8 | byte());
    size_t room = message->msg_iov[0].iov_len, wanted = byte() % 16;
    if (size > room) size = room;
    memcpy(message->msg_iov[0].iov_base, &reply, size < sizeof reply ? size : sizeof reply);
    struct cmsghdr *control = message->msg_control;
    size_t most = message->msg_controllen < sizeof *control ? 0 : (message->msg_controllen - sizeof *control) / 4;
    message->msg_flags = wanted > most ? MSG_CTRUNC : 0;
    if (wanted > most) wanted = most; /* scm_max_fds in net/core/scm.c */
    message->msg_controllen = wanted ? CMSG_SPACE(wanted * sizeof(int)) : 0;
    if (!wanted) return (long)size;
    control->cmsg_len = CMSG_LEN(wanted * sizeof(int));
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    for (size_t i = 0; i < wanted; i++) {
        int fd = (int)new_fd(8);
        memcpy(CMSG_DATA(control) + i * sizeof fd, &fd, sizeof fd);
    }
    return (long)size;
}

static long an_option(long fd, int level, int name, void *to, socklen_t *room) {
    uint64_t value = byte();
    if (level == SOL_SOCKET && name == SO_TYPE) value = value % 4 ? SOCK_STREAM : SOCK_DGRAM;
    if (level == SOL_SOCKET && name == SO_PROTOCOL) value = value % 4 ? IPPROTO_TCP : IPPROTO_UDP;
    if (level == SOL_SOCKET && name == SO_COOKIE) value = fd == PROGRAM_FD ? UINT64_MAX : file_at(fd);
    if (value == 250) return -EOPNOTSUPP;
    size_t size = *room < sizeof value ? *room : sizeof value;
    memcpy(to, &value, size);
    *room = (socklen_t)size;
    return 0;
}

static long a_page(long at, long size) {
    if (at) return at; /* MAP_FIXED, in the place of one of these */
    if (page_count == PAGES) return -ENOMEM;
    pages[page_count] = aligned_alloc(4096, 4096);
    memset(pages[page_count], 0, 4096);
    if (size > 4096) abort();
    return (long)pages[page_count++];
}

long play_kernel(long number, long a, long b, long c, long d, long e, long f) {
    (void)f;
    switch (number) {
    case SYS_getpid:
        return 42;
    case SYS_geteuid:
        return 0;
    case SYS_mmap:
        return a_page(a, b);
    case SYS_munmap:
    case SYS_madvise:
    case SYS_bind:
    case SYS_setsockopt:
    case SYS_epoll_ctl:
    case SYS_nanosleep:
    case SYS_write:
        return 0;
    case SYS_clock_gettime:
        clock_now += 1000;
        *(struct timespec *)b = (struct timespec){(time_t)clock_now, 0};
        return 0;
    case SYS_prlimit64:
        *(struct rlimit *)d = (struct rlimit){2048, 2048};
        return 0;
    case SYS_socket:
        return byte() == 251 ? -EMFILE : new_fd(8);
    case SYS_fcntl:
        return b == F_DUPFD_CLOEXEC ? new_fd((int)c) : b == F_GETFL ? byte() % 2 * O_NONBLOCK : 0;
    case SYS_dup3:
        return b;
    case SYS_close:
        if (!file_at(a)) abort();
        open_fds[a] = 0;
        return 0;
    case SYS_fstat:
        ((struct stat *)b)->st_ino = file_at(a);
        return file_at(a) ? 0 : -EBADF;
    case SYS_getsockname:
    case SYS_getpeername:
        return a_name((void *)b, (socklen_t *)c);
    case SYS_accept4:
        if (!left || byte() % 4 == 0) return -EAGAIN;
        if (b && c) a_name((void *)b, (socklen_t *)c);
        return new_fd(8);
    case SYS_getsockopt:
        return an_option(a, (int)b, (int)c, (void *)d, (socklen_t *)e);
    case SYS_recvmsg:
        return a_message((struct msghdr *)b);
    case SYS_sendmsg:
        return byte() == 252 ? -EPIPE : 100;
    case SYS_getrandom:
        bytes((void *)a, (size_t)b);
        return b;
    case SYS_connect:
        return byte() % 8 ? 0 : -EAGAIN;
    default:
        return byte() % 8 ? 0 : -EIO;
    }
}

static void make_a_call(void) {
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof name;
    uint8_t what = byte();
    struct msghdr message = {.msg_name = &name};
    char data[4] = "abc", room[256];
    struct iovec part = {data, 3};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    name.ss_family = byte() % 2 ? AF_INET : AF_INET6;
    bytes((char *)&name + 2, what % 4 ? 6 : 26);
    message.msg_namelen = name.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    switch (what % 12) {
    case 0:
    case 1:
    case 2:
        do_connect(PROGRAM_FD, (struct sockaddr *)&name, message.msg_namelen);
        break;
    case 3:
        do_bind(PROGRAM_FD, (struct sockaddr *)&name, message.msg_namelen);
        break;
    case 4:
        do_listen(PROGRAM_FD, 5);
        break;
    case 5:
    case 6: {
        long accepted = do_accept(PROGRAM_FD, (struct sockaddr *)&name, &size, 0);
        if (accepted >= 8) open_fds[accepted] = 0;
        break;
    }
    case 7:
        do_getsockname(PROGRAM_FD, (struct sockaddr *)&name, &size);
        break;
    case 8:
        do_getpeername(PROGRAM_FD, (struct sockaddr *)&name, &size);
        break;
    case 9:
        size = sizeof room;
        do_getsockopt(PROGRAM_FD, byte() % 2 ? SOL_SOCKET : IPPROTO_TCP, byte() % 64, room, &size);
        break;
    case 10:
        do_sendto(PROGRAM_FD, data, 3, 0, (struct sockaddr *)&name, message.msg_namelen);
        break;
    default:
        do_sendmsg(PROGRAM_FD, &message, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input = data;
    left = size;
    memset(open_fds, 0, sizeof open_fds);
    while (left) {
        if (page_count && byte() % 4 == 0) bytes(pages[0], 8); /* the epoch goes on */
        make_a_call();
    }
    return 0;
}
