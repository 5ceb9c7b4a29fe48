/* arguments SEED COUNT: calls with addresses, sizes and pointers of a program that is wrong, or hostile; a line each,
 * what it was and how it ended. Run under AppSwitch and without it the lines are the same.
 *
 * Pointers lead nowhere, to what can't be read or written, or to the last bytes before that. Whatever is right in an
 * address is of this namespace, so nothing else is ever dialled. Each call has a socket of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAGE = 4096, LISTENER_PORT = 4711 };
static const char vip[] = "10.77.0.1";
static uint64_t state;
static char *pages; /* one to use, then one that can't be; one to read only, then one that can't be */
static int listener4, listener6, receiver;

static uint32_t chance(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1du >> 33) % below;
}

static void check(int value, const char *what) {
    if (value >= 0) return;
    perror(what);
    exit(3);
}

/* --- places */

static const char *kind_of_place;

/* `size` bytes of `content`, or fewer, somewhere. */
static void *place(const void *content, size_t size) {
    static char well[8][512];
    static unsigned turn;
    size_t there = chance(3) ? size : chance((uint32_t)size + 1); /* what can be used of it */
    switch (chance(10)) {
    case 0:
        return kind_of_place = "null", NULL;
    case 1:
        return kind_of_place = "low", (void *)1;
    case 2:
        return kind_of_place = "high", (void *)-1;
    case 3:
        return kind_of_place = "nowhere", (char *)(1ul << 46) + chance(64);
    case 4:
        return kind_of_place = "forbidden", pages + PAGE + chance(64);
    case 5:
    case 6:
        memcpy(pages + PAGE - there, content, there);
        return kind_of_place = there == size ? "edge" : "beyond the edge", pages + PAGE - there;
    case 7: {
        char *from = pages + 3 * PAGE - there;
        mprotect(pages + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE);
        memcpy(from, content, there);
        mprotect(pages + 2 * PAGE, PAGE, PROT_READ);
        return kind_of_place = there == size ? "to read only" : "to read only, beyond", from;
    }
    default:
        memcpy(well[turn %= 8], content, size < 512 ? size : 512);
        return kind_of_place = "well", well[turn++];
    }
}

/* --- sockets */

static int connected(int family, int type) {
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(LISTENER_PORT)};
    struct sockaddr_in6 to6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(LISTENER_PORT), .sin6_addr = in6addr_loopback};
    inet_pton(AF_INET, vip, &to.sin_addr);
    if (family == AF_INET6)
        check(connect(fd, (struct sockaddr *)&to6, sizeof to6), "connect");
    else
        check(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
    return fd;
}

static int bound(int family, int type, uint16_t port) {
    int fd = socket(family, type | SOCK_CLOEXEC, 0), yes = 1;
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    struct sockaddr_in6 any = {.sin6_family = (sa_family_t)family, .sin6_port = htons(port)};
    check(bind(fd, (struct sockaddr *)&any, family == AF_INET6 ? sizeof any : sizeof(struct sockaddr_in)), "bind");
    return fd;
}

