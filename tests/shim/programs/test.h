/* What every program here is made of: cases, checks, and short ways to addresses and sockets.
 *
 *     CASE(name) { ... }          runs in a child of its own; ends well when it returns
 *     OK(call)                    the call succeeds; its value
 *     FAILS(call, EINVAL)         it returns -1 and this errno
 *     SAME(got, wanted)           two integers are equal
 *     TEXT(got, wanted)           two strings are equal
 *     CHECK(condition)
 *     say("...")                  a line that has to be the same with and without the shim
 *
 * A program runs twice: over the kernel's own TCP (then the checks prove that they know TCP) and under `appswitch
 * spawn`. Both have the addresses VIP and VIP6, and each run its own ports. `main` prints "ok" when every case passed.
 */
#ifndef TEST_H
#define TEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define VIP "10.77.0.1"
#define VIP6 "fd61:7073:7769::a4d:1" /* AppSwitch's IPv6 alias of VIP */

#ifndef SECONDS
#define SECONDS 10 /* that a case may take; the alarm's signal ends it */
#endif

#ifndef WARM
#define WARM 0
#endif

struct test_case {
    const char *name;
    void (*run)(void);
};

extern struct test_case __start_test_cases[], __stop_test_cases[];

#define CASE(id)                                                                                        \
    static void case_##id(void);                                                                        \
    static struct test_case entry_##id __attribute__((section("test_cases"), used)) = {#id, case_##id}; \
    static void case_##id(void)

__attribute__((format(printf, 1, 2), noreturn, unused)) static void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
    _exit(1);
}

#define CHECK(condition) \
    ((condition) ? (void)0 : fail("%s:%d: not so: %s (errno is %s)", __FILE__, __LINE__, #condition, strerror(errno)))

#define SAME(got, wanted) is_same(__FILE__, __LINE__, #got, (long long)(got), (long long)(wanted))
__attribute__((unused)) static void is_same(const char *file, int line, const char *what, long long got,
                                            long long wanted) {
    if (got != wanted)
        fail("%s:%d: %s is %lld, not %lld (errno is %s)", file, line, what, got, wanted, strerror(errno));
}

#define TEXT(got, wanted) is_text(__FILE__, __LINE__, #got, got, wanted)
__attribute__((unused)) static void is_text(const char *file, int line, const char *what, const char *got,
                                            const char *wanted) {
    if (strcmp(got, wanted)) fail("%s:%d: %s is \"%s\", not \"%s\"", file, line, what, got, wanted);
}

#define OK(call) well(__FILE__, __LINE__, #call, (errno = 0, (long)(call)))
__attribute__((unused)) static int well(const char *file, int line, const char *what, long value) {
    if (value < 0) fail("%s:%d: %s: %s", file, line, what, strerror(errno));
    return (int)value;
}

#define FAILS(call, error) fails(__FILE__, __LINE__, #call, (errno = 0, (long)(call)), error)
__attribute__((unused)) static void fails(const char *file, int line, const char *what, long value, int error) {
    int got = errno;
    if (value != -1) fail("%s:%d: %s is %ld, not an error", file, line, what, value);
    if (got != error) fail("%s:%d: %s: \"%s\", not \"%s\"", file, line, what, strerror(got), strerror(error));
}

__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("= ");
    vprintf(format, list);
    va_end(list);
    putchar('\n');
    fflush(stdout);
}

/* A call's outcome as a line. */
#define TELL(call) tell(#call, (errno = 0, (long)(call)))
__attribute__((unused)) static long tell(const char *what, long value) {
    if (value < 0)
        say("%s: errno %d", what, errno); /* glibc and musl have other texts */
    else
        say("%s: fine", what);
    return value;
}

/* --- addresses */

struct address {
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    };
};

__attribute__((unused)) static struct address at(const char *ip, int port) {
    struct address made = {0};
    if (strchr(ip, ':')) {
        made.size = sizeof made.in6;
        made.in6.sin6_family = AF_INET6;
        made.in6.sin6_port = htons((uint16_t)port);
        if (inet_pton(AF_INET6, ip, &made.in6.sin6_addr) != 1) fail("%s is no IPv6 address", ip);
    } else {
        made.size = sizeof made.in;
        made.in.sin_family = AF_INET;
        made.in.sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, ip, &made.in.sin_addr) != 1) fail("%s is no IPv4 address", ip);
    }
    return made;
}

