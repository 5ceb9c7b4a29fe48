/* What the relay is told, with whatever descriptors (shim/relay/): it goes on, and keeps none of them. */
#define main relay_main
#include "../../../shim/relay/main.c"
#undef main
#include "../../../shim/relay/pipes.c"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static int control = -1, doors = -1; /* the trap handler's ends */

enum { LISTENERS = 256 };
static int listeners[LISTENERS], listener_count; /* nobody comes, so a pair of these would be for ever */

static int a_listener(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&any, sizeof any) || listen(fd, 1)) abort();
    if (listener_count < LISTENERS) listeners[listener_count++] = dup(fd);
    return fd;
}

/* One end of something; the other one is closed, or kept as the door's channel. */
static int something(uint8_t what) {
    int pair[2] = {-1, -1};
    if (what % 8 == 0) return a_listener();
    if (what % 8 == 1) return open("/dev/null", O_RDWR | O_CLOEXEC);
    socketpair(AF_UNIX, (what % 8 < 4 ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
    if (what % 8 == 2 && doors < 0)
        doors = pair[0];
    else
        close(pair[0]);
    return pair[1];
}

static void tell(int channel, const uint8_t *data, size_t size, const int *fds, int count) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } with = {.header = {CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec part = {(void *)data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    memcpy(CMSG_DATA(&with.header), fds, (size_t)count * sizeof(int));
    if (count) message.msg_control = &with, message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Where the next descriptor would go; the pipes that are kept for the next time don't count. */
static int lowest_free(void) {
    while (kept_count) close_pipe(&kept[--kept_count]);
    int fd = dup(CHANNEL);
    close(fd);
    return fd;
}

static void begin_relay(void) {
    int pair[2];
    if (control >= 0) return;
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
    control = fcntl(pair[0], F_DUPFD_CLOEXEC, 10);
    dup2(pair[1], CHANNEL);
    close(pair[0]), close(pair[1]);
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    open_pipes(OPEN_AT_START + 16);
    watch_by(epoll);
    begin_round();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin_relay();
    int before = lowest_free();
    unsigned known = descriptors;
    while (size >= 4 &&
           listener_count <
               LISTENERS - 4) { /* by which channel, how many descriptors, what they are, how long it is; the message */
        int fds[3], count = data[1] % 4;
        size_t length = data[3] % 8 ? data[3] : data[3] * 64u;
        for (int i = 0; i < count; i++) fds[i] = something((uint8_t)(data[2] >> i));
        if (length > size - 4) length = size - 4;
        if (length || count) tell(data[0] % 2 && doors >= 0 ? doors : control, data + 4, length, fds, count);
        for (int i = 0; i < count; i++) close(fds[i]);
        a_round(0);
        data += 4 + length;
        size -= 4 + length;
    }
    if (doors >= 0) close(doors);
    doors = -1;
    leave_doors();
    while (listener_count) {
        shutdown(listeners[--listener_count], SHUT_RDWR);
        close(listeners[listener_count]);
    }
    for (int i = 0; i < 100 && (pairs_open() || dials_open()); i++) a_round(0);
    char drop[256];
    while (recv(control, drop, sizeof drop, MSG_DONTWAIT) > 0) continue;
    if (!channel_open || pairs_open() || lowest_free() != before || descriptors != known) abort();
    return 0;
}