static int listening(int family, uint16_t port) {
    int fd = bound(family, SOCK_STREAM, port);
    check(listen(fd, 64), "listen");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static const char *kind_of_socket;

static int a_socket(void) {
    int pair[2], fd;
    switch (chance(13)) {
    case 0:
        return kind_of_socket = "tcp", socket(AF_INET, SOCK_STREAM, 0);
    case 1:
        return kind_of_socket = "tcp6", socket(AF_INET6, SOCK_STREAM, 0);
    case 2:
        return kind_of_socket = "bound tcp", bound(AF_INET, SOCK_STREAM, 0);
    case 3:
        return kind_of_socket = "listening tcp", listening(AF_INET, 0);
    case 4:
        return kind_of_socket = "connected tcp", connected(AF_INET, SOCK_STREAM);
    case 5:
        fd = connected(AF_INET, SOCK_STREAM);
        pair[0] = accept4(listener4, NULL, NULL, SOCK_NONBLOCK);
        close(fd); /* there is an end to read */
        return kind_of_socket = "accepted tcp", pair[0];
    case 6:
        return kind_of_socket = "connected tcp6", connected(AF_INET6, SOCK_STREAM);
    case 7:
        return kind_of_socket = "udp", socket(AF_INET, SOCK_DGRAM, 0);
    case 8:
        return kind_of_socket = "udp6", socket(AF_INET6, SOCK_DGRAM, 0);
    case 9:
        return kind_of_socket = "bound udp", bound(AF_INET, SOCK_DGRAM, 0);
    case 10:
        return kind_of_socket = "connected udp", connected(AF_INET, SOCK_DGRAM);
    case 11:
        socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
        close(pair[1]);
        return kind_of_socket = "unix", pair[0];
    default:
        return kind_of_socket = "file", open("/dev/null", O_RDWR);
    }
}

/* --- calls */

struct name {
    union {
        struct sockaddr_storage storage;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        char bytes[256];
    };
    socklen_t size;
};

static struct name an_address(void) {
    static const int families[] = {AF_INET,   AF_INET, AF_INET,   AF_INET6, AF_INET6,
                                   AF_UNSPEC, AF_UNIX, AF_PACKET, 77,       65535};
    static const uint16_t ports[] = {LISTENER_PORT, 9, 0};
    static const char *const ips[] = {"127.0.0.1", "10.77.0.1", "0.0.0.0"};
    static const int sizes[] = {0, 1, 2, 3, 8, 15, 16, 17, 24, 27, 28, 29, 110, 128, 129, 1000, -1, -2147483647 - 1};
    struct name made = {0};
    int family = families[chance(10)];
    made.in.sin_family = (sa_family_t)family;
    made.in.sin_port = htons(ports[chance(3)]);
    inet_pton(AF_INET, ips[chance(3)], &made.in.sin_addr);
    if (family == AF_INET6) {
        made.in6.sin6_flowinfo = 0;
        made.in6.sin6_addr = chance(2) ? in6addr_loopback : in6addr_any;
    }
    made.size = family == AF_INET6 ? sizeof made.in6 : sizeof made.in;
    if (chance(2)) made.size = (socklen_t)sizes[chance(18)];
    return made;
}

static void tell(const char *call, long value, socklen_t size) {
    const char *error = value < 0 ? strerrorname_np(errno) : "fine";
    printf("%s %s, %d bytes %s: %s\n", kind_of_socket, call, (int)size, kind_of_place, error);
}

/* How many bytes of it a caller may expect to be there. */
static size_t extent(socklen_t size) {
    return size <= 256 ? size : 256;
}

static void call_with_address(int fd, uint32_t which) {
    struct name name = an_address();
    void *at = place(&name, extent(name.size));
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_name = at, .msg_namelen = name.size, .msg_iov = &part, .msg_iovlen = 1};
    char call[64];
    static const char *const calls[] = {"connect", "bind", "sendto", "sendmsg"};
    snprintf(call, sizeof call, "%s family %d port %d", calls[which], name.in.sin_family, ntohs(name.in.sin_port));
    errno = 0;
    long value = which == 0   ? connect(fd, at, name.size)
                 : which == 1 ? bind(fd, at, name.size)
                 : which == 2 ? sendto(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, at, name.size)
                              : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    tell(call, value, name.size);
}

static void call_for_address(int fd, uint32_t which) {
    struct name room = an_address();
    socklen_t size = room.size;
    void *at = place(&room, extent(size));
    const char *kind = kind_of_place;
    socklen_t *size_at = chance(4) ? &size : place(&size, sizeof size);
    char byte, call[64];
    static const char *const calls[] = {"getsockname", "getpeername", "accept", "recvfrom"};
    snprintf(call, sizeof call, "%s, size %s", calls[which], size_at == &size ? "well" : kind_of_place);
    kind_of_place = kind;
    if (which == 2) fcntl(fd, F_SETFL, O_NONBLOCK);
    errno = 0;
    long value = which == 0   ? getsockname(fd, at, size_at)
                 : which == 1 ? getpeername(fd, at, size_at)
                 : which == 2 ? accept(fd, at, size_at)
                              : recvfrom(fd, &byte, 1, MSG_DONTWAIT, at, size_at);
    tell(call, value, room.size);
    if (value >= 0 && size_at == &size) printf("  %d bytes\n", (int)size);
    if (which == 2 && value >= 0) close((int)value);
}