/* "10.77.0.1:80", "[::1]:80"; good until the eighth call after this one. */
__attribute__((unused)) static const char *show(const struct address *address) {
    static __thread char texts[8][80];
    static __thread unsigned turn;
    char ip[INET6_ADDRSTRLEN], *text = texts[turn++ % 8];
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, ip, sizeof ip);
        snprintf(text, sizeof texts[0], "%s:%d", ip, ntohs(address->in.sin_port));
    } else if (address->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->in6.sin6_addr, ip, sizeof ip);
        snprintf(text, sizeof texts[0], "[%s]:%d", ip, ntohs(address->in6.sin6_port));
    } else {
        snprintf(text, sizeof texts[0], "family %d, %u bytes", address->any.sa_family, (unsigned)address->size);
    }
    return text;
}

__attribute__((unused)) static const char *ip_of(const struct address *address) {
    static __thread char texts[8][INET6_ADDRSTRLEN];
    static __thread unsigned turn;
    char *text = texts[turn++ % 8];
    if (address->any.sa_family == AF_INET)
        inet_ntop(AF_INET, &address->in.sin_addr, text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, &address->in6.sin6_addr, text, INET6_ADDRSTRLEN);
    return text;
}

__attribute__((unused)) static int port_in(const struct address *address) {
    return ntohs(address->any.sa_family == AF_INET ? address->in.sin_port : address->in6.sin6_port);
}

__attribute__((unused)) static struct address name_of(int fd) {
    struct address name = {.size = sizeof name.storage};
    OK(getsockname(fd, &name.any, &name.size));
    return name;
}

__attribute__((unused)) static struct address peer_of(int fd) {
    struct address name = {.size = sizeof name.storage};
    OK(getpeername(fd, &name.any, &name.size));
    return name;
}

__attribute__((unused)) static int port_of(int fd) {
    struct address name = name_of(fd);
    return port_in(&name);
}

/* --- sockets */

__attribute__((unused)) static int tcp(const char *ip) {
    return OK(socket(strchr(ip, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0));
}

#define BIND(fd, ip, port)                      \
    ({                                          \
        struct address bind_to_ = at(ip, port); \
        bind(fd, &bind_to_.any, bind_to_.size); \
    })
#define CONNECT(fd, ip, port)                            \
    ({                                                   \
        struct address connect_to_ = at(ip, port);       \
        connect(fd, &connect_to_.any, connect_to_.size); \
    })

__attribute__((unused)) static int listening(const char *ip, int port) {
    int fd = tcp(ip);
    OK(BIND(fd, ip, port));
    OK(listen(fd, 64));
    return fd;
}

__attribute__((unused)) static int dial(const char *ip, int port) {
    int fd = tcp(ip);
    OK(CONNECT(fd, ip, port));
    return fd;
}

struct pair {
    int listener, client, server;
};

__attribute__((unused)) static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    OK(getsockopt(fd, level, name, &value, &size));
    SAME(size, sizeof value);
    return value;
}

__attribute__((unused)) static int set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* Some bytes go from one end to the other. */
__attribute__((unused)) static void carries(int from, int to, const char *data) {
    char got[256] = "";
    size_t size = strlen(data), filled = 0;
    SAME(write(from, data, size), size);
    while (filled < size) {
        int count = OK(read(to, got + filled, size - filled));
        if (count == 0) fail("end of data instead of \"%s\"", data + filled);
        filled += (size_t)count;
    }
    TEXT(got, data);
}

__attribute__((unused)) static void talk(int one, int other) {
    carries(one, other, "there");
    carries(other, one, "and back");
}

/* A client comes, is accepted, and both say something; both ends are closed. Four times: AppSwitch's shim connects by
 * itself from the third time on. */
__attribute__((unused)) static void meet(const char *ip, int port, int listener) {
    for (int i = 0; i < 4; i++) {
        int client = dial(ip, port), server = OK(accept(listener, 0, 0));
        talk(client, server);
        close(client);
        close(server);
    }
}

__attribute__((unused)) static struct pair connected(const char *ip) {
    struct pair made = {.listener = listening(ip, 0)};
    int port = port_of(made.listener);
    meet(ip, port, made.listener);
    made.client = dial(ip, port);
    made.server = OK(accept(made.listener, 0, 0));
    return made;
}