static void call_with_message(int fd, uint32_t which) {
    struct name name = an_address();
    char data[4] = "abc", control[64] = {0};
    struct iovec part = {place(data, sizeof data), chance(2) ? sizeof data : chance(2) ? 0 : (size_t)-1};
    struct msghdr message = {.msg_iovlen = chance(8) ? 1 : 5000};
    message.msg_iov = place(&part, sizeof part);
    if (chance(2)) message.msg_name = place(&name, extent(name.size)), message.msg_namelen = name.size;
    if (!chance(4)) message.msg_control = place(control, sizeof control), message.msg_controllen = sizeof control;
    struct mmsghdr messages[1] = {{.msg_hdr = message}};
    static const char *const calls[] = {"sendmsg", "recvmsg", "sendmmsg", "recvmmsg"};
    void *at = which < 2 ? place(&message, sizeof message) : place(messages, sizeof messages);
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    errno = 0;
    long value = which == 0   ? sendmsg(fd, at, flags)
                 : which == 1 ? recvmsg(fd, at, flags)
                 : which == 2 ? sendmmsg(fd, at, 1, (unsigned)flags)
                              : recvmmsg(fd, at, 1, flags, NULL);
    tell(calls[which], value, name.size);
}

static void call_with_option(int fd, uint32_t which) {
    static const int names[][2] = {{SOL_SOCKET, SO_DOMAIN},
                                   {SOL_SOCKET, SO_TYPE},
                                   {SOL_SOCKET, SO_REUSEPORT},
                                   {SOL_SOCKET, SO_LINGER},
                                   {SOL_SOCKET, SO_RCVTIMEO},
                                   {IPPROTO_TCP, TCP_NODELAY},
                                   {IPPROTO_TCP, TCP_INFO},
                                   {IPPROTO_TCP, TCP_CONGESTION},
                                   {IPPROTO_IP, IP_TOS},
                                   {IPPROTO_IPV6, IPV6_V6ONLY},
                                   {IPPROTO_TCP, 999},
                                   {SOL_SOCKET, 999},
                                   {999, 1},
                                   {SOL_SOCKET, SO_REUSEADDR}};
    static const int sizes[] = {0, 1, 2, 3, 4, 5, 8, 16, 104, 1000, -1};
    const int *name = names[chance(14)];
    char value[256] = {1}, call[64];
    socklen_t size = chance(2) ? sizeof(int) : (socklen_t)sizes[chance(11)], room = size;
    void *at = place(value, extent(size));
    const char *kind = kind_of_place;
    socklen_t *size_at = chance(4) || which ? &room : place(&room, sizeof room);
    snprintf(call, sizeof call, "%s %d %d, size %s", which ? "setsockopt" : "getsockopt", name[0], name[1],
             size_at == &room ? "well" : kind_of_place);
    kind_of_place = kind;
    errno = 0;
    tell(call, which ? setsockopt(fd, name[0], name[1], at, size) : getsockopt(fd, name[0], name[1], at, size_at),
         size);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    uint64_t seed = strtoull(words[1], NULL, 0), calls = strtoull(words[2], NULL, 0);
    pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + PAGE, PAGE, PROT_NONE);
    mprotect(pages + 3 * PAGE, PAGE, PROT_NONE);
    listener4 = listening(AF_INET, LISTENER_PORT);
    listener6 = listening(AF_INET6, LISTENER_PORT);
    receiver = bound(AF_INET, SOCK_DGRAM, LISTENER_PORT);
    fcntl(receiver, F_SETFL, O_NONBLOCK);
    for (uint64_t i = 0; i < calls; i++) {
        char drop[16];
        int fd;
        state = (seed * 1000003 + i) * 0x9e3779b97f4a7c15u | 1;
        for (int k = 0; k < 4; k++) chance(2);
        printf("%llu ", (unsigned long long)i);
        fd = a_socket();
        uint32_t which = chance(14);
        if (which < 4)
            call_with_address(fd, which);
        else if (which < 8)
            call_for_address(fd, which - 4);
        else if (which < 12)
            call_with_message(fd, which - 8);
        else
            call_with_option(fd, which - 12);
        fflush(stdout);
        close(fd);
        for (int more; (more = accept(listener4, NULL, NULL)) >= 0;) close(more);
        for (int more; (more = accept(listener6, NULL, NULL)) >= 0;) close(more);
        while (recv(receiver, drop, sizeof drop, 0) >= 0) continue;
    }
    return 0;
}