__attribute__((unused)) static short events_of(int fd, short events, int patience) {
    struct pollfd each = {.fd = fd, .events = events};
    OK(poll(&each, 1, patience));
    return each.revents;
}

__attribute__((unused)) static void end_well(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
    if (WIFSIGNALED(status)) fail("a child died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status)) fail("a child failed with %d", WEXITSTATUS(status));
}

/* IN_CHILD(statements) runs them in a forked child; its pid is the value. */
#define IN_CHILD(...)        \
    ({                       \
        fflush(stdout);      \
        pid_t pid_ = fork(); \
        if (pid_ == 0) {     \
            __VA_ARGS__;     \
            fflush(stdout);  \
            _exit(0);        \
        }                    \
        OK(pid_);            \
    })

/* --- main */

/* A descriptor to another process (unix(7), SCM_RIGHTS). */
__attribute__((unused)) static void pass(int channel, int fd) {
    char byte = 0, space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    SAME(sendmsg(channel, &message, 0), 1);
}

__attribute__((unused)) static int receive_passed(int channel) {
    int fd;
    char byte, space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    SAME(recvmsg(channel, &message, 0), 1);
    SAME(CMSG_FIRSTHDR(&message)->cmsg_type, SCM_RIGHTS);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* bind's errors are the same for TCP and UDP. make: a socket of the address's family. */
__attribute__((unused)) static void bind_to_bad_addresses(int (*make)(const char *), int port) {
    struct address v4 = at("127.0.0.1", port), v6 = at("::1", port), un = {.size = sizeof un.un};
    un.un.sun_family = AF_UNIX;
    int four = make("127.0.0.1"), six = make("::1");
    FAILS(bind(four, &v4.any, 8), EINVAL);
    FAILS(bind(six, &v6.any, 20), EINVAL);
    FAILS(bind(four, &v6.any, v6.size), EAFNOSUPPORT);
    FAILS(bind(six, &v4.any, v4.size), EINVAL);
    FAILS(bind(six, &v4.any, v6.size), EAFNOSUPPORT);
    FAILS(bind(four, &un.any, un.size), EAFNOSUPPORT);
    FAILS(bind(four, 0, v4.size), EFAULT);
    FAILS(bind(four, &v4.any, 0), EINVAL);
    FAILS(bind(four, &v4.any, -1), EINVAL);
    FAILS(bind(-1, &v4.any, v4.size), EBADF);
    v4.any.sa_family = AF_UNSPEC;
    FAILS(bind(four, &v4.any, v4.size), EAFNOSUPPORT); /* but for the any address: */
    v4.in.sin_addr.s_addr = 0;
    OK(bind(four, &v4.any, v4.size));
    struct address name = name_of(four);
    SAME(name.in.sin_addr.s_addr, 0);
    SAME(port_in(&name), port);
}

#ifndef OWN_MAIN
static int run_case(const struct test_case *each) {
    printf("case %s\n", each->name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(SECONDS);
        each->run();
        exit(0);
    }
    int status;
    setpgid(child, child);
    while (waitpid(child, &status, 0) < 0) continue;
    kill(-child, SIGKILL); /* what it left behind */
    if (WIFSIGNALED(status))
        printf("died of signal %d%s\n", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? " (too slow)" : "");
    printf("%s %s\n", status ? "FAIL" : "pass", each->name);
    fflush(stdout);
    return status != 0;
}

/* With WARM, each case begins in a process that has connected by capability, so that its TCP sockets are made as Unix
 * sockets (shim/fresh.h). */
static void warm_up(void) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) meet("127.0.0.1", port_of(listener), listener);
    close(listener);
}

int main(int argc, char **argv) {
    int failed = 0;
    signal(SIGPIPE, SIG_IGN);
    if (WARM) warm_up();
    for (struct test_case *each = __start_test_cases; each < __stop_test_cases; each++) {
        int wanted = argc == 1;
        for (int i = 1; i < argc; i++) wanted |= strcmp(argv[i], each->name) == 0;
        if (wanted) failed |= run_case(each);
    }
    if (!failed) puts("ok");
    return failed;
}
#endif

#endif
